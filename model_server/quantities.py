"""Durations, shares and ceilings as people write them: ``24h``, ``20%``, ``0h=1%,24h=10%``. Pure."""

from __future__ import annotations

import re
from decimal import Decimal
from itertools import pairwise

from edge_runtime.update.plan import PARTS
from model_server.errors import MalformedRequest

__all__ = [
    "DEFAULT_CEILING",
    "format_ceiling",
    "format_duration",
    "format_share",
    "parse_ceiling",
    "parse_duration",
    "parse_share",
]

# The real one: a release that is bad in a way nobody sees for days reaches few devices in those days.
DEFAULT_CEILING = "0h=1%,24h=10%,72h=50%,120h=100%"

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)([smhd])")
_SHARE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)%")


def parse_duration(text: str) -> float:
    """Seconds, of a number and a unit ``s``, ``m``, ``h`` or ``d``, as in ``24h``. Raises MalformedRequest."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise MalformedRequest(f"{text!r} is not a duration: write a number and s, m, h or d, as in 24h")
    return float(Decimal(match[1]) * _UNITS[match[2]])


def parse_share(text: str) -> int:
    """Parts of `PARTS`, of a percentage as in ``20%`` or ``0.5%``. Raises MalformedRequest."""
    match = _SHARE.fullmatch(text.strip())
    parts = Decimal(match[1]) * PARTS / 100 if match else None
    if parts is None or parts > PARTS:
        raise MalformedRequest(f"{text!r} is not a share: write a percentage up to 100%, as in 20%")
    return int(parts)


def parse_ceiling(text: str) -> tuple[tuple[int, int], ...]:
    """The rollout ceiling, ``(age in whole seconds, parts)``, of ``age=share`` pairs as in ``0h=1%,24h=10%``.

    Raises MalformedRequest unless it starts at age 0, ages grow and shares do not fall.
    """
    steps: list[tuple[int, int]] = []
    for item in text.split(","):
        age, equals, share = item.partition("=")
        if not equals:
            raise MalformedRequest(f"{item!r} is not a step of a ceiling: write age=share, as in 24h=10%")
        steps.append((round(parse_duration(age)), parse_share(share)))
    if steps[0][0] != 0:
        raise MalformedRequest(f"the ceiling {text!r} must start at age 0, as in 0h=1%,24h=10%")
    for earlier, later in pairwise(steps):
        if later[0] <= earlier[0] or later[1] < earlier[1]:
            raise MalformedRequest(f"the ceiling {text!r} must have growing ages, and shares that do not fall")
    return tuple(steps)


def format_duration(seconds: float) -> str:
    """The shortest of ``s``, ``m``, ``h``, ``d`` that says it in whole numbers."""
    for unit in ("d", "h", "m"):
        if seconds and seconds % _UNITS[unit] == 0:
            return f"{int(seconds // _UNITS[unit])}{unit}"
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"


def format_share(parts: int) -> str:
    return f"{Decimal(parts) * 100 / PARTS:.6f}".rstrip("0").rstrip(".") + "%"


def format_ceiling(ceiling: tuple[tuple[int, int], ...]) -> str:
    return ",".join(f"{format_duration(age)}={format_share(share)}" for age, share in ceiling) or "none"
