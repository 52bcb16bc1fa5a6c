from __future__ import annotations

from typing import Literal

import pytest
from argon2 import PasswordHasher

from model_server.access import passwords
from model_server.access.passwords import MAX_BYTES, MIN_CHARACTERS, Passwords, check_password
from model_server.errors import PasswordRefused, TooManyTries
from tests.support.people import LATER_HASHER, QUICK_HASHER

PASSWORD = "a long enough password"


class CountingHasher(PasswordHasher):
    """Counts the hashes that are computed against."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=64, parallelism=1)
        self.verified = 0

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:
        self.verified += 1
        return super().verify(hash, password)


def test_a_password_has_from_12_characters_to_1024_bytes() -> None:
    for fits in ("x" * MIN_CHARACTERS, "x" * MAX_BYTES, "é" * MIN_CHARACTERS):
        assert check_password(fits) == fits
    for wrong in ("", "x" * (MIN_CHARACTERS - 1), "x" * (MAX_BYTES + 1), "é" * (MAX_BYTES // 2 + 1)):
        with pytest.raises(PasswordRefused):
            Passwords(QUICK_HASHER).hash(wrong)


def test_it_is_argon2id_with_the_parameters_of_rfc_9106() -> None:
    assert Passwords().hash(PASSWORD).startswith("$argon2id$v=19$m=65536,t=3,p=4$")


def test_a_password_is_right_however_its_letters_are_composed() -> None:
    known = Passwords(QUICK_HASHER)
    hashed = known.hash("Zo\u00eb's long password")
    assert known.verify(hashed, "Zoe\u0308's long password")
    assert not known.verify(hashed, "Zoe's long password")


def test_somebody_unknown_and_a_password_that_is_too_long_cost_one_hash_as_everybody_does() -> None:
    hasher = CountingHasher()
    known = Passwords(hasher)
    hashed = known.hash(PASSWORD)
    for number, (against, tried) in enumerate(
        ((hashed, PASSWORD), (hashed, "another password"), (None, PASSWORD), (None, "x"), (hashed, "x" * 5_000)), 1
    ):
        assert known.verify(against, tried) is (number == 1)
        assert hasher.verified == number
    assert not known.verify(None, "nobody has this password")


def test_an_older_hash_is_outdated_and_still_opens() -> None:
    hashed = Passwords(QUICK_HASHER).hash(PASSWORD)
    later = Passwords(LATER_HASHER)
    assert later.verify(hashed, PASSWORD)
    assert later.is_outdated(hashed)
    assert not later.is_outdated(later.hash(PASSWORD))


def test_only_a_few_hashes_are_computed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "WAIT_S", 0.0)
    known = Passwords(QUICK_HASHER)

    class Nested(PasswordHasher):
        """Asks for one more hash while one is computed."""

        def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:
            known.verify(None, PASSWORD)
            return super().verify(hash, password)

    known._hasher = Nested(time_cost=1, memory_cost=64, parallelism=1)
    with pytest.raises(TooManyTries):
        known.verify(None, PASSWORD)
    known._hasher = QUICK_HASHER
    assert not known.verify(None, PASSWORD)  # and all of them are free again
