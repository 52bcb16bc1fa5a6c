"""`python -m bench NAME [--quick]`: tables while it runs; the last line of standard output is one JSON object."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# A bench is a module whose `run` takes `quick` and returns metrics, rows, and raw samples. Imported when it is run:
# they load different frameworks.
Bench = Callable[[bool], tuple[dict[str, Any], list[dict[str, Any]], dict[str, list[float]]]]
BENCHES = {
    "overhead": "bench.overhead",
    "quantize": "bench.quantize",
    "distill": "bench.distillation",
    "delta": "bench.delta",
    "checkin": "bench.checkin",
    "update": "bench.update",
}
MODULES = {"tensorflow-cpu": "tensorflow"}
OUT = Path("out/bench")
PAGE = Path("docs/benchmarks.md")


def environment() -> dict[str, Any]:
    """The machine and the versions that a number belongs to."""
    packages = ("numpy", "onnxruntime", "ai-edge-litert", "tensorflow-cpu", "coremltools", "tuf", "httpx", "zstandard")
    return {
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "load": [round(x, 2) for x in os.getloadavg()],
        "python": platform.python_version(),
        **{name: version(name) for name in packages if find_spec(MODULES.get(name, name.replace("-", "_")))},
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("name", choices=[*BENCHES, "all"])
    parser.add_argument("--quick", action="store_true", help="fewer samples: to see that it runs, not to quote")
    options = parser.parse_args(argv)
    OUT.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    for name in BENCHES if options.name == "all" else [options.name]:
        bench: Bench = import_module(BENCHES[name]).run
        metrics, rows, samples = bench(options.quick)
        samples_file = OUT / f"{name}.samples.json"
        samples_file.write_text(json.dumps(samples))
        result = {
            "bench": name,
            "environment": environment(),
            "metrics": metrics,
            "rows": rows,
            "samples_file": str(samples_file),
        }
        results.append(result)
        print(json.dumps(result), flush=True)
    if options.name == "all" and not options.quick:
        PAGE.write_text(page(results))
    return 0


def page(results: list[dict[str, Any]]) -> str:
    """docs/benchmarks.md, out of one run of every bench."""
    lines = ["# Benchmarks", "", "Written by `python -m bench all`; every number is of that run.", ""]
    for result in results:
        about = "; ".join(f"{key} {value}" for key, value in result["environment"].items())
        lines += [f"## {result['bench']}", "", about, "", "| metric | value |", "|---|---|"]
        lines += [f"| `{name}` | {value} |" for name, value in result["metrics"].items()]
        columns = list(result["rows"][0])
        lines += ["", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        lines += ["| " + " | ".join(str(row[column]) for column in columns) + " |" for row in result["rows"]]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
