"""What a person should know before trusting the numbers of a report. Pure."""

from __future__ import annotations

from converters.stages.describe import Result

__all__ = ["warnings_of"]

FEW = {"calibration": 100, "evaluation": 400, "confidence": 200}


def warnings_of(described: Result) -> tuple[str, ...]:
    """Few rows, rows that two splits share, groups that two splits share."""
    warnings = []
    for split, few in FEW.items():
        rows = described.splits[split].rows if split in described.splits else few
        if rows < few:
            warnings.append(f"{split}: only {rows} rows; numbers from fewer than {few} scatter widely")
    for shared in described.shared:
        if shared.rows:
            warnings.append(
                f"{shared.rows:,} of {described.splits[shared.second].rows:,} {shared.second} rows are in the "
                f"{shared.first} data too; what is measured on them flatters the model"
            )
        if shared.groups:
            groups = "a group is" if shared.groups == 1 else f"{shared.groups} groups are"
            warnings.append(f"{groups} in both the {shared.first} and the {shared.second} data")
    return tuple(warnings)
