"""The rollout plan and the device's decision about it. Pure; docs/spec/plan.md is normative and has test vectors."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from edge_runtime.bundle.errors import ManifestError, UnsupportedFormat
from edge_runtime.bundle.names import MAX_RELEASE, check_channel, check_model
from edge_runtime.bundle.strict_json import Node, canonical, parse
from edge_runtime.device import Attribute
from edge_runtime.update.predicate import evaluate

__all__ = [
    "MAX_PLAN_BYTES",
    "PARTS",
    "Arm",
    "Attribute",
    "Ceiling",
    "Plan",
    "State",
    "arm",
    "bucket",
    "ceiling_share",
    "evaluate",
    "in_holdback",
    "wanted",
]

PARTS = 10**8  # shares are whole parts of this
FORMAT_VERSION = 1
MAX_PLAN_BYTES = 8192

Ceiling = Sequence[tuple[float, int]]  # (age in seconds, largest share in parts of PARTS), ages ascending from 0
Arm = Literal["candidate", "baseline", "holdback", "none"]

_IDENTIFIER = re.compile(r"[A-Za-z0-9._-]{1,64}")


class State(StrEnum):
    RUNNING = "running"  # the devices inside the share take the candidate
    HALTED = "halted"  # who has the candidate keeps it; nobody joins
    ROLLED_BACK = "rolled_back"  # who has the candidate returns to the baseline
    COMPLETE = "complete"  # as running, without a holdback
    DISABLED = "disabled"  # no local inference of this model


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """``rollouts/<channel>/<model>.json``. ``share`` and ``holdback`` are parts of `PARTS`; ``baseline`` None means
    that devices keep what they have until they take the candidate. ``attempt`` grows when a release is tried again:
    devices that went back from the last attempt then take it once more."""

    model: str
    channel: str
    rollout: str
    salt: str
    candidate: int
    baseline: int | None
    share: int
    holdback: int
    predicate: Mapping[str, Any] | None
    state: State
    attempt: int

    def to_json(self) -> bytes:
        return canonical(
            {
                "format": FORMAT_VERSION,
                "model": self.model,
                "channel": self.channel,
                "rollout": self.rollout,
                "salt": self.salt,
                "candidate": self.candidate,
                "baseline": self.baseline,
                "share": self.share,
                "holdback": self.holdback,
                "predicate": self.predicate,
                "state": self.state.value,
                "attempt": self.attempt,
            }
        )

    @classmethod
    def from_json(cls, data: bytes) -> Plan:
        """Read a plan of at most `MAX_PLAN_BYTES`. Unknown members are ignored; operators of the predicate are judged
        when it is evaluated. Raises `ManifestError` with the key path, and `UnsupportedFormat` for a newer format."""
        node = parse(data, max_bytes=MAX_PLAN_BYTES, what="the plan")
        version = node.get("format").integer(1, 2**31 - 1)
        if version != FORMAT_VERSION:
            raise UnsupportedFormat(f"this runtime reads format {FORMAT_VERSION}, not {version}", key_path="format")
        plan = cls(
            model=node.get("model").name(check_model),
            channel=node.get("channel").name(check_channel),
            rollout=node.get("rollout").match(_IDENTIFIER, "a rollout id (1 to 64 of A-Z a-z 0-9 . _ -)"),
            salt=node.get("salt").match(_IDENTIFIER, "a salt (1 to 64 of A-Z a-z 0-9 . _ -)"),
            candidate=node.get("candidate").integer(1, MAX_RELEASE),
            baseline=node.get("baseline").optional(lambda value: value.integer(1, MAX_RELEASE)),
            share=node.get("share").integer(0, PARTS),
            holdback=node.get("holdback").integer(0, PARTS),
            predicate=node.get("predicate").optional(_predicate),
            state=State(node.get("state").choice([state.value for state in State])),
            attempt=node.get("attempt").integer(1, 2**31 - 1),
        )
        if plan.baseline == plan.candidate:
            raise ManifestError("must not be the candidate", key_path="baseline")
        return plan


def _predicate(node: Node) -> Mapping[str, Any]:
    node.keys()  # refuses what is not an object
    value = node.value
    return value if isinstance(value, dict) else {}


def bucket(salt: str, device_id: str) -> int:
    """Where a device stands in a rollout, 0 to `PARTS` - 1: the first 8 bytes of sha256(salt, 0x00, device id) as a
    big-endian number, modulo `PARTS`."""
    digest = hashlib.sha256(salt.encode() + b"\0" + device_id.encode()).digest()
    return int.from_bytes(digest[:8], "big") % PARTS


def ceiling_share(ceiling: Ceiling, age_s: float) -> int:
    """The largest share that a release may have at an age: that of the last entry whose age is not above ``age_s``,
    0 before the first entry, `PARTS` without entries."""
    if not ceiling:
        return PARTS
    allowed = 0
    for age, share in ceiling:
        if age > age_s:
            break
        allowed = share
    return allowed


def in_holdback(plan: Plan, device_id: str) -> bool:
    """Whether the plan keeps this device on the baseline as the control group."""
    return plan.state is not State.COMPLETE and bucket(plan.salt, device_id) >= PARTS - plan.holdback


def wanted(
    plan: Plan,
    device_id: str,
    attributes: Mapping[str, Attribute],
    *,
    current: int | None,
    age_s: float,
    ceiling: Ceiling,
) -> int | None:
    """The release that the plan asks this device to run, or None for no local inference.

    ``current`` is what it runs now; ``age_s`` is how long ago, in seconds, this device first verified the candidate;
    ``ceiling`` comes from the candidate's signed release document. A device on the candidate stays on it while the plan
    is running, halted or complete: shares never shrink a device out.
    """
    otherwise = current if plan.baseline is None else plan.baseline
    match plan.state:
        case State.DISABLED:
            return None
        case State.ROLLED_BACK:
            return None if otherwise == plan.candidate else otherwise
        case State.HALTED:
            return current if current == plan.candidate else otherwise
        case State.RUNNING | State.COMPLETE:
            if current == plan.candidate:
                return current
            limit = min(plan.share, ceiling_share(ceiling, age_s))
            if plan.state is State.RUNNING:
                limit = min(limit, PARTS - plan.holdback)
            inside = bucket(plan.salt, device_id) < limit and evaluate(plan.predicate, attributes)
            return plan.candidate if inside else otherwise


def arm(plan: Plan | None, device_id: str, running: int | None) -> Arm:
    """Which group a device's counters belong to: ``candidate`` if it runs the candidate, ``holdback`` if the plan keeps
    it there, else ``baseline``; ``none`` without a plan or without a running release."""
    if plan is None or running is None:
        return "none"
    if running == plan.candidate:
        return "candidate"
    return "holdback" if in_holdback(plan, device_id) else "baseline"
