"""Signing a release on a manager's own machine: fetch, verify from the pinned root, review, sign.

Nothing that the server says is believed without a signature or a digest: the published metadata is verified by the
stock TUF client from a root that the manager holds, and the proposal is compared with it and with the manager's bundle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import urllib3.exceptions
from tuf.api.exceptions import DownloadError, RepositoryError
from tuf.api.metadata import Metadata, Targets
from tuf.ngclient import Updater

from edge_runtime.bundle import RELEASE_FILE, open_bundle
from model_server.client import Client
from model_server.errors import KeyRejected, ReviewFailed, ServerUnreachable
from model_server.releases.signing_request import Review, review
from model_server.signing.keys import open_signer
from model_server.signing.repository import parse_metadata
from model_server.signing.roles import THRESHOLD, check_keys, person_of, releases_role

__all__ = ["Signed", "sign_release", "trusted_metadata"]


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
    key: Path,
    passphrase: bytes,
    bundle: Path,
    root: bytes,
    trust: Path,
    confirm: Callable[[Review], bool],
    now: datetime | None = None,
) -> Signed:
    """Review release ``release`` of ``model`` against the manager's own ``bundle`` and sign it.

    ``root`` is the pinned root metadata; ``trust`` is a folder that remembers what was verified, so that an older
    state cannot be shown later. ``confirm`` sees the review and decides.

    Raises: ReviewFailed (also if ``confirm`` says no), KeyRejected, ServerUnreachable, ServerRefused, BundleError.
    """
    own = open_bundle(bundle)
    if (own.manifest.model, own.manifest.release) != (model, release):
        raise ReviewFailed(f"{bundle} holds {own.manifest.model} {own.manifest.release}, not {model} {release}")
    delegating, current = trusted_metadata(client.server, model, root, trust)
    role = delegating.get_delegated_role(releases_role(model))
    keys = [delegating.get_key(keyid) for keyid in role.keyids]
    check_keys(releases_role(model), keys)
    if role.threshold < THRESHOLD:
        raise ReviewFailed(f"{releases_role(model)} needs one signature only; two people must approve a release")
    signer = open_signer(key, passphrase, keys)
    person = person_of(signer.public_key)
    if person is None:
        raise KeyRejected(f"{key} belongs to no named person")
    proposal = parse_metadata(client.get_bytes(f"/v1/releases/{model}/{release}/metadata"), Targets, "the proposal")
    found = review(
        model,
        release,
        current=current,
        pending=proposal.signed,
        own=own.files,
        release_document=client.get_bytes(f"/v1/releases/{model}/{release}/files/{RELEASE_FILE}"),
        now=now or datetime.now(UTC),
    )
    if not confirm(found):
        raise ReviewFailed(f"{model} {release}: not confirmed. Nothing was signed")
    signature = Metadata(proposal.signed).sign(signer)
    answer = client.post(
        f"/v1/releases/{model}/{release}/signatures", {"keyid": signature.keyid, "signature": signature.signature}
    )
    return Signed(review=found, person=person, release=answer)


def trusted_metadata(server: str, model: str, root: bytes, trust: Path) -> tuple[Targets, Targets]:
    """The top-level targets and ``releases-<model>``, verified from ``root`` by the stock TUF client.

    Raises: ReviewFailed if they do not verify, have expired, or the top-level targets list a file;
    ServerUnreachable.
    """
    trust.mkdir(parents=True, exist_ok=True)
    role = releases_role(model)
    try:
        updater = Updater(str(trust), f"{server}/metadata/", bootstrap=root)
        updater.get_targetinfo(f"models/{model}/1/none")  # loads the role; whether there is such a file is no matter
    except RepositoryError as error:
        raise ReviewFailed(f"what {server} publishes does not verify from your root: {error}") from error
    except (DownloadError, urllib3.exceptions.HTTPError) as error:
        raise ServerUnreachable(f"{server}/metadata: {error or type(error).__name__}") from error
    targets = parse_metadata((trust / "targets.json").read_bytes(), Targets, "targets").signed
    if targets.targets:
        raise ReviewFailed(f"the top-level targets list files ({min(targets.targets)}); they must list none")
    if targets.delegations is None or role not in (targets.delegations.roles or {}):
        raise ReviewFailed(f"{server} has no model {model!r}")
    return targets, parse_metadata((trust / f"{role}.json").read_bytes(), Targets, role).signed
