"""People, their keys and sessions, on both databases."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, select, text, update

from model_server.access.credentials import add_fleet_token
from model_server.access.passwords import Passwords
from model_server.access.people import recover
from model_server.access.roles import Permission, Role
from model_server.access.service import Access, Kind
from model_server.access.sessions import Sessions
from model_server.access.tables import PersonKeyRow, PersonRow
from model_server.audit import log as audit
from model_server.audit.tables import AuditRow
from model_server.db.base import open_engine, reading, writing
from model_server.errors import (
    Forbidden,
    MalformedRequest,
    PasswordRefused,
    PersonConflict,
    TooManyTries,
    Unauthorized,
    UnknownKey,
    UnknownPerson,
)
from tests.support.people import LATER_HASHER, QUICK_HASHER, people_of
from tests.support.server import SteppedClock

PASSWORD = "a long enough password"
ACTOR = "person:root"


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    engine = open_engine(database)
    yield engine
    engine.dispose()


class Shop:
    """A server's people; `elsewhere` is another server process on the same database."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.clock = engine, SteppedClock()
        self.people = people_of(engine, self.clock)
        self.access, self.elsewhere = Access(engine, self.clock), Access(engine, self.clock)
        self.sessions = Sessions(engine, self.clock, Passwords(QUICK_HASHER))
        self.people.add("root", Role.ADMIN, None, "local:init")

    def join(self, name: str, role: Role) -> tuple[str, str]:
        """A person's API key and session key."""
        self.people.add(name, role, PASSWORD, ACTOR)
        key = self.people.add_key(name, "laptop", None, ACTOR).key
        return key, self.sessions.open(name, PASSWORD, "10.0.0.1").key

    def lets_in(self, *keys: str) -> list[bool]:
        """Asked at both servers."""
        found = [[server.identify(f"Bearer {key}") is not None for key in keys] for server in self._both()]
        assert found[0] == found[1]
        return found[0]

    def _both(self) -> tuple[Access, Access]:
        return self.elsewhere, self.access

    def noted(self) -> list[tuple[str, str, str]]:
        with reading(self.engine) as session:
            audit.verify(session)
            rows = session.execute(select(AuditRow).order_by(AuditRow.sequence)).scalars().all()
            return [(row.actor, row.action, row.subject) for row in rows]


@pytest.fixture
def shop(engine: Engine) -> Shop:
    return Shop(engine)


def test_a_key_says_who_calls_and_what_they_may(shop: Shop) -> None:
    key, session = shop.join("olga", Role.OPERATOR)
    for shown in (key, session):
        caller = shop.access.identify(f"bearer  {shown}")
        assert caller is not None
        assert (caller.kind, caller.name, caller.role, caller.actor) == (
            Kind.PERSON,
            "olga",
            Role.OPERATOR,
            "person:olga",
        )
        assert caller.may(Permission.OPERATE)
        assert not caller.may(Permission.RELEASE)
    for header in (None, "", "Bearer", "Bearer ", f"Basic {key}", f"Bearer {key}x", "Bearer " + "x" * 1_000):
        assert shop.access.identify(header) is None
    with pytest.raises(Unauthorized):
        shop.access.require(Permission.READ)(None)
    with pytest.raises(Forbidden, match="olga is operator"):
        shop.access.require(Permission.RELEASE)(f"Bearer {key}")


def test_the_fleets_token_is_no_persons_key(shop: Shop) -> None:
    with writing(shop.engine) as session:
        token = add_fleet_token(session, "fleet", shop.clock.now())
    caller = shop.access.identify(f"Bearer {token}")
    assert caller is not None
    assert (caller.kind, caller.role, caller.actor) == (Kind.FLEET, None, "fleet:fleet")
    assert [caller.may(permission) for permission in (Permission.DEVICE, Permission.READ)] == [True, False]
    with writing(shop.engine) as session:
        session.execute(text("DELETE FROM credentials"))
    shop.clock.advance(seconds=31)
    assert shop.access.identify(f"Bearer {token}") is None


def test_a_revoked_key_opens_nothing_from_that_moment_on_any_server(shop: Shop) -> None:
    key, session = shop.join("olga", Role.OPERATOR)
    assert shop.lets_in(key, session) == [True, True]
    ids = {info.kind.value: info.id for info in shop.people.keys("olga")}
    shop.people.revoke_key("olga", ids["api"], ACTOR)
    assert shop.lets_in(key, session) == [False, True]
    shop.people.revoke_all("olga", ACTOR)
    assert shop.lets_in(key, session) == [False, False]
    assert {info.state for info in shop.people.keys("olga")} == {"revoked"}


def test_a_disabled_person_loses_every_key_and_session_at_once(shop: Shop) -> None:
    keys = shop.join("olga", Role.OPERATOR)
    assert shop.lets_in(*keys) == [True, True]
    shop.people.disable("olga", ACTOR)
    assert shop.lets_in(*keys) == [False, False]
    with pytest.raises(Unauthorized):
        shop.sessions.open("olga", PASSWORD, "10.0.0.1")
    with pytest.raises(PersonConflict, match="disabled"):
        shop.people.add_key("olga", "another", None, ACTOR)
    shop.people.enable("olga", ACTOR)
    assert shop.lets_in(*keys) == [False, False]  # what may have been stolen does not come back
    assert shop.lets_in(shop.sessions.open("olga", PASSWORD, "10.0.0.1").key) == [True]


def test_being_disabled_is_enough_whatever_the_keys_say(shop: Shop) -> None:
    keys = shop.join("olga", Role.OPERATOR)
    with writing(shop.engine) as session:
        session.execute(update(PersonRow).where(PersonRow.name == "olga").values(disabled=shop.clock.now()))
    assert shop.lets_in(*keys) == [False, False]


def test_who_loses_a_role_loses_its_keys_and_who_gets_a_higher_one_keeps_them(shop: Shop) -> None:
    keys = shop.join("olga", Role.OPERATOR)
    assert shop.lets_in(*keys) == [True, True]
    shop.people.set_role("olga", Role.RELEASE_MANAGER, ACTOR)
    assert shop.lets_in(*keys) == [True, True]
    caller = shop.elsewhere.identify(f"Bearer {keys[0]}")
    assert caller is not None
    assert caller.role is Role.RELEASE_MANAGER
    shop.people.set_role("olga", Role.VIEWER, ACTOR)
    assert shop.lets_in(*keys) == [False, False]


def test_a_new_password_ends_the_sessions_of_the_old_one(shop: Shop) -> None:
    keys = shop.join("olga", Role.OPERATOR)
    shop.people.set_password("olga", "another long password", ACTOR)
    assert shop.lets_in(*keys) == [True, False]
    with pytest.raises(Unauthorized):
        shop.sessions.open("olga", PASSWORD, "10.0.0.1")
    assert shop.sessions.open("olga", "another long password", "10.0.0.1").name == "olga"


def test_the_last_enabled_admin_can_be_neither_disabled_nor_demoted(shop: Shop) -> None:
    shop.people.add("second", Role.ADMIN, None, ACTOR)
    shop.people.disable("second", ACTOR)
    for change in (
        lambda: shop.people.disable("root", ACTOR),
        lambda: shop.people.set_role("root", Role.RELEASE_MANAGER, ACTOR),
    ):
        with pytest.raises(PersonConflict, match="last admin"):
            change()
    shop.people.enable("second", ACTOR)
    assert shop.people.set_role("root", Role.VIEWER, ACTOR).role is Role.VIEWER
    with pytest.raises(PersonConflict, match="last admin"):
        shop.people.disable("second", ACTOR)


def test_a_key_and_a_session_end_when_their_time_is_over(shop: Shop) -> None:
    _, session = shop.join("olga", Role.OPERATOR)
    key = shop.people.add_key("olga", "for a week", 7, ACTOR).key
    shop.clock.advance(hours=11.9)
    assert shop.lets_in(key, session) == [True, True]
    shop.clock.advance(hours=0.1)
    assert shop.lets_in(key, session) == [True, False]
    shop.clock.advance(days=7)
    assert shop.lets_in(key, session) == [False, False]
    assert [info.state for info in shop.people.keys("olga") if info.name == "for a week"] == ["expired"]


def test_the_day_of_a_keys_last_use_is_known_and_no_more(shop: Shop) -> None:
    key, _ = shop.join("olga", Role.OPERATOR)
    known = {info.name: info.last_used for info in shop.people.keys("olga")}
    assert known["laptop"] is None
    shop.lets_in(key)
    first = shop.clock.now().date()
    assert {info.name: info.last_used for info in shop.people.keys("olga")}["laptop"] == first
    shop.clock.advance(days=3)
    shop.lets_in(key)
    assert {info.name: info.last_used for info in shop.people.keys("olga")}["laptop"] == shop.clock.now().date()


def test_logging_out_ends_the_session_and_nothing_else(shop: Shop) -> None:
    key, session = shop.join("olga", Role.OPERATOR)
    caller = shop.access.identify(f"Bearer {session}")
    assert caller is not None
    shop.sessions.close(caller)
    assert shop.lets_in(key, session) == [True, False]


def test_wrong_names_keys_and_passwords_are_refused_by_name(shop: Shop) -> None:
    for name in ("", "Olga", "o/l", "x" * 33, "-a", "a\n"):
        with pytest.raises(MalformedRequest):
            shop.people.add(name, Role.VIEWER, None, ACTOR)
    with pytest.raises(PersonConflict, match="already"):
        shop.people.add("root", Role.VIEWER, None, ACTOR)
    for password in ("eleven char", "x" * 1_025, "é" * 513):
        with pytest.raises(PasswordRefused):
            shop.people.add("olga", Role.VIEWER, password, ACTOR)
    with pytest.raises(UnknownPerson):
        shop.people.set_role("olga", Role.VIEWER, ACTOR)
    shop.people.add("olga", Role.VIEWER, None, ACTOR)
    other = shop.people.add_key("root", "k", None, ACTOR).id
    with pytest.raises(UnknownKey):
        shop.people.revoke_key("olga", other, ACTOR)
    for label, days in (("", 1), ("a\nb", 1), ("k", 0), ("k", 100_000)):
        with pytest.raises(MalformedRequest):
            shop.people.add_key("olga", label, days, ACTOR)


def test_a_wrong_password_an_unknown_name_and_no_password_are_refused_alike(shop: Shop) -> None:
    shop.join("olga", Role.OPERATOR)
    told = set()
    for name, password in (
        ("olga", "not the password"),
        ("nobody", PASSWORD),
        ("root", PASSWORD),
        ("olga", "x" * 2000),
    ):
        with pytest.raises(Unauthorized) as error:
            shop.sessions.open(name, password, "10.0.0.2")
        told.add(str(error.value))
    assert len(told) == 1


def test_guessing_slows_down_and_never_keeps_the_person_out_elsewhere(shop: Shop) -> None:
    shop.join("olga", Role.OPERATOR)
    tried = 0
    for _ in range(40):
        try:
            shop.sessions.open("olga", "a wrong password", "10.6.6.6")
        except Unauthorized:
            tried += 1
        except TooManyTries:
            pass
        shop.clock.advance(seconds=1)
    assert tried < 12
    with pytest.raises(TooManyTries):
        shop.sessions.open("olga", PASSWORD, "10.6.6.6")
    assert shop.sessions.open("olga", PASSWORD, "10.0.0.1").name == "olga"
    shop.clock.advance(seconds=61)
    assert shop.sessions.open("olga", PASSWORD, "10.6.6.6").name == "olga"


def test_a_password_is_hashed_anew_when_the_parameters_have_grown(shop: Shop) -> None:
    def stored() -> str | None:
        with reading(shop.engine) as session:
            return session.execute(select(PersonRow.password).where(PersonRow.name == "olga")).scalar_one()

    shop.join("olga", Role.OPERATOR)
    before = stored()
    shop.sessions.open("olga", PASSWORD, "10.0.0.1")
    assert stored() == before
    later = Sessions(shop.engine, shop.clock, Passwords(LATER_HASHER))
    later.open("olga", PASSWORD, "10.0.0.1")
    after = stored()
    assert after is not None
    assert before is not None
    assert ("t=1" in before, "t=2" in after) == (True, True)
    assert later.open("olga", PASSWORD, "10.0.0.1").name == "olga"


def test_every_change_and_login_is_in_the_audit_log_and_no_secret_is_in_the_database(shop: Shop) -> None:
    key, session_key = shop.join("olga", Role.OPERATOR)
    with pytest.raises(Unauthorized):
        shop.sessions.open("hunter2 hunter2", PASSWORD, "10.0.0.1")
    with pytest.raises(Unauthorized):
        shop.sessions.open("olga", "a wrong password", "10.0.0.1")
    shop.people.set_role("olga", Role.ADMIN, ACTOR)
    shop.people.set_password("olga", "another long password", ACTOR)
    (laptop,) = (info.id for info in shop.people.keys("olga") if info.name == "laptop")
    shop.people.revoke_key("olga", laptop, ACTOR)
    shop.people.disable("olga", ACTOR)
    shop.people.enable("olga", ACTOR)
    recover(shop.engine, "olga", shop.clock.now())
    assert shop.noted() == [
        ("local:init", "person.added", "root"),
        (ACTOR, "person.added", "olga"),
        (ACTOR, "person.key_added", "olga"),
        ("person:olga", "session.opened", "olga"),
        ("anybody", "session.refused", "unknown"),
        ("anybody", "session.refused", "olga"),
        (ACTOR, "person.role_set", "olga"),
        (ACTOR, "person.password_set", "olga"),
        (ACTOR, "person.key_revoked", "olga"),
        (ACTOR, "person.disabled", "olga"),
        (ACTOR, "person.enabled", "olga"),
        ("local:recover", "person.recovered", "olga"),
    ]
    with reading(shop.engine) as session:
        found = [session.execute(table.select()).all() for table in (PersonRow.__table__, PersonKeyRow.__table__)]  # type: ignore[attr-defined]
        found.append(session.execute(select(AuditRow.detail)).all())
    text_of_all = json.dumps(found, default=str)
    for secret in (key, session_key, PASSWORD, "another long password", "wrong password", "hunter2"):
        assert secret not in text_of_all


def test_who_lost_every_key_comes_back_as_an_admin_with_one_new_key(shop: Shop) -> None:
    keys = shop.join("olga", Role.OPERATOR)
    shop.people.disable("olga", ACTOR)
    made = recover(shop.engine, "olga", shop.clock.now())
    assert shop.lets_in(made.key, *keys) == [True, False, False]
    caller = shop.access.identify(f"Bearer {made.key}")
    assert caller is not None
    assert caller.role is Role.ADMIN
    assert shop.lets_in(recover(shop.engine, "newcomer", shop.clock.now()).key) == [True]


def test_no_key_shows_in_what_is_printed_of_an_object(shop: Shop) -> None:
    shop.people.add("olga", Role.VIEWER, PASSWORD, ACTOR)
    made = shop.people.add_key("olga", "k", None, ACTOR)
    opened = shop.sessions.open("olga", PASSWORD, "10.0.0.1")
    assert made.key not in repr(made)
    assert opened.key not in repr(opened)
