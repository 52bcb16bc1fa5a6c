"""Every cut of the story, one after the other, and how the device came out of each."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from enum import StrEnum
from multiprocessing import get_context
from pathlib import Path

from devices.faults.children import in_child
from devices.faults.disks import KillDisk, LoggingDisk
from devices.faults.power import Loss, PowerCut, PowerDisk
from devices.faults.site import Site
from devices.faults.story import BAD, CRASHED, STORY, start_again
from edge_runtime.errors import EdgeshipError

__all__ = ["Cut", "FaultsFailed", "Outcome", "Point", "Result", "every_cut", "record", "run_all"]

STARTS = 8  # of the device after a cut: a crash loop takes four, and what the cut undid comes again


class FaultsFailed(EdgeshipError):
    """The story does not end as it should even without a cut: then no trial means anything."""


class Outcome(StrEnum):
    FINE = "fine"
    LOST = "lost"  # it starts and answers, and never gets to where the story ends
    UNBOOTABLE = "unbootable"  # it does not start, or does not answer
    UNVERIFIED = "unverified_served"  # it answered with something that the release's signed weights do not give


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Operation number ``at`` of a process of the story; ``path`` is below the state folder."""

    process: int
    at: int
    operation: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """``loss`` None: SIGKILL."""

    point: Point
    loss: Loss | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """``reached``: the process came to the point; else it ended before, and was not cut."""

    cut: Cut
    outcome: Outcome
    starts: int
    reached: bool
    detail: str = ""


def record(site: Site, work: Path) -> list[Point]:
    """Run the story without a cut: the points, and under ``work/starts`` what each process finds.

    Raises `FaultsFailed` where it does not end as it should.
    """
    state, points = work / "recorded", list[Point]()
    state.mkdir(parents=True)
    for number, process in enumerate(STORY):
        shutil.copytree(state, work / "starts" / str(number))
        log = work / f"{number}.log"
        log.touch()
        run = process.run
        ended = in_child(lambda run=run, log=log: run(site, state, LoggingDisk(state, log)))
        if ended.status not in (0, CRASHED):
            raise FaultsFailed(f"the process {process.name} of the story ended with {ended.status}: {ended.error}")
        for at, line in enumerate(log.read_text(encoding="utf-8").splitlines()):
            operation, _, path = line.partition(" ")
            points.append(Point(process=number, at=at, operation=operation, path=path))
    outcome, _, detail = _recovered(site, state, BAD)
    if outcome is not Outcome.FINE:
        raise FaultsFailed(f"the story without a cut ends as {outcome.value}: {detail}")
    return points


def every_cut(points: Sequence[Point], count: int | None) -> list[tuple[Point, bool]]:
    """(point, whether by power) of every point, or of ``count`` that are spread evenly over them."""
    if count is not None and count < len(points):
        points = [points[number * len(points) // count] for number in range(count)]
    return [(point, power) for point in points for power in (False, True)]


def run_all(
    site: Site,
    work: Path,
    cuts: Sequence[tuple[Point, bool]],
    workers: int,
    progress: Callable[[int, int], None],
) -> Iterator[Result]:
    """The results as they come; ``progress`` hears how many cuts of how many are done."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        waiting = [
            pool.submit(_cut, site, work, work / "trials" / str(number), point, power)
            for number, (point, power) in enumerate(cuts)
        ]
        for done, future in enumerate(as_completed(waiting), 1):
            yield from future.result()
            progress(done, len(cuts))


def _cut(site: Site, work: Path, place: Path, point: Point, power: bool) -> list[Result]:
    """In a worker: run the process up to the point, cut it, and see what becomes of the device."""
    process = STORY[point.process]
    state = place / "state"
    shutil.copytree(work / "starts" / str(point.process), state)
    try:
        if not power:
            ended = in_child(lambda: process.run(site, state, KillDisk(point.at)))
            folders: list[tuple[Loss | None, Path]] = [(None, state)]
            reached = ended.status == -9
        else:
            ended = in_child(lambda: _cut_power(site, state, point, place))
            if ended.status not in (0, CRASHED):
                raise FaultsFailed(f"a trial broke by itself, and so says nothing: {ended.error}")
            reached = bool(ended.value)
            folders = [(loss, place / loss.value) for loss in Loss] if reached else [(Loss.ALL, state)]
        results = []
        for loss, folder in folders:
            outcome, starts, detail = _recovered(site, folder, process.candidate)
            cut = Cut(point=point, loss=loss)
            results.append(Result(cut=cut, outcome=outcome, starts=starts, reached=reached, detail=detail))
        return results
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _cut_power(site: Site, state: Path, point: Point, place: Path) -> bool:
    disk = PowerDisk(state, point.at)
    with contextlib.suppress(PowerCut):
        STORY[point.process].run(site, state, disk)
    if not disk.cut:
        return False
    for loss in Loss:
        disk.leave(loss, place / loss.value)
    return True


def _recovered(site: Site, state: Path, candidate: int) -> tuple[Outcome, int, str]:
    """Start the device until the story has ended well: what came of it, after how many starts, and why."""
    why = ""
    for start in range(1, STARTS + 1):
        ended = in_child(lambda: start_again(site, state, candidate))
        if ended.status == CRASHED and candidate == BAD:
            continue
        answer = ended.value
        if ended.status != 0 or answer is None:
            return Outcome.UNBOOTABLE, start, f"start {start} ended with {ended.status}: {ended.error}"
        if not answer.true:
            return Outcome.UNVERIFIED, start, f"release {answer.release} gave an output that is not its own"
        if answer.settled:
            return Outcome.FINE, start, ""
        why = f"start {start} answered with release {answer.release} and was not at the end"
    return Outcome.LOST, STARTS, why
