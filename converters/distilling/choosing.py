"""Pick a member of the family: the largest that a budget allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from converters.distilling.family import Member, members
from converters.distilling.latency import Latency, estimated, measured_here
from converters.distilling.students import Student
from converters.errors import InvalidRequest
from devices.profiles import Profile, budgets

__all__ = ["Budget", "choose_student"]

BYTES_A_PARAMETER = 4  # fp32, so that every precision of the student fits


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Limits, at least one of them. With a ``profile`` the latency is estimated for that device, and its artifact
    budget holds too; without one it is measured on this machine."""

    max_parameters: int | None = None
    max_latency_ms: float | None = None
    profile: Profile | None = None

    def check(self) -> None:
        """Raises `InvalidRequest`."""
        if self.max_parameters is None and self.max_latency_ms is None:
            raise InvalidRequest("a student of the family needs a budget: --max-parameters or --max-latency-ms")
        if self.max_parameters is not None and self.max_parameters < 1:
            raise InvalidRequest(f"max_parameters must be 1 or more, not {self.max_parameters}")
        if self.max_latency_ms is not None and not self.max_latency_ms > 0:
            raise InvalidRequest(f"max_latency_ms must be above 0, not {self.max_latency_ms}")
        if self.profile is not None and self.profile.too_small:
            raise InvalidRequest(f"{self.profile.title} is too small: {self.profile.targets.note}")

    @property
    def parameters(self) -> int | None:
        """The smaller of what was asked and what the device's artifact budget holds in fp32."""
        limits = [] if self.max_parameters is None else [self.max_parameters]
        room = None if self.profile is None else budgets(self.profile).artifact_bytes
        if room is not None:
            limits.append(room // BYTES_A_PARAMETER)
        return min(limits, default=None)

    def latency(self, model: Any) -> Latency:
        """Of a built model, measured here or estimated for the device."""
        return measured_here(model) if self.profile is None else estimated(model, self.profile)


def choose_student(
    inputs: dict[str, np.ndarray],
    outputs: int,
    budget: Budget,
    *,
    family: str = "auto",
    regression_answers: np.ndarray | None = None,
) -> Student:
    """The member with most parameters that the budget allows, for rows of ``inputs``.

    Raises `InvalidRequest` when even the smallest is too large or too slow.
    """
    budget.check()
    every = members(inputs, outputs, wanted=family, regression_answers=regression_answers)
    sized = sorted(((_parameters(member), member) for member in every), key=lambda pair: pair[0])
    limit = budget.parameters
    within = [member for size, member in sized if limit is None or size <= limit]
    if not within:
        raise InvalidRequest(
            f"the smallest student of the family, {sized[0][1].name}, has {sized[0][0]:,} parameters, the budget is "
            f"{limit:,}"
        )
    if budget.max_latency_ms is None:
        return within[-1].student()
    return _fastest_enough(within, budget, budget.max_latency_ms).student()


def _fastest_enough(sized: Sequence[Member], budget: Budget, limit: float) -> Member:
    """By bisection: latency grows with parameters in this family, closely enough for a budget."""
    low, high = 0, len(sized)
    slowest: Latency | None = None
    while low < high:
        middle = (low + high) // 2
        found = budget.latency(sized[middle].build(0))
        if found.ms <= limit:
            low = middle + 1
        else:
            high, slowest = middle, found
    if low == 0:
        assert slowest is not None
        raise InvalidRequest(
            f"the smallest student of the family, {sized[0].name}, takes {slowest.ms:.3g} ms, the budget is "
            f"{limit:g} ms ({slowest.method})"
        )
    return sized[low - 1]


def _parameters(member: Member) -> int:
    """Counted, not built: 48 models would take as long as a training."""
    features = member.sample.shape[-1]
    total = 2 * features + 1  # the normalization's mean and variance, and its count
    width, depth = member.width, member.depth
    if member.family == "mlp":
        sizes = [features, *[width] * depth, member.outputs]
        return total + sum((a + 1) * b for a, b in pairwise(sizes))
    kernel = 9 if member.family == "conv2d" else 5
    total += kernel * features * width + 4 * width
    for index in range(depth):
        wider = width * (2 if index % 2 else 1)
        total += kernel * width + 4 * width + width * wider + 4 * wider
        width = wider
    return total + (width + 1) * member.outputs
