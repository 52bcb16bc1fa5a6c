"""Passwords: what one may be, and Argon2id hashes of them (RFC 9106).

One hash takes 64 MiB, so only `AT_ONCE` are computed at the same time.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore, Lock

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from argon2.profiles import RFC_9106_LOW_MEMORY

from model_server.errors import PasswordRefused, TooManyTries

__all__ = ["MAX_BYTES", "MIN_CHARACTERS", "Passwords", "check_password"]

MIN_CHARACTERS = 12
MAX_BYTES = 1024
AT_ONCE = 2
WAIT_S = 10.0


def check_password(password: str) -> str:
    """A new password in the form that is hashed. Raises: PasswordRefused if it is too short or too long."""
    normal = _normal(password)
    if len(normal) < MIN_CHARACTERS:
        raise PasswordRefused(f"a password must have at least {MIN_CHARACTERS} characters")
    if len(normal.encode()) > MAX_BYTES:
        raise PasswordRefused(f"a password must have at most {MAX_BYTES} bytes")
    return normal


class Passwords:
    """Hashes with the parameters of ``hasher``; older hashes are verified with their own."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)
        self._decoy: str | None = None
        self._making = Lock()
        self._room = BoundedSemaphore(AT_ONCE)

    def hash(self, password: str) -> str:
        """Raises: PasswordRefused, TooManyTries if too many are computed at once."""
        normal = check_password(password)
        with self._turn():
            return self._hasher.hash(normal)

    def verify(self, known: str | None, password: str) -> bool:
        """Whether it is the password of the hash. ``None``, for somebody unknown or without a password, takes as long
        and is never right. Raises: TooManyTries if too many are computed at once."""
        with self._turn():
            against = known or self._decoy_hash()
            normal = _normal(password)
            if len(normal.encode()) > MAX_BYTES:
                normal = ""  # it takes its time, and is nobody's password
            try:
                self._hasher.verify(against, normal)
            except VerifyMismatchError:
                return False
        return known is not None

    def is_outdated(self, known: str) -> bool:
        """Whether the hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(known)

    def _decoy_hash(self) -> str:
        with self._making:
            if self._decoy is None:
                self._decoy = self._hasher.hash("nobody has this password")
            return self._decoy

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._room.acquire(timeout=WAIT_S):
            raise TooManyTries("too many people log in at once: try again in a few seconds", retry_after_s=5)
        try:
            yield
        finally:
            self._room.release()


def _normal(password: str) -> str:
    """One spelling for what looks the same and is typed alike (NIST SP 800-63B, 3.1.1.2)."""
    return unicodedata.normalize("NFKC", password)
