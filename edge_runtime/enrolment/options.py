"""What an app says about enrolment."""

from __future__ import annotations

from dataclasses import dataclass, field
from os import PathLike

__all__ = ["Enrolment"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """``token`` lets this device in, once; a device that is enrolled needs it no more. ``folder`` is where its key is,
    by default the state folder: an app that opens several models as one `Device` gives the same to each."""

    token: str | None = field(default=None, repr=False)
    folder: str | PathLike[str] | None = None
