"""Whether a token lets one more device in. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from model_server.errors import EnrolmentBusy, TokenRefused

__all__ = ["Token", "used_once_more"]

HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """``uses`` in all, at most ``per_hour`` within the hour that began at ``hour``; None: no limit a hour."""

    uses: int
    used: int
    per_hour: int | None
    hour: datetime | None
    hour_used: int
    expires: datetime
    revoked: datetime | None


def used_once_more(token: Token, now: datetime) -> Token:
    """The token after another use. Raises `TokenRefused` where it lets nobody in, and `EnrolmentBusy` where it does not
    within this hour."""
    if token.revoked is not None:
        raise TokenRefused("this enrolment token is revoked")
    if now >= token.expires:
        raise TokenRefused(f"this enrolment token expired on {token.expires:%Y-%m-%d}: ask for a new one")
    if token.used >= token.uses:
        devices = "one device" if token.uses == 1 else f"{token.uses} devices"
        raise TokenRefused(f"this enrolment token was for {devices}, and is used up")
    begun = token.hour
    if begun is None or not begun <= now < begun + HOUR:
        return replace(token, used=token.used + 1, hour=now, hour_used=1)
    if token.per_hour is not None and token.hour_used >= token.per_hour:
        left = int((begun + HOUR - now).total_seconds()) + 1
        raise EnrolmentBusy(f"this token lets {token.per_hour} devices an hour in: come back later", retry_after_s=left)
    return replace(token, used=token.used + 1, hour_used=token.hour_used + 1)
