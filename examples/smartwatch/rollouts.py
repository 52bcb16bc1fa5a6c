"""The fleet through two rollouts: one that completes, and one that the guardrail takes back."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from devices.fleet import Fleet, FleetPeriod
from examples.smartwatch.data import Windows
from examples.smartwatch.narrator import Narrator
from examples.smartwatch.service import Manager

DROPOUT_SHARE = 0.05
SALT = "smartwatch-demo"
MAX_PERIODS = 40

# The holdback is large because the fleet is small. All devices share two processor cores, and the canary processes of
# others run on them too, so a latency that differs by less than 50 ms says nothing here.
ROLLOUT = (
    *("--stages", "10,30,all", "--holdback", "20%", "--salt", SALT),
    *("--growth", "auto", "--on-breach", "rollback", "--latency-floor-us", "50000"),
)


class StoryFailed(SystemExit):
    """The fleet did not get where the story says it gets."""


@dataclass(slots=True)
class Timeline:
    """How many devices ran which release when, and what happened, in seconds since the first rollout."""

    began: float = field(default_factory=time.monotonic)
    samples: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)

    def sample(self, period: FleetPeriod) -> None:
        counts = {release: n for release, n in period.releases.items() if release is not None}
        self.samples.append({"seconds": self._now(), "releases": counts})

    def event(self, label: str) -> None:
        self.events.append({"seconds": self._now(), "label": label})

    def _now(self) -> float:
        return round(time.monotonic() - self.began, 2)


def write_field(windows: Windows, path: Path, *, seed: int) -> None:
    """What the fleet's watches see: unseen subjects' windows, and among them 1 in 20 from a sensor that dropped out.

    The buffer of a sensor that does not deliver is filled with zeros; it happens on every watch, whichever release it
    runs, and never in the recordings that models are trained and checked on.
    """
    rng = np.random.default_rng(seed)
    x = windows.x.copy()
    x[rng.permutation(len(x))[: round(len(x) * DROPOUT_SHARE)]] = 0.0
    np.savez(path, window=x)


def roll_out(
    fleet: Fleet, manager: Manager, timeline: Timeline, narrator: Narrator, release: int, *, until: str
) -> tuple[dict[str, Any], list[FleetPeriod]]:
    """Start a rollout of ``release`` and let the fleet live until its state is ``until`` and every device has settled.

    Returns the server's account of the rollout, and every period of the fleet.
    """
    total = fleet.options.devices
    manager.start_rollout(release, *ROLLOUT)
    timeline.event(f"release {release}: start")
    periods: list[FleetPeriod] = []
    stage, state = "", "running"
    for _ in range(MAX_PERIODS):
        period = fleet.period(lambda done, n: narrator.progress("check, answer, report", done, n))
        periods.append(period)
        timeline.sample(period)
        status = manager.rollout()
        if status["state"] != state:
            state = status["state"]
            timeline.event(f"release {release}: {state.replace('_', ' ')}")
            narrator.say(f"the rollout is {state.replace('_', ' ')}: {last_reason(status)}")
        running = period.releases
        shown = ", ".join(f"{n} of {total} on release {r}" for r, n in sorted(running.items(), key=str))
        if (now := status["stages"][-1]["stage"]) != stage:
            stage = now
            if state == "running":
                timeline.event(f"stage {stage}")
        narrator.say(f"period {period.number}: stage {stage}, {shown}")
        if state not in ("running", until):
            raise StoryFailed(f"The rollout of release {release} is {state}, not {until}: {last_reason(status)}")
        wanted = release if until == "complete" else status["baseline"]
        if state == until and running == {wanted: total} and _settled(status, until):
            return status, periods
    raise StoryFailed(f"The rollout of release {release} did not become {until} in {MAX_PERIODS} periods: {shown}")


def _settled(status: dict[str, Any], until: str) -> bool:
    return until == "complete" or bool(status["settled"])


def last_reason(status: dict[str, Any]) -> str:
    """Why the rollout is as it is: the guardrail that was crossed, if one was, else its last event."""
    events = status["events"]
    crossed = [event for event in events if event["event"] == "guardrail_breached"]
    return str((crossed or events or [{"reason": "no event"}])[-1]["reason"])


def engines(periods: list[FleetPeriod]) -> dict[str, int]:
    """How many devices run each engine."""
    return dict(Counter(device.engine for device in periods[-1].devices))
