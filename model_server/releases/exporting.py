"""A published release in one file that verifies without a network: its files, and the metadata that signs them."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from tuf.api.exceptions import LengthOrHashMismatchError
from tuf.api.metadata import TargetFile

from edge_runtime.bundle import MANIFEST_FILE, RELEASE_FILE, BundleError, policy_path, target_path, write_bundle
from model_server.errors import RepositoryDamaged, StorageUnavailable
from model_server.releases.blobs import Blobs
from model_server.signing.chain import published_files
from model_server.signing.repository import Repository
from model_server.signing.roles import releases_role

__all__ = ["export_release"]

TRIES = 5


def export_release(repository: Repository, blobs: Blobs, model: str, release: int, out: Path) -> str:
    """Make the file ``out`` the bundle of a published release; its sha256 in hex. The same bytes for the same state of
    the repository.

    Raises: RepositoryDamaged if a stored file is not what was signed; StorageUnavailable if things are published
    all the time.
    """
    files: dict[str, bytes | Path] = {f"tuf/{name}": data for name, data in _chain(repository, model).items()}
    targets = repository.role(releases_role(model)).signed.targets
    documents = {target_path(model, release, name) for name in (MANIFEST_FILE, RELEASE_FILE)}
    with ExitStack() as opened:
        for path, target in targets.items():
            if path == policy_path(model):
                files[path] = _checked(target, repository.target(target))
            elif path in documents:
                files[path] = _checked(target, blobs.read(target.hashes["sha256"]))
            elif path.startswith(f"models/{model}/{release}/"):  # the manifest and release.json answer for it
                files[path] = opened.enter_context(blobs.local(target.hashes["sha256"]))
        try:
            with out.open("xb") as stream:
                return write_bundle(stream, files)
        except BundleError as error:
            raise RepositoryDamaged(f"{model} {release} cannot be exported: {error}") from error


def _chain(repository: Repository, model: str) -> dict[str, bytes]:
    """What was published at one moment."""
    for _ in range(TRIES):
        state = repository.state()
        chain = published_files(repository, [model])
        if repository.state() == state:
            return chain
    raise StorageUnavailable("something is published all the time; ask again")


def _checked(target: TargetFile, data: bytes) -> bytes:
    try:
        target.verify_length_and_hashes(data)
    except LengthOrHashMismatchError as error:
        raise RepositoryDamaged(f"the stored {target.path} is not what was signed: {error}") from error
    return data
