"""One pair of files through every tool: patches made, applied and verified, then timed in turns."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import zstandard

from bench.peers_delta.files import Pair
from bench.peers_delta.scoring import DeltaRow, Measured
from bench.peers_delta.tools import OURS, ToolFailed, Worker

__all__ = ["AGAIN", "in_turns", "measure"]

AGAIN = f"{OURS}, again"  # the same call a second time in each round: what the machine's noise makes of it
LEVEL = 19
SMALL_BYTES = 1_000_000  # a file's, below which a call is so short that it takes more of them
Say = Callable[[str], None]


def measure(
    pair: Pair, pythons: Mapping[str, Path], missing: Mapping[str, str], folder: Path, rounds: int, say: Say
) -> tuple[DeltaRow, dict[str, list[float]]]:
    """``pythons`` has the interpreter of each tool, `OURS` included; ``missing`` says why others have none. Returns the
    row, and milliseconds of every apply by tool.

    Raises RuntimeError where ours fails, or where a patch of anyone's does not make the new file.
    """
    old, new = pair.old.read_bytes(), pair.new.read_bytes()
    title = f"{pair.model} {pair.target} {pair.precision}, {pair.change}"
    known = {
        "old": str(pair.old.resolve()),
        "new": str(pair.new.resolve()),
        "old_sha256": hashlib.sha256(old).hexdigest(),
        "old_length": len(old),
        "new_length": len(new),
    }
    found: dict[str, Measured] = {name: Measured(reason=reason) for name, reason in missing.items()}
    calls: dict[str, Callable[[], float]] = {}
    with ExitStack() as stack:
        for name, python in pythons.items():
            patch, made = folder / f"{name}.patch", folder / f"{name}.made"
            request = {**known, "patch": str(patch.resolve()), "made": str(made.resolve())}
            say(f"{title}: {name} makes its patch")
            try:
                with Worker(name, python) as maker:
                    make_s = maker.ask("make", **request)["seconds"]
                worker = stack.enter_context(Worker(name, python))
                memory = worker.ask("memory", **request)
            except ToolFailed as error:
                if name == OURS:
                    raise RuntimeError(f"{title}: {name} {error}") from error
                found[name] = Measured(reason=str(error))
                continue
            if made.read_bytes() != new:
                raise RuntimeError(f"{title}: the patch of {name} makes another file")
            peak = None if memory["peak"] is None else memory["peak"] - memory["before"]
            found[name] = Measured(patch_bytes=patch.stat().st_size, make_s=make_s, peak_bytes=peak)
            calls[name] = lambda worker=worker, request=request: worker.ask("apply", **request)["ms"]
        say(f"{title}: timed")
        samples = in_turns(calls, rounds * (3 if len(new) < SMALL_BYTES else 1))
        for name in calls:
            if (folder / f"{name}.made").read_bytes() != new:
                raise RuntimeError(f"{title}: the patch of {name} makes another file when it is applied again")
    medians = {name: statistics.median(values) for name, values in samples.items()}
    full = {name: replace(each, apply_ms=medians.get(name)) for name, each in found.items()}
    row = DeltaRow(
        model=pair.model,
        target=pair.target,
        precision=pair.precision,
        change=pair.change,
        how=pair.how,
        old_bytes=len(old),
        new_bytes=len(new),
        zstd_bytes=len(zstandard.ZstdCompressor(level=LEVEL).compress(new)),
        ours=full.pop(OURS),
        peers=dict(sorted(full.items())),
        aa_ratio=medians[AGAIN] / medians[OURS],
    )
    return row, samples


def in_turns(calls: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each call says, one after the other, in every round; ours first and, as `AGAIN`, last, and the other way
    round in every second round."""
    turns = [*calls, AGAIN]
    samples: dict[str, list[float]] = {name: [] for name in turns}
    for done in range(rounds):
        for name in turns if done % 2 == 0 else reversed(turns):
            samples[name].append(calls[OURS if name == AGAIN else name]())
    return samples
