"""Weeks of a reporting fleet: two for a baseline, one that must stay silent, then the watches are turned."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import httpx

from examples.smartwatch.calendar_server import EPOCH
from examples.smartwatch.narrator import Narrator
from examples.smartwatch.wearers import Days

BASELINE_DAYS = 14
SILENT_DAYS = 7
DRIFT_DAYS = 14  # at most; the story ends with the alarm,
SHOWN_DAYS = 3  # but shows at least these
DEVICES = 2000
TURNED_SHARE = 0.8


@dataclass(slots=True)
class Calendar:
    """The file that tells the server which day it is."""

    file: Path
    start: int  # days since 1970-01-01

    def turn_to(self, day: int) -> None:
        """Day 1 is the first day that devices count; its reports arrive on day 2."""
        part = self.file.with_suffix(".part")
        part.write_text(str(self.start + day))
        part.rename(self.file)

    def date(self, day: int) -> date:
        return EPOCH + timedelta(days=self.start + day)

    def number(self, iso: str) -> int:
        return (date.fromisoformat(iso) - self.date(0)).days


class DriftDesk:
    """The release manager at the drift API."""

    def __init__(self, server: str, credentials: Path, model: str) -> None:
        key = json.loads(credentials.read_text())["admin_api_key"]
        self._http = httpx.Client(base_url=server, headers={"Authorization": f"Bearer {key}"}, timeout=60.0)
        self._path = f"/v1/drift/{model}"

    def verdict(self) -> dict[str, Any]:
        answer = self._http.get(self._path).raise_for_status()
        return dict(answer.json())

    def approve(self, first: date, last: date, person: str) -> dict[str, Any]:
        body = {"from": first.isoformat(), "to": last.isoformat(), "approved_by": person}
        return dict(self._http.post(f"{self._path}/baseline", json=body).raise_for_status().json())


def live_through(days: Days, desk: DriftDesk, calendar: Calendar, narrator: Narrator) -> dict[str, Any]:
    """Run the weeks. Returns what summary and plots need; the verdicts in it are the server's."""
    sent = 0
    total = BASELINE_DAYS + SILENT_DAYS
    for day in range(1, total + 1):
        calendar.turn_to(day + 1)  # a day is reported on the next one, and closed a day later
        if day == BASELINE_DAYS + 1:
            desk.approve(calendar.date(1), calendar.date(BASELINE_DAYS), "alice")
        sent += days.send(calendar.start + day, turned=False)
        narrator.progress("days of reports", day, total)
    calendar.turn_to(total + 2)
    before = desk.verdict()
    narrator.say(
        f"days 1 to {BASELINE_DAYS} are the approved baseline; days {BASELINE_DAYS + 1} to {total}: "
        f"{'an alarm' if before['alarm'] else 'silent'}"
    )
    verdict = before
    for day in range(total + 1, total + DRIFT_DAYS + 1):
        sent += days.send(calendar.start + day, turned=True)
        calendar.turn_to(day + 2)
        verdict = desk.verdict()
        narrator.progress("days with turned watches", day - total, SHOWN_DAYS)
        if verdict["alarm"] and day >= total + SHOWN_DAYS:
            break
    since = calendar.number(verdict["since"]) if verdict["alarm"] else None
    if since is not None:
        narrator.say(f"alarm on day {since - total} after the turn: {', '.join(verdict['features'])}")
    watched = [{**one, "day": calendar.number(one["day"])} for one in verdict["days"]]
    return {
        "sent": sent,
        "before": before,
        "after": verdict,
        "days_to_alarm": None if since is None else since - total,
        "watched": watched,
        "turned_on": total + 1,
    }
