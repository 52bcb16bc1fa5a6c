"""What a change would do, said in words, and whether it may be signed at all. Pure.

Run on each signer's own machine, over what was verified from their pinned root: the file that came to them says
nothing that is believed. Whatever is not described here is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from securesystemslib.signer import Key
from tuf.api.metadata import DelegatedRole, Root, Snapshot, Targets, Timestamp

from model_server.errors import KeyRejected, RepositoryDamaged, ReviewFailed
from model_server.signing.algorithms import check_algorithm
from model_server.signing.roles import (
    ONLINE_FIELD,
    ROOT_PEOPLE,
    THRESHOLD,
    check_keys,
    delegated_models,
    first_role,
    person_of,
    public_value,
    releases_delegation,
    releases_role,
    rollouts_delegation,
    rollouts_role,
)
from model_server.signing.state import Offline, State, keys_of, threshold_of_role

__all__ = ["ChangeReview", "judge"]

MAX_LIFE = {"root": timedelta(days=366), "targets": timedelta(days=91), "releases": timedelta(days=91)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeReview:
    """``lines`` say what would change, in words; ``roles`` are what must be signed, with the new expiry of each."""

    lines: tuple[str, ...]
    roles: Mapping[str, datetime]


def judge(before: State, change: Mapping[str, Offline], now: datetime) -> ChangeReview:
    """Compare the proposed metadata with what is published.

    Raises ReviewFailed for anything that would weaken the repository or that is not a change of keys: a lower
    threshold, a key without a person, one person twice, targets that list files, other paths, a life that is too long.
    """
    if not change:
        raise ReviewFailed("the change is empty")
    lines: list[str] = []
    root = change[Root.type].signed if Root.type in change else before.root.signed
    targets = change[Targets.type].signed if Targets.type in change else before.targets.signed
    if not isinstance(root, Root) or not isinstance(targets, Targets):
        raise ReviewFailed("the change holds metadata of another type than its name says")
    _check_public_keys(root, targets)
    if Root.type in change:
        lines += _root(before.root.signed, root, now)
    if Targets.type in change:
        lines += _targets(before.targets.signed, targets, now)
    for role, metadata in change.items():
        if role not in (Root.type, Targets.type):
            if not isinstance(metadata.signed, Targets):
                raise ReviewFailed(f"{role} is not targets metadata")
            lines += _releases(role, before.role(role), metadata.signed, targets, now)
    return ChangeReview(lines=tuple(lines), roles={role: each.signed.expires for role, each in change.items()})


def _check_public_keys(root: Root, targets: Targets) -> None:
    """Within a role `check_keys` sees twins; across roles one would let the server, or one person, pass for another."""
    known: dict[str, Key] = {}
    for key in (*root.keys.values(), *(targets.delegations.keys.values() if targets.delegations else ())):
        other = known.setdefault(public_value(key), key)
        if other != key:
            raise ReviewFailed(
                f"{_owner(other)} (key {other.keyid[:12]}) and {_owner(key)} (key {key.keyid[:12]}) would have "
                "the same public key"
            )


def _root(before: Root, after: Root, now: datetime) -> list[str]:
    _check_next(Root.type, before, after, now, MAX_LIFE["root"])
    if not after.consistent_snapshot:
        raise ReviewFailed("root would no longer name files by version")
    if set(after.roles) != {Root.type, Targets.type, Snapshot.type, Timestamp.type}:
        raise ReviewFailed("root names other roles than the four")
    lines: list[str] = []
    for role in (Root.type, Targets.type):
        _check_offline(after, role, before.roles[role].threshold)
        lines += _keys(role, before, after)
    if len(keys_of(after, Root.type)) < ROOT_PEOPLE:
        raise ReviewFailed(f"root would have fewer than {ROOT_PEOPLE} people")
    for role in (Snapshot.type, Timestamp.type):
        _check_online(after, role, after.roles[role].threshold)
        lines += _keys(role, before, after)
    used = {keyid for role in after.roles.values() for keyid in role.keyids}
    if set(after.keys) - used:
        raise ReviewFailed("root holds a key that no role uses")
    return lines or ["root is signed again, unchanged"]


def _targets(before: Targets, after: Targets, now: datetime) -> list[str]:
    _check_next(Targets.type, before, after, now, MAX_LIFE["targets"])
    if after.targets:
        raise ReviewFailed(f"targets would list files ({min(after.targets)}); it must list none")
    if after.delegations is None or after.delegations.roles is None:
        raise ReviewFailed("targets would delegate nothing, or by hash bins")
    models, known = delegated_models(after), delegated_models(before)
    gone = sorted(set(known) - set(models))
    if gone:
        raise ReviewFailed(f"{gone[0]} would no longer be delegated, which would end its updates for good")
    expected: dict[str, DelegatedRole] = {}
    lines: list[str] = []
    for model in models:
        offline, online = releases_role(model), rollouts_role(model)
        old = before.get_delegated_role(offline).threshold if model in known else THRESHOLD
        _check_offline(after, offline, old)
        _check_online(after, online, after.get_delegated_role(online).threshold)
        role = after.get_delegated_role(offline)
        expected[offline] = releases_delegation(model, role.keyids, role.threshold)
        expected[online] = rollouts_delegation(model, after.get_delegated_role(online).keyids[0])
        if model not in known:
            people = ", ".join(sorted(person_of(key) or "?" for key in keys_of(after, offline)))
            lines.append(f"{model} is added: {people} sign its releases, {role.threshold} at a time")
            continue
        lines += _keys(offline, before, after) + _keys(online, before, after)
    roles = after.delegations.roles
    for name in roles:
        if name not in expected:
            raise ReviewFailed(f"targets would delegate to {name!r}, which is no role of a model")
        if roles[name].to_dict() != expected[name].to_dict():
            raise ReviewFailed(f"{name} would have other paths than its model's")
    used = {keyid for role in roles.values() for keyid in role.keyids}
    if set(after.delegations.keys) - used:
        raise ReviewFailed("targets holds a key that no role uses")
    return lines or ["targets is signed again, unchanged"]


def _releases(role: str, before: Offline | None, after: Targets, targets: Targets, now: datetime) -> list[str]:
    if role not in {releases_role(model) for model in delegated_models(targets)}:
        raise ReviewFailed(f"{role} is no role of a model")
    if before is None:
        if after != first_role(role, after.expires).signed:
            raise ReviewFailed(f"the first {role} must be version 1, empty, and say its name")
        _check_life(role, after.expires, now, MAX_LIFE["releases"])
        return []
    old = before.signed
    if not isinstance(old, Targets):
        raise ReviewFailed(f"{role} is not targets metadata")
    _check_next(role, old, after, now, MAX_LIFE["releases"])
    if after.targets != old.targets or after.delegations is not None:
        raise ReviewFailed(f"{role} would list other files; a change of keys never does")
    return [f"{role} is signed again, unchanged: its {len(after.targets)} files stay"]


def _check_next(role: str, before: Root | Targets, after: Root | Targets, now: datetime, life: timedelta) -> None:
    if after.version != before.version + 1:
        raise ReviewFailed(f"{role}: the proposal has version {after.version}; after {before.version} comes one more")
    if after.spec_version != before.spec_version or after.unrecognized_fields != before.unrecognized_fields:
        raise ReviewFailed(f"{role}: the proposal changes fields that this version does not know")
    _check_life(role, after.expires, now, life)


def _check_life(role: str, expires: datetime, now: datetime, life: timedelta) -> None:
    if not now < expires <= now + life:
        raise ReviewFailed(f"{role} would expire on {expires:%Y-%m-%d}, not within {life.days - 1} days")


def _check_offline(delegator: Root | Targets, role: str, before: int) -> None:
    threshold = threshold_of_role(delegator, role)
    if threshold < max(THRESHOLD, before):
        raise ReviewFailed(f"{role} would need {threshold} signatures; it needs {max(THRESHOLD, before)} now")
    try:
        keys = keys_of(delegator, role)
        check_keys(role, keys)
    except (KeyRejected, RepositoryDamaged) as error:
        raise ReviewFailed(str(error)) from error
    if len(keys) < threshold:
        raise ReviewFailed(f"{role} would have {len(keys)} people, and {threshold} must sign")
    if any(ONLINE_FIELD in key.unrecognized_fields for key in keys):
        raise ReviewFailed(f"{role} would be signed by a key of the server")


def _check_online(delegator: Root | Targets, role: str, threshold: int) -> None:
    keys = keys_of(delegator, role)
    if threshold != 1 or len(keys) != 1 or ONLINE_FIELD not in keys[0].unrecognized_fields:
        raise ReviewFailed(f"{role} must have one key of the server, and need it alone")
    if person_of(keys[0]) is not None:
        raise ReviewFailed(f"the key of {role} belongs to a person; the server's keys belong to nobody")
    try:
        check_algorithm(keys[0])
    except KeyRejected as error:
        raise ReviewFailed(f"{role}: {error}") from error


def _keys(role: str, before: Root | Targets, after: Root | Targets) -> list[str]:
    """Who comes, who goes, whose key is another."""
    old = {key.keyid: key for key in keys_of(before, role)}
    new = {key.keyid: key for key in keys_of(after, role)}
    for keyid in old.keys() & new.keys():
        if old[keyid] != new[keyid]:
            raise ReviewFailed(f"{role}: key {keyid[:12]} would have another owner or content under its old id")
    came = {_owner(new[keyid]): keyid for keyid in new.keys() - old.keys()}
    went = {_owner(old[keyid]): keyid for keyid in old.keys() - new.keys()}
    lines = [
        f"{role}: {owner} gets a new key {came[owner][:12]} for {went[owner][:12]}{_verified_by(new[came[owner]])}"
        for owner in sorted(came.keys() & went.keys())
    ]
    lines += [
        f"{role}: {owner} joins with key {came[owner][:12]}{_verified_by(new[came[owner]])}"
        for owner in sorted(came.keys() - went.keys())
    ]
    lines += [f"{role}: {owner} leaves (key {went[owner][:12]})" for owner in sorted(went.keys() - came.keys())]
    return lines


def _verified_by(key: Key) -> str:
    return "" if key.keytype == "ed25519" else f" ({key.scheme}: devices need the extra `device` to verify it)"


def _owner(key: Key) -> str:
    return person_of(key) or "the server"
