"""Versions and expiries of published roles: right after every publication, and read once."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from model_server.errors import RepositoryDamaged
from model_server.installation import open_publisher
from model_server.signing.published import PublishedRoles, renewal_due
from model_server.signing.publisher import Publisher
from model_server.signing.repository import METADATA
from model_server.signing.roles import Expiry
from tests.support.plans import PLAN
from tests.support.server import SteppedClock, make_folder

DELEGATED = ("releases-exercise", "rollouts-exercise", "releases-gesture", "rollouts-gesture")
ONLINE = ("snapshot", "timestamp", "rollouts-exercise", "rollouts-gesture")


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def publisher(tmp_path: Path, clock: SteppedClock) -> Publisher:
    return open_publisher(make_folder(tmp_path / "server"), clock)


def seen(published: PublishedRoles) -> dict[str, tuple[int, datetime]]:
    return {role.role: (role.version, role.expires) for role in published.all()}


def remove(publisher: Publisher, *roles: str) -> None:
    for role in roles:
        publisher.repository.storage.remove(f"{METADATA}1.{role}.json")


def test_what_is_published_is_seen_at_once(publisher: Publisher, clock: SteppedClock) -> None:
    published = PublishedRoles(publisher.repository)
    before = seen(published)
    assert list(before) == ["root", "targets", "snapshot", "timestamp", *DELEGATED]
    clock.advance(hours=1)
    publisher.put_plan(PLAN)
    after = seen(published)
    assert {role for role in after if after[role] != before[role]} == {"snapshot", "timestamp", "rollouts-exercise"}
    signed = publisher.repository.role("rollouts-exercise").signed
    assert after["rollouts-exercise"] == (2, signed.expires)


def test_nothing_is_read_while_nothing_is_published(publisher: Publisher) -> None:
    published = PublishedRoles(publisher.repository)
    before = published.all()
    remove(publisher, "root", "targets", "snapshot", *DELEGATED)
    assert published.all() == before


def test_a_role_is_read_once_for_each_version(publisher: Publisher) -> None:
    published = PublishedRoles(publisher.repository)
    before = seen(published)
    remove(publisher, "releases-exercise", "releases-gesture", "rollouts-gesture")
    publisher.put_plan(PLAN)
    assert seen(published)["releases-gesture"] == before["releases-gesture"]


def test_a_role_that_cannot_be_read_is_named_every_time(publisher: Publisher) -> None:
    published = PublishedRoles(publisher.repository)
    remove(publisher, "releases-gesture")
    for _ in range(2):
        with pytest.raises(RepositoryDamaged, match=r"1\.releases-gesture\.json"):
            published.all()


@pytest.mark.parametrize(
    ("age", "due"),
    [(timedelta(hours=11), False), (timedelta(hours=13), True)],
    ids=["before half of the timestamp's day", "after it"],
)
def test_the_server_signs_again_once_half_of_a_roles_time_is_used(
    publisher: Publisher, clock: SteppedClock, age: timedelta, due: bool
) -> None:
    published = PublishedRoles(publisher.repository)
    clock.advance(seconds=age.total_seconds())
    assert renewal_due(published.all(), Expiry(), clock.now()) is due
    assert bool(publisher.renew()) is due
    assert not renewal_due(published.all(), Expiry(), clock.now())


def test_a_renewal_is_due_for_the_first_of_the_online_roles_and_for_no_offline_one(publisher: Publisher) -> None:
    roles = PublishedRoles(publisher.repository).all()
    now = roles[0].expires - timedelta(days=366)
    for role in roles:
        late = replace(role, expires=now)
        assert renewal_due([late], Expiry(), now) is (role.role in ONLINE)
