"""The fields of a request for a static file: conditions, content codings, ranges (RFC 9110). Pure.

Raw bytes, as ASGI has them: this runs on every check of every device.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["Unsatisfiable", "accepts_gzip", "byte_range", "field", "matches"]

Headers = Iterable[tuple[bytes, bytes]]

_MAX_DIGITS = 18  # of a position in a file


class Unsatisfiable(Exception):
    """The range lies outside the file: status 416."""


def field(headers: Headers, name: bytes) -> bytes | None:
    """The value of a field that is a list; one that comes more than once is one list (5.3). ``name`` in lower case."""
    values = [value for key, value in headers if key == name]
    if len(values) < 2:
        return values[0] if values else None
    return b", ".join(values)


def matches(if_none_match: bytes, etags: tuple[bytes, ...]) -> bool:
    """Weak comparison with a list of ETags, or with ``*`` (13.1.2). ``etags`` have their quotes."""
    if if_none_match in etags:  # as a device sends it
        return True
    return any(tag.strip().removeprefix(b"W/") in (*etags, b"*") for tag in if_none_match.split(b","))


def accepts_gzip(accept_encoding: bytes) -> bool:
    """Whether ``gzip`` is acceptable (12.5.3): named, or covered by ``*``, and not with weight 0."""
    if accept_encoding == b"gzip":  # as a device sends it
        return True
    any_other = False
    for item in accept_encoding.lower().split(b","):
        coding, _, parameters = item.partition(b";")
        coding = coding.strip()
        if coding in (b"gzip", b"x-gzip", b"*"):
            weight = parameters.replace(b" ", b"").removeprefix(b"q=")
            accepted = weight not in (b"0", b"0.", b"0.0", b"0.00", b"0.000")
            if coding != b"*":
                return accepted
            any_other = accepted
    return any_other


def byte_range(value: bytes, size: int) -> tuple[int, int] | None:
    """The first position and the one after the last of a single byte range (14.1.2). None where the field is to be
    ignored: another unit, several ranges, or not well-formed (14.2 allows all three).

    Raises `Unsatisfiable`.
    """
    unit, _, spec = value.partition(b"=")
    first, dash, last = spec.strip().partition(b"-")
    if unit.strip().lower() != b"bytes" or not dash or not (first or last):
        return None
    if not all(not part or (part.isdigit() and len(part) <= _MAX_DIGITS) for part in (first, last)):
        return None
    if not first:
        length = int(last)
        start, end = max(0, size - length), size
        if not length:
            raise Unsatisfiable
    else:
        start, end = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < int(first):
            return None
    if start >= size:
        raise Unsatisfiable
    return start, end
