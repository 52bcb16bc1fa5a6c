"""`edgeship-server`: the command line of the release manager."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit status: 0 done, 1 refused or failed (the reason is on stderr), 2 wrong usage."""
    try:
        from model_server.commands.main import main as run
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] in ("model_server", "edge_runtime"):
            raise
        print(
            f"edgeship-server: {error.name} is not installed; the server needs its extra: "
            "pip install 'edgeship[server]'",
            file=sys.stderr,
        )
        return 1
    return run(argv)


if __name__ == "__main__":
    sys.exit(main())
