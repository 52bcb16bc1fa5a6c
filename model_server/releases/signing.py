"""Signing a release, or a policy, on a manager's own machine: fetch, verify from the pinned root, review, sign.

Nothing that the server says is believed without a signature or a digest: the published metadata is verified by the
stock TUF client from a root that the manager holds, and the proposal is compared with it and with the manager's bundle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from securesystemslib.signer import Signer
from tuf.api.exceptions import LengthOrHashMismatchError
from tuf.api.metadata import Metadata, TargetFile, Targets

from edge_runtime.bundle import RELEASE_FILE, open_bundle, policy_path
from model_server.client import Client
from model_server.errors import KeyRejected, ReviewFailed
from model_server.releases.policy_request import PolicyReview, review_policy
from model_server.releases.signing_request import Review, review
from model_server.signing.keys import open_signer, sign_metadata
from model_server.signing.repository import parse_metadata
from model_server.signing.roles import THRESHOLD, check_keys, person_of, releases_role
from model_server.signing.trusted import trusted_state
from model_server.signing.uris import KeyUri

__all__ = ["Signed", "SignedPolicy", "sign_policy", "sign_release"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRole:
    """The verified ``releases-<model>``, and a key that may sign its next version."""

    current: Targets
    signer: Signer
    person: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedPolicy:
    """As `Signed`, for a policy."""

    review: PolicyReview
    person: str
    policy: dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """What was signed, by whom, and what the server answered (the release as the API shows it)."""

    review: Review
    person: str
    release: dict[str, object]


def sign_release(
    client: Client,
    model: str,
    release: int,
    *,
    key: Path | KeyUri,
    passphrase: bytes,
    bundle: Path,
    root: bytes,
    trust: Path,
    accept_expired: bool = False,
    confirm: Callable[[Review], bool],
    now: datetime | None = None,
) -> Signed:
    """Review release ``release`` of ``model`` against the manager's own ``bundle`` and sign it.

    ``root`` is the pinned root metadata; ``trust`` is a folder that remembers what was verified, so that an older
    state cannot be shown later. ``accept_expired`` reads roles that have expired, to sign them again. ``confirm`` sees
    the review and decides.

    Raises: ReviewFailed (also if ``confirm`` says no), KeyRejected, ServerUnreachable, ServerRefused, BundleError.
    """
    own = open_bundle(bundle)
    if (own.manifest.model, own.manifest.release) != (model, release):
        raise ReviewFailed(f"{bundle} holds {own.manifest.model} {own.manifest.release}, not {model} {release}")
    role = open_role(
        client.server,
        model,
        key=key,
        passphrase=passphrase,
        root=root,
        trust=trust,
        accept_expired=accept_expired,
        now=now,
    )
    proposal = parse_metadata(client.get_bytes(f"/v1/releases/{model}/{release}/metadata"), Targets, "the proposal")
    found = review(
        model,
        release,
        current=role.current,
        pending=proposal.signed,
        own=own.files,
        release_document=client.get_bytes(f"/v1/releases/{model}/{release}/files/{RELEASE_FILE}"),
        now=now or datetime.now(UTC),
    )
    if not confirm(found):
        raise ReviewFailed(f"{model} {release}: not confirmed. Nothing was signed")
    signature = sign_metadata(Metadata(proposal.signed), role.signer)
    answer = client.post(
        f"/v1/releases/{model}/{release}/signatures", {"keyid": signature.keyid, "signature": signature.signature}
    )
    return Signed(review=found, person=role.person, release=answer)


def sign_policy(
    client: Client,
    model: str,
    *,
    key: Path | KeyUri,
    passphrase: bytes,
    root: bytes,
    trust: Path,
    accept_expired: bool = False,
    confirm: Callable[[PolicyReview], bool],
    now: datetime | None = None,
) -> SignedPolicy:
    """Review the change of ``model``'s policy that waits against what is published, and sign it. As `sign_release`."""
    role = open_role(
        client.server,
        model,
        key=key,
        passphrase=passphrase,
        root=root,
        trust=trust,
        accept_expired=accept_expired,
        now=now,
    )
    path = f"/v1/policies/{model}"
    proposal = parse_metadata(client.get_bytes(f"{path}/metadata"), Targets, "the proposal")
    published = role.current.targets.get(policy_path(model))
    found = review_policy(
        model,
        current=role.current,
        pending=proposal.signed,
        before=None if published is None else _fetch(client, published),
        after=client.get_bytes(f"{path}/document") or None,
        now=now or datetime.now(UTC),
    )
    if not confirm(found):
        raise ReviewFailed(f"the policy of {model}: not confirmed. Nothing was signed")
    signature = sign_metadata(Metadata(proposal.signed), role.signer)
    answer = client.post(f"{path}/signatures", {"keyid": signature.keyid, "signature": signature.signature})
    return SignedPolicy(review=found, person=role.person, policy=answer)


def open_role(
    server: str,
    model: str,
    *,
    key: Path | KeyUri,
    passphrase: bytes,
    root: bytes,
    trust: Path,
    accept_expired: bool = False,
    now: datetime | None = None,
) -> OpenRole:
    """Verify what ``server`` publishes from the pinned ``root`` and open the manager's key for ``releases-<model>``.

    Raises: ReviewFailed, KeyRejected, ServerUnreachable.
    """
    state = trusted_state(server, [model], root, trust, accept_expired=accept_expired, now=now)
    delegating, current = state.targets.signed, state.releases.get(model)
    if current is None:
        raise ReviewFailed(f"{server} has no model {model!r}")
    role = delegating.get_delegated_role(releases_role(model))
    keys = [delegating.get_key(keyid) for keyid in role.keyids]
    check_keys(releases_role(model), keys)
    if role.threshold < THRESHOLD:
        raise ReviewFailed(f"{releases_role(model)} needs one signature only; two people must approve a release")
    signer = open_signer(key, passphrase, keys)
    person = person_of(signer.public_key)
    if person is None:
        raise KeyRejected(f"{key} belongs to no named person")
    return OpenRole(current=current.signed, signer=signer, person=person)


def _fetch(client: Client, target: TargetFile) -> bytes:
    """A published document, checked against the verified metadata."""
    data = client.get_bytes(f"/targets/{target.get_prefixed_paths()[0]}")
    try:
        target.verify_length_and_hashes(data)
    except LengthOrHashMismatchError as error:
        raise ReviewFailed(
            f"the server's {target.path} is not the published one: {error}. Nothing was signed"
        ) from error
    return data
