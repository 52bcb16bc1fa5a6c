"""Putting a signed change in front of devices, whole, on the server's machine."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from tuf.api.metadata import Root, Targets

from model_server.errors import ReleaseConflict, ThresholdNotMet
from model_server.signing.changes.judging import ChangeReview, judge
from model_server.signing.changes.signatures import Needed, needed
from model_server.signing.publisher import Publisher
from model_server.signing.repository import Repository
from model_server.signing.roles import delegated_models, releases_role, rollouts_role, signed_by
from model_server.signing.state import Offline, State, threshold_of_role

__all__ = ["publish_change", "published_state"]


def published_state(repository: Repository) -> State:
    """The offline roles that the repository holds."""
    targets = repository.top_level_targets()
    return State(
        root=repository.root(),
        targets=targets,
        releases={model: repository.role(releases_role(model)) for model in delegated_models(targets.signed)},
    )


def publish_change(publisher: Publisher, change: Mapping[str, Offline], now: datetime) -> ChangeReview:
    """Check the change as a signer does, then publish it: first the roles, which satisfy the present root and the new
    one, then the root. Wherever this is cut off, devices verify what they find, and saying it again finishes it.

    Raises: ReviewFailed, ReleaseConflict if something was published since, ThresholdNotMet.
    """
    with publisher.repository.lock():
        before = published_state(publisher.repository)
        left = {role: each for role, each in change.items() if not _is_published(before, role, each)}
        if not left:
            publisher.publish({})  # it may have been cut off just before the last snapshot and timestamp
            return ChangeReview(lines=("everything in it was published already",), roles={})
        for role, metadata in left.items():
            current = before.role(role)
            if current is not None and metadata.signed.version != current.signed.version + 1:
                raise ReleaseConflict(
                    f"{role} has changed since this was proposed (it is at version {current.signed.version}): make the "
                    "change again"
                )
        review = judge(before, left, now)
        open_ = [each for each in needed(before, left) if not each.met]
        if open_:
            raise ThresholdNotMet("; ".join(_words(each) for each in open_))
        roles = {role: each for role, each in left.items() if role != Root.type}
        new = _new_models(before, roles)
        _check_whole(before, left)
        publisher.publish_offline(
            {**roles, **{rollouts_role(model): publisher.first_rollouts(model) for model in new}},  # type: ignore[dict-item]
            left.get(Root.type),  # type: ignore[arg-type]
        )
        return review


def _check_whole(before: State, change: Mapping[str, Offline]) -> None:
    """Every role must verify once the change is out: a key that leaves must leave nothing behind that only it vouches
    for. Raises: ThresholdNotMet."""
    root = change.get(Root.type, before.root).signed
    targets = change.get(Targets.type, before.targets)
    assert isinstance(root, Root)
    assert isinstance(targets.signed, Targets)
    delegators: list[tuple[Root | Targets, str, Offline]] = [(root, Targets.type, targets)]
    for model in before.models:
        role = releases_role(model)
        delegators.append((targets.signed, role, change.get(role, before.releases[model])))
    for delegator, role, metadata in delegators:
        people = signed_by(delegator, role, metadata.signed_bytes, metadata.signatures)
        if len(people) < threshold_of_role(delegator, role):
            raise ThresholdNotMet(
                f"after this change {role} would be signed by {', '.join(people) or 'nobody'} only, and devices would "
                "refuse it: it must be signed again in the same change"
            )


def _is_published(before: State, role: str, metadata: Offline) -> bool:
    current = before.role(role)
    return current is not None and current.signed == metadata.signed


def _new_models(before: State, roles: Mapping[str, Offline]) -> list[str]:
    targets = roles.get(Targets.type)
    if targets is None or not isinstance(targets.signed, Targets):
        return []
    return sorted(set(delegated_models(targets.signed)) - set(before.models))


def _words(each: Needed) -> str:
    signed = f"signed by {', '.join(each.signed)}" if each.signed else "signed by nobody"
    return f"{each.role} is {signed}; {each.by} asks for {each.threshold} of {', '.join(each.people)}"
