"""Who must sign a change, who has, and signing it. Keys are opened elsewhere; no file is read or written here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from securesystemslib.signer import Key, Signer
from tuf.api.metadata import Root, Targets

from model_server.errors import KeyRejected
from model_server.signing.keys import sign_metadata
from model_server.signing.roles import signed_by
from model_server.signing.state import Offline, State, keys_of, people_of, threshold_of_role

__all__ = ["Needed", "add_signatures", "keys_for", "needed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Needed:
    """``role`` must be signed by ``threshold`` people out of ``people``, by what ``by`` says; ``signed`` have."""

    role: str
    by: str
    threshold: int
    people: tuple[str, ...]
    signed: tuple[str, ...]

    @property
    def met(self) -> bool:
        return len(self.signed) >= self.threshold


def needed(before: State, change: Mapping[str, Offline]) -> list[Needed]:
    """Everything that must hold before the change is published.

    A root is signed by the people of the present one and by its own. Roles go out before a new root does, so that no
    device meets one without the other; so targets must satisfy both roots too.
    """
    found = []
    for role, metadata in change.items():
        for by, delegator in _delegators(before, change, role):
            signed = signed_by(delegator, role, metadata.signed_bytes, metadata.signatures)
            found.append(
                Needed(
                    role=role,
                    by=by,
                    threshold=threshold_of_role(delegator, role),
                    people=tuple(sorted(people_of(delegator, role))),
                    signed=tuple(sorted(signed)),
                )
            )
    return found


def keys_for(before: State, change: Mapping[str, Offline]) -> list[Key]:
    """Every key that may sign some part of the change."""
    return [
        key for role in change for _, delegator in _delegators(before, change, role) for key in keys_of(delegator, role)
    ]


def add_signatures(before: State, change: Mapping[str, Offline], signer: Signer) -> list[str]:
    """Sign each part that this key may sign; the roles. Raises: KeyRejected if there is none."""
    signed = []
    for role, metadata in change.items():
        for _, delegator in _delegators(before, change, role):
            if role not in signed and any(key.keyid == signer.public_key.keyid for key in keys_of(delegator, role)):
                sign_metadata(metadata, signer, append=True)  # type: ignore[misc]
                signed.append(role)
    if not signed:
        raise KeyRejected(f"key {signer.public_key.keyid[:12]} may sign nothing of this change")
    return signed


def _delegators(before: State, change: Mapping[str, Offline], role: str) -> list[tuple[str, Root | Targets]]:
    root, targets = change.get(Root.type), change.get(Targets.type)
    if role in (Root.type, Targets.type):
        found: list[tuple[str, Root | Targets]] = [("the present root", before.root.signed)]
        if root is not None:
            found.append(("the new root", root.signed))
        return found
    return [("targets", before.targets.signed if targets is None else targets.signed)]
