"""Two processes on one database do the same things at the same moment, and nothing is lost, doubled or mixed up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select
from tuf.api.metadata import Metadata, Targets

from model_server.access.credentials import CredentialRow
from model_server.audit import log as audit
from model_server.audit.tables import AuditRow
from model_server.clock import SystemClock
from model_server.db.base import open_engine, reading, writing
from model_server.installation import open_publisher
from model_server.releases.jobs.store import JobStore, Options
from model_server.releases.jobs.tables import JobState
from model_server.rollouts.tables import ArmRow, EventRow, RolloutDeviceRow, RolloutRow
from model_server.signing.keys import open_signer
from model_server.signing.roles import releases_role
from model_server.telemetry.store import decode_cells
from model_server.telemetry.tables import DailyIdRow, OpenCohortRow, SumRow
from tests.support import two_servers
from tests.support.postgres import Cluster
from tests.support.server import PASSPHRASE, SteppedClock, key_file, make_bundle, make_folder
from tests.support.two_servers import BATCHES, DEVICES, REPORTS, Pair


@pytest.fixture(scope="module")
def servers() -> Iterator[Pair]:
    with two_servers.pair() as pair:
        yield pair


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    engine = open_engine(database)
    yield engine
    engine.dispose()


def test_two_that_start_at_once_make_one_schema(servers: Pair, postgres: Cluster) -> None:
    name = postgres.empty()
    assert servers.do("migrate", address=postgres.address(name)) == (None, None)
    assert servers.do("log_entries", address=postgres.address(name), given=1) == (None, None)
    postgres.drop(name)


def test_what_names_no_lock_excludes_everything(servers: Pair, engine: Engine, database: str) -> None:
    with writing(engine) as session:
        session.add(CredentialRow(digest="counter", kind="admin", name="0", created=datetime.now(UTC)))
    servers.do("count_up", address=database, given=25)
    with reading(engine) as session:
        assert session.execute(select(CredentialRow.name)).scalar_one() == "50"


def test_the_audit_log_stays_one_chain(servers: Pair, engine: Engine, database: str) -> None:
    servers.do("log_entries", address=database, given=25)
    with reading(engine) as session:
        assert audit.verify(session) == 50
        own = dict(session.execute(select(AuditRow.actor, func.count()).group_by(AuditRow.actor)).all())  # type: ignore[arg-type]
    assert own == {"server 0": 25, "server 1": 25}


def test_a_report_that_reaches_both_counts_once(servers: Pair, engine: Engine, database: str) -> None:
    two_servers.start(engine)
    counted = sum(servers.do("report_outcomes", address=database))
    assert counted == (DEVICES + 2) * REPORTS
    with reading(engine) as session:
        rollout = session.execute(select(RolloutRow)).scalar_one()
        assert (rollout.reports, rollout.candidate_reports) == (counted, counted)
        arm = session.execute(select(ArmRow)).scalar_one()
        assert (arm.requests, arm.errors) == (10 * counted, counted)
        assert json.loads(arm.latency_device) == {"100": 7 * counted, "101": 3 * counted}
        devices = session.execute(select(RolloutDeviceRow.requests)).scalars().all()
    assert devices == [10 * REPORTS] * (DEVICES + 2)


def test_a_rollout_is_started_and_ended_once_whoever_decides(servers: Pair, engine: Engine, database: str) -> None:
    two_servers.start(engine)
    answers = servers.do("decide", address=database)
    done = {action: sum(answer[action] for answer in answers) for action in answers[0]}
    done["start"] += 1  # the one above
    with reading(engine) as session:
        rows = session.execute(select(RolloutRow).order_by(RolloutRow.number)).scalars().all()
        assert [row.number for row in rows] == list(range(1, done["start"] + 1))
        for action, event in (("start", "started"), ("halt", "halted"), ("rollback", "rolled_back")):
            events = session.execute(
                select(EventRow.rollout, func.count()).where(EventRow.event == event).group_by(EventRow.rollout)
            ).all()
            assert {count for _, count in events} == {1}
            assert len(events) == done[action]
        assert audit.verify(session) == sum(done.values())


def test_reports_go_on_while_a_rollout_is_decided(servers: Pair, engine: Engine, database: str) -> None:
    two_servers.start(engine)
    counted, done = servers.do("report_outcomes", "decide", address=database)
    assert counted == (DEVICES + 1) * REPORTS
    with reading(engine) as session:
        assert session.execute(select(func.sum(RolloutRow.reports))).scalar_one() == counted
        assert audit.verify(session) == 1 + sum(done.values())
        first = select(ArmRow.requests).where(ArmRow.rollout == "exercise-stable-1")
        before, in_arm = (
            session.execute(select(RolloutRow.candidate_reports).order_by(RolloutRow.number).limit(1)).scalar_one(),
            session.execute(first).scalar_one_or_none() or 0,
        )
    assert in_arm == 10 * before


def test_a_signature_that_both_bring_is_kept_once_and_one_of_them_publishes(
    servers: Pair, engine: Engine, database: str, tmp_path: Path
) -> None:
    settings = make_folder(tmp_path / "server")
    service = two_servers.releases(engine, settings.directory)
    delegating = open_publisher(settings, SystemClock()).repository.top_level_targets().signed
    keys = [delegating.get_key(keyid) for keyid in delegating.get_delegated_role(releases_role("exercise")).keyids]
    signers = [open_signer(key_file(settings, "releases", person), PASSPHRASE, keys) for person in ("alice", "bob")]
    last = 3
    for release in range(1, last + 1):
        bundle = make_bundle(tmp_path / f"{release}.bundle", release)
        service.stage(bundle, ((0, 100_000_000),), "admin")
        proposal = Metadata[Targets].from_bytes(service.proposal("exercise", release))
        signatures = [Metadata(proposal.signed).sign(signer) for signer in signers]
        given = {
            "folder": str(settings.directory),
            "release": release,
            "signatures": [(signature.keyid, signature.signature) for signature in signatures],
        }
        servers.do("sign", address=database, given=given)
        assert [known.person for known in service.show("exercise", release).signatures] == ["alice", "bob"]
        if release != last:
            service.withdraw("exercise", release, "admin")
    servers.do("publish", address=database, given=given)
    with reading(engine) as session:
        entries = session.execute(select(AuditRow.action, func.count()).group_by(AuditRow.action)).all()
        assert audit.verify(session) == 4 * last
    assert dict(entries) == {  # type: ignore[arg-type]
        "release.staged": last,
        "release.signed": 2 * last,
        "release.withdrawn": last - 1,
        "release.published": 1,
    }


def test_a_job_that_both_could_run_is_run_by_one(servers: Pair, engine: Engine, database: str) -> None:
    jobs, clock = [f"job-{number}" for number in range(8)], SteppedClock()
    clock.advance(days=-1)
    gone = JobStore(engine, clock, "gone", lambda error: {})
    for job in jobs:
        gone.add(job, job, 5, Options(ceiling=((0, 1),)), "admin")
    first, second = servers.do("take_jobs", address=database, given=jobs)
    assert sorted(first + second) == jobs
    assert {(info.state, info.starts) for info in gone.list()} == {(JobState.DONE, 1)}


def test_telemetry_that_reaches_both_counts_once_and_one_of_them_closes_its_day(
    servers: Pair, engine: Engine, database: str
) -> None:
    day = date(2026, 3, 2)
    assert sum(servers.do("add_telemetry", address=database, given=day.isoformat())) == 5 * BATCHES
    with reading(engine) as session:
        sums = decode_cells(session.execute(select(OpenCohortRow.sums)).scalar_one())
        assert sums[-1] == 5 * BATCHES * 1024
        assert session.execute(select(func.count()).select_from(DailyIdRow)).scalar_one() == 5 * BATCHES
    assert sorted(servers.do("close_telemetry", address=database, given=day.isoformat())) == [0, 1]
    with reading(engine) as session:
        assert session.execute(select(SumRow.day)).scalars().all() == [day]
        assert session.execute(select(func.count()).select_from(DailyIdRow)).scalar_one() == 0
