"""What long work says while it goes on, and how it hears that it must end."""

from __future__ import annotations

from typing import Protocol

__all__ = ["UNWATCHED", "Watch"]


class Watch(Protocol):
    """Each raises, whatever it likes, to end the work."""

    def about(self, model: str, release: int) -> None:
        """What the work is about."""
        ...

    def at(self, stage: str, step: int = 0, steps: int = 0) -> None:
        """The work is at a stage, in step ``step`` of ``steps`` (from 1), if it has steps."""
        ...

    def check(self) -> None: ...


class _Unwatched:
    def about(self, model: str, release: int) -> None:
        pass

    def at(self, stage: str, step: int = 0, steps: int = 0) -> None:
        pass

    def check(self) -> None:
        pass


UNWATCHED: Watch = _Unwatched()
