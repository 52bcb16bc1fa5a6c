"""Stages: what a manager writes (``10``, ``25%``, ``all``) as a share of the buckets of known devices. Pure.

A device is selected when its bucket lies below the share and below the holdback, and never leaves again: shares only
grow. See `edge_runtime.update.plan`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from edge_runtime.update.plan import PARTS
from model_server.errors import InvalidRollout, MalformedRequest, StageTooSmall
from model_server.quantities import parse_share

__all__ = ["COMPLETION", "MIN_DEVICES", "StageShare", "check_stages", "share_of", "stage_share"]

MIN_DEVICES = 5  # fewer cannot be judged: one device that fails is then a fifth of the stage or more
COMPLETION = "complete"  # what the history calls the stage after the last: everybody, no holdback
MAX_STAGES = 32
_COUNT = re.compile(r"[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StageShare:
    """A stage's share in parts of `PARTS`, and how many of the known devices it selects."""

    share: int
    selected: int


def check_stages(stages: Sequence[str]) -> tuple[str, ...]:
    """The stages, each a count, a percentage or ``all``; ``all`` only as the last. No count is below
    an earlier one, no percentage below an earlier one; how the two compare depends on the fleet.

    Raises InvalidRollout.
    """
    if not 1 <= len(stages) <= MAX_STAGES:
        raise InvalidRollout(f"give 1 to {MAX_STAGES} stages, not {len(stages)}")
    for number, stage in enumerate(stages):
        if stage == "all":
            if number != len(stages) - 1:
                raise InvalidRollout("the stage 'all' can only be the last one")
        elif not _COUNT.fullmatch(stage):
            try:
                parts = parse_share(stage)
            except MalformedRequest as error:
                raise InvalidRollout(
                    f"{stage!r} is not a stage: write a number of devices, a percentage or 'all'"
                ) from error
            if parts == 0:
                raise InvalidRollout("a stage of 0% selects nobody")
    counts = [(int(stage), stage) for stage in stages if _COUNT.fullmatch(stage)]
    shares = [(parse_share(stage), stage) for stage in stages if stage.endswith("%")]
    for (before, earlier), (size, stage) in (*pairwise(counts), *pairwise(shares)):
        if size < before:
            raise InvalidRollout(f"the stage {stage!r} comes after {earlier!r} and is smaller: stages only grow")
    return tuple(stages)


def stage_share(
    stage: str, buckets: Sequence[int], *, holdback: int, before: int = 0, first_rollout: bool = False
) -> StageShare:
    """The share that ``stage`` means for the known eligible devices, whose ``buckets`` are given.

    A count selects exactly that many known devices outside the holdback, or all of them if there are fewer. A share
    never falls below ``before``, that of the stage before. In a model's first rollout on a channel (``first_rollout``)
    there is nothing to compare with and often nobody known yet, so ``all`` is then allowed whatever it selects.

    Raises StageTooSmall if it selects fewer than `MIN_DEVICES` known devices.
    """
    limit = PARTS - holdback
    inside = sorted(bucket for bucket in buckets if bucket < limit)
    share = max(share_of(stage, inside), before)
    selected = sum(bucket < share for bucket in inside)
    if selected < MIN_DEVICES and not (first_rollout and stage == "all"):
        raise StageTooSmall(
            f"stage {stage!r} selects {selected} of {len(buckets)} known devices; at least {MIN_DEVICES} are needed to "
            "judge it. Let more devices report first, or choose a larger stage or a smaller holdback"
        )
    return StageShare(share=share, selected=selected)


def share_of(stage: str, inside: Sequence[int]) -> int:
    """``stage`` as parts of `PARTS`; ``inside`` are the ascending buckets outside the holdback."""
    if stage == "all":
        return PARTS
    if not _COUNT.fullmatch(stage):
        return parse_share(stage)
    count = int(stage)
    return inside[count - 1] + 1 if count <= len(inside) else PARTS
