"""How long work says where it is."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Say", "unheard"]

Say = Callable[[str, int, int], None]  # what is being done, steps done, steps in all (0: said within a step)


def unheard(text: str, done: int, total: int) -> None:
    """For callers who do not listen."""
