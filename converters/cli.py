"""``edgeship-convert``: convert a trained model into a bundle, distil one, look into a bundle, verify it.

Exit codes: 0 done, and everything asked for is in the bundle; 1 a named error of data, model, tool or disk, on standard
error, and nothing written; 2 wrong usage: an option that is missing, does not exist or cannot have this value, on the
command line or in a recipe; 3 some of what was asked for is not in the bundle, or does not verify (the report says
why); 4 none of it is, and only the report was written; 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence

from converters.commands import distill, inspect, matrix, run, verify
from converters.errors import InvalidRequest
from edge_runtime.bundle.errors import EdgeshipError
from edge_runtime.errors import ConfigurationError

__all__ = ["main"]

COMMANDS = (run, distill, inspect, verify, matrix)
EXIT_ERROR, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
USAGE = (InvalidRequest, ConfigurationError)  # what changing the command or the recipe mends


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="edgeship-convert",
        description=(__doc__ or "").replace("`", ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(subparsers)
    arguments = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, _interrupted)  # what ends a container or a job is an interruption too
    try:
        code = arguments.run(arguments)
        sys.stdout.flush()
    except EdgeshipError as error:
        name = type(error).__name__
        if getattr(arguments, "json", False):
            print(json.dumps({"error": name, "message": str(error)}))
        print(f"error: {name}: {error}", file=sys.stderr)
        return EXIT_USAGE if isinstance(error, USAGE) else EXIT_ERROR
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("converters", "devices", "edge_runtime"):
            raise
        print(f"error: ToolMissing: {error}; install the extra: pip install 'edgeship[convert]'", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR
    return int(code or 0)


def _interrupted(number: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(main())
