"""`python -m bench.real_models [NAME…] [--again]`: make the real models that are not there yet."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from bench.real_models.folder import MODELS, Info, is_done, write, write_readme

__all__ = ["BUILDERS", "Builder", "main"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Builder:
    """``module`` has ``VERSION`` and ``function``, which fills a folder and returns what is in it."""

    module: str
    function: str = "build"

    def load(self) -> tuple[int, Callable[[Path], Info]]:
        module = import_module(f"bench.real_models.{self.module}")
        return module.VERSION, getattr(module, self.function)


BUILDERS = {
    "efficientnet-lite0": Builder(module="efficientnet"),
    "basic-pitch": Builder(module="basic_pitch"),
    "silero-vad": Builder(module="silero"),
    "wakeword": Builder(module="wakeword"),
    "employment": Builder(module="tabular", function="employment"),
    "regression": Builder(module="tabular", function="regression"),
    "sklearn-digits": Builder(module="sklearn_digits"),
    "smartwatch": Builder(module="smartwatch"),
    "transformer": Builder(module="digits", function="transformer"),
    "digits-cnn": Builder(module="digits", function="cnn"),
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.real_models", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BUILDERS)} (default: all)")
    parser.add_argument("--again", action="store_true", help="make them even where they are there")
    options = parser.parse_args(argv)
    unknown = [name for name in options.names if name not in BUILDERS]
    if unknown:
        parser.error(f"no model {', '.join(unknown)}; there are {', '.join(BUILDERS)}")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    for name in options.names or BUILDERS:
        version, build = BUILDERS[name].load()
        if not options.again and is_done(name, version):
            print(f"==> {name}: there", file=sys.stderr, flush=True)
            continue
        print(f"==> {name}", file=sys.stderr, flush=True)
        started = time.perf_counter()
        folder = MODELS / f".{name}.partial"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write(folder, build(folder))
        write_readme(tuple(BUILDERS))
        print(f"    {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
