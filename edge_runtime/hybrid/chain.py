"""The fallback chain: links tried in order until one answers. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from edge_runtime.errors import NoAnswer

__all__ = ["first_answer"]

T = TypeVar("T")


def first_answer(why: str, links: Iterable[tuple[str, Callable[[], T | str]]]) -> T:
    """The answer of the first link that has one. A link returns it, or says in words why it has none.

    ``why`` says what made the chain necessary. Raises `NoAnswer`, whose text lists what every link said.
    """
    said = [why]
    for name, link in links:
        answer = link()
        if not isinstance(answer, str):
            return answer
        said.append(f"{name}: {answer}")
    raise NoAnswer("; ".join(said))
