"""``edgeship-convert matrix``: which source reaches which target, by which tools, in which precisions."""

from __future__ import annotations

import argparse
import json
from typing import Any

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
    for source in dict.fromkeys(row["source"] for row in rows):
        print(source)
        for row in (each for each in rows if each["source"] == source):
            way = " → ".join(row["tools"]) if row["tools"] else f"no: {row['instead']}"
            where = f" (helper environment {row['environment']})" if row["environment"] else ""
            print(f"  {row['target']:7} {way}{where}")
    print("Precisions:")
    for target, precisions in {row["target"]: row["precisions"] for row in rows if row["precisions"]}.items():
        print(f"  {target:7} {', '.join(precisions)}")
    return 0
