"""Open a bundle from a stranger: one pass over the file, every byte accounted for, nothing large held in memory."""

from __future__ import annotations

import hashlib
import os
import stat
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from edge_runtime.bundle.documents import PolicyDocument, ReleaseDocument
from edge_runtime.bundle.errors import ArchiveError, BundleError
from edge_runtime.bundle.layout import Contents, SizedFile, check_contents, check_layout, check_same
from edge_runtime.bundle.manifest import FileRef, Manifest
from edge_runtime.bundle.zipformat import Entry, Limits, local_header, read_directory

__all__ = ["CHUNK_BYTES", "Bundle", "open_bundle", "verify_file"]

CHUNK_BYTES = 1_048_576


class Bundle:
    """A bundle that was read and verified. Made by `open_bundle`.

    ``files`` maps each file name of the release, ``manifest.json`` among them, to its size and sha256; ``policy_file``
    has those of the policy, which belongs to the model. ``tuf`` maps
    metadata file names to their bytes; it is empty in a bundle fresh from the converters. The manifest answers for
    the files, but nothing in here answers for the manifest, ``release_document`` or ``policy``: trust them by pinning
    ``sha256``, the digest of the whole bundle, or by verifying ``tuf`` against a root that you hold.
    """

    __slots__ = (
        "_entries",
        "_source",
        "files",
        "manifest",
        "policy",
        "policy_file",
        "release_document",
        "sha256",
        "size",
        "tuf",
    )

    manifest: Manifest
    release_document: ReleaseDocument | None
    policy: PolicyDocument | None
    policy_file: FileRef | None
    files: Mapping[str, FileRef]
    tuf: Mapping[str, bytes]
    sha256: str
    size: int

    def __init__(
        self, contents: Contents, entries: Mapping[str, Entry], *, sha256: str, size: int, source: _Source
    ) -> None:
        self.manifest = contents.manifest
        self.release_document = contents.release_document
        self.policy = contents.policy
        self.policy_file = contents.policy_file
        self.files = MappingProxyType(dict(contents.files))
        self.tuf = MappingProxyType(dict(contents.tuf))
        self.sha256 = sha256
        self.size = size
        self._entries = {file: entries[path] for file, path in contents.layout.files.items()}
        self._source = source

    def __repr__(self) -> str:
        return f"<Bundle {self.manifest.model} {self.manifest.release} sha256={self.sha256[:12]}… {self._source}>"

    def read(self, file: str) -> bytes:
        """The bytes of one file of the release, verified again, since the bundle may have changed on disk.

        Raises `ArchiveError` if there is no such file, `DigestMismatch` if it changed.
        """
        ref, entry = self._find(file)
        with _naming(self._source), self._source.open() as stream:
            stream.seek(entry.data_offset)
            return verify_file(ref, stream.read(entry.size))

    def copy(self, file: str, out: BinaryIO) -> None:
        """Write one file of the release to ``out`` in chunks of `CHUNK_BYTES`, for files too large to hold in memory.

        Raises `DigestMismatch` after the last chunk if the bundle changed: whatever was written must then be thrown
        away. Errors of ``out`` pass through.
        """
        ref, entry = self._find(file)
        digest = hashlib.sha256()
        with _naming(self._source), self._source.open() as stream:
            stream.seek(entry.data_offset)
            for chunk in stream.chunks(entry.size):
                digest.update(chunk)
                out.write(chunk)
            check_same(ref, entry.size, digest.hexdigest())

    def _find(self, file: str) -> tuple[FileRef, Entry]:
        if file not in self.files:
            raise ArchiveError(f"{self._source} holds no file {file!a}; it holds {', '.join(self.files)}")
        return self.files[file], self._entries[file]


def open_bundle(source: str | os.PathLike[str] | bytes, limits: Limits | None = None) -> Bundle:
    """Read a bundle from a path or from bytes and verify all of it.

    Peak memory above the input is about the documents plus `CHUNK_BYTES`. Raises `BundleError` or a subclass, and
    nothing else, whatever the bytes are; a path that cannot be read raises `ArchiveError`.
    """
    origin = _Source(source if isinstance(source, bytes) else Path(source))
    with _naming(origin):
        return _read_bundle(origin, limits or Limits())


def verify_file(ref: SizedFile, data: bytes) -> bytes:
    """``data``, if it has the size and sha256 that ``ref`` (an `Artifact`, `Golden`, `FileRef` or `Delta`) states.

    Raises `DigestMismatch` otherwise.
    """
    check_same(ref, len(data), hashlib.sha256(data).hexdigest())
    return data


def _read_bundle(source: _Source, limit: Limits) -> Bundle:
    with source.open() as stream:
        size = stream.seek(0, os.SEEK_END)
        directory = read_directory(stream, size, limit)
        layout = check_layout({entry.name: entry.size for entry in directory.entries})
        whole = hashlib.sha256()
        refs: dict[str, FileRef] = {}
        documents: dict[str, bytes] = {}
        stream.seek(0)
        for entry in directory.entries:
            kept: list[bytes] | None = [] if entry.name in layout.documents else None
            refs[entry.name] = _read_entry(stream, entry, whole, kept)
            if kept is not None:
                documents[entry.name] = b"".join(kept)
        if stream.read(len(directory.tail) + 1) != directory.tail:
            raise ArchiveError("the file changed while it was read")
        whole.update(directory.tail)
    contents = check_contents(layout, refs, documents)
    entries = {entry.name: entry for entry in directory.entries}
    return Bundle(contents, entries, sha256=whole.hexdigest(), size=size, source=source)


def _read_entry(stream: _Stream, entry: Entry, whole: hashlib._Hash, kept: list[bytes] | None) -> FileRef:
    """Hash one entry, whose local header must be the one that its central header implies. ``kept`` collects it."""
    expected = local_header(entry)
    header = stream.read(len(expected))
    if header != expected:
        raise ArchiveError(f"entry {entry.name!r}: its local header disagrees with the central directory")
    whole.update(header)
    digest = hashlib.sha256()
    crc = 0
    for chunk in stream.chunks(entry.size):
        whole.update(chunk)
        digest.update(chunk)
        crc = zlib.crc32(chunk, crc)
        if kept is not None:
            kept.append(chunk)
    if crc != entry.crc:
        raise ArchiveError(f"entry {entry.name!r}: its CRC-32 is {crc:#010x}, {entry.crc:#010x} is stated")
    return FileRef(file=entry.name.rpartition("/")[2], bytes=entry.size, sha256=digest.hexdigest())


@contextmanager
def _naming(source: _Source) -> Iterator[None]:
    """Put the bundle's name in front of an error about it."""
    try:
        yield
    except BundleError as error:
        error.args = (f"{source}: {error}",)
        raise


class _Source:
    """Where a bundle's bytes come from; opened anew for each use, so that a `Bundle` holds no file open."""

    def __init__(self, origin: bytes | Path) -> None:
        self._origin = origin

    def __str__(self) -> str:
        return "the bundle" if isinstance(self._origin, bytes) else str(self._origin)

    def open(self) -> _Stream:
        if isinstance(self._origin, bytes):
            return _Stream(BytesIO(self._origin))  # shares the bytes, copies none
        try:
            # Not blocking, so that a FIFO under this name cannot hang the caller; regular files ignore it.
            flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
            descriptor = os.open(self._origin, flags)
        except (OSError, ValueError) as error:  # ValueError: NUL in the path
            raise ArchiveError(f"cannot open it: {error}") from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise ArchiveError("it is not a regular file")
        return _Stream(os.fdopen(descriptor, "rb"))


class _Stream:
    """A binary file whose read errors are `ArchiveError`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes, fewer only at the end of the file."""
        try:
            return self._file.read(size)
        except OSError as error:
            raise ArchiveError(f"cannot read it: {error.strerror or error}") from error

    def chunks(self, size: int) -> Iterator[bytes]:
        """The next ``size`` bytes in pieces of at most `CHUNK_BYTES`."""
        left = size
        while left:
            chunk = self.read(min(left, CHUNK_BYTES))
            if not chunk:
                raise ArchiveError(f"it ended {left} bytes early while it was read")
            left -= len(chunk)
            yield chunk
