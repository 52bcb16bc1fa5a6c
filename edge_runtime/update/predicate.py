"""Predicates of a rollout plan: which devices it is meant for. Pure; docs/spec/plan.md is normative.

    {"all": [p, …]}   {"any": [p, …]}   {"not": p}
    {"eq": [attribute, value]}   {"in": [attribute, [value, …]]}
    {"lt": [attribute, number]}  {"ge": [attribute, number]}

A newer server may use an operator or an attribute that this device does not know. Guessing would put a release where it
was not meant to go, so anything unknown makes the whole predicate false, also inside ``not``.
"""

from __future__ import annotations

from collections.abc import Mapping

from edge_runtime.device import Attribute

__all__ = ["MAX_DEPTH", "evaluate"]

MAX_DEPTH = 8


class _NotMe(Exception):
    """Something in the predicate is unknown or malformed."""


def evaluate(predicate: Mapping[str, object] | None, attributes: Mapping[str, Attribute]) -> bool:
    """Whether a device with ``attributes`` is meant. None means every device.

    ``all`` and ``any`` are read left to right and stop at the first element that decides. An unknown operator or
    attribute, a malformed operand, or nesting deeper than `MAX_DEPTH`, where it is reached, makes the result False.
    Numbers equal numbers, strings strings and booleans booleans; ``lt`` and ``ge`` compare numbers only.
    """
    if predicate is None:
        return True
    try:
        return _evaluate(predicate, attributes, 1)
    except _NotMe:
        return False


def _evaluate(predicate: object, attributes: Mapping[str, Attribute], depth: int) -> bool:
    if not isinstance(predicate, Mapping) or len(predicate) != 1 or depth > MAX_DEPTH:
        raise _NotMe
    operator, operand = next(iter(predicate.items()))
    match operator:
        case "all":
            return all(_evaluate(part, attributes, depth + 1) for part in _list(operand))
        case "any":
            return any(_evaluate(part, attributes, depth + 1) for part in _list(operand))
        case "not":
            return not _evaluate(operand, attributes, depth + 1)
        case "eq":
            own, value = _operands(operand, attributes)
            return _equal(own, value)
        case "in":
            own, values = _operands(operand, attributes)
            return any(_equal(own, value) for value in _list(values))
        case "lt":
            own, value = _operands(operand, attributes)
            return _number(own) < _number(value)
        case "ge":
            own, value = _operands(operand, attributes)
            return _number(own) >= _number(value)
        case _:
            raise _NotMe


def _operands(operand: object, attributes: Mapping[str, Attribute]) -> tuple[Attribute, object]:
    pair = _list(operand)
    if len(pair) != 2 or not isinstance(pair[0], str) or pair[0] not in attributes:
        raise _NotMe
    return attributes[pair[0]], pair[1]


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise _NotMe
    return value


def _number(value: object) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _NotMe
    return value


def _equal(own: Attribute, value: object) -> bool:
    # In Python True == 1; in the plan's other readers it is not.
    if isinstance(own, bool) or isinstance(value, bool):
        return own is value
    if not isinstance(value, str | int | float):
        raise _NotMe
    return own == value
