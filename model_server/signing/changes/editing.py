"""Making the next metadata of the offline roles that a change touches. Pure: from a `State`, and nothing is signed.

A key that leaves a role must not take the role's signatures with it: where too few of those who stay have signed what
is published, the same content is proposed once more, for them to sign.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime, timedelta

from securesystemslib.signer import Key
from tuf.api.metadata import Delegations, Metadata, Root, Snapshot, Targets, Timestamp

from edge_runtime.bundle import check_model
from model_server.errors import KeyRejected, ReleaseConflict, SettingsError, ThresholdNotMet
from model_server.signing.roles import (
    ROOT_PEOPLE,
    THRESHOLD,
    Expiry,
    check_keys,
    first_role,
    person_of,
    public_value,
    releases_delegation,
    releases_role,
    rollouts_delegation,
    rollouts_role,
    signed_by,
)
from model_server.signing.state import Offline, State, keys_of, people_of, threshold_of_role

__all__ = ["Editor", "Holding"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """A key of a named person for one kind of role: ``root``, ``targets`` or ``releases``."""

    kind: str
    key: Key


class Editor:
    """Collects edits; `changed` gives the next metadata of every role that they touch, unsigned."""

    def __init__(self, state: State, now: datetime, expiry: Expiry) -> None:
        self._state = state
        self._now = now
        self._expiry = expiry
        self._root = deepcopy(state.root.signed)
        self._targets = deepcopy(state.targets.signed)
        self._first_releases: dict[str, Metadata[Targets]] = {}
        self._renewed: set[str] = set()
        self._touched: set[str] = set()

    # Edits

    def add(self, holdings: Iterable[Holding], models: Sequence[str] | None = None) -> None:
        """Let each key sign its kind of role; a ``releases`` key that of every model, or of ``models``.

        Raises: KeyRejected for a key without a person, a public key that is there already in any role under any id, or
        a person who has a key in the role; SettingsError for an unknown model.
        """
        for holding in holdings:
            roles = self._roles(holding.kind, models)
            self._check_new(holding.key, elsewhere=holding.kind == "releases" and self._free(holding.key, roles))
            for role in roles:
                if role in (Root.type, Targets.type):
                    self._root.add_key(holding.key, role)
                    self._touched.add(Root.type)
                else:
                    self._targets.add_key(holding.key, role)
                    self._touched.add(Targets.type)
                check_keys(role, keys_of(self._delegator(role), role))

    def remove(self, person: str, kinds: Sequence[str] | None = None, models: Sequence[str] | None = None) -> None:
        """Take away a person's keys: all, or those of the named kinds of role. Raises: KeyRejected if there is none."""
        self._drop([(role, key) for role, key in self._held(kinds, models) if person_of(key) == person], person)

    def revoke(self, keyid: str) -> None:
        """Take away one key, named by the beginning of its id, from every role. Raises: KeyRejected."""
        if len(keyid) < 8:
            raise KeyRejected("give at least 8 characters of the key's id, as `edgeship-server keys list` shows it")
        found = [(role, key) for role, key in self._held(None, None) if key.keyid.startswith(keyid)]
        if len({key.keyid for _, key in found}) > 1:
            raise KeyRejected(f"more than one key has an id that begins with {keyid}: give more of it")
        self._drop(found, f"key {keyid}")

    def rotate(self, holdings: Sequence[Holding]) -> None:
        """Put each key in the place of the one that its person has, in every role of its kind where they have one.

        Raises: KeyRejected if they have none.
        """
        for holding in holdings:
            self._check_new(holding.key)
            person = person_of(holding.key)
            old = [(role, key) for role, key in self._held([holding.kind], None) if person_of(key) == person]
            self._drop(old, f"{person} in {holding.kind}")
            for role, _ in old:
                if role in (Root.type, Targets.type):
                    self._root.add_key(holding.key, role)
                else:
                    self._targets.add_key(holding.key, role)

    def rotate_online(self, use: str, key: Key) -> None:
        """Put another key of the server in the place of ``use``: ``snapshot``, ``timestamp`` or ``rollouts``."""
        self._check_new(key, person=False)
        if use in (Snapshot.type, Timestamp.type):
            for old in list(self._root.roles[use].keyids):
                self._root.revoke_key(old, use)
            self._root.add_key(key, use)
            self._touched.add(Root.type)
            return
        for model in self._state.models:
            role = rollouts_role(model)
            for old in list(self._targets.get_delegated_role(role).keyids):
                self._targets.revoke_key(old, role)
            self._targets.add_key(key, role)
        self._touched.add(Targets.type)

    def renew(self, role: str) -> None:
        """The same content again, with its whole time. Raises: SettingsError for a role that people do not sign."""
        if self._state.role(role) is None:
            raise SettingsError(
                f"{role!r} is no role that people sign here: root, targets or "
                f"{', '.join(releases_role(model) for model in self._state.models) or 'releases-<model>'}"
            )
        self._renewed.add(role)

    def delegate(self, model: str, managers: Iterable[Key], online: Key) -> None:
        """Add a model with its two roles; ``managers`` sign its releases, ``online`` its rollouts.

        Raises: ReleaseConflict if the model is there already; ThresholdNotMet for managers of fewer than two people.
        """
        check_model(model)
        if model in self._state.models:
            raise ReleaseConflict(f"{model} is delegated already")
        keys = list(managers)
        check_keys(releases_role(model), keys)
        if len(keys) < THRESHOLD:
            raise ThresholdNotMet(f"{releases_role(model)} needs the keys of {THRESHOLD} people, not {len(keys)}")
        delegations = self._targets.delegations or Delegations({}, {})
        self._targets.delegations = delegations
        if delegations.roles is None:
            raise SettingsError("the repository's targets metadata delegates by hash bins, which this version does not")
        for key in (*keys, online):
            delegations.keys[key.keyid] = key
        for made in (
            releases_delegation(model, [key.keyid for key in keys]),
            rollouts_delegation(model, online.keyid),
        ):
            delegations.roles[made.name] = made
        self._first_releases[releases_role(model)] = first_role(
            releases_role(model), self._until(self._expiry.releases)
        )
        self._touched.add(Targets.type)

    # The result

    def changed(self) -> dict[str, Offline]:
        """The next metadata of each role that changes or must be signed again, by role, without signatures.

        Raises: KeyRejected if a role would be left with too few people.
        """
        self._check_enough()
        if Root.type in self._touched:
            self._check_root_people()
        again = {role for role in self._all_roles() if role not in self._touched and self._would_break(role)}
        found: dict[str, Offline] = {}
        for role in sorted(self._touched | self._renewed | again):
            found[role] = self._next(role)
        for role, first in self._first_releases.items():
            found[role] = first
        return found

    def _next(self, role: str) -> Offline:
        if role == Root.type:
            self._root.version = self._state.root.signed.version + 1
            self._root.expires = self._until(self._expiry.root)
            return Metadata(self._root)
        if role == Targets.type:
            self._targets.version = self._state.targets.signed.version + 1
            self._targets.expires = self._until(self._expiry.targets)
            return Metadata(self._targets)
        current = self._state.role(role)
        if current is None or not isinstance(current.signed, Targets):
            raise SettingsError(f"there is no role {role}")
        again = deepcopy(current.signed)
        again.version += 1
        again.expires = self._until(self._expiry.releases)
        return Metadata(again)

    def _would_break(self, role: str) -> bool:
        """Whether those who may sign the role from now on have not signed what is published of it in numbers enough."""
        current = self._state.role(role)
        if current is None or role == Root.type:
            return False
        delegator = self._delegator(role)
        people = signed_by(delegator, role, current.signed_bytes, current.signatures)
        return len(people) < threshold_of_role(delegator, role)

    def _check_enough(self) -> None:
        for role in self._all_roles():
            delegator = self._delegator(role)
            people, threshold = people_of(delegator, role), threshold_of_role(delegator, role)
            if len(people) < threshold:
                raise KeyRejected(
                    f"{role} would be left with {', '.join(people) or 'nobody'}, and {threshold} people must sign it: "
                    "add somebody in the same change (--add)"
                )

    def _check_root_people(self) -> None:
        people = people_of(self._root, Root.type)
        if len(people) < ROOT_PEOPLE:
            raise KeyRejected(
                f"root would be left with {', '.join(people)}: {ROOT_PEOPLE} people must hold root keys, so that one "
                "lost key does not end the repository. Add somebody in the same change (--add)"
            )

    def _drop(self, held: Sequence[tuple[str, Key]], what: str) -> None:
        if not held:
            raise KeyRejected(f"{what} holds no key here: see `edgeship-server keys list`")
        for role, key in held:
            if role in (Root.type, Targets.type):
                self._root.revoke_key(key.keyid, role)
                self._touched.add(Root.type)
            else:
                self._targets.revoke_key(key.keyid, role)
                self._touched.add(Targets.type)

    def _free(self, key: Key, roles: Sequence[str]) -> bool:
        """Whether the key is in none of these roles."""
        return all(known.keyid != key.keyid for role in roles for known in keys_of(self._delegator(role), role))

    def _check_new(self, key: Key, *, person: bool = True, elsewhere: bool = False) -> None:
        """``elsewhere``: the very same key may be in another model's releases role."""
        if person and person_of(key) is None:
            raise KeyRejected(f"key {key.keyid[:12]} belongs to nobody; every offline key needs a named person")
        for role, known in self._held(None, None, online=True):
            if elsewhere and known == key and role.startswith("releases-"):
                continue
            if public_value(known) == public_value(key):
                raise KeyRejected(
                    f"this public key is there already, in {role} as {known.keyid[:12]} of "
                    f"{person_of(known) or 'the server'}: a person makes a key of their own for each kind of role"
                )

    def _held(
        self, kinds: Sequence[str] | None, models: Sequence[str] | None, *, online: bool = False
    ) -> list[tuple[str, Key]]:
        roles = [role for kind in kinds or ("root", "targets", "releases") for role in self._roles(kind, models)]
        if online:
            roles += [Snapshot.type, Timestamp.type, *map(rollouts_role, self._state.models)]
        return [(role, key) for role in roles for key in keys_of(self._delegator(role), role)]

    def _roles(self, kind: str, models: Sequence[str] | None) -> list[str]:
        if kind in (Root.type, Targets.type):
            return [kind]
        if kind != "releases":
            raise SettingsError(f"{kind!r} is no kind of role: root, targets or releases")
        unknown = sorted(set(models or ()) - set(self._state.models))
        if unknown:
            raise SettingsError(f"no model {unknown[0]!r} is delegated here")
        return [releases_role(model) for model in models or self._state.models]

    def _all_roles(self) -> list[str]:
        return [Root.type, Targets.type, *map(releases_role, self._state.models)]

    def _delegator(self, role: str) -> Root | Targets:
        return self._root if role in (Root.type, Targets.type, Snapshot.type, Timestamp.type) else self._targets

    def _until(self, life: timedelta) -> datetime:
        return (self._now + life).replace(microsecond=0)
