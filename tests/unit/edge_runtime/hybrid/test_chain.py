"""The fallback chain gives the first answer there is, and says everything that went wrong when there is none."""

from __future__ import annotations

import pytest

from edge_runtime.errors import NoAnswer
from edge_runtime.hybrid.chain import first_answer


def test_the_first_link_that_answers_wins_and_later_ones_are_not_asked() -> None:
    asked: list[str] = []

    def link(name: str, answer: int | str) -> tuple[str, object]:
        def ask() -> int | str:
            asked.append(name)
            return answer

        return name, ask

    links = [link("cache", "empty"), link("device", 3), link("default", 4)]
    assert first_answer("cloud: down", links) == 3  # type: ignore[arg-type]
    assert asked == ["cache", "device"]


def test_without_an_answer_every_reason_is_listed() -> None:
    with pytest.raises(NoAnswer, match="cloud: down; cache: empty; default: none set"):
        first_answer("cloud: down", [("cache", lambda: "empty"), ("default", lambda: "none set")])
