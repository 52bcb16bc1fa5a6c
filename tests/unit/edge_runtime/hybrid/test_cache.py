"""The cache holds no more than it may, nothing for longer than it may, and nobody else's answer."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.hybrid.cache import ENTRY_OVERHEAD, AnswerCache, request_digest
from edge_runtime.hybrid.client import CloudAnswer
from tests.support import tiny


def answer(value: float = 1.0, size: int = 4) -> CloudAnswer:
    return CloudAnswer(outputs={"scores": np.full(size, value, np.float32)}, index=0, confidence=0.9, cloud="t/1")


def inputs(seed: int) -> dict[str, np.ndarray]:
    return {"context": tiny.windows(2, seed)}


def test_an_answer_comes_back_for_the_same_request_and_release_only() -> None:
    cache = AnswerCache(10_000, 60)
    cache.put(cache.key(1, inputs(1)), answer(), 0.0)
    assert cache.get(cache.key(1, inputs(1)), 1.0) is not None
    assert cache.get(cache.key(2, inputs(1)), 1.0) is None
    assert cache.get(cache.key(1, inputs(2)), 1.0) is None


def test_an_answer_too_old_is_dropped() -> None:
    cache = AnswerCache(10_000, 60)
    key = cache.key(1, inputs(1))
    cache.put(key, answer(), 0.0)
    assert cache.get(key, 60.0) is not None
    assert cache.get(key, 60.1) is None
    assert len(cache) == 0


def test_the_least_recently_used_answers_make_room() -> None:
    cache = AnswerCache(3 * (ENTRY_OVERHEAD + 16), 60)
    keys = [cache.key(1, inputs(i)) for i in range(4)]
    for key in keys[:3]:
        cache.put(key, answer(), 0.0)
    cache.get(keys[0], 0.0)
    cache.put(keys[3], answer(), 0.0)
    assert [cache.get(key, 0.0) is not None for key in keys] == [True, False, True, True]


def test_an_answer_larger_than_the_cache_is_not_kept() -> None:
    cache = AnswerCache(1_000, 60)
    cache.put(cache.key(1, inputs(1)), answer(size=1_000), 0.0)
    assert len(cache) == 0


def test_neither_side_can_change_what_is_kept() -> None:
    cache = AnswerCache(10_000, 60)
    key, mine = cache.key(1, inputs(1)), answer(1.0)
    cache.put(key, mine, 0.0)
    mine.outputs["scores"][:] = 7
    for _ in range(2):
        got = cache.get(key, 0.0)
        assert got is not None
        assert got.outputs["scores"].tolist() == [1, 1, 1, 1]
        got.outputs["scores"][:] = 9


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 300)), max_size=60))
def test_it_never_holds_more_bytes_than_it_may(puts: list[tuple[int, int]]) -> None:
    cache = AnswerCache(4_000, 60)
    for seed, size in puts:
        cache.put((1, bytes([seed])), answer(size=size), 0.0)
        assert cache.size_bytes <= 4_000
    assert (cache.size_bytes == 0) == (len(cache) == 0)


def test_the_digest_tells_shapes_dtypes_names_and_seeds_apart() -> None:
    array = np.zeros((2, 3), np.float32)
    digests = {
        request_digest({"x": array}, b"s" * 16),
        request_digest({"x": array.reshape(3, 2)}, b"s" * 16),
        request_digest({"x": array.view(np.int32)}, b"s" * 16),
        request_digest({"y": array}, b"s" * 16),
        request_digest({"x": array, "y": array}, b"s" * 16),
        request_digest({"x": array}, b"t" * 16),
    }
    assert len(digests) == 6
    flipped = np.asfortranarray(tiny.windows(1)[0])
    assert request_digest({"x": flipped}, b"s") == request_digest({"x": np.ascontiguousarray(flipped)}, b"s")


def test_the_digest_works_without_xxhash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_runtime.hybrid.cache._chosen", None)
    monkeypatch.setattr("edge_runtime.hybrid.cache.find_spec", lambda name: None)
    assert len(request_digest(inputs(1), b"seed")) == 16


def test_threads_share_it() -> None:
    cache = AnswerCache(20_000, 60)

    def work(seed: int) -> None:
        for i in range(200):
            key = (1, bytes([(seed * 7 + i) % 50]))
            cache.put(key, answer(float(i)), 0.0)
            cache.get(key, 0.0)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.size_bytes == len(cache) * (ENTRY_OVERHEAD + 16) <= 20_000
