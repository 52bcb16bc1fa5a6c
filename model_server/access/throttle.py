"""Slowing down who guesses passwords.

Counted for a name from one address, and for an address whatever the name: somebody elsewhere cannot keep a person out.
A wait is at most `MAX_WAIT_S`, and after it the next try counts, so not even somebody at the same address can for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network, ip_address
from threading import Lock

from model_server.errors import TooManyTries

__all__ = ["FORGET_S", "FREE_BY_ADDRESS", "FREE_BY_NAME", "MAX_WAIT_S", "Throttle", "source_of", "wait_s"]

FREE_BY_NAME = 5  # failures of a name from one address that cost nothing
FREE_BY_ADDRESS = 20
MAX_WAIT_S = 60.0
FORGET_S = 3600.0  # after so long without a failure it starts anew
MAX_KNOWN = 10_000


def wait_s(failures: int, free: int) -> float:
    """How long after its last failure the next try is taken: nothing, then 1 s, and twice as long each time."""
    return min(MAX_WAIT_S, 2.0 ** min(failures - free, 10)) if failures >= free else 0.0


def source_of(address: str) -> str:
    """Who stands behind an address. Whoever has one of IPv6 has the 2^64 of its network (RFC 6177)."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(IPv6Network((parsed.packed, 64), strict=False))
    return str(parsed)


@dataclass(slots=True)
class _Failures:
    count: int
    last: float


class Throttle:
    """Remembers failures in this process. Times are seconds of a clock that never steps back."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], _Failures] = {}
        self._lock = Lock()

    def begin(self, name: str, address: str, now: float) -> None:
        """Count a try as failed before it is made, so that many at once gain nothing; `succeeded` takes it back.

        Raises: TooManyTries, and counts nothing, if the time has not come.
        """
        address = source_of(address)
        with self._lock:
            rules = {(name, address): FREE_BY_NAME, (address,): FREE_BY_ADDRESS}
            waits = [self._left(key, free, now) for key, free in rules.items()]
            if max(waits) > 0:
                seconds = int(max(waits)) + 1
                raise TooManyTries(f"too many wrong passwords: try again in {seconds} s", retry_after_s=seconds)
            self._make_room(now)
            for key in rules:
                failures = self._known.setdefault(key, _Failures(0, now))
                failures.count, failures.last = failures.count + 1, now

    def succeeded(self, name: str, address: str) -> None:
        address = source_of(address)
        with self._lock:
            self._known.pop((name, address), None)
            shared = self._known.get((address,))
            if shared is not None:  # one good password does not excuse guesses at other people's
                shared.count -= 1

    def _left(self, key: tuple[str, ...], free: int, now: float) -> float:
        failures = self._known.get(key)
        if failures is None:
            return 0.0
        if now - failures.last > FORGET_S:
            del self._known[key]
            return 0.0
        return failures.last + wait_s(failures.count, free) - now

    def _make_room(self, now: float) -> None:
        if len(self._known) < MAX_KNOWN:
            return
        self._known = {key: known for key, known in self._known.items() if now - known.last <= MAX_WAIT_S}
        while len(self._known) >= MAX_KNOWN:
            del self._known[next(iter(self._known))]
