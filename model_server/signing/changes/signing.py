"""Signing a change on a person's own machine: the file read, verified from the pinned root, judged, shown, signed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from securesystemslib.signer import Key, Signer
from tuf.api.metadata import Root, Targets

from model_server.errors import KeyWithoutRole, ReviewFailed
from model_server.signing.changes.document import Change, read_change, write_change
from model_server.signing.changes.judging import ChangeReview, judge
from model_server.signing.changes.signatures import Needed, add_signatures, keys_for, needed
from model_server.signing.keys import open_signer
from model_server.signing.roles import releases_role
from model_server.signing.state import State
from model_server.signing.trusted import trusted_state
from model_server.signing.uris import KeyUri

__all__ = ["Looked", "look_at", "sign_change"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """A change, verified and judged."""

    change: Change
    before: State
    review: ChangeReview

    @property
    def needed(self) -> list[Needed]:
        return needed(self.before, self.change.metadata)


def look_at(path: Path, root: bytes, trust: Path, *, accept_expired: bool, now: datetime) -> Looked:
    """Read a change and judge it against what it carries as published, verified from ``root``.

    Raises: ReviewFailed.
    """
    change = read_change(path)
    roles = set(change.metadata) - {Root.type, Targets.type}
    models = [role.removeprefix("releases-") for role in sorted(roles)]
    if any(role != releases_role(model) for role, model in zip(sorted(roles), models, strict=True)):
        raise ReviewFailed(f"{path} proposes a role that is none of a model's releases")
    before = trusted_state(
        str(path),
        models,
        root,
        trust,
        files=change.published,
        fresh=False,
        accept_expired=accept_expired,
        now=now,
    )
    return Looked(change=change, before=before, review=judge(before, change.metadata, now))


def sign_change(
    path: Path,
    keys: Sequence[Path | KeyUri],
    passphrase: bytes,
    *,
    root: bytes,
    trust: Path,
    accept_expired: bool,
    confirm: Callable[[Looked], bool],
    now: datetime,
) -> tuple[Looked, list[str]]:
    """Sign, with each of ``keys``, the parts of the change that it may sign, and write the file again. A key that may
    sign nothing of it is passed over, if another may.

    Returns the change, and the roles that were signed. Raises: ReviewFailed (also if ``confirm`` says no), KeyRejected.
    """
    looked = look_at(path, root, trust, accept_expired=accept_expired, now=now)
    signers = _open(keys, passphrase, keys_for(looked.before, looked.change.metadata))
    if not confirm(looked):
        raise ReviewFailed("not confirmed. Nothing was signed")
    signed = {role for signer in signers for role in add_signatures(looked.before, looked.change.metadata, signer)}
    write_change(path, looked.change)
    return looked, sorted(signed)


def _open(places: Sequence[Path | KeyUri], passphrase: bytes, allowed: Sequence[Key]) -> list[Signer]:
    signers: list[Signer] = []
    useless: KeyWithoutRole | None = None
    for place in places:
        try:
            signers.append(open_signer(place, passphrase, allowed))
        except KeyWithoutRole as error:
            useless = error
    if not signers and useless is not None:
        raise useless
    return signers
