"""The repository as a folder that any web server or CDN can serve, without this process.

The present state is written, and nothing is removed: what an earlier export wrote stays for devices that are in the
middle of a check. Targets come first, versioned metadata after them, ``timestamp.json`` last, so that what the folder
shows is whole while an export runs, and wherever it is cut off. The one exception: a root that replaced the timestamp's
key, whose two files nothing can write at once; devices that meet the moment between them try again. Layout and headers:
docs/spec/static-files.md.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tuf.api.metadata import Snapshot, TargetFile, Targets, Timestamp

from model_server.errors import RepositoryDamaged, SettingsError
from model_server.files import sync_folder, write_atomic
from model_server.signing.repository import TARGETS, Repository, parse_metadata

__all__ = ["Exported", "export"]

MIN_GZIP_BYTES = 512  # below this, gzip saves less than its own header costs in time


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What an export wrote, and what was there already. ``bytes`` of what was written."""

    written: int
    kept: int
    bytes: int
    timestamp_version: int


def export(repository: Repository, folder: Path, progress: Callable[[int, int], None]) -> Exported:
    """Write what the present timestamp leads to into ``folder``: ``metadata/`` and ``targets/``. ``progress`` is told
    how many files of how many are there.

    Raises: SettingsError if ``folder`` is no folder; RepositoryDamaged if a file is gone or not what was signed;
    StorageUnavailable; OSError.
    """
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"{folder} is no folder")
    roots, timestamp_bytes = _present(repository)
    timestamp = parse_metadata(timestamp_bytes, Timestamp, "timestamp.json").signed
    snapshot = f"{timestamp.snapshot_meta.version}.snapshot.json"
    listed = parse_metadata(repository.file(snapshot), Snapshot, snapshot).signed.meta
    roles = [f"{meta.version}.{name}" for name, meta in sorted(listed.items())]
    names = [*roles, snapshot, *(f"{version}.root.json" for version in range(1, roots + 1))]
    targets = [target for name in roles for target in _signed_targets(repository, name)]
    done, written, size = 0, 0, 0

    def note(new: int | None) -> None:
        nonlocal done, written, size
        done += 1
        if new is not None:
            written, size = written + 1, size + new
        progress(done, len(targets) + len(names) + 1)

    for target in targets:
        note(_export_target(repository, target, folder))
    for name in names:
        note(_export_metadata(folder / "metadata" / name, repository.file(name)))
    note(_export_metadata(folder / "metadata" / "timestamp.json", timestamp_bytes))
    return Exported(written=written, kept=done - written, bytes=size, timestamp_version=timestamp.version)


def _present(repository: Repository) -> tuple[int, bytes]:
    """How many roots there are, and a timestamp of that time. All that it leads to is there, and stays."""
    while True:
        roots, timestamp = repository.root_version(), repository.timestamp_bytes()
        if repository.root_version() == roots:
            return roots, timestamp


def _signed_targets(repository: Repository, name: str) -> Iterable[TargetFile]:
    return parse_metadata(repository.file(name), Targets, name).signed.targets.values()


def _export_target(repository: Repository, target: TargetFile, folder: Path) -> int | None:
    """The bytes that were written; None if the file was there: its name holds its digest."""
    name = repository.target_name(target)
    path = folder / "targets" / name.removeprefix(TARGETS)
    if path.exists() and path.stat().st_size == target.length:
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    digest, size = hashlib.sha256(), 0
    try:
        with temporary.open("xb") as out:
            for piece in repository.storage.pieces(name):
                digest.update(piece)
                size += out.write(piece)
            out.flush()
            os.fsync(out.fileno())  # a later export takes a file of the right size for whole
        if (size, digest.hexdigest()) != (target.length, target.hashes.get("sha256")):
            raise RepositoryDamaged(f"{target.path} is not the file that was signed; it was not exported")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    return size


def _export_metadata(path: Path, data: bytes) -> int | None:
    if path.exists() and path.read_bytes() == data:
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    packed = path.with_name(path.name + ".gz")
    if len(data) >= MIN_GZIP_BYTES:
        write_atomic(packed, gzip.compress(data, 9, mtime=0))  # first, as nobody looks for it before the file is there
    else:
        packed.unlink(missing_ok=True)
    write_atomic(path, data)
    return len(data)
