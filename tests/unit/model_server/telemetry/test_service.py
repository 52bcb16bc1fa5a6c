from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import func, select

from edge_runtime.bundle import Feature
from edge_runtime.bundle.manifest import Reference
from edge_runtime.telemetry.wire import PrivacyMode, ReportArm
from model_server.db.base import reading
from model_server.errors import (
    BaselineRefused,
    DuplicateReport,
    MalformedRequest,
    ReportRefused,
    UnknownLayout,
    UnknownRelease,
)
from model_server.telemetry.settings import TelemetrySettings
from model_server.telemetry.store import decode_cells
from model_server.telemetry.tables import DailyIdRow, OpenCohortRow, SumRow
from tests.support.postgres import Cluster
from tests.support.watch_fleet import WatchFleet, manifest, reports
from tests.unit.model_server.telemetry.world import World


@pytest.fixture(params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    database = None if request.param == "sqlite" else request.getfixturevalue("postgres_database")
    world = World(tmp_path, database=database)
    yield world
    world.engine.dispose()


on_sqlite = pytest.mark.parametrize("world", ["sqlite"], indirect=True)


def counted(world: World) -> int:
    """Devices in all open cohorts, from the exact sums."""
    with reading(world.engine) as session:
        rows = session.execute(select(OpenCohortRow)).scalars().all()
        return sum(int(decode_cells(row.sums)[-1]) for row in rows) // 1024


def ids(world: World) -> int:
    with reading(world.engine) as session:
        return session.execute(select(func.count()).select_from(DailyIdRow)).scalar_one()


def test_reports_are_summed_by_cohort(world: World) -> None:
    rows = WatchFleet(20, 1).day()
    assert world.take(reports(rows[:12], world.day)) == [None] * 12
    assert world.take(reports(rows[12:15], world.day, arm=ReportArm.HOLDBACK)) == [None] * 3
    assert world.take(reports(rows[15:], world.day, release=3)) == [None] * 5
    with reading(world.engine) as session:
        cohorts = {
            (row.release, row.arm): decode_cells(row.sums)[-1] // 1024 for row in session.scalars(select(OpenCohortRow))
        }
    assert cohorts == {(2, 0): 12, (2, 3): 3, (3, 0): 5}


def test_batches_add_up_to_what_one_batch_would_be(world: World, tmp_path: Path) -> None:
    rows = WatchFleet(30, 1).day()
    world.take(reports(rows[:10], world.day))
    world.take(reports(rows[10:], world.day))
    (tmp_path / "other").mkdir()
    other = World(tmp_path / "other")
    other.take(reports(rows, other.day))

    def sums(world: World) -> bytes:
        with reading(world.engine) as session:
            return session.execute(select(OpenCohortRow.sums)).scalar_one()

    assert sums(world) == sums(other)


def test_artifacts_with_the_same_features_share_a_cohort(world: World) -> None:
    rows = WatchFleet(4, 1).day()
    world.take([*reports(rows[:2], world.day), *reports(rows[2:], world.day, kind="tflite/int8")])
    with reading(world.engine) as session:
        assert session.execute(select(func.count()).select_from(OpenCohortRow)).scalar_one() == 1


def test_a_repeated_daily_id_is_refused_also_in_one_batch_and_after_a_restart(world: World) -> None:
    first, second = reports(WatchFleet(2, 1).day(), world.day)
    answers = world.take([first, second, first])
    assert answers[:2] == [None, None]
    assert isinstance(answers[2], DuplicateReport)
    assert isinstance(world.refusal(second), DuplicateReport)
    world.service = world.new_service()
    assert isinstance(world.refusal(first), DuplicateReport)
    assert counted(world) == 2


def test_the_same_random_id_on_another_day_is_another_report(world: World) -> None:
    (report,) = reports(WatchFleet(1, 1).day(), world.day)
    world.take([report])
    world.turn()
    later = report[:10] + world.day.to_bytes(4, "big") + report[14:]
    assert world.take([later]) == [None]


def test_every_way_to_be_wrong_has_its_name(world: World) -> None:
    rows = WatchFleet(1, 1).day()
    (good,) = reports(rows, world.day)
    assert isinstance(world.refusal(b""), MalformedRequest)
    assert isinstance(world.refusal(good[:-1]), MalformedRequest)
    assert isinstance(world.refusal(good + b"\0"), MalformedRequest)
    assert isinstance(world.refusal(b"X" + good[1:]), MalformedRequest)
    assert isinstance(world.refusal(good[:40]), MalformedRequest)
    assert isinstance(world.refusal(bytes(9000)), MalformedRequest)
    start = len(good) - rows.shape[1]
    assert isinstance(world.refusal(good[:start] + b"\x19" + good[start + 1 :]), MalformedRequest)
    for mode in (PrivacyMode.OFF, PrivacyMode.PLAIN, PrivacyMode.LOCAL):
        assert isinstance(world.refusal(reports(rows, world.day, mode=mode)[0]), ReportRefused)
    for day in (world.day - 1, world.day + 1, 0, 2**31 - 1):
        assert isinstance(world.refusal(reports(rows, day)[0]), ReportRefused)
    assert isinstance(world.refusal(reports(rows, world.day, release=99)[0]), UnknownRelease)
    assert isinstance(world.refusal(reports(rows, world.day, model="other")[0]), UnknownRelease)
    assert isinstance(world.refusal(reports(rows, world.day, kind="coreml/int8")[0]), UnknownLayout)
    digest = start - 8
    assert isinstance(world.refusal(good[:digest] + bytes(8) + good[start:]), UnknownLayout)
    assert counted(world) == 0
    assert ids(world) == 0


def test_a_broken_report_in_a_batch_leaves_the_others_counted(world: World) -> None:
    rows = WatchFleet(3, 1).day()
    batch = reports(rows, world.day)
    start = len(batch[1]) - rows.shape[1]
    batch[1] = batch[1][:start] + b"\x19" + batch[1][start + 1 :]
    answers = world.take(batch)
    assert [type(answer) for answer in answers] == [type(None), MalformedRequest, type(None)]
    assert counted(world) == 2


def test_a_release_that_is_published_later_is_then_known(world: World) -> None:
    rows = WatchFleet(1, 1).day()
    (report,) = reports(rows, world.day, release=7)
    assert isinstance(world.refusal(report), UnknownRelease)
    world.manifests["exercise", 7] = manifest(release=7)
    assert world.take([report]) == [None]


def test_a_day_closes_once_with_noise_and_forgets_the_exact_sums_and_ids(world: World) -> None:
    world.take(reports(WatchFleet(600, 1).day(), world.day))
    with reading(world.engine) as session:
        exact = decode_cells(session.execute(select(OpenCohortRow.sums)).scalar_one())
    assert world.service.close_finished_days() == []
    world.turn()
    assert len(world.service.close_finished_days()) == 1
    assert world.service.close_finished_days() == []
    assert world.new_service().close_finished_days() == []
    assert counted(world) == 0
    assert ids(world) == 0
    with reading(world.engine) as session:
        row = session.execute(select(SumRow)).scalar_one()
        difference = decode_cells(row.cells) - exact
        assert (row.epsilon, row.delta) == (1.0, 1e-6)
        assert np.mean(difference != 0) > 0.99
        assert np.mean(difference.astype(float) ** 2) == pytest.approx(row.variance, rel=0.3)


@on_sqlite
def test_nothing_of_an_exact_sum_or_an_id_is_left_in_the_files(world: World) -> None:
    batch = reports(WatchFleet(50, 1).day(), world.day)
    world.take(batch)
    with reading(world.engine) as session:
        exact = session.execute(select(OpenCohortRow.sums)).scalar_one()
    needles = [exact[64:128], *(report[14:30] for report in batch)]

    def on_disk() -> bytes:
        return b"".join(file.read_bytes() for file in world.path.parent.iterdir() if file.name.startswith("telemetry"))

    assert all(needle in on_disk() for needle in needles)
    world.turn()
    world.service.close_finished_days()
    assert not any(needle in on_disk() for needle in needles)


@on_sqlite
def test_the_log_is_emptied_later_if_somebody_reads_while_a_day_closes(world: World) -> None:
    world.take(reports(WatchFleet(5, 1).day(), world.day))
    with reading(world.engine) as session:
        exact = session.execute(select(OpenCohortRow.sums)).scalar_one()
    world.turn()
    log = world.path.with_name("telemetry.db-wal")
    with reading(world.engine) as session:
        assert session.execute(select(OpenCohortRow)).scalars().all()
        assert len(world.service.close_finished_days()) == 1
        assert exact[64:128] in world.path.read_bytes() + log.read_bytes()
    world.service.close_finished_days()
    assert exact[64:128] not in world.path.read_bytes() + log.read_bytes()


@on_sqlite
def test_the_log_is_emptied_by_the_next_start_after_a_crash_between(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.take(reports(WatchFleet(5, 1).day(), world.day))
    with reading(world.engine) as session:
        exact = session.execute(select(OpenCohortRow.sums)).scalar_one()
    world.turn()
    with monkeypatch.context() as patch:
        patch.setattr("model_server.telemetry.service.erase_deleted", lambda engine: False)
        world.service.close_finished_days()
    log = world.path.with_name("telemetry.db-wal")
    assert exact[64:128] in world.path.read_bytes() + log.read_bytes()
    assert world.new_service().close_finished_days() == []
    assert exact[64:128] not in world.path.read_bytes() + log.read_bytes()


def test_nothing_of_an_exact_sum_or_an_id_is_left_in_postgresqls_tables(
    postgres: Cluster, postgres_database: str, tmp_path: Path
) -> None:
    world = World(tmp_path, database=postgres_database)
    batch = reports(WatchFleet(50, 1).day(), world.day)
    world.take(batch)
    with reading(world.engine) as session:
        exact = session.execute(select(OpenCohortRow.sums)).scalar_one()
        path = session.execute(select(func.pg_relation_filepath("telemetry_ids"))).scalar_one()
    needles = [exact[64:96], *(report[14:30] for report in batch)]
    folder = (postgres.socket / "data" / path).parent

    def on_disk() -> bytes:
        postgres.execute("CHECKPOINT")
        return b"".join(file.read_bytes() for file in folder.iterdir() if file.is_file())

    before = on_disk()
    assert all(needle in before for needle in needles[1:])  # a sum may be compressed
    world.turn()
    world.service.close_finished_days()
    after = on_disk()
    assert not any(needle in after for needle in needles)
    world.engine.dispose()


@pytest.mark.parametrize("why", ["the clock stepped back", "more late days were allowed"])
def test_a_day_that_was_released_never_opens_again(world: World, why: str) -> None:
    rows = WatchFleet(3, 1).day()
    first = world.day
    world.take(reports(rows[:2], first))
    world.turn()
    assert len(world.service.close_finished_days()) == 1
    if why == "the clock stepped back":
        world.turn(-1)
    else:
        world.settings = TelemetrySettings(late_days=3)
    world.service = world.new_service()
    assert isinstance(world.refusal(reports(rows[2:], first)[0]), ReportRefused)
    world.turn(9)
    world.service.close_finished_days()
    with reading(world.engine) as session:
        assert len(session.execute(select(SumRow)).scalars().all()) == 1


@on_sqlite
def test_no_report_is_ever_written_to_disk(world: World) -> None:
    batch = reports(WatchFleet(50, 1).day(), world.day)
    world.take(batch)
    data = b"".join(file.read_bytes() for file in world.path.parent.iterdir())
    assert not any(report[-400:] in data or report[60:200] in data for report in batch)


def test_a_report_that_was_admitted_before_its_day_closed_is_refused_after(world: World) -> None:
    from model_server.telemetry.reports import admit

    batch = [
        admit(data, world.today, 0, world.service._mechanisms) for data in reports(WatchFleet(1, 1).day(), world.day)
    ]
    world.turn()
    (answer,) = world.service._store(batch)
    assert isinstance(answer, ReportRefused)


def test_by_default_a_day_is_reported_on_the_next_one_and_closes_after_it(tmp_path: Path) -> None:
    world = World(tmp_path, TelemetrySettings())
    rows = WatchFleet(2, 1).day()
    yesterday = world.day
    world.take(reports(rows[:1], yesterday))
    world.turn()
    assert world.service.close_finished_days() == []
    assert world.take(reports(rows[1:], yesterday)) == [None]
    world.turn()
    assert len(world.service.close_finished_days()) == 1
    assert isinstance(world.refusal(reports(rows, yesterday)[0]), ReportRefused)


def test_days_tell_noised_numbers_only_above_the_minimum_cohort(world: World) -> None:
    world.take(reports(WatchFleet(700, 1).day(), world.day))
    world.take(reports(WatchFleet(100, 2).day(), world.day, arm=ReportArm.HOLDBACK))
    closed_day = world.today.isoformat()
    world.turn()
    world.take(reports(WatchFleet(1, 3).day(), world.day))
    told = world.service.days("exercise")
    large, small = told["closed"]  # type: ignore[misc]
    assert large["day"] == closed_day
    assert large["devices"] == pytest.approx(700, abs=150)
    assert (small["arm"], small["devices"]) == ("holdback", None)
    assert told["open"] == [world.today.isoformat()]
    assert world.service.days("nobody")["closed"] == []


@on_sqlite  # what is computed is the same on both
class TestDrift:
    """2,000 devices through the whole service."""

    def live(self, world: World, fleet: WatchFleet, days: int, **turned: object) -> None:
        for _ in range(days):
            assert not any(world.take(reports(fleet.day(**turned), world.day)))  # type: ignore[arg-type]
            world.turn()

    def test_before_a_baseline_the_verdict_says_that_there_is_none(self, world: World) -> None:
        self.live(world, WatchFleet(600, 1, windows=10), 1)
        told = world.service.drift("exercise")
        assert told["baseline"] == {"approved": False, "days": [], "devices": None}
        assert told["alarm"] is False
        assert "no baseline" in str(told["cannot_see"])

    def test_a_steady_fleet_stays_silent_and_a_turned_watch_is_named(self, world: World) -> None:
        fleet = WatchFleet(2000, 1)
        first = world.today
        self.live(world, fleet, 14)
        approval = world.service.approve_baseline("exercise", first, world.today.replace(day=15), "Alice")
        assert len(approval["days"]) == 14  # type: ignore[arg-type]
        assert approval["devices"] == pytest.approx(28_000, rel=0.01)
        assert approval["releases"] == [2]
        assert approval["unsteady"] == []
        # The training subjects are seven of the ten in the field: a gap, and no reason for an alarm.
        assert set(approval["training_gap"]) == {"ax", "ay", "az", "gx", "gy", "gz", "classes", "confidence"}  # type: ignore[arg-type]
        assert max(approval["training_gap"].values()) > 0.02  # type: ignore[attr-defined]

        self.live(world, fleet, 7)
        told = world.service.drift("exercise")
        assert told["alarm"] is False
        assert told["features"] == []
        assert told["since"] is None
        assert len(told["days"]) == 7  # type: ignore[arg-type]
        assert "14 days" in str(told["cannot_see"])

        turned_on = world.today
        self.live(world, fleet, 3, turned=fleet.choose(0.8), axis="az")
        told = world.service.drift("exercise")
        assert told["alarm"] is True
        assert told["since"] == turned_on.isoformat()
        assert told["features"][0] == "az"  # type: ignore[index]
        last = told["days"][-1]  # type: ignore[index]
        assert last["alarm"] is True
        assert last["statistic"]["az"] > 1 > last["statistic"]["gy"]
        assert last["evidence"]["az"] > 10

        # The watches stay turned, a person accepts it: a new baseline ends the alarm.
        self.live(world, fleet, 4, turned=fleet.choose(0.8), axis="az")
        world.service.approve_baseline("exercise", turned_on, world.today.replace(day=world.today.day - 1), "Bob")
        told = world.service.drift("exercise")
        assert told["alarm"] is False
        assert told["baseline"]["approved_by"] == "Bob"  # type: ignore[index]

    def test_a_cohort_that_is_too_small_gives_no_number(self, world: World) -> None:
        first = world.today
        self.live(world, WatchFleet(600, 1, windows=10), 7)
        world.service.approve_baseline("exercise", first, world.today.replace(day=8), "Alice")
        self.live(world, WatchFleet(200, 1, windows=10), 2)
        told = world.service.drift("exercise")
        for day in told["days"]:  # type: ignore[attr-defined]
            assert day["devices"] is None
            assert day["statistic"] == {}
            assert day["evidence"] == {}
            assert day["alarm"] is False
        assert "fewer than 500" in str(told["cannot_see"])

    def test_features_are_compared_over_all_releases_and_predictions_over_the_baselines(self, world: World) -> None:
        fleet = WatchFleet(1200, 1, windows=10)
        first = world.today
        self.live(world, fleet, 7)
        world.service.approve_baseline("exercise", first, world.today.replace(day=8), "Alice")
        world.take(reports(fleet.day(), world.day, release=3, arm=ReportArm.CANDIDATE))
        world.turn()
        told = world.service.drift("exercise")
        (day,) = told["days"]  # type: ignore[misc]
        assert set(day["statistic"]) == {"ax", "ay", "az", "gx", "gy", "gz"}
        assert "release(s) 3" in str(told["cannot_see"])

    def test_a_baseline_needs_closed_days_with_enough_devices(self, world: World) -> None:
        first = world.today
        with pytest.raises(BaselineRefused, match="not closed"):
            world.service.approve_baseline("exercise", first, first, "Alice")
        world.turn(10)
        with pytest.raises(BaselineRefused, match="before it begins"):
            world.service.approve_baseline("exercise", world.today, first, "Alice")
        with pytest.raises(BaselineRefused, match="no device reported"):
            world.service.approve_baseline("exercise", first, first, "Alice")
        self.live(world, WatchFleet(600, 1, windows=5), 2)
        with pytest.raises(BaselineRefused, match="2 of the days"):
            world.service.approve_baseline("exercise", first, world.today.replace(day=world.today.day - 1), "Alice")

    def test_a_release_with_other_edges_is_another_baselines_business(self, world: World) -> None:
        fleet = WatchFleet(600, 1, windows=10)
        first = world.today
        self.live(world, fleet, 7)
        world.service.approve_baseline("exercise", first, world.today.replace(day=8), "Alice")
        shifted = _with_other_edges()
        world.manifests["exercise", 4] = shifted
        from edge_runtime.telemetry.layout import Layout

        digest = Layout.of(shifted.artifacts[0]).digest
        rows = fleet.day()
        moved = [
            report[: len(report) - rows.shape[1] - 8] + digest + report[len(report) - rows.shape[1] :]
            for report in reports(rows, world.day, release=4)
        ]
        assert not any(world.take(moved))
        world.turn()
        told = world.service.drift("exercise")
        assert told["days"] == []
        assert "Release(s) 4: their histograms are not the baseline's" in str(told["cannot_see"])


def _with_other_edges():  # type: ignore[no-untyped-def]
    source = manifest(release=4)
    reference = source.artifacts[0].reference
    assert reference is not None
    features: tuple[Feature, ...] = tuple(
        replace(one, edges=tuple(edge + 0.5 for edge in one.edges)) for one in reference.features
    )
    other: Reference = replace(reference, features=features)
    return replace(source, artifacts=(replace(source.artifacts[0], reference=other),))


def test_noise_comes_from_the_source_that_was_given(tmp_path: Path) -> None:
    def released(seed: int, name: str) -> bytes:
        (tmp_path / name).mkdir()
        world = World(tmp_path / name, seed=seed)
        rows = WatchFleet(10, 1).day()
        world.take(reports(rows, world.day))
        world.turn()
        world.service.close_finished_days()
        with reading(world.engine) as session:
            return session.execute(select(SumRow.cells)).scalar_one()

    assert released(5, "a") == released(5, "b")
    assert released(5, "c") != released(6, "d")
    assert isinstance(random.SystemRandom().randrange(10), int)
