"""A large target, straight to the file system that it will live on, resumed where the last attempt stopped.

python-tuf's own download spools to an anonymous temporary file and copies: no resuming, twice the space, and memory
where that is a RAM disk.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from tuf.api.exceptions import LengthOrHashMismatchError

from edge_runtime.disk import Disk
from edge_runtime.errors import Outcome, StoreError, StoreFull, UpdateError
from edge_runtime.update.fetcher import MAX_ETAG

if TYPE_CHECKING:
    import httpx
    from tuf.api.metadata import TargetFile

    from edge_runtime.update.fetcher import Transport
    from edge_runtime.update.pacing import Pacing

__all__ = ["RESERVE_BYTES", "Refused", "discard", "download", "etag_path", "missing"]

RESERVE_BYTES = 4 << 20  # stays free for the state file, the metadata and everybody else on the device

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")


class Refused(UpdateError):
    """The server answered with ``status`` instead of the file."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(Outcome.DOWNLOAD_FAILED, message)
        self.status = status


def download(
    transport: Transport, url: str, target: TargetFile, part: Path, disk: Disk, pacing: Pacing | None = None
) -> None:
    """Make the file ``part`` the bytes of ``target``, verified against its length and hashes.

    What an earlier call left in ``part`` is continued, if the server still has the same file. ``pacing`` may slow it
    down, and stop it with ``part`` kept. Raises `UpdateError` with ``DOWNLOAD_FAILED`` (``part`` stays, for the next
    time) or ``VERIFICATION_FAILED`` (it is removed), `StoreFull` before anything is downloaded if there is no room, and
    what ``pacing`` raises.
    """
    if target.length == 0:
        disk.write(part, b"")
    for _ in range(2):
        resumed = _transfer(transport, url, target, part, disk, pacing)
        size = disk.size(part) or 0
        if size < target.length:
            raise UpdateError(
                Outcome.DOWNLOAD_FAILED,
                f"{url} broke off after {size} of {target.length} bytes; the next check goes on from there",
            )
        if _is_right(target, part, disk):
            return
        discard(part, disk)
        if not resumed:
            break
        # The first part may be from another file, or damaged on disk: once more from the start.
    raise UpdateError(
        Outcome.VERIFICATION_FAILED, f"{url} does not have the length and hashes that were signed; it was removed"
    )


def missing(target: TargetFile, part: Path, disk: Disk) -> int:
    """How many bytes of ``target`` a `download` would still ask for."""
    have = disk.size(part) or 0
    if have > target.length or (have < target.length and not disk.exists(etag_path(part))):
        have = 0
    return target.length - have


def discard(part: Path, disk: Disk) -> None:
    """Remove an unfinished download. One that is not there is fine."""
    for path in (part, etag_path(part)):
        with contextlib.suppress(FileNotFoundError):
            disk.unlink(path)


def etag_path(part: Path) -> Path:
    """Where the server's ETag for an unfinished download is kept."""
    return part.with_name(f"{part.name}.etag")


def _transfer(
    transport: Transport, url: str, target: TargetFile, part: Path, disk: Disk, pacing: Pacing | None
) -> bool:
    """Download what is missing. Returns whether this continued an earlier download."""
    have, etag = _have(part, disk)
    if have > target.length:
        discard(part, disk)
        have = 0
    if have == target.length:
        return True
    free = disk.free_bytes(part.parent)
    if free < target.length - have + RESERVE_BYTES:
        raise StoreFull(
            f"{part.parent} has {free} bytes free; {url} needs {target.length - have} and {RESERVE_BYTES} stay free"
        )
    headers = {"Accept-Encoding": "identity"}
    if have and etag:
        headers |= {"Range": f"bytes={have}-", "If-Range": etag}
    try:
        with transport.get(url, headers) as response:
            have = _begin(response, url, target, part, have, disk)
            resumable = disk.exists(etag_path(part))
            for chunk in transport.chunks(response, target.length - have):
                have += len(chunk)
                if have > target.length:
                    discard(part, disk)
                    raise UpdateError(
                        Outcome.VERIFICATION_FAILED, f"{url} is longer than the {target.length} bytes that were signed"
                    )
                disk.append(part, chunk)
                if pacing is not None:
                    pacing.took(len(chunk), more=have < target.length, resumable=resumable)
    except UpdateError as error:
        if error.outcome is Outcome.SERVER_UNREACHABLE:
            raise UpdateError(Outcome.DOWNLOAD_FAILED, str(error)) from error
        raise
    except StoreFull:
        with contextlib.suppress(StoreError):
            discard(part, disk)  # a full disk is somebody else's problem too
        raise
    return "Range" in headers


def _have(part: Path, disk: Disk) -> tuple[int, str]:
    """Bytes that may be continued, and the ETag they came with."""
    size = disk.size(part)
    if not size:
        return 0, ""
    try:
        etag = disk.read(etag_path(part)).decode("ascii")
    except (FileNotFoundError, UnicodeDecodeError):
        discard(part, disk)
        return 0, ""
    return size, etag


def _begin(response: httpx.Response, url: str, target: TargetFile, part: Path, have: int, disk: Disk) -> int:
    """Judge the answer's head; returns the offset at which its body continues the file."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if response.status_code not in (200, 206) or encoding != "identity":
        if response.status_code == 416:
            discard(part, disk)
        raise Refused(
            response.status_code, f"the server answered {response.status_code}, encoding {encoding!a}, for {url}"
        )
    if response.status_code == 206:
        stated = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if stated is None or int(stated[1]) != have or stated[3] not in ("*", str(target.length)):
            discard(part, disk)
            raise UpdateError(Outcome.DOWNLOAD_FAILED, f"the server sent another part of {url} than was asked for")
        return have
    discard(part, disk)
    etag = response.headers.get("ETag", "")
    # Only a strong one promises the same bytes, and one that no server would take back would end all downloads.
    if etag.startswith('"') and etag.isascii() and len(etag) <= MAX_ETAG:
        disk.write(etag_path(part), etag.encode("ascii"))
    return 0


def _is_right(target: TargetFile, part: Path, disk: Disk) -> bool:
    try:
        with disk.open(part) as file:
            target.verify_length_and_hashes(file)
    except (FileNotFoundError, LengthOrHashMismatchError):
        return False
    return True
