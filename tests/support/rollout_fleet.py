"""Simulated devices against a real server: they read the published plan as a stock TUF client does, decide with the
runtime's own rule, and report over HTTP."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edge_runtime.errors import Outcome
from edge_runtime.update.plan import Arm, Plan, arm, wanted
from model_server.settings import Settings, load_settings
from tests.support.managers import download
from tests.support.postgres import copy_rows
from tests.support.server import Running, SteppedClock, running

URL = "/v1/rollouts/stable/exercise"


@dataclass
class Fleet:
    """Devices ``d0`` … with a release each. `check_in` is what an update check and a report do."""

    server: Running
    settings: Settings
    folder: Path
    size: int = 25
    running: dict[str, int | None] = field(default_factory=dict)
    sequence: int = 0
    checks: int = 0

    def plan(self) -> Plan | None:
        self.checks += 1
        data = download(self.server, self.settings, self.folder / str(self.checks), "rollouts/stable/exercise.json")
        return None if data is None else Plan.from_json(data)

    def check_in(
        self,
        *,
        requests: int = 20,
        faults: dict[int, dict[str, int]] | None = None,
        failing: dict[int, Outcome] | None = None,
        latency: dict[int, int] | None = None,
        devices: range | None = None,
        evaluate: bool = True,
    ) -> None:
        """Every device follows the plan, serves ``requests`` and reports. ``faults`` adds counters to a release,
        ``failing`` makes the installation of a release end so, ``latency`` sets a release's latency bin."""
        plan = self.plan()
        self.sequence += 1
        for number in devices or range(self.size):
            device = f"d{number}"
            before = self.running.get(device, 1)
            release = before
            outcomes: list[dict[str, Any]] = []
            if plan is not None:
                asked = wanted(plan, device, {}, current=before, age_s=1e9, ceiling=())
                if asked != before and asked in (failing or {}):
                    outcomes.append({"outcome": (failing or {})[asked].value, "release": asked})
                elif asked != before:
                    release = asked
                    outcomes.append({"outcome": "Installed", "release": asked})
            self.running[device] = release
            group: Arm = arm(plan, device, release)
            counters = []
            if release is not None:
                shift = (latency or {}).get(release, 160)
                counters.append(
                    {
                        "release": release,
                        "arm": group,
                        "requests": requests,
                        "errors": 0,
                        "fallbacks": 0,
                        "refused": 0,
                        "latency_us": {"device": [[shift, requests]], "cloud": []},
                        **(faults or {}).get(release, {}),
                    }
                )
            answer = self.server.report(
                device,
                self.sequence,
                running=release,
                arm=group,
                rollout=plan.rollout if plan else None,
                attempt=plan.attempt if plan else None,
                outcomes=outcomes,
                counters=counters,
            )
            assert answer.status_code == 202, answer.text
        if evaluate:
            self.server.services.rollouts.evaluate("exercise", "stable")

    def on(self, release: int | None) -> int:
        return sum(current == release for current in self.running.values())


@contextmanager
def fleet(
    published: Path, folder: Path, clock: SteppedClock | None = None, database: str | None = None
) -> Iterator[Fleet]:
    """A server over a copy of the folder ``published``, and devices that have not reported yet. ``database`` is the
    address of an empty one to use instead of the folder's."""
    shutil.copytree(published, folder / "server")
    settings = replace(load_settings(folder / "server"), controller_interval_s=3600.0)
    if database is not None:
        copy_rows(settings.database_url, database)
        settings = replace(settings, database=database)
    with running(settings, clock) as server:
        yield Fleet(server, settings, folder / "clients")


def start(fleet: Fleet, candidate: int = 2, **options: Any) -> dict[str, Any]:
    body = {
        "candidate": candidate,
        "baseline": 1,
        "stages": ["10", "30", "all"],
        "holdback": "20%",
        "growth": "auto",
        "on_breach": "rollback",
        "salt": "fixed",
        **options,
    }
    answer = fleet.server.admin.post(URL, json=body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def status(fleet: Fleet) -> dict[str, Any]:
    return dict(fleet.server.admin.get(URL).json())


def events(fleet: Fleet) -> list[str]:
    return [event["event"] for event in status(fleet)["events"]]
