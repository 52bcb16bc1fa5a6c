"""``edgeship-convert verify``: do a bundle's artifacts still answer as they did, and as their source does?"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from converters.commands.console import number, progress, table
from converters.commands.run import axes_of
from converters.errors import InvalidRequest

__all__ = ["add", "run"]

EXIT_FAILED = 3
OF_SOURCE = ("data", "first_axis", "signature", "axis", "trust_pickle")


def add(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "verify",
        help="run a bundle's golden examples here, and compare with its source",
        description="Check every digest, run every artifact's golden examples on this machine, and with --source "
        "compare each with the model it was made of, on the golden inputs or --data. Exit code 3 if one fails.",
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--source", help="the model that the bundle was made of, as run takes it")
    parser.add_argument("--data", help=".npz of inputs to compare with --source on (default: the golden inputs)")
    parser.add_argument("--first-axis", help="as in run")
    parser.add_argument("--signature", help="as in run")
    parser.add_argument("--axis", action="append", default=[], metavar="NAME=SIZE", help="as in run")
    parser.add_argument("--trust-pickle", action="store_true", help="load a pickled source, which can run any code")
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Returns 0, or 3 if an artifact fails."""
    from converters.runner import Subprocesses
    from converters.stages.sources import SourceRef
    from converters.stages.verify import Job, Result

    source = arguments.source
    ref = None
    if source is None:
        _refuse_without_source(arguments)
    else:
        ref = SourceRef(
            where=source,
            first_axis=arguments.first_axis or "batch",
            signature=arguments.signature,
            axes=axes_of(arguments.axis),
            trust_pickle=arguments.trust_pickle,
        )
    job = Job(bundle=str(arguments.bundle), source=ref, data=arguments.data)
    with tempfile.TemporaryDirectory(prefix="edgeship-verify-") as folder, progress(quiet=arguments.json) as say:
        result: Result = Subprocesses(Path(folder)).run("verify", job, what="verifying the bundle", say=say)
    failed = [each for each in result.artifacts if not each.passed]
    if arguments.json:
        print(json.dumps(asdict(result), indent=1))
        return EXIT_FAILED if failed else 0
    print(f"{result.model} release {result.release}, sha256 {result.sha256}")
    headings = ("artifact", *(("agreement", "max error", "mean error") if source else ()), "verdict")
    rows = []
    for each in result.artifacts:
        numbers = (each.decision_agreement, ".4f"), (each.max_abs_error, ".3g"), (each.mean_abs_error, ".3g")
        rows.append(
            (
                f"{each.target} {each.precision}",
                *(number(value, form) for value, form in (numbers if source else ())),
                f"{'passed' if each.passed else 'FAILED'}: {each.detail}",
            )
        )
    table(headings, rows)
    return EXIT_FAILED if failed else 0


def _refuse_without_source(arguments: argparse.Namespace) -> None:
    given = [f"--{name.replace('_', '-')}" for name in OF_SOURCE if getattr(arguments, name)]
    if given:
        raise InvalidRequest(
            f"{', '.join(given)} without --source: golden examples have their own inputs, and only a comparison with "
            "the model that the bundle was made of takes more; give --source too"
        )
