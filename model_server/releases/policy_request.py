"""The metadata that changes a model's ``policy.json``, or only its expiry, and the review before it is signed. Pure.

A policy only tightens: the floor never sinks and a revocation never ends, so that whoever shows a device an older one
gains nothing that a newer release would not have fixed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from tuf.api.metadata import TargetFile, Targets

from edge_runtime.bundle import FileRef, ManifestError, PolicyDocument, policy_path, read_policy
from model_server.errors import ReleaseConflict, ReviewFailed, UnknownRelease
from model_server.releases.signing_request import check_next, check_target, highest_release

__all__ = ["PolicyReview", "next_policy_metadata", "review_policy", "tightened"]

POLICY_FILE = "policy.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyReview:
    """What a signature would change. ``revoked`` are the releases that may run now and could not any more by name;
    ``before`` and ``after`` are the floors; ``kept`` counts the published files that stay."""

    model: str
    metadata_version: int
    expires: datetime
    revoked: tuple[int, ...]
    floor_before: int
    floor_after: int
    kept: int


def tightened(
    before: PolicyDocument, published: Iterable[int], *, revoke: Iterable[int] = (), min_release: int | None = None
) -> PolicyDocument:
    """The policy after more revocations or a higher floor. ``published`` are the releases that there are.

    Raises: UnknownRelease for a release that is not published, ReleaseConflict for a floor that is lower than the
    present one or above every release.
    """
    there, revoked = sorted(set(published)), set(revoke)
    for release in sorted(revoked):
        if release not in there:
            raise UnknownRelease(f"{before.model} {release} is not published, so there is nothing to revoke")
    floor = before.min_release if min_release is None else min_release
    if floor < before.min_release:
        raise ReleaseConflict(f"the floor of {before.model} is {before.min_release}, and a floor never sinks")
    if floor != before.min_release and (not there or floor > there[-1]):
        raise ReleaseConflict(
            f"the newest release of {before.model} is {there[-1] if there else 'none'}: a floor of {floor} would leave "
            "devices nothing to run. Publish the release first, or `edgeship-server rollout disable` the model"
        )
    # What lies below the floor needs no name any more; the list has a cap.
    names = tuple(sorted(release for release in {*before.revoked, *revoked} if release >= floor))
    return replace(before, min_release=floor, revoked=names)


def next_policy_metadata(current: Targets, model: str, document: bytes | None, expires: datetime) -> Targets:
    """The next version of ``releases-<model>``: with this policy.json, or the same files and a new expiry."""
    targets = dict(current.targets)
    if document is not None:
        path = policy_path(model)
        targets[path] = TargetFile.from_data(path, document, ["sha256"])
    return Targets(
        version=current.version + 1,
        expires=expires,
        targets=targets,
        unrecognized_fields=dict(current.unrecognized_fields),
    )


def review_policy(
    model: str, *, current: Targets, pending: Targets, before: bytes | None, after: bytes | None, now: datetime
) -> PolicyReview:
    """Compare a proposal with the last published metadata.

    ``current`` must have been verified from the pinned root, and ``before``, the published policy.json, by its digest
    there; ``after`` is what the server says that the new one is. Raises ReviewFailed.
    """

    def refuse(reason: str) -> ReviewFailed:
        return ReviewFailed(f"the policy of {model}: {reason}. Nothing was signed")

    path = policy_path(model)
    check_next(current, pending, now, refuse)
    for other in sorted({*current.targets, *pending.targets} - {path}):
        if current.targets.get(other) != pending.targets.get(other):
            raise refuse(f"{other} is changed too; a policy is signed by itself")
    old = _read(before, model, refuse) if before is not None else PolicyDocument(model=model)
    new = old
    if pending.targets.get(path) != current.targets.get(path):
        if after is None:
            raise refuse(f"{POLICY_FILE} is changed and the server does not show it")
        ref = FileRef(file=POLICY_FILE, bytes=len(after), sha256=hashlib.sha256(after).hexdigest())
        check_target(path, pending.targets.get(path), ref, refuse)
        new = _read(after, model, refuse)
    if new.min_release < old.min_release:
        raise refuse(f"the floor would sink from {old.min_release} to {new.min_release}")
    ended = [release for release in old.revoked if new.allows(release)]
    if ended:
        raise refuse(f"release {ended[0]} would no longer be revoked")
    if new.min_release > max(highest_release(model, current), old.min_release):
        raise refuse(f"the floor {new.min_release} is above every release")
    return PolicyReview(
        model=model,
        metadata_version=pending.version,
        expires=pending.expires,
        revoked=tuple(release for release in new.revoked if release not in old.revoked),
        floor_before=old.min_release,
        floor_after=new.min_release,
        kept=len({*current.targets} - {path}),
    )


def _read(data: bytes, model: str, refuse: Callable[[str], ReviewFailed]) -> PolicyDocument:
    try:
        document = read_policy(data)
    except ManifestError as error:
        raise refuse(f"{POLICY_FILE}: {error}") from error
    if document.model != model:
        raise refuse(f"{POLICY_FILE} is for {document.model}")
    return document
