"""Locks on open files. The system lets go of one when its holder ends, however that ends."""

from __future__ import annotations

import contextlib
import os

__all__ = ["try_lock"]

if os.name == "nt":  # pragma: no cover
    import msvcrt

    def try_lock(descriptor: int) -> bool:
        """Lock the file, unless somebody else holds it: False then."""
        with contextlib.suppress(OSError):
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
            return True
        return False
else:
    import fcntl

    def try_lock(descriptor: int) -> bool:
        """Lock the file, unless somebody else holds it: False then."""
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False
