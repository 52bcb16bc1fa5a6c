"""Proposals over HTTP: what a server proposes and publishes comes in, signatures go out. Nothing is verified here."""

from __future__ import annotations

from collections.abc import Mapping

from tuf.api.metadata import Metadata, Snapshot, Targets, Timestamp

from edge_runtime.bundle import RELEASE_FILE, policy_path
from model_server.client import Client
from model_server.errors import ReleaseConflict, ReviewFailed, ServerRefused
from model_server.releases.proposal_file import Proposal
from model_server.signing.chain import TIMESTAMP, chain_names, root_name, snapshot_name
from model_server.signing.repository import parse_metadata
from model_server.signing.roles import releases_role

__all__ = ["fetch_proposal", "submit"]

MAX_ROOTS = 256  # TUF's clients follow no more at once


def fetch_proposal(client: Client, model: str, release: int | None) -> Proposal:
    """The proposal for a release, or for the policy (None), and all that a signer verifies it with.

    Raises: ServerUnreachable, ServerRefused; ReviewFailed or RepositoryDamaged for what can be no proposal.
    """
    metadata = _proposed(client, model, release)
    published = _published(client, model)
    document: bytes | None
    if release is not None:
        document, before = client.get_bytes(f"{_path(model, release)}/files/{RELEASE_FILE}"), None
    else:
        document = client.get_bytes(f"{_path(model, None)}/document") or None
        before = _published_policy(client, model, published)
    return Proposal(
        source=client.server,
        model=model,
        release=release,
        metadata=metadata,
        document=document,
        before=before,
        published=published,
    )


def submit(client: Client, proposal: Proposal) -> dict[str, object]:
    """Send the signatures that the server does not have; what it then says of the release, or of the policy.

    Raises: ReleaseConflict if it proposes something else by now, ServerRefused, ServerUnreachable.
    """
    path = _path(proposal.model, proposal.release)
    there = _proposed(client, proposal.model, proposal.release)
    if there.signed_bytes != proposal.metadata.signed_bytes:
        raise ReleaseConflict(
            f"{proposal.subject}: what {client.server} proposes has changed since this was fetched. Fetch it again and "
            "sign that; no signature was sent"
        )
    for keyid, signature in proposal.metadata.signatures.items():
        if there.signatures.get(keyid) != signature:
            client.post(f"{path}/signatures", {"keyid": keyid, "signature": signature.signature})
    answer: dict[str, object] = client.get(path)
    return answer


def _path(model: str, release: int | None) -> str:
    return f"/v1/policies/{model}" if release is None else f"/v1/releases/{model}/{release}"


def _proposed(client: Client, model: str, release: int | None) -> Metadata[Targets]:
    return parse_metadata(client.get_bytes(f"{_path(model, release)}/metadata"), Targets, "the proposal")


def _published(client: Client, model: str) -> dict[str, bytes]:
    """As `published_files`, from a server's static files."""
    files = {TIMESTAMP: client.get_bytes(f"/metadata/{TIMESTAMP}")}
    name = snapshot_name(parse_metadata(files[TIMESTAMP], Timestamp, TIMESTAMP).signed.snapshot_meta.version)
    files[name] = client.get_bytes(f"/metadata/{name}")
    listed = parse_metadata(files[name], Snapshot, name).signed.meta
    for version in range(1, MAX_ROOTS + 1):
        try:
            files[root_name(version)] = client.get_bytes(f"/metadata/{root_name(version)}")
        except ServerRefused as error:
            if error.status == 404 and version > 1:
                break
            raise
    for name in chain_names({file: meta.version for file, meta in listed.items()}, [model]):
        files[name] = client.get_bytes(f"/metadata/{name}")
    return files


def _published_policy(client: Client, model: str, published: Mapping[str, bytes]) -> bytes | None:
    role = releases_role(model)
    data = next((data for name, data in published.items() if name.endswith(f".{role}.json")), None)
    target = None if data is None else parse_metadata(data, Targets, role).signed.targets.get(policy_path(model))
    if target is None:
        return None
    try:
        return client.get_bytes(f"/targets/{target.get_prefixed_paths()[0]}")
    except ServerRefused as error:
        raise ReviewFailed(f"{client.server} does not show the published {target.path}: {error}") from error
