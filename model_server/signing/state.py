"""The offline roles as they are published: what a change starts from. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from securesystemslib.signer import Key
from tuf.api.metadata import Metadata, Root, Targets

from model_server.errors import RepositoryDamaged
from model_server.signing.roles import delegated_models, person_of, releases_role

__all__ = ["Offline", "State", "keys_of", "people_of", "threshold_of_role"]

Offline = Metadata[Root] | Metadata[Targets]


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """``releases`` holds the metadata of ``releases-<model>`` by model."""

    root: Metadata[Root]
    targets: Metadata[Targets]
    releases: Mapping[str, Metadata[Targets]]

    @property
    def models(self) -> tuple[str, ...]:
        return delegated_models(self.targets.signed)

    def role(self, name: str) -> Offline | None:
        """The published metadata of an offline role; None if there is none yet."""
        if name == Root.type:
            return self.root
        if name == Targets.type:
            return self.targets
        return next((each for model, each in self.releases.items() if releases_role(model) == name), None)


def keys_of(delegator: Root | Targets, role: str) -> list[Key]:
    """The keys that ``delegator`` lets sign ``role``. Raises RepositoryDamaged if one is not there."""
    keyids = _keyids(delegator, role)
    missing = [keyid for keyid in keyids if keyid not in _all_keys(delegator)]
    if missing:
        raise RepositoryDamaged(f"{role} names key {missing[0][:12]}, which is not in the metadata")
    return [_all_keys(delegator)[keyid] for keyid in keyids]


def people_of(delegator: Root | Targets, role: str) -> dict[str, Key]:
    """The keys of ``role`` by their owners."""
    return {person: key for key in keys_of(delegator, role) if (person := person_of(key)) is not None}


def threshold_of_role(delegator: Root | Targets, role: str) -> int:
    if isinstance(delegator, Root):
        return delegator.roles[role].threshold
    return delegator.get_delegated_role(role).threshold


def _keyids(delegator: Root | Targets, role: str) -> list[str]:
    if isinstance(delegator, Root):
        return list(delegator.roles[role].keyids)
    return list(delegator.get_delegated_role(role).keyids)


def _all_keys(delegator: Root | Targets) -> Mapping[str, Key]:
    if isinstance(delegator, Root):
        return delegator.keys
    return delegator.delegations.keys if delegator.delegations is not None else {}
