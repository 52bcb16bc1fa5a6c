"""The support matrix, from a run: every real model as every kind of source, to every target.

`python -m bench.matrix` converts each with `edgeship-convert run`, prints the rows, keeps the reports under
`out/matrix/`, and with ``--publish`` writes the tables into docs/converters.md. `make test-long` runs it and checks
that the page says what the run says.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.real_models.folder import MODELS
from converters.matrix import matrix_rows

__all__ = ["CASES", "OUT_OF_TIME", "Case", "Cell", "publish", "published", "run_case", "tables"]

OUT = Path("out/matrix")
PAGE = Path("docs/converters.md")
BEGIN, END = "<!-- matrix:begin -->", "<!-- matrix:end -->"
TARGETS = ("onnx", "tflite", "coreml")
LIMIT, FEW_ROWS_LIMIT = 0.02, 0.05  # the wider where one of some fifty held-out rows is two points
SEARCH_S = 100  # a precision, instead of the command's 300: there are sixteen cases
OUT_OF_TIME = "ran out of time"  # of a search, in its reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One source: a file of a real model's folder, and the data that fits its inputs."""

    model: str
    file: str
    calibration: str = "calibration.npz"
    evaluation: str = "evaluation.npz"
    precision: str = "int8"
    limit: float = LIMIT
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.model}/{self.file}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What came of one source and target."""

    case: str
    source: str
    target: str
    status: str
    precision: str
    agreement: float | None
    bytes: int | None
    source_bytes: int | None
    kept_units: int
    reason: str


CASES = (
    Case(model="smartwatch", file="student.keras"),
    Case(model="employment", file="model.keras"),
    Case(model="transformer", file="model.keras"),
    Case(model="digits-cnn", file="model.keras"),
    Case(model="regression", file="model.keras"),
    Case(model="basic-pitch", file="model"),
    Case(
        model="basic-pitch", file="package.onnx", calibration="calibration-onnx.npz", evaluation="evaluation-onnx.npz"
    ),
    Case(model="basic-pitch", file="package.tflite"),
    Case(model="basic-pitch", file="package.mlpackage"),
    Case(model="efficientnet-lite0", file="model.pt2", limit=FEW_ROWS_LIMIT),
    Case(model="efficientnet-lite0", file="model.onnx", limit=FEW_ROWS_LIMIT),
    Case(model="silero-vad", file="model.onnx"),
    Case(model="wakeword", file="model.tflite"),
    Case(model="sklearn-digits", file="random-forest.joblib", precision="fp32", options=("--trust-pickle",)),
    Case(model="sklearn-digits", file="svc.joblib", precision="fp32", options=("--trust-pickle",)),
    Case(model="sklearn-digits", file="hist-gradient-boosting.joblib", precision="fp32", options=("--trust-pickle",)),
)


def run_case(case: Case) -> list[Cell]:
    """Convert one case to all targets, in a process of its own, and read its report."""
    folder = MODELS / case.model
    out = _folder(case)
    command = [
        *(sys.executable, "-m", "converters.cli", "run", str(folder / case.file)),
        *("--name", case.model, "--release", "1", "--targets", ",".join(TARGETS)),
        *("--precision", case.precision, "--max-accuracy-drop", str(case.limit)),
        *("--search-seconds", str(SEARCH_S)),
        *("--calibration", str(folder / case.calibration), "--evaluation", str(folder / case.evaluation)),
        *("--no-peak-memory", "--overwrite", "--out", str(out), *case.options),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3, 4):
        reason = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
        return [
            Cell(case=case.name, source="", target=target, status="error", precision=case.precision, agreement=None,
                 bytes=None, source_bytes=None, kept_units=0, reason=reason)
            for target in TARGETS
        ]  # fmt: skip
    return kept_cells(case)


def kept_cells(case: Case) -> list[Cell]:
    """What the last run of a case said; nothing where there was none."""
    file = _folder(case) / "report.json"
    if not file.is_file():
        return []
    report = json.loads(file.read_text())
    return [_cell(case, report, row) for row in report["artifacts"]]


def _folder(case: Case) -> Path:
    return OUT / case.name.replace("/", "-")


def _cell(case: Case, report: dict[str, Any], row: dict[str, Any]) -> Cell:
    return Cell(
        case=case.name,
        source=report["source"]["kind"],
        target=row["target"],
        status=row["status"],
        precision=row["precision"],
        agreement=row["decision_agreement"],
        bytes=row["bytes"],
        source_bytes=row["source_bytes"],
        kept_units=len(row["kept_float"]),
        reason=(row["reason"] or "").splitlines()[0] if row["reason"] else "",
    )


def tables(cells: Sequence[Cell]) -> str:
    """Markdown: the routes, and what came of every real model on them."""
    lines = [
        "| source | target | tools | helper environment | precisions, or the way around |",
        "|---|---|---|---|---|",
        *(
            f"| {row['source']} | {row['target']} | {' → '.join(row['tools'])} | {row['environment'] or ''} "
            f"| {', '.join(row['precisions']) or row['instead']} |"
            for row in matrix_rows()
        ),
        "",
        f"What came of real models, each asked for INT8 (scikit-learn: fp32) with a limit of {LIMIT:g} "
        f"(efficientnet-lite0: {FEW_ROWS_LIMIT:g}, since one of its 48 held-out rows is two points) and "
        f"{SEARCH_S} seconds of search in each precision, from a run of `python -m bench.matrix`. Agreement is with "
        "the source on the evaluation rows.",
        "",
        "| model | source | target | status | reached | agreement | bytes, of fp32 | units in float | why |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_line(cell) for cell in cells),
    ]
    return "\n".join(lines)


def _line(cell: Cell) -> str:
    agreement = "" if cell.agreement is None else f"{cell.agreement:.4f}"
    size = "" if not cell.bytes or not cell.source_bytes else f"{cell.bytes:,}, {cell.bytes / cell.source_bytes:.0%}"
    why = cell.reason.replace("|", "\\|")
    return (
        f"| {cell.case} | {cell.source} | {cell.target} | {cell.status} "
        f"| {cell.precision if cell.status == 'ok' else ''} | {agreement} | {size} | {cell.kept_units or ''} | {why} |"
    )


def publish(cells: Sequence[Cell], page: Path = PAGE) -> None:
    """Write the tables between the page's marks."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{tables(cells)}\n{END}{after}", encoding="utf-8")


def published(page: Path = PAGE) -> dict[tuple[str, str], tuple[str, str, str]]:
    """(status, precision reached, reason) of each (case, target) that the page states."""
    text = page.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    found = {}
    for line in text.splitlines():
        cells = [each.strip() for each in line.replace("\\|", "¦").strip("|").split("|")]
        if len(cells) == 9 and cells[2] in TARGETS:
            found[cells[0], cells[2]] = cells[3], cells[4], cells[8]
    return found


def _chosen(names: Iterable[str]) -> list[Case]:
    names = list(names)
    return [case for case in CASES if not names or any(case.name.startswith(name) for name in names)]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.matrix", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="CASE", help="starts of MODEL/FILE (default: all)")
    parser.add_argument(
        "--publish",
        action="store_true",
        help="write the tables into docs/converters.md; cases not named keep what their last run said",
    )
    options = parser.parse_args(argv)
    cells: list[Cell] = []
    for case in _chosen(options.names):
        started = time.perf_counter()
        found = run_case(case)
        cells += found
        print(f"{case.name}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
        for cell in found:
            print(_line(cell), flush=True)
    if options.publish:
        ran = {cell.case for cell in cells}
        publish([cell for case in CASES for cell in (kept_cells(case) if case.name not in ran else cells)
                 if cell.case == case.name])  # fmt: skip
    return 1 if any(cell.status == "error" for cell in cells) else 0


if __name__ == "__main__":
    sys.exit(main())
