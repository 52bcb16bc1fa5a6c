"""``edgeship-convert``: convert a trained model into a bundle, distil one, look into a bundle, verify it.

Exit codes: 0 done, and everything asked for is in the bundle; 1 a named error, on standard error, and nothing written;
2 wrong usage; 3 some of what was asked for is not in the bundle, or does not verify (the report says why); 4 none of it
is, and only the report was written; 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence

from converters.commands import distill, inspect, matrix, run, verify
from edge_runtime.bundle.errors import EdgeshipError

__all__ = ["main"]

COMMANDS = (run, distill, inspect, verify, matrix)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="edgeship-convert", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
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
        return 1
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("converters", "devices", "edge_runtime"):
            raise
        print(f"error: ToolMissing: {error}; install the extra: pip install 'edgeship[convert]'", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return int(code or 0)


def _interrupted(number: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(main())
