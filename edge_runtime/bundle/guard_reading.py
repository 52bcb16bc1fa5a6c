"""Read a manifest's guard: its shape. What refers to the inputs is checked in `semantics`."""

from __future__ import annotations

from typing import cast, get_args

from edge_runtime.bundle import limits
from edge_runtime.bundle.grammars import SHA256, TENSOR_NAME
from edge_runtime.bundle.guard import Guard, GuardPart, GuardReduction, GuardScore
from edge_runtime.bundle.strict_json import MAX_INTEGER, Node

__all__ = ["GUARD_REDUCTIONS", "GUARD_SCORES", "read_guard"]

GUARD_REDUCTIONS = cast("tuple[GuardReduction, ...]", get_args(GuardReduction))
GUARD_SCORES = cast("tuple[GuardScore, ...]", get_args(GuardScore))


def read_guard(node: Node) -> Guard:
    """The guard in ``node``. Raises `ManifestError` with the key path of the first value outside FORMAT.md."""
    n, k = limits.MAX_GUARD_SUMMARIES, limits.MAX_GUARD_DIRECTIONS
    return Guard(
        score=cast("GuardScore", node.get("score").choice(GUARD_SCORES)),
        parts=tuple(_part(element) for element in node.get("parts").items(1, limits.MAX_GUARD_PARTS)),
        center=_numbers(node.get("center"), 1, n),
        scale=tuple(element.positive() for element in node.get("scale").items(1, n)),
        directions=tuple(_numbers(element, 1, n) for element in node.get("directions").items(0, k)),
        variances=tuple(element.positive() for element in node.get("variances").items(0, k)),
        residual=node.get("residual").positive(),
        threshold=node.get("threshold").number(0),
        false_refusal=node.get("false_refusal").number(0, 1),
        rows=node.get("rows").integer(0, MAX_INTEGER),
        data_sha256=node.get("data_sha256").match(SHA256, "a sha256 in 64 lower-case hex digits"),
    )


def _part(node: Node) -> GuardPart:
    reductions = node.get("reduce").items(1, len(GUARD_REDUCTIONS))
    stride = node.get("stride").optional(lambda n: n.integer(1, limits.MAX_TENSOR_ELEMENTS))
    return GuardPart(
        input=node.get("input").match(TENSOR_NAME, "a tensor name"),
        reduce=tuple(cast("GuardReduction", element.choice(GUARD_REDUCTIONS)) for element in reductions),
        axis=node.get("axis").optional(lambda n: n.integer(0, limits.MAX_AXES - 1)),
        stride=1 if stride is None else stride,
    )


def _numbers(node: Node, low: int, high: int) -> tuple[float, ...]:
    return tuple(element.number() for element in node.items(low, high))
