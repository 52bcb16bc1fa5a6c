from __future__ import annotations

import pytest

from model_server.access import throttle
from model_server.access.throttle import (
    FORGET_S,
    FREE_BY_ADDRESS,
    FREE_BY_NAME,
    MAX_WAIT_S,
    Throttle,
    source_of,
    wait_s,
)
from model_server.errors import TooManyTries


def is_taken(known: Throttle, name: str, address: str, now: float) -> bool:
    try:
        known.begin(name, address, now)
    except TooManyTries:
        return False
    return True


def test_the_wait_doubles_up_to_a_minute_and_no_further() -> None:
    assert [wait_s(failures, 5) for failures in (0, 4, 5, 6, 7, 20, 10**6)] == [0, 0, 1, 2, 4, 60, 60]


def test_a_wait_tells_how_long_it_is_and_the_next_try_counts_after_it() -> None:
    known = Throttle()
    for _ in range(FREE_BY_NAME):
        known.begin("olga", "a", 0.0)
    with pytest.raises(TooManyTries) as error:
        known.begin("olga", "a", 0.0)
    assert error.value.retry_after_s >= 1
    known.begin("olga", "a", MAX_WAIT_S)


def test_many_at_once_gain_nothing_over_one_after_the_other() -> None:
    known = Throttle()
    assert sum(is_taken(known, "olga", "a", 0.0) for _ in range(100)) == FREE_BY_NAME


def test_trying_many_names_from_one_address_slows_down_too() -> None:
    known = Throttle()
    assert sum(is_taken(known, f"name-{number}", "a", 0.0) for number in range(100)) == FREE_BY_ADDRESS
    assert is_taken(known, "olga", "b", 0.0)


def test_a_good_password_starts_its_name_anew_and_excuses_no_guesses_at_others() -> None:
    known = Throttle()
    for number in range(FREE_BY_ADDRESS - 1):
        known.begin(f"name-{number}", "a", 0.0)
    known.begin("olga", "a", 0.0)
    known.succeeded("olga", "a")
    known.begin("olga", "a", 0.0)
    assert not is_taken(known, "olga", "a", 0.0)
    assert is_taken(known, "olga", "a", FORGET_S + 1)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "MAX_KNOWN", 50)
    known = Throttle()
    for number in range(200):
        known.begin(f"name-{number}", f"address-{number}", 0.0)
    assert len(known._known) <= 52


def test_the_addresses_of_one_network_of_ipv6_are_one_source() -> None:
    assert source_of("2001:db8:1:2::1") == source_of("2001:db8:1:2:ffff::9") != source_of("2001:db8:1:3::1")
    assert source_of("::ffff:10.0.0.1") == source_of("10.0.0.1") != source_of("10.0.0.2")
    assert source_of("unknown") == "unknown"
    known = Throttle()
    assert sum(is_taken(known, "olga", f"2001:db8::{number:x}", 0.0) for number in range(100)) == FREE_BY_NAME
