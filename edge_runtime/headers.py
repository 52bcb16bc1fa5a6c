"""What the headers of an answer say about time. Pure; anything may stand in them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

__all__ = ["MAX_WAIT_S", "retry_after_s", "stated_time"]

MAX_WAIT_S = 86_400.0  # nobody can silence a device for longer
MAX_DATE = 64
MAX_DIGITS = 10


def stated_time(headers: Mapping[str, str]) -> datetime | None:
    """When an answer was made, as it says itself: its Date, and its Age where a cache kept it (RFC 9110, 9111)."""
    age = headers.get("Age", "0").strip()
    made = _date(headers.get("Date", ""))
    if made is None or not age.isdecimal() or len(age) > MAX_DIGITS:
        return None
    try:
        return made + timedelta(seconds=int(age))
    except OverflowError:
        return None


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """The seconds that an answer asks to wait for, at most `MAX_WAIT_S`; None where it asks for nothing, or for nothing
    that can be (RFC 9110, 10.2.3). A date counts from the answer's own Date, since this device's clock, which says
    ``now``, may be wrong."""
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdecimal():
        return min(float(value), MAX_WAIT_S) if len(value) <= MAX_DIGITS else None
    until = _date(value)
    if until is None:
        return None
    left = (until - (stated_time(headers) or now)).total_seconds()
    return min(left, MAX_WAIT_S) if left > 0 else None


def _date(text: str) -> datetime | None:
    if not 0 < len(text) <= MAX_DATE:
        return None
    try:
        date = parsedate_to_datetime(text)
        return date.replace(tzinfo=date.tzinfo or UTC)
    except (ValueError, TypeError, IndexError, OverflowError):  # all of which it raises for what is no date
        return None
