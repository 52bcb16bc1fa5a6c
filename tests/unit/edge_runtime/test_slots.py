"""The slot state machine, as pure functions."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime import slots as s
from edge_runtime.bundle.errors import ManifestError
from edge_runtime.slots import Installed, Slots


def installed(release: int) -> Installed:
    return Installed(release=release, artifact=f"m-{release}.onnx", manifest_sha256=f"{release:064x}")


def running(release: int) -> Slots:
    """A committed release."""
    return s.adopt(s.stage(Slots(), installed(release)))


def trying(old: int, new: int, attempt: int = 1) -> Slots:
    return s.activate(s.stage(running(old), installed(new)), attempt=attempt)


def crash(slots: Slots) -> Slots:
    """A start that ends uncleanly before a good prediction."""
    return s.start(slots)


def test_an_activated_release_is_on_trial_and_the_old_one_is_kept() -> None:
    slots = trying(1, 2)
    assert slots.active == installed(2)
    assert slots.previous == installed(1)
    assert slots.staged is None
    assert slots.trial is not None


def test_good_predictions_commit_and_add_up_across_starts() -> None:
    slots = trying(1, 2)
    for _ in range(3):
        slots = s.start(slots)
        slots = s.good(slots, 5, commit_after=20)
        assert slots.trial is not None
    slots = s.good(s.start(slots), 5, commit_after=20)
    assert slots.trial is None
    assert slots.active == installed(2)
    assert slots.previous == installed(1)


def test_a_device_is_settled_once_a_release_was_good_there() -> None:
    fresh = s.activate(s.stage(Slots(), installed(2)), attempt=1)
    assert not fresh.settled
    assert s.good(fresh, 1, commit_after=1).settled
    assert s.switch_back(running(1)).settled


def test_time_and_starts_alone_never_commit() -> None:
    slots = trying(1, 2)
    for _ in range(10):
        slots = s.ended_cleanly(s.start(slots))
    assert slots.trial is not None


def test_three_unclean_starts_in_a_row_go_back_and_deny_the_attempt() -> None:
    slots = trying(1, 2, attempt=7)
    for _ in range(3):
        slots = crash(slots)
        assert slots.active == installed(2)
    slots = s.start(slots)
    assert slots.active == installed(1)
    assert slots.previous is None
    assert slots.trial is None
    assert s.is_denied(slots, 2, 7)
    assert not s.is_denied(slots, 2, 8)
    assert not s.is_denied(slots, 1, 7)


@pytest.mark.parametrize("pause", [s.ended_cleanly, lambda slots: s.good(slots, 1, commit_after=20)])
def test_a_clean_end_or_a_good_prediction_breaks_the_row(pause: object) -> None:
    slots = crash(crash(trying(1, 2)))
    slots = pause(s.start(slots))  # type: ignore[operator]
    for _ in range(3):
        slots = crash(slots)
    assert slots.active == installed(2)
    assert s.start(slots).active == installed(1)


def test_a_crash_loop_without_a_last_good_release_leaves_nothing_active() -> None:
    slots = s.activate(s.stage(Slots(), installed(2)), attempt=1)
    for _ in range(4):
        slots = s.start(slots)
    assert slots.active is None
    assert s.is_denied(slots, 2, 1)


def test_a_committed_release_starts_without_any_change() -> None:
    slots = running(1)
    assert s.start(slots) is slots
    assert s.good(slots, 5, commit_after=1) is slots
    assert s.ended_cleanly(slots) is slots


def test_a_release_on_trial_never_becomes_the_last_good_one() -> None:
    slots = s.activate(s.stage(trying(1, 2), installed(3)), attempt=1)
    assert slots.active == installed(3)
    assert slots.previous == installed(1)


def test_returning_to_a_baseline_that_is_not_here_keeps_nothing_to_go_back_to() -> None:
    slots = s.activate(s.stage(running(3), installed(2)), attempt=1, keep=False)
    assert slots.active == installed(2)
    assert slots.previous is None


def test_switching_back_is_not_a_denial() -> None:
    slots = s.switch_back(trying(1, 2))
    assert slots.active == installed(1)
    assert slots.denied == ()


def test_a_committed_release_that_no_longer_loads_goes_back_without_denial() -> None:
    slots = s.good(trying(1, 2), 20, commit_after=20)
    slots = s.roll_back(slots)
    assert slots.active == installed(1)
    assert slots.denied == ()


def test_denials_are_bounded_and_the_newest_stay() -> None:
    slots = Slots()
    for release in range(1, 100):
        slots = s.deny(slots, release, 1)
    assert len(slots.denied) == s.MAX_DENIED
    assert s.is_denied(slots, 99, 1)
    assert s.deny(slots, 99, 2).denied.count(s.Denied(release=99, attempt=1)) == 0


def test_a_revoked_or_too_old_release_leaves_every_slot() -> None:
    slots = s.stage(trying(1, 2), installed(3))
    assert s.restrict(slots, min_release=1, revoked=[2]).active == installed(1)
    assert s.restrict(slots, min_release=1, revoked=[2]).trial is None
    assert s.restrict(slots, min_release=2, revoked=[]).previous is None
    assert s.restrict(slots, min_release=4, revoked=[]).active is None
    assert s.referenced(s.restrict(slots, min_release=1, revoked=[3])) == {1, 2}
    assert s.restrict(slots, min_release=2, revoked=[9, 5]).revoked == (5, 9)


def test_a_lost_folder_costs_its_release_only() -> None:
    slots = s.stage(trying(1, 2), installed(3))
    assert s.referenced(s.without(slots, {2})) == {1, 3}
    assert s.without(slots, {2}).active == installed(1)
    assert s.without(slots, {1}).active == installed(2)
    assert s.without(slots, {1, 2}).active is None
    assert s.without(slots, set()) == slots


def test_ages_count_powered_on_time_within_and_across_boots() -> None:
    slots = s.sight(Slots(), [3], 1000.0)
    assert s.age_s(slots, 3, 1000.0) == 0.0
    assert s.age_s(slots, 3, 1600.0) == 600.0
    slots = s.sight(slots, [3], 1600.0)
    assert s.age_s(slots, 3, 1700.0) == 700.0
    # Another boot: the clock starts again at 0, and the time switched off does not count.
    assert s.age_s(slots, 3, 50.0) == 650.0
    slots = s.sight(slots, [3], 50.0)
    assert s.age_s(slots, 3, 60.0) == 660.0
    assert s.age_s(slots, 4, 60.0) == 0.0


def test_sightings_of_other_releases_are_forgotten() -> None:
    slots = s.sight(s.sight(Slots(), [3, 2], 0.0), [4, 3], 10.0)
    assert [entry.release for entry in slots.sightings] == [4, 3]
    assert s.age_s(slots, 3, 10.0) == 10.0


@given(boots=st.lists(st.lists(st.floats(0, 1e6), min_size=1, max_size=5), min_size=1, max_size=5))
def test_an_age_never_exceeds_the_time_switched_on(boots: list[list[float]]) -> None:
    slots, first, on, age = Slots(), True, 0.0, 0.0
    for boot in boots:
        start = 0.0
        for now in sorted(boot):
            if not first:
                on += now - start
            slots, first, start = s.sight(slots, [5], now), False, now
            assert s.age_s(slots, 5, now) <= on * (1 + 1e-9) + 1e-6
            assert s.age_s(slots, 5, now) >= age
            age = s.age_s(slots, 5, now)


releases = st.integers(1, 6)
steps = st.one_of(
    releases.map(lambda r: lambda slots: s.stage(slots, installed(r))),
    st.integers(1, 3).map(lambda a: lambda slots: s.activate(slots, attempt=a) if slots.staged else slots),
    st.just(s.start),
    st.just(s.ended_cleanly),
    st.just(s.roll_back),
    st.just(s.switch_back),
    st.integers(1, 30).map(lambda n: lambda slots: s.good(slots, n, commit_after=20)),
    st.sets(releases, max_size=2).map(lambda gone: lambda slots: s.without(slots, gone)),
    st.tuples(releases, st.sets(releases, max_size=2)).map(
        lambda p: lambda slots: s.restrict(slots, min_release=p[0], revoked=p[1])
    ),
    st.floats(0, 1e6).map(lambda t: lambda slots: s.sight(slots, [1, 2], t)),
)


@given(st.lists(steps, max_size=25))
def test_no_sequence_of_transitions_breaks_the_invariants(sequence: list[object]) -> None:
    slots = running(1)
    good = {1}  # releases that were committed at some time
    for step in sequence:
        before, slots = slots, step(slots)  # type: ignore[operator]
        if before.trial is not None and slots.trial is None and before.active == slots.active and slots.active:
            good.add(slots.active.release)
        assert slots.trial is None or slots.active is not None
        if slots.trial is not None:
            assert slots.trial.unclean < s.CRASH_LOOP
        if slots.previous is not None:
            assert slots.previous.release in good
            assert slots.previous != slots.active
        if slots.active is not None and slots.trial is None:
            assert slots.active.release in good
        assert Slots.from_body(json.loads(json.dumps(slots.to_body()))) == slots


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", 2),
        ("active", {"release": 1, "artifact": "../x", "manifest_sha256": "0" * 64}),
        ("active", {"release": 1}),
        ("trial", []),
        ("denied", None),
        ("revoked", [0]),
        ("disabled", 0),
    ],
)
def test_a_state_that_does_not_fit_is_refused_with_its_key_path(key: str, value: object) -> None:
    body = json.loads(json.dumps(running(1).to_body())) | {key: value}
    with pytest.raises(ManifestError, match=key):
        Slots.from_body(body)
