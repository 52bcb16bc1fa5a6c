"""Telemetry as the rest of the server sees it: take reports, close days, approve a baseline, give a verdict."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from edge_runtime.bundle import Artifact, Manifest
from edge_runtime.telemetry.layout import Layout
from edge_runtime.telemetry.wire import ReportArm
from model_server.audit import log as audit
from model_server.db.base import Lock, reading, writing
from model_server.errors import BaselineRefused, ServerError, UnknownLayout, UnknownRelease
from model_server.telemetry.aggregates import Cohort
from model_server.telemetry.baseline import Frozen, from_document, make_baseline, to_document
from model_server.telemetry.drift import Day
from model_server.telemetry.intake import Intake
from model_server.telemetry.pooling import Monitored, days_of, monitored, pool
from model_server.telemetry.privacy import NoiseSource
from model_server.telemetry.reports import Mechanisms, Submission, admit
from model_server.telemetry.settings import TelemetrySettings
from model_server.telemetry.store import add_reports, close_days, decode_cells, erase_deleted
from model_server.telemetry.tables import BaselineRow, OpenCohortRow, SumRow
from model_server.telemetry.verdict import Approved, FleetDay, verdict

__all__ = ["TelemetryService"]


class TelemetryService:
    """One per process. `submit` belongs to one event loop; everything else may be called from any thread."""

    def __init__(
        self,
        engine: Engine,
        manifests: Callable[[str, int], Manifest | None],
        today: Callable[[], date],
        random: NoiseSource,
        settings: TelemetrySettings | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """``manifests`` maps a model and release to the published manifest, None if there is none. ``random`` must be
        ``random.SystemRandom()`` wherever real people's reports arrive. ``now`` is for the audit log."""
        self.settings = settings or TelemetrySettings()
        self._engine = engine
        self._manifests = manifests
        self._today = today
        self._now = now
        self._random = random
        self._mechanisms = Mechanisms(manifests)
        self._intake = Intake(self._store, self.settings.queue)
        self._swept: date | None = None
        self._closing = threading.Lock()

    async def submit(self, data: bytes) -> None:
        """Count one report; on return it is committed.

        Raises `MalformedRequest`, `ReportRefused`, `UnknownRelease`, `UnknownLayout`, `DuplicateReport` or
        `IngestBusy`.
        """
        await self._intake.submit(admit(data, self._today(), self.settings.late_days, self._mechanisms))

    def close_finished_days(self) -> list[date]:
        """Release and forget every day that takes no more reports. Cheap when there is none; call it at any time."""
        with self._closing:
            before = self._open_since()
            if self._swept == before:
                return []
            closed = close_days(
                self._engine, before, self._mechanisms, self._random, self.settings.epsilon, self.settings.delta
            )
            if erase_deleted(self._engine):  # also after a start: a crash may have come between
                self._swept = before
            return closed

    def days(self, model: str) -> dict[str, object]:
        """JSON of ``GET /v1/telemetry/{model}/days``: cohorts of closed days, and which days are open. Numbers of
        devices carry noise, and below the minimum cohort there are none."""
        self.close_finished_days()
        with reading(self._engine) as session:
            rows = _sums(session, model)
            open_days = session.execute(
                select(OpenCohortRow.day).where(OpenCohortRow.model == model).distinct().order_by(OpenCohortRow.day)
            ).scalars()
            return {
                "model": model,
                "mode": "central",
                "epsilon": self.settings.epsilon,
                "delta": self.settings.delta,
                "minimum_cohort": self.settings.minimum_cohort,
                "closed": [
                    {
                        "day": row.day.isoformat(),
                        "release": row.release,
                        "arm": ReportArm(row.arm).name.lower(),
                        "layout": row.layout,
                        "devices": self._shown(self._cohort(row).devices),
                    }
                    for row in rows
                ],
                "open": [day.isoformat() for day in open_days],
            }

    def approve_baseline(
        self, model: str, first: date, last: date, approved_by: str, actor: str = "server"
    ) -> dict[str, object]:
        """Freeze the closed days from ``first`` to ``last`` as the model's baseline. Returns what was frozen, with the
        gap between training and field. ``actor`` is whose key asked for it. Raises `BaselineRefused`."""
        self.close_finished_days()
        if first > last:
            raise BaselineRefused(f"the baseline would end on {last}, before it begins on {first}")
        if last >= self._open_since():
            raise BaselineRefused(f"{last} is not closed; the last closed day is {self._open_since() - _DAY}")
        with writing(self._engine, Lock(f"baseline {model}")) as session:
            rows = [row for row in _sums(session, model) if first <= row.day <= last]
            if not rows:
                raise BaselineRefused(f"no device reported on {model} from {first} to {last}")
            layout = self._heaviest_layout(rows)
            rows = [row for row in rows if row.layout == layout]
            releases = self._releases_with_weight(rows)
            wanted = self._monitored(model, max(releases), layout)
            days = [day for day in self._fleet_days(rows, wanted, releases) if day.histograms]
            if len(days) < self.settings.minimum_baseline_days:
                raise BaselineRefused(
                    f"{len(days)} of the days from {first} to {last} have {self.settings.minimum_cohort} devices or "
                    f"more; a baseline needs {self.settings.minimum_baseline_days}"
                )
            frozen = make_baseline(
                {day.day: day.histograms for day in days},
                wanted,
                releases,
                sum(day.devices for day in days),
                self.settings.drift,
            )
            session.add(
                BaselineRow(
                    model=model,
                    layout=layout,
                    first_day=first,
                    last_day=last,
                    approved_by=approved_by,
                    approved_on=self._today(),
                    document=to_document(frozen),
                )
            )
            detail = {"from": first.isoformat(), "to": last.isoformat(), "approved_by": approved_by, "layout": layout}
            audit.append(
                session, self._now(), actor=actor, action="drift.baseline_approved", subject=model, detail=detail
            )
        return _approval(model, approved_by, layout, frozen)

    def drift(self, model: str) -> dict[str, object]:
        """JSON of ``GET /v1/drift/{model}``, see `verdict`."""
        self.close_finished_days()
        with reading(self._engine) as session:
            row = session.execute(
                select(BaselineRow).where(BaselineRow.model == model).order_by(BaselineRow.id.desc()).limit(1)
            ).scalar_one_or_none()
            if row is None:
                return verdict(model, None, [], self.settings)
            frozen = from_document(row.document)
            wanted = self._monitored(model, max(frozen.releases), row.layout)
            later = [one for one in _sums(session, model) if one.day > row.last_day]
            rows = [one for one in later if one.layout == row.layout]
            unlike = sorted({one.release for one in later} - {one.release for one in rows})
            approved = Approved(
                approved_by=row.approved_by,
                first_day=row.first_day,
                last_day=row.last_day,
                frozen=frozen,
                wanted=wanted,
            )
            days = self._fleet_days(rows, wanted, frozen.releases)
            return verdict(model, approved, days, self.settings, sorted({one.release for one in rows}), unlike)

    def close(self) -> None:
        """Finish the transaction that runs."""
        self._intake.close()

    def _open_since(self) -> date:
        return self._today() - timedelta(days=self.settings.late_days)

    def _store(self, batch: Sequence[Submission]) -> list[ServerError | None]:
        self.close_finished_days()
        return add_reports(self._engine, batch, self._open_since)

    def _cohort(self, row: SumRow) -> Cohort:
        mechanism = self._mechanisms.by_digest(row.model, row.release, row.layout)
        return mechanism.read(decode_cells(row.cells), row.variance)

    def _shown(self, devices: float) -> int | None:
        return round(devices) if devices >= self.settings.minimum_cohort else None

    def _heaviest_layout(self, rows: Sequence[SumRow]) -> str:
        weights: dict[str, float] = {}
        for row in rows:
            weights[row.layout] = weights.get(row.layout, 0.0) + self._cohort(row).weight
        return max(weights, key=lambda layout: weights[layout])

    def _releases_with_weight(self, rows: Sequence[SumRow]) -> tuple[int, ...]:
        """Releases that reported enough on some day to be part of a baseline; else the one that reported most."""
        most: dict[int, float] = {}
        for row in rows:
            most[row.release] = max(most.get(row.release, -1.0), self._cohort(row).devices)
        enough = [release for release, devices in most.items() if devices >= self.settings.minimum_cohort]
        return tuple(sorted(enough)) or (max(most, key=lambda release: most[release]),)

    def _fleet_days(
        self, rows: Sequence[SumRow], wanted: Sequence[Monitored], releases: Sequence[int]
    ) -> list[FleetDay]:
        """Features over every release; predictions over the baseline's releases only, since another model may answer
        otherwise without any drift."""
        inputs = [one for one in wanted if not one.predicted]
        answers = [one for one in wanted if one.predicted]
        days: list[FleetDay] = []
        for day in sorted({row.day for row in rows}):
            cohorts = [(row.release, self._cohort(row)) for row in rows if row.day == day]
            whole = pool([cohort for _, cohort in cohorts])
            same = pool([cohort for release, cohort in cohorts if release in releases])
            histograms: dict[str, Day] = {}
            if whole is not None and self._large(whole):
                histograms.update(days_of(whole, inputs))
            if same is not None and self._large(same):
                histograms.update(days_of(same, answers))
            devices = max((round(one.devices) for one in (whole, same) if one is not None), default=0)
            days.append(FleetDay(day=day, devices=devices, histograms=histograms))
        return days

    def _large(self, cohort: Cohort) -> bool:
        return cohort.devices >= self.settings.minimum_cohort and cohort.weight > 0

    def _monitored(self, model: str, release: int, layout: str) -> tuple[Monitored, ...]:
        manifest = self._manifests(model, release)
        if manifest is None:
            raise UnknownRelease(f"{model} has no published release {release}")
        return monitored(manifest, _artifact(manifest, layout))


_DAY = timedelta(days=1)


def _sums(session: Session, model: str) -> list[SumRow]:
    query = select(SumRow).where(SumRow.model == model).order_by(SumRow.day, SumRow.release, SumRow.arm)
    return list(session.execute(query).scalars())


def _artifact(manifest: Manifest, layout: str) -> Artifact:
    for artifact in manifest.artifacts:
        if Layout.of(artifact).digest.hex() == layout:
            return artifact
    raise UnknownLayout(f"{manifest.model} {manifest.release} has no artifact with telemetry layout {layout}")


def _approval(model: str, approved_by: str, layout: str, frozen: Frozen) -> dict[str, object]:
    return {
        "model": model,
        "approved_by": approved_by,
        "layout": layout,
        "days": [day.isoformat() for day in frozen.days],
        "devices": frozen.devices,
        "releases": list(frozen.releases),
        "training_gap": {name: round(gap, 4) for name, gap in frozen.training_gap.items()},
        "tolerance": {name: round(one.tolerance, 5) for name, one in frozen.histograms.items()},
        "unsteady": list(frozen.unsteady),
    }
