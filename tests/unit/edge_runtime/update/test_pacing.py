"""What a download does between two chunks: it keeps to its rate, and asks whether it may go on."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.errors import Outcome, RuntimeClosed, UpdateError
from edge_runtime.update.pacing import LOOK_UP_S, Pacing, Rate
from tests.support.world import ManualClock


class Download:
    """A pacing whose sleeps move the clock."""

    def __init__(self, bytes_per_s: int | None = None, longest_s: float = 1e9) -> None:
        self.clock = ManualClock()
        self.begun = self.clock.boot()
        self.asked: list[int] = []
        self.refuse_at: float | None = None
        self.close_at: float | None = None
        self.pacing = Pacing(
            clock=self.clock, wait=self.wait, bytes_per_s=bytes_per_s, longest_s=longest_s, permit=self.permit
        )

    @property
    def elapsed(self) -> float:
        return self.clock.boot() - self.begun

    def wait(self, seconds: float) -> bool:
        assert seconds <= LOOK_UP_S
        self.clock.advance(seconds)
        return self.close_at is not None and self.elapsed >= self.close_at

    def permit(self, count: int) -> None:
        self.asked.append(count)
        if self.refuse_at is not None and self.elapsed >= self.refuse_at:
            raise UpdateError(Outcome.DEFERRED_METERED, "metered")

    def take(self, *chunks: int, resumable: bool = True) -> None:
        for number, chunk in enumerate(chunks, 1):
            self.pacing.took(chunk, more=number < len(chunks), resumable=resumable)


@settings(deadline=None)
@given(st.lists(st.integers(1, 65_536), min_size=1, max_size=20), st.integers(1, 10**6), st.lists(st.floats(0, 90)))
def test_the_rate_holds_whatever_the_chunks_and_however_slowly_they_come(
    chunks: list[int], bytes_per_s: int, gaps: list[float]
) -> None:
    rate, now, came = Rate(bytes_per_s), 0.0, 0
    for number, chunk in enumerate(chunks):
        now += gaps[number] if number < len(gaps) else 0.0
        came += chunk
        assert came <= bytes_per_s * now + chunk + 1e-3  # when a chunk is read, all before it have had their time
        now += rate.pause_s(chunk, now)


def test_without_a_limit_nothing_waits() -> None:
    download = Download()
    download.pacing.ask(3000)
    download.take(1000, 1000, 1000)
    assert download.elapsed == 0


def test_the_last_chunk_is_not_waited_for_and_counts_for_the_next_file() -> None:
    download = Download(bytes_per_s=100)
    download.pacing.ask(3000)
    download.take(1000, 1000)
    assert download.elapsed == pytest.approx(10)
    download.take(500, 500)
    assert download.elapsed == pytest.approx(25)


def test_a_long_download_asks_again_now_and_then_with_what_it_takes_in_all() -> None:
    download = Download(bytes_per_s=100)
    download.pacing.ask(40_000)
    download.take(*[10_000] * 4)
    assert download.asked[0] == 40_000
    assert set(download.asked) == {40_000}
    assert 300 / LOOK_UP_S - 2 <= len(download.asked) <= 300 / LOOK_UP_S + 2


def test_a_rule_that_comes_to_hold_ends_it_in_the_middle() -> None:
    download = Download(bytes_per_s=100)
    download.pacing.ask(40_000)
    download.refuse_at = 45
    with pytest.raises(UpdateError) as caught:
        download.take(*[10_000] * 4)
    assert caught.value.outcome is Outcome.DEFERRED_METERED
    assert 45 <= download.elapsed <= 45 + LOOK_UP_S
    assert download.pacing.to_come == 30_000


def test_closing_ends_it_at_once() -> None:
    download = Download(bytes_per_s=1)
    download.pacing.ask(40_000)
    download.close_at = 0.0
    with pytest.raises(RuntimeClosed):
        download.take(10_000, 30_000)
    assert download.elapsed <= LOOK_UP_S


def test_it_makes_way_for_the_next_check_and_has_come_further_each_time() -> None:
    download = Download(bytes_per_s=100, longest_s=60)
    download.pacing.ask(40_000)
    with pytest.raises(UpdateError) as caught:
        download.take(*[10_000] * 4)
    assert caught.value.outcome is Outcome.DEFERRED_BANDWIDTH
    assert 60 <= download.elapsed <= 60 + LOOK_UP_S
    assert download.pacing.to_come < 40_000


def test_one_that_would_start_again_does_not_make_way() -> None:
    download = Download(bytes_per_s=100, longest_s=60)
    download.pacing.ask(40_000)
    download.take(*[10_000] * 4, resumable=False)
    assert download.elapsed == pytest.approx(300)


def test_a_swap_after_a_download_costs_no_bytes() -> None:
    download = Download()
    download.pacing.ask(1000)
    download.take(1000)
    download.pacing.ask(0)
    assert download.asked == [1000, 0]
