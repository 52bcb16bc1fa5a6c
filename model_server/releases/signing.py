"""Signing a release, or a policy, on a manager's own machine: verify from the pinned root, review, sign.

Where the proposal comes from, a server or a file that was carried here, makes no difference: nothing in it is believed
without a signature or a digest. The published metadata is verified by the stock TUF client from a root that the manager
holds, and the proposal is compared with it and with the manager's bundle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Generic, TypeVar

from securesystemslib.signer import Signer
from tuf.api.exceptions import LengthOrHashMismatchError
from tuf.api.metadata import Targets

from edge_runtime.bundle import open_bundle, policy_path
from model_server.errors import KeyRejected, ReviewFailed
from model_server.releases.policy_request import PolicyReview, review_policy
from model_server.releases.proposal_file import Proposal
from model_server.releases.signing_request import Review, review
from model_server.signing.keys import open_signer, sign_metadata
from model_server.signing.roles import THRESHOLD, check_keys, person_of, releases_role, signed_by
from model_server.signing.trusted import trusted_state
from model_server.signing.uris import KeyUri

__all__ = ["Approval", "Manager", "sign_policy", "sign_release"]

R = TypeVar("R", Review, PolicyReview)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manager:
    """What a manager signs with, at the time ``now``.

    ``root`` is the pinned root metadata; ``trust`` a folder that remembers what was verified, so that an older state
    cannot be shown later. ``accept_expired`` reads roles that have expired, to sign them again.
    """

    key: Path | KeyUri
    passphrase: bytes
    root: bytes
    trust: Path
    now: datetime
    accept_expired: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval(Generic[R]):
    """What ``person`` has signed. ``signed_by`` are all who have now, of whom ``threshold`` must."""

    review: R
    person: str
    signed_by: tuple[str, ...]
    threshold: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _OpenRole:
    """The verified targets and ``releases-<model>``, and a key that may sign the next version of that."""

    delegating: Targets
    current: Targets
    signer: Signer
    person: str


def sign_release(
    proposal: Proposal, manager: Manager, *, bundle: Path, confirm: Callable[[Review], bool], fresh: bool
) -> Approval[Review]:
    """Review a proposed release against the manager's own ``bundle`` and sign it: into the proposal.

    ``fresh`` refuses published metadata that is out of date, as what a server shows may not be; what is carried by hand
    outlives a timestamp's day. ``confirm`` sees the review and decides.

    Raises: ReviewFailed (also if ``confirm`` says no), KeyRejected, BundleError.
    """
    own = open_bundle(bundle)
    release, document = proposal.release, proposal.document
    if release is None or (own.manifest.model, own.manifest.release) != (proposal.model, release):
        raise ReviewFailed(f"{bundle} holds {own.manifest.model} {own.manifest.release}, not {proposal.subject}")

    def judge(role: _OpenRole) -> Review:
        return review(
            proposal.model,
            release,
            current=role.current,
            pending=proposal.metadata.signed,
            own=own.files,
            release_document=document or b"",
            now=manager.now,
        )

    return _sign(proposal, manager, fresh, judge, confirm)


def sign_policy(
    proposal: Proposal, manager: Manager, *, confirm: Callable[[PolicyReview], bool], fresh: bool
) -> Approval[PolicyReview]:
    """Review a change of a model's policy against what is published, and sign it. As `sign_release`."""
    if proposal.release is not None:
        raise ReviewFailed(f"{proposal.source} proposes {proposal.subject}, and no policy")

    def judge(role: _OpenRole) -> PolicyReview:
        return review_policy(
            proposal.model,
            current=role.current,
            pending=proposal.metadata.signed,
            before=_published_policy(proposal, role.current),
            after=proposal.document,
            now=manager.now,
        )

    return _sign(proposal, manager, fresh, judge, confirm)


def _sign(
    proposal: Proposal, manager: Manager, fresh: bool, judge: Callable[[_OpenRole], R], confirm: Callable[[R], bool]
) -> Approval[R]:
    role = _open_role(proposal, manager, fresh)
    found = judge(role)
    if not confirm(found):
        raise ReviewFailed(f"{proposal.subject}: not confirmed. Nothing was signed")
    metadata = proposal.metadata
    sign_metadata(metadata, role.signer, append=True)
    name = releases_role(proposal.model)
    people = signed_by(role.delegating, name, metadata.signed_bytes, metadata.signatures)
    threshold = role.delegating.get_delegated_role(name).threshold
    return Approval(review=found, person=role.person, signed_by=tuple(sorted(people)), threshold=threshold)


def _open_role(proposal: Proposal, manager: Manager, fresh: bool) -> _OpenRole:
    """Verify what is published from the pinned root and open the manager's key for ``releases-<model>``.

    Raises: ReviewFailed, KeyRejected.
    """
    model = proposal.model
    state = trusted_state(
        proposal.source,
        [model],
        manager.root,
        manager.trust,
        files=proposal.published,
        fresh=fresh,
        accept_expired=manager.accept_expired,
        now=manager.now,
    )
    delegating, current = state.targets.signed, state.releases.get(model)
    if current is None:
        raise ReviewFailed(f"{proposal.source} has no model {model!r}")
    role = delegating.get_delegated_role(releases_role(model))
    keys = [delegating.get_key(keyid) for keyid in role.keyids]
    check_keys(releases_role(model), keys)
    if role.threshold < THRESHOLD:
        raise ReviewFailed(f"{releases_role(model)} needs one signature only; two people must approve a release")
    signer = open_signer(manager.key, manager.passphrase, keys)
    person = person_of(signer.public_key)
    if person is None:
        raise KeyRejected(f"{manager.key} belongs to no named person")
    return _OpenRole(delegating=delegating, current=current.signed, signer=signer, person=person)


def _published_policy(proposal: Proposal, current: Targets) -> bytes | None:
    """The published policy.json, checked against the verified metadata; None if there is none."""
    target = current.targets.get(policy_path(proposal.model))
    if target is None:
        return None
    try:
        target.verify_length_and_hashes(proposal.before or b"")
    except LengthOrHashMismatchError as error:
        raise ReviewFailed(
            f"the {target.path} that {proposal.source} shows is not the published one: {error}. Nothing was signed"
        ) from error
    return proposal.before
