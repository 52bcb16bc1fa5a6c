"""Write a bundle: the same bytes for the same files, and only what `open_bundle` accepts."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edge_runtime.bundle import limits
from edge_runtime.bundle.archive import CHUNK_BYTES
from edge_runtime.bundle.documents import ReleaseDocument, write_release
from edge_runtime.bundle.errors import ArchiveError, BundleTooLarge
from edge_runtime.bundle.layout import check_contents, check_layout
from edge_runtime.bundle.manifest import FileRef, Manifest
from edge_runtime.bundle.names import MANIFEST_FILE, RELEASE_FILE, target_path
from edge_runtime.bundle.semantics import manifest_files
from edge_runtime.bundle.writing import write_manifest
from edge_runtime.bundle.zipformat import Entry, central_header, end_record, local_header

__all__ = ["pack_release", "write_bundle"]

Content = bytes | Path


@dataclass(frozen=True, slots=True)
class _Scan:
    """What one pass over a file found."""

    size: int
    crc: int
    sha256: str


def pack_release(
    directory: Path, manifest: Manifest, out: str | os.PathLike[str] | BinaryIO, release: ReleaseDocument | None = None
) -> str:
    """Pack the files that ``manifest`` (and ``release``, if given) refers to, from ``directory``, into a bundle.

    Other files of the directory are left out. Returns the bundle's sha256 in hex. Raises as `write_bundle` does.
    """
    names = [ref.file for _, ref in manifest_files(manifest)]
    files: dict[str, Content] = {MANIFEST_FILE: write_manifest(manifest)}
    if release is not None:
        files[RELEASE_FILE] = write_release(release)
        names += [delta.file for delta in release.deltas]
    files |= {name: Path(directory) / name for name in names}
    return write_bundle(
        out, {target_path(manifest.model, manifest.release, name): content for name, content in files.items()}
    )


def write_bundle(out: str | os.PathLike[str] | BinaryIO, files: Mapping[str, Content]) -> str:
    """Write a bundle of ``files``, whole TUF target paths (or ``tuf/<name>.json``) to bytes or to a path to read.

    A path ``out`` appears complete or not at all; a file object is written to from where it stands. Returns the
    bundle's sha256 in hex. Raises a `BundleError` if `open_bundle` would refuse the result, before anything is
    written, and `OSError` for a file that cannot be read or written.
    """
    scans = {name: _scan(content) for name, content in files.items()}
    _check(files, scans)
    if not isinstance(out, str | os.PathLike):
        return _write(out, files, scans)
    path = Path(out)
    partial = path.with_name(f".{path.name}.{os.urandom(8).hex()}.part")
    try:
        with partial.open("xb") as stream:
            digest = _write(stream, files, scans)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return digest


def _check(files: Mapping[str, Content], scans: Mapping[str, _Scan]) -> None:
    """Judge the files as a reader will."""
    if len(files) > limits.MAX_ENTRIES:
        raise BundleTooLarge(f"{len(files)} entries; a bundle has at most {limits.MAX_ENTRIES}")
    for name in files:
        if len(name) > limits.MAX_ENTRY_NAME:
            raise BundleTooLarge(f"a path of {len(name)} bytes; at most {limits.MAX_ENTRY_NAME} are read")
    layout = check_layout({name: scan.size for name, scan in scans.items()})
    documents = {name: b"".join(_chunks(files[name])) for name in layout.documents}
    refs = {
        name: FileRef(file=name.rpartition("/")[2], bytes=scan.size, sha256=scan.sha256) for name, scan in scans.items()
    }
    check_contents(layout, refs, documents)


def _write(out: BinaryIO, files: Mapping[str, Content], scans: Mapping[str, _Scan]) -> str:
    entries: list[Entry] = []
    for name in sorted(files):
        offset = entries[-1].end if entries else 0
        entries.append(Entry(name=name, crc=scans[name].crc, size=scans[name].size, offset=offset))
    tail = b"".join(central_header(entry) for entry in entries) + end_record(entries)
    if entries[-1].end + len(tail) > limits.MAX_ARCHIVE_BYTES:
        raise BundleTooLarge(f"the bundle would have more than {limits.MAX_ARCHIVE_BYTES} bytes")
    whole = hashlib.sha256()
    for entry in entries:
        header = local_header(entry)
        whole.update(header)
        out.write(header)
        digest = hashlib.sha256()
        for chunk in _chunks(files[entry.name]):
            whole.update(chunk)
            digest.update(chunk)
            out.write(chunk)
        if digest.hexdigest() != scans[entry.name].sha256:
            raise ArchiveError(f"{files[entry.name]!s} changed while it was packed; pack again")
    whole.update(tail)
    out.write(tail)
    return whole.hexdigest()


def _scan(content: Content) -> _Scan:
    digest = hashlib.sha256()
    crc = 0
    size = 0
    for chunk in _chunks(content):
        digest.update(chunk)
        crc = zlib.crc32(chunk, crc)
        size += len(chunk)
    return _Scan(size, crc, digest.hexdigest())


def _chunks(content: Content) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            yield chunk
