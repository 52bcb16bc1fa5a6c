"""Run by an environment that has pyarrow: FOLDER TABLE.npz COLUMN…; joins nannyml's three employment files."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq


def main(folder: str, table: str, *columns: str) -> None:
    files = Path(folder)
    reference = pq.read_table(files / "employment_MA_reference.pq")
    analysis = pq.read_table(files / "employment_MA_analysis.pq")
    truth = pq.read_table(files / "employment_MA_analysis_target.pq")
    if analysis["id"].to_pylist() != truth["id"].to_pylist():
        raise SystemExit("the rows of analysis and of its targets are in different order")
    x = [np.concatenate([numbers(part[name]) for part in (reference, analysis)]).astype(np.float32) for name in columns]
    employed = np.concatenate([reference["employed"].to_numpy(), truth["employed"].to_numpy()])
    year = np.concatenate([reference["year"].to_numpy(), analysis["year"].to_numpy()])
    np.savez(table, x=np.stack(x, axis=1), employed=employed, year=year)


def numbers(column: object) -> np.ndarray:
    """Codes are stored as texts."""
    return pc.cast(pc.cast(column, "string"), "float64").to_numpy()


main(*sys.argv[1:])
