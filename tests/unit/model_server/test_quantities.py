import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.update.plan import PARTS
from model_server.errors import MalformedRequest
from model_server.quantities import (
    format_ceiling,
    format_duration,
    format_share,
    parse_ceiling,
    parse_duration,
    parse_share,
)


@pytest.mark.parametrize(("text", "seconds"), [("0s", 0), ("90s", 90), ("5m", 300), ("24h", 86_400), ("1.5d", 129_600)])
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "h", "-1h", "1e3s", "1 h", "1w", "1h30m", "1.h"])
def test_what_is_not_a_duration_is_refused(text: str) -> None:
    with pytest.raises(MalformedRequest):
        parse_duration(text)


@pytest.mark.parametrize(("text", "parts"), [("100%", PARTS), ("0%", 0), ("20%", PARTS // 5), ("0.000001%", 1)])
def test_a_share_is_exact_in_parts(text: str, parts: int) -> None:
    assert parse_share(text) == parts


@pytest.mark.parametrize("text", ["", "20", "101%", "-1%", "%", "1e1%", "nan%"])
def test_what_is_not_a_share_is_refused(text: str) -> None:
    with pytest.raises(MalformedRequest):
        parse_share(text)


def test_a_ceiling_reads_as_ages_and_parts() -> None:
    assert parse_ceiling("0h=1%,24h=10%,120h=100%") == ((0, PARTS // 100), (86_400, PARTS // 10), (432_000, PARTS))


@pytest.mark.parametrize("text", ["", "24h=10%", "0h=10%,24h=1%", "0h=1%,0h=2%", "0h", "0h=1%,"])
def test_a_ceiling_that_cannot_work_is_refused(text: str) -> None:
    with pytest.raises(MalformedRequest):
        parse_ceiling(text)


@given(st.integers(0, PARTS))
def test_a_share_survives_being_written_and_read(parts: int) -> None:
    assert parse_share(format_share(parts)) == parts


@given(st.lists(st.tuples(st.integers(1, 10**6), st.integers(0, PARTS)), max_size=8, unique_by=lambda step: step[0]))
def test_a_ceiling_survives_being_written_and_read(steps: list[tuple[int, int]]) -> None:
    ages = [0, *sorted(age for age, _ in steps)]
    shares = sorted([0, *(share for _, share in steps)])
    ceiling = tuple(zip(ages, shares, strict=True))
    assert parse_ceiling(format_ceiling(ceiling)) == ceiling


def test_a_duration_is_written_in_its_largest_whole_unit() -> None:
    assert [format_duration(s) for s in (0, 45, 3_600, 172_800, 90_000)] == ["0s", "45s", "1h", "2d", "25h"]
