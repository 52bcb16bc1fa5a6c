"""The device's TUF client without the house rules: what the public conformance suite drives.

The workflow, the disk and the network are those of an update check; what is left out is what this project asks of a
repository beyond the specification.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote

from tuf.api.exceptions import LengthOrHashMismatchError
from tuf.api.metadata import TargetFile

from edge_runtime.clock import SystemClock
from edge_runtime.disk import RealDisk, write_atomic
from edge_runtime.errors import ConfigurationError, Outcome, UpdateError
from edge_runtime.update.download import discard, download
from edge_runtime.update.fetcher import Transport, default_client
from edge_runtime.update.metadata import PlainClient, translated
from edge_runtime.update.tuf_fetcher import TufFetcher

__all__ = ["download_targets", "init", "refresh"]


def init(folder: Path, root: Path) -> None:
    """Trust the root metadata in the file ``root``. Raises `ConfigurationError` and `StoreError`."""
    try:
        data = root.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read {root}: {error.strerror}") from error
    disk = RealDisk()
    disk.mkdir(folder)
    write_atomic(disk, folder / "root.json", data)


def refresh(folder: Path, metadata_url: str) -> None:
    """Run the workflow down to the top-level targets. Raises `UpdateError` and `StoreError`."""
    with _client(folder, metadata_url):
        pass


def download_targets(
    folder: Path, metadata_url: str, names: Sequence[str], targets_url: str, destination: Path
) -> None:
    """Find each target through all delegations, and download it into ``destination`` under its quoted name unless it
    is there already. Raises `UpdateError` and `StoreError`."""
    disk = RealDisk()
    disk.mkdir(destination)
    with _client(folder, metadata_url) as (client, transport):
        for name in names:
            with translated("the repository's metadata"):
                target = client.get_targetinfo(name)
            if target is None:
                raise UpdateError(Outcome.VERIFICATION_FAILED, f"no role that may lists {name}")
            file = destination / quote(name, "")
            if _is_here(target, file):
                continue
            part = destination / f".{file.name}.part"
            path = target.path
            if client.consistent:
                path = target.get_prefixed_paths()[0]
            download(transport, f"{targets_url.rstrip('/')}/{path}", target, part, disk)
            disk.fsync(part)
            disk.rename(part, file)
            disk.fsync(destination)
            discard(part, disk)


@contextmanager
def _client(folder: Path, metadata_url: str) -> Iterator[tuple[PlainClient, Transport]]:
    """A refreshed client, while the folder is locked."""
    disk, clock = RealDisk(), SystemClock()
    if not disk.exists(folder / "root.json"):
        raise ConfigurationError(f"{folder} trusts no root yet: run `edgeship-device tuf --metadata-dir … init ROOT`")
    unlock = disk.lock(folder / ".lock")
    transport = Transport(partial(default_client, metadata_url), clock)
    try:
        client = PlainClient(
            folder=folder,
            url=f"{metadata_url.rstrip('/')}/",
            root=None,
            fetcher=TufFetcher(transport),
            disk=disk,
            now=clock.wall(),
        )
        with translated("the repository's metadata"):
            client.refresh()
        yield client, transport
    finally:
        transport.close()
        unlock()


def _is_here(target: TargetFile, file: Path) -> bool:
    try:
        with file.open("rb") as data:
            target.verify_length_and_hashes(data)
    except (OSError, LengthOrHashMismatchError):
        return False
    return True
