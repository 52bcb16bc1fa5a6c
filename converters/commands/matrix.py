"""``edgeship-convert matrix``: which source reaches which target, by which tools, in which precisions."""

from __future__ import annotations

import argparse
import json
from typing import Any

from converters.commands.console import table

__all__ = ["add", "run"]


def add(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser("matrix", help="show which source reaches which target, and by which tools")
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Returns 0."""
    from converters.matrix import matrix_rows

    rows = matrix_rows()
    if arguments.json:
        print(json.dumps(rows, indent=1))
        return 0
    table(
        ("source", "target", "tools", "environment", "precisions, or the way around"),
        [
            (row["source"], row["target"], " → ".join(row["tools"]), row["environment"] or "",
             ", ".join(row["precisions"]) or row["instead"])
            for row in rows
        ],
    )  # fmt: skip
    return 0
