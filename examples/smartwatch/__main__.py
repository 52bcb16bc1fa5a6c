"""`make demo`: train, distil, convert, sign, roll out, ask the cloud, lose it, break a release, find drift."""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
from pathlib import Path

from edge_runtime.errors import EdgeshipError


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.smartwatch", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("out/demo"), help="where everything goes (default: %(default)s)"
    )
    parser.add_argument("--devices", type=int, default=60, help="size of the simulated fleet (default: %(default)s)")
    parser.add_argument("--fresh", action="store_true", help="train again, even where an earlier run's models fit")
    options = parser.parse_args(argv)
    if options.devices < 50:
        parser.error("stages of 10 and 30 devices beside a holdback of 20 % need at least 50 devices")
    # Before TensorFlow is imported; its start-up messages would bury what the demo says.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    for name in ("tensorflow", "edge_runtime"):  # the story says itself when the cloud does not answer
        logging.getLogger(name).setLevel(logging.ERROR)

    from examples.smartwatch.story import tell

    out: Path = options.out.resolve()
    try:
        prepare(out, fresh=options.fresh)
        tell(out, devices=options.devices)
    except EdgeshipError as e:
        print(f"\nThe demo stopped: {type(e).__name__}: {e}\nLogs are in {out / 'logs'}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. A second run uses the trained models again.", file=sys.stderr)
        return 130
    return 0


def prepare(out: Path, *, fresh: bool) -> None:
    """Everything of an earlier run goes, but for the trained models."""
    for old in ("run", "logs", *(("models",) if fresh else ())):
        shutil.rmtree(out / old, ignore_errors=True)
    for folder in ("run", "logs", "models"):
        (out / folder).mkdir(parents=True, exist_ok=True)


if __name__ == "__main__":
    sys.exit(main())
