"""Adding a model in one step, with key files that are at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from model_server.signing.changes.editing import Editor
from model_server.signing.changes.publishing import published_state
from model_server.signing.changes.signatures import add_signatures, keys_for
from model_server.signing.keys import open_signer
from model_server.signing.publisher import Publisher
from model_server.signing.roles import Expiry
from model_server.signing.state import Offline
from model_server.signing.uris import KeyUri

__all__ = ["signed_delegation"]


def signed_delegation(
    publisher: Publisher,
    model: str,
    targets_keys: Sequence[Path | KeyUri],
    releases_keys: Sequence[Path | KeyUri],
    passphrase: bytes,
    now: datetime,
    expiry: Expiry,
) -> Mapping[str, Offline]:
    """The change that adds ``model``, signed by the targets keys; the releases keys sign its first, empty
    ``releases-<model>``, and become the keys of that role.

    Every releases key must already belong to a person in the present metadata.
    Raises: KeyRejected, ThresholdNotMet, ReleaseConflict if the model is delegated already.
    """
    before = published_state(publisher.repository)
    delegations = before.targets.signed.delegations
    known = (*before.root.signed.keys.values(), *(delegations.keys.values() if delegations else ()))
    managers = [open_signer(path, passphrase, known) for path in releases_keys]
    editor = Editor(before, now, expiry)
    editor.delegate(model, [signer.public_key for signer in managers], publisher.rollouts_key)
    change = editor.changed()
    allowed = keys_for(before, change)
    for signer in [*(open_signer(path, passphrase, allowed) for path in targets_keys), *managers]:
        add_signatures(before, change, signer)
    return change
