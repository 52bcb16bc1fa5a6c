"""Who may run a job, and how it ends, on both databases and with time in the test's hands."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from model_server.db.base import open_engine, writing
from model_server.errors import JobConflict, JobQueueFull, UnknownJob
from model_server.releases.jobs.store import KEPT, MAX_OPEN, MAX_STARTS, STALE, JobStore, Options
from model_server.releases.jobs.tables import JobState
from tests.support.server import SteppedClock

EVERYBODY = Options(ceiling=((0, 100_000_000),))
NOBODY = Options(ceiling=((0, 0),))


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    engine = open_engine(database)
    yield engine
    engine.dispose()


class Servers:
    """Two that share a database, and a clock."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.clock = engine, SteppedClock()
        self.first, self.second = (JobStore(engine, self.clock, name, problem) for name in ("first", "second"))


def problem(error: Exception) -> dict[str, Any]:
    return {"status": 500, "detail": str(error)}


@pytest.fixture
def servers(engine: Engine) -> Servers:
    return Servers(engine)


def finish(store: JobStore, engine: Engine, job: str) -> bool:
    with writing(engine) as session:
        return store.done(session, job)


def add(store: JobStore, job: str, bundle: str | None = None, options: Options = EVERYBODY) -> str:
    return store.add(job, bundle or f"bundle {job}", 5, options, "admin").id


def test_the_oldest_job_is_run_first_and_only_where_its_upload_is(servers: Servers) -> None:
    for job in "cab":
        add(servers.first, job)
        servers.clock.advance(seconds=1)
    assert servers.second.take(set()) is None
    taken = servers.first.take({"a", "b"})
    assert taken is not None
    assert (taken.id, taken.state, taken.starts) == ("a", JobState.RUNNING, 1)


def test_a_job_is_taken_from_nobody_who_goes_on_with_it(servers: Servers) -> None:
    """Two that have the same upload, as after copying a server's folder."""
    add(servers.first, "a")
    assert servers.second.take({"a"}) is None
    assert servers.first.take({"a"}) is not None
    servers.clock.advance(seconds=STALE.total_seconds() - 1)
    assert servers.first.hear({"a"}) == set()
    servers.clock.advance(seconds=STALE.total_seconds() - 1)
    assert servers.second.take({"a"}) is None
    servers.clock.advance(seconds=2)
    taken = servers.second.take({"a"})
    assert taken is not None
    assert (taken.server, taken.starts) == ("second", 2)
    assert not finish(servers.first, servers.engine, "a"), "who was away is not who ends it"
    servers.first.failed("a", {"status": 500})
    assert servers.first.get("a").state is JobState.RUNNING
    assert finish(servers.second, servers.engine, "a")


def test_a_server_that_died_has_its_job_again_at_once(servers: Servers) -> None:
    add(servers.first, "a")
    servers.first.take({"a"})
    again = servers.first.take({"a"})
    assert again is not None
    assert again.starts == 2


def test_a_bundle_that_takes_the_server_down_each_time_is_given_up(servers: Servers) -> None:
    add(servers.first, "a")
    for _ in range(MAX_STARTS):
        assert servers.first.take({"a"}) is not None
    assert servers.first.take({"a"}) is None
    found = servers.first.get("a")
    assert found.state is JobState.FAILED
    assert found.problem is not None
    assert f"begun {MAX_STARTS} times" in found.problem["detail"]


def test_a_server_that_only_stops_often_loses_no_job(servers: Servers) -> None:
    add(servers.first, "a")
    for _ in range(MAX_STARTS + 1):
        assert servers.first.take({"a"}) is not None
        servers.first.stopped("a")
        assert servers.first.get("a").state is JobState.WAITING


def test_an_upload_that_is_gone_fails_its_job_when_nobody_can_have_it_any_more(servers: Servers) -> None:
    add(servers.first, "a")
    servers.first.sweep(set())
    servers.clock.advance(seconds=STALE.total_seconds() + 1)
    servers.second.sweep(set())
    assert servers.first.get("a").state is JobState.WAITING, "that is not the second's to say"
    servers.first.sweep({"a"})
    assert servers.first.get("a").state is JobState.WAITING
    servers.first.sweep(set())
    found = servers.first.get("a")
    assert found.state is JobState.FAILED
    assert found.problem is not None
    assert "stage it again" in found.problem["detail"]


def test_the_same_bundle_joins_its_open_job_and_nothing_else_does(servers: Servers) -> None:
    assert add(servers.first, "a", "bundle") == "a"
    assert add(servers.first, "b", "bundle") == "a"
    assert add(servers.second, "c", "bundle") == "a"
    assert add(servers.first, "d", "bundle", NOBODY) == "d"
    assert add(servers.first, "e", "another") == "e"
    servers.first.take({"a"})
    servers.first.cancel("a")
    assert add(servers.first, "f", "bundle") == "f", "one that is being cancelled stages nothing"
    servers.first.stopped("a")
    assert servers.first.get("a").state is JobState.CANCELLED


def test_a_server_that_does_not_come_back_holds_nobody_up(servers: Servers) -> None:
    add(servers.first, "a", "bundle")
    servers.clock.advance(seconds=STALE.total_seconds() + 1)
    assert add(servers.second, "b", "bundle") == "b"
    found = servers.first.get("a")
    assert found.problem is not None
    assert "first" in found.problem["detail"]


def test_a_server_takes_no_more_than_it_has_room_for(servers: Servers) -> None:
    for number in range(MAX_OPEN):
        servers.first.check_room(1)
        add(servers.first, f"{number}")
    for more in (lambda: servers.first.check_room(1), lambda: add(servers.first, "more")):
        with pytest.raises(JobQueueFull, match=str(MAX_OPEN)):
            more()
    assert add(servers.first, "again", "bundle 0") == "0", "what joins needs no room"
    assert add(servers.second, "elsewhere") == "elsewhere"


def test_cancelling_ends_what_waits_at_once_and_tells_who_runs_it(servers: Servers) -> None:
    add(servers.first, "a")
    assert servers.second.cancel("a").state is JobState.CANCELLED
    add(servers.first, "b")
    servers.first.take({"b"})
    asked = servers.second.cancel("b")
    assert (asked.state, asked.cancelling) == (JobState.RUNNING, True)
    assert servers.first.hear({"b"}) == {"b"}
    assert not finish(servers.first, servers.engine, "b"), "what was accepted holds"
    servers.first.stopped("b")
    assert servers.first.get("b").state is JobState.CANCELLED
    with pytest.raises(JobConflict, match="cancelled already"):
        servers.first.cancel("b")
    with pytest.raises(UnknownJob):
        servers.first.cancel("none")


def test_a_job_that_was_being_cancelled_when_its_server_died_is_cancelled(servers: Servers) -> None:
    add(servers.first, "a")
    servers.first.take({"a"})
    servers.first.cancel("a")
    assert servers.first.take({"a"}) is None
    assert servers.first.get("a").state is JobState.CANCELLED


def test_a_job_whose_server_is_gone_can_be_cancelled(servers: Servers) -> None:
    add(servers.first, "a")
    servers.first.take({"a"})
    servers.clock.advance(seconds=STALE.total_seconds() + 1)
    assert servers.second.cancel("a").state is JobState.CANCELLED


def test_what_ended_is_forgotten_after_a_while(servers: Servers) -> None:
    add(servers.first, "a")
    servers.first.cancel("a")
    servers.clock.advance(seconds=(KEPT - timedelta(minutes=1)).total_seconds())
    add(servers.first, "b")
    assert [info.id for info in servers.first.list()] == ["b", "a"]
    servers.clock.advance(minutes=2)
    add(servers.first, "c")
    assert [info.id for info in servers.first.list()] == ["c", "b"]
    assert servers.first.ended({"a", "b", "none"}) == {"a", "none"}
