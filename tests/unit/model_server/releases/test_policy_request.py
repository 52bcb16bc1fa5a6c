from __future__ import annotations

from copy import deepcopy
from datetime import UTC, datetime, timedelta

import pytest
from tuf.api.metadata import TargetFile, Targets

from edge_runtime.bundle import PolicyDocument, policy_path, target_path, write_policy
from model_server.errors import ReleaseConflict, ReviewFailed, UnknownRelease
from model_server.releases.policy_request import PolicyReview, next_policy_metadata, review_policy, tightened

NOW = datetime(2026, 11, 23, tzinfo=UTC)
EXPIRES = NOW + timedelta(days=90)
BEFORE = PolicyDocument(model="m", min_release=2, revoked=(4,))
AFTER = PolicyDocument(model="m", min_release=3, revoked=(4, 5))
RELEASES = (1, 2, 3, 4, 5, 6)


def published(policy: PolicyDocument | None = BEFORE) -> Targets:
    current = Targets(version=7, expires=EXPIRES)
    for release in RELEASES:
        path = target_path("m", release, "manifest.json")
        current.targets[path] = TargetFile.from_data(path, b"%d" % release, ["sha256"])
    if policy is not None:
        path = policy_path("m")
        current.targets[path] = TargetFile.from_data(path, write_policy(policy), ["sha256"])
    return current


def judge(
    pending: Targets, *, before: PolicyDocument | None = BEFORE, after: bytes | None = write_policy(AFTER)
) -> PolicyReview:
    return review_policy(
        "m",
        current=published(before),
        pending=pending,
        before=None if before is None else write_policy(before),
        after=after,
        now=NOW,
    )


def proposal(policy: PolicyDocument = AFTER) -> Targets:
    return next_policy_metadata(published(), "m", write_policy(policy), EXPIRES)


def test_a_tighter_policy_is_shown_as_what_it_takes_away() -> None:
    found = judge(proposal())
    assert (found.revoked, found.floor_before, found.floor_after) == ((5,), 2, 3)
    assert (found.metadata_version, found.kept) == (8, 6)


def test_the_first_policy_of_a_model_is_one_too() -> None:
    pending = next_policy_metadata(published(None), "m", write_policy(AFTER), EXPIRES)
    assert judge(pending, before=None).floor_before == 1


@pytest.mark.parametrize("before", [None, BEFORE])
def test_a_renewal_changes_nothing_but_the_expiry(before: PolicyDocument | None) -> None:
    current = published(before)
    current.expires = NOW + timedelta(days=1)
    pending = next_policy_metadata(current, "m", None, EXPIRES)
    found = review_policy(
        "m",
        current=current,
        pending=pending,
        before=None if before is None else write_policy(before),
        after=None,
        now=NOW,
    )
    assert (found.revoked, found.floor_before == found.floor_after, found.expires) == ((), True, EXPIRES)


def add_a_file(pending: Targets) -> None:
    path = target_path("m", 7, "manifest.json")
    pending.targets[path] = TargetFile.from_data(path, b"7", ["sha256"])


def swap_a_file(pending: Targets) -> None:
    path = target_path("m", 6, "manifest.json")
    pending.targets[path] = TargetFile.from_data(path, b"evil", ["sha256"])


def drop_a_file(pending: Targets) -> None:
    del pending.targets[target_path("m", 6, "manifest.json")]


def drop_the_policy(pending: Targets) -> None:
    del pending.targets[policy_path("m")]


def live_for_ever(pending: Targets) -> None:
    pending.expires = NOW + timedelta(days=3650)


def skip_a_version(pending: Targets) -> None:
    pending.version += 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (add_a_file, "models/m/7/manifest.json is changed too"),
        (swap_a_file, "models/m/6/manifest.json is changed too"),
        (drop_a_file, "models/m/6/manifest.json is changed too"),
        (drop_the_policy, "not in the proposal"),
        (live_for_ever, "not within 90 days"),
        (skip_a_version, "after 7 comes 8"),
    ],
)
def test_a_proposal_that_changes_anything_else_is_not_signed(change: object, says: str) -> None:
    pending = deepcopy(proposal())
    change(pending)  # type: ignore[operator]
    with pytest.raises(ReviewFailed, match=says):
        judge(pending)


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        (PolicyDocument(model="m", min_release=1, revoked=(4,)), "sink from 2 to 1"),
        (PolicyDocument(model="m", min_release=2), "release 4 would no longer be revoked"),
        (PolicyDocument(model="m", min_release=7), "above every release"),
        (PolicyDocument(model="other", min_release=3, revoked=(4,)), "is for other"),
    ],
)
def test_a_policy_that_loosens_or_leaves_nothing_is_not_signed(policy: PolicyDocument, says: str) -> None:
    with pytest.raises(ReviewFailed, match=says):
        judge(proposal(policy), after=write_policy(policy))


@pytest.mark.parametrize("after", [None, b"", b"{}", write_policy(BEFORE)])
def test_a_server_that_shows_another_policy_than_it_wants_signed_is_refused(after: bytes | None) -> None:
    with pytest.raises(ReviewFailed):
        judge(proposal(), after=after)


def test_a_revocation_below_the_floor_needs_no_name_any_more() -> None:
    assert tightened(BEFORE, RELEASES, min_release=5) == PolicyDocument(model="m", min_release=5)
    judge(
        proposal(PolicyDocument(model="m", min_release=5)), after=write_policy(PolicyDocument(model="m", min_release=5))
    )


def test_policies_add_up() -> None:
    assert tightened(BEFORE, RELEASES, revoke=[6, 5]) == PolicyDocument(model="m", min_release=2, revoked=(4, 5, 6))
    assert tightened(BEFORE, RELEASES, revoke=[4]) == BEFORE


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(UnknownRelease, match="m 9 is not published"):
        tightened(BEFORE, RELEASES, revoke=[5, 9])
    with pytest.raises(ReleaseConflict, match="never sinks"):
        tightened(BEFORE, RELEASES, min_release=1)
    with pytest.raises(ReleaseConflict, match="newest release of m is 6"):
        tightened(BEFORE, RELEASES, min_release=7)
    with pytest.raises(ReleaseConflict, match="none"):
        tightened(PolicyDocument(model="m"), (), min_release=2)
