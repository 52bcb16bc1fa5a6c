"""What a person should know before trusting the numbers of a report. Pure."""

from __future__ import annotations

from converters.stages.describe import Result

__all__ = ["warnings_of"]

PARTS = 3  # of calibration rows, see `converters.stages.measure`
FEW = {"calibration": 100, "evaluation": 400, "confidence": 200}


def warnings_of(described: Result) -> tuple[str, ...]:
    """What the model seems not to know, few rows, rows that two splits share, groups that two splits share."""
    warnings = [
        f"{split}: the model itself is no better here than the same answer for every row, so that what a conversion "
        "loses is measured by agreement with it; are labels in the order of its outputs, and targets in its units?"
        for split in described.unskilled
    ]
    task = described.task
    if task.kind == "classification" and not task.probabilities and not described.splits["evaluation"].labelled:
        warnings.append(
            f"no labels: the {task.classes} numbers of {task.output} are taken for classes, and agreement is that of "
            "the largest; if they are values to be predicted, give them as target"
        )
    for split, few in FEW.items():
        rows = described.splits[split].rows if split in described.splits else few
        if rows < few:
            warnings.append(f"{split}: only {rows} rows; numbers from fewer than {few} scatter widely")
    calibration = described.splits.get("calibration")
    if calibration is not None and calibration.groups is not None and calibration.groups < PARTS:
        warnings.append(
            f"calibration: too few groups ({calibration.groups}) for {PARTS} parts that share none; the rows of a "
            "group are in several parts, and what is measured on one of them flatters the model"
        )
    for split, each in described.splits.items():
        if each.used < each.rows:
            warnings.append(f"{split}: {each.used:,} of {each.rows:,} rows are used, evenly spread")
    for shared in described.shared:
        if shared.rows:
            rows = described.splits[shared.second].rows
            warnings.append(
                f"{shared.rows:,} of {rows:,} {shared.second} rows ({_share(shared.rows, rows)}) are in the "
                f"{shared.first} data too; what is measured on them flatters the model"
            )
        if shared.groups:
            groups = "a group is" if shared.groups == 1 else f"{shared.groups} groups are"
            warnings.append(f"{groups} in both the {shared.first} and the {shared.second} data")
    return tuple(warnings)


def _share(part: int, whole: int) -> str:
    """In percent, and never 0 % or 100 % of what is neither."""
    return f"{min(max(part / whole, 0.001), 0.999 if part < whole else 1):.1%}"
