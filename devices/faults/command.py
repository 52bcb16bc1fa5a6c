"""`python -m devices faults`."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from devices.faults.site import open_site
from devices.faults.story import STORY
from devices.faults.trials import Outcome, Point, Result, every_cut, record, run_all

__all__ = ["show_faults"]


def show_faults(trials: int | None, workers: int | None, *, as_json: bool) -> int:
    """Run the trials and show them; the last line with ``as_json`` is one JSON object. 1 where a trial went wrong.

    Raises `FaultsFailed`.
    """
    with tempfile.TemporaryDirectory(prefix="edgeship-faults-") as folder, open_site(Path(folder)) as site:
        work = Path(folder) / "work"
        # The servers' threads are in this process, which therefore forks nothing itself.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
            points = alone.submit(record, site, work).result()
        cuts = every_cut(points, trials)
        results = list(run_all(site, work, cuts, workers or os.cpu_count() or 1, _progress))
    print(file=sys.stderr)
    for result in results:
        if result.outcome is not Outcome.FINE:
            print(f"{result.outcome.value}: {_where(result)}: {result.detail}", file=sys.stderr)
    if not as_json:
        _table(points, results)
    counted = Counter(result.outcome for result in results)
    summary = {
        "points": len({result.cut.point for result in results}),
        "trials": len(results),
        **{outcome.value: counted[outcome] for outcome in Outcome if outcome is not Outcome.FINE},
        "kills": sum(result.cut.loss is None for result in results),
        "power_cuts": sum(result.cut.loss is not None for result in results),
        "not_reached": sum(not result.reached for result in results),
        "most_starts": max((result.starts for result in results), default=0),
    }
    if as_json:
        print(json.dumps(summary), flush=True)
    return 0 if counted[Outcome.FINE] == len(results) else 1


def _where(result: Result) -> str:
    point, loss = result.cut.point, result.cut.loss
    how = "SIGKILL" if loss is None else f"power cut ({loss.value} that was not synced is lost)"
    return (
        f"{how} ahead of {point.operation} {point.path}, number {point.at} of the process {STORY[point.process].name}"
    )


def _progress(done: int, of: int) -> None:
    print(f"\r{done} of {of} cuts", end="", file=sys.stderr, flush=True)


def _table(points: Sequence[Point], results: Sequence[Result]) -> None:
    print(f"{'process':<15}{'operation':<11}{'points':>7}{'trials':>8}{'fine':>7}")
    for number, process in enumerate(STORY):
        for operation in sorted({point.operation for point in points if point.process == number}):
            here = [
                result
                for result in results
                if (result.cut.point.process, result.cut.point.operation) == (number, operation)
            ]
            fine = sum(result.outcome is Outcome.FINE for result in here)
            count = len({result.cut.point for result in here})
            print(f"{process.name:<15}{operation:<11}{count:>7}{len(here):>8}{fine:>7}")
