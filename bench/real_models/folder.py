"""A real model's folder: its files, the rows that belong to it, and what they are. Written whole or not at all."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from bench.real_models.packages import PEERS

__all__ = ["INFO", "MODELS", "Info", "Split", "is_done", "read_info", "save_split", "write_readme"]

MODELS = PEERS / "models"
INFO = "info.json"
Task = Literal["classification", "binary", "regression", "detection", "streaming"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """``rows`` in ``<name>.npz``; ``what`` says where they are from, and so why they do not leak into one another."""

    rows: int
    what: str
    labelled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """``files`` are the model, the first one being the main one; ``convolutional`` counts for `worst_bytes_ratio`.

    ``source_score`` is the float model's accuracy (R² for a regression) on the evaluation rows, None without labels.
    """

    name: str
    builder: int  # version of the code that made it; an older folder is made again
    task: Task
    files: tuple[str, ...]
    packages: tuple[str, ...]
    licenses: tuple[str, ...]
    parameters: int | None
    convolutional: bool
    synthetic: bool  # whether any of the inputs were computed rather than recorded
    notes: tuple[str, ...] = ()
    source_score: float | None = None
    splits: dict[str, Split] = field(default_factory=dict)


def save_split(
    folder: Path, name: str, what: str, inputs: dict[str, np.ndarray], **columns: np.ndarray | None
) -> dict[str, Split]:
    """Write ``<name>.npz`` of inputs, and of ``label``, ``target``, ``group`` where given. Returns its entry."""
    given = {key: array for key, array in columns.items() if array is not None}
    rows = {key: len(array) for key, array in {**inputs, **given}.items()}
    if len(set(rows.values())) != 1:
        raise ValueError(f"{folder.name}/{name}: arrays of different lengths {rows}")
    np.savez_compressed(folder / f"{name}.npz", **inputs, **given)
    labelled = "label" in given or "target" in given
    return {name: Split(rows=next(iter(rows.values())), what=what, labelled=labelled)}


def write(folder: Path, info: Info) -> None:
    """Write ``info.json``, by which a folder is known to be complete, and put ``folder`` in its place."""
    (folder / INFO).write_text(json.dumps(asdict(info), indent=1) + "\n")
    home = MODELS / info.name
    shutil.rmtree(home, ignore_errors=True)
    folder.rename(home)


def read_info(name: str) -> Info:
    """Raises `SystemExit` that says how to make the folder."""
    path = MODELS / name / INFO
    if not path.is_file():
        raise SystemExit(f"{path} is not there; make it with: python -m bench.real_models {name}")
    values = json.loads(path.read_text())
    splits = {key: Split(**value) for key, value in values.pop("splits").items()}
    return Info(
        **{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}, splits=splits
    )


def is_done(name: str, builder: int) -> bool:
    """Whether a folder made by this version of its builder is there."""
    path = MODELS / name / INFO
    return path.is_file() and json.loads(path.read_text())["builder"] == builder


def write_readme(names: tuple[str, ...]) -> None:
    """``README.md`` over the folders that are there."""
    lines = [
        "# Real models",
        "",
        "Made by `python -m bench.real_models`. Each folder holds the model, `calibration.npz`, `evaluation.npz` and, "
        "where there are enough rows, `confidence.npz` and `training.npz`; `info.json` says the same as this page.",
        "",
        "| model | files | task | parameters | float | evaluation | calibration | synthetic inputs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    infos = [read_info(name) for name in names if (MODELS / name / INFO).is_file()]
    for info in infos:
        score = "–" if info.source_score is None else f"{info.source_score:.4f}"
        rows = [f"{info.splits[name].rows:,}" if name in info.splits else "–" for name in ("evaluation", "calibration")]
        parameters = "–" if info.parameters is None else f"{info.parameters:,}"
        files = ", ".join(f"`{file}`" for file in info.files)
        cells = [info.name, files, info.task, parameters, score, *rows, "yes" if info.synthetic else "no"]
        lines.append("| " + " | ".join(cells) + " |")
    for info in infos:
        lines += ["", f"## {info.name}", "", f"From {', '.join(info.packages)} ({', '.join(info.licenses)})."]
        lines += [f"- `{name}.npz`: {split.rows:,} rows{', labelled' if split.labelled else ''}; {split.what}"
                  for name, split in info.splits.items()]  # fmt: skip
        lines += [f"- {note}" for note in info.notes]
    (MODELS / "README.md").write_text("\n".join(lines) + "\n")
