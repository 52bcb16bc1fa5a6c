"""What the gate found, as it is kept with a release and shown to whoever signs it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Check", "HookReport", "Report"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HookReport:
    """What the operator's command said. Its exit status, 0, has decided; ``checks`` are its own words."""

    command: str
    seconds: float
    summary: str
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """``checks`` are the built-in ones; ``hook`` is None where no command is set."""

    checks: tuple[Check, ...]
    hook: HookReport | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Report:
        values = json.loads(text)
        hook = values["hook"]
        return cls(
            checks=_checks(values["checks"]),
            hook=None if hook is None else HookReport(**{**hook, "checks": _checks(hook["checks"])}),
        )


def _checks(values: Sequence[dict[str, Any]]) -> tuple[Check, ...]:
    return tuple(Check(**value) for value in values)
