"""TUF's client workflow: python-tuf's Updater with this project's disk and clock; and for one model, with house rules.

Written against the internals of tuf 7.0, to which the package is pinned. What changes: files are written through
`Disk` and fsynced; ``root.json`` is a plain file, since FAT and Windows have no symlinks; the time that expiries are
compared with is passed in; a timestamp that was already downloaded is not downloaded again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from tuf.api.exceptions import (
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    RepositoryError,
)
from tuf.api.metadata import Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.ngclient import Updater as TufUpdater
from tuf.ngclient import UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface

from edge_runtime.disk import Disk, write_atomic
from edge_runtime.errors import Outcome, UpdateError
from edge_runtime.update.rules import check_role, check_root, check_targets, find_target, releases_role, rollouts_role

__all__ = ["MetadataClient", "PlainClient", "translated"]

# Smaller than tuf's own caps: a device holds each of these in memory while it reads it.
_CONFIG = UpdaterConfig(
    max_root_rotations=64,
    root_max_length=128_000,
    timestamp_max_length=16_384,
    snapshot_max_length=2_000_000,
    targets_max_length=5_000_000,
)
_NEW_ROOT = "it was altered or is no root.json; copy it again from whoever runs the server"


class PlainClient(TufUpdater):
    """TUF's client workflow as the specification has it, on this project's disk, with the time passed in."""

    def __init__(
        self,
        *,
        folder: Path,
        url: str,
        root: bytes | None,
        fetcher: FetcherInterface,
        disk: Disk,
        now: datetime,
    ) -> None:
        """``root`` is the pinned root metadata; None trusts the ``root.json`` that is in ``folder``.

        Raises `UpdateError` if the root is not usable.
        """
        self._disk = disk
        self._folder = folder
        with translated("the root.json that this device was given (--root, or root of EdgeRuntime.open)", _NEW_ROOT):
            super().__init__(str(folder), url, fetcher=fetcher, config=_CONFIG, bootstrap=root)
        self._trusted_set.reference_time = now

    @property
    def consistent(self) -> bool:
        """Whether file names on the server carry a digest."""
        return bool(self._trusted_set.root.consistent_snapshot)

    def _persist_root(self, version: int, data: bytes) -> None:
        history = self._folder / "root_history"
        self._disk.mkdir(history)
        self._persist_file(str(history / f"{version}.root.json"), data)

    def _persist_file(self, filename: str, data: bytes) -> None:
        path = Path(filename)
        with contextlib.suppress(FileNotFoundError):
            if self._disk.read(path) == data:
                return  # flash wears, and an fsync takes longer than the rest of a check
        write_atomic(self._disk, path, data)

    def _update_root_symlink(self) -> None:
        version = self._trusted_set.root.version
        with contextlib.suppress(FileNotFoundError):  # only when writing it just failed, which is already on its way up
            data = self._disk.read(self._folder / "root_history" / f"{version}.root.json")
            self._persist_file(str(self._folder / "root.json"), data)


class MetadataClient(PlainClient):
    """One run of the workflow for one model, with the house rules. `refresh_model`, then `find`; a new run needs a new
    object."""

    def __init__(
        self,
        *,
        folder: Path,
        url: str,
        root: bytes,
        model: str,
        fetcher: FetcherInterface,
        disk: Disk,
        now: datetime,
    ) -> None:
        """``root`` is the pinned root metadata. Raises `UpdateError` if it is not usable."""
        self._model = model
        self._timestamp: bytes | None = None
        super().__init__(folder=folder, url=url, root=root, fetcher=fetcher, disk=disk, now=now)
        self._rotated = False  # whether this run downloaded a newer root

    def refresh_model(self, timestamp: bytes) -> None:
        """Run the whole workflow, with ``timestamp`` as it was just downloaded, down to the model's two roles.

        Raises `UpdateError` with ``METADATA_EXPIRED``, ``METADATA_REJECTED``, ``UNKNOWN_MODEL`` or
        ``SERVER_UNREACHABLE``, and `StoreError`. What was trusted before stays trusted.
        """
        self._timestamp = timestamp
        with translated("the server's metadata"):
            self.refresh()
            check_root(self._trusted_set.root)
            check_targets(self._trusted_set.targets, self._model)
            for role in (releases_role(self._model), rollouts_role(self._model)):
                check_role(self._trusted_set.targets, role, self._load_targets(role, Targets.type))

    def find(self, role: str, path: str) -> TargetFile | None:
        """The target ``path`` in the delegated role of that name, and in no other. None if it lists none."""
        delegated = self._trusted_set[role]
        if not isinstance(delegated, Targets):
            raise TypeError(f"{role} is not a targets role")
        return find_target(self._trusted_set.targets, role, delegated, path)

    def released(self, path: str) -> TargetFile | None:
        return self.find(releases_role(self._model), path)

    def planned(self, path: str) -> TargetFile | None:
        return self.find(rollouts_role(self._model), path)

    @property
    def expires(self) -> datetime:
        """When the first of the roles in use expires."""
        roles = (
            Root.type,
            Timestamp.type,
            Snapshot.type,
            Targets.type,
            releases_role(self._model),
            rollouts_role(self._model),
        )
        return min(self._trusted_set[role].expires for role in roles)

    @property
    def timestamp_bytes(self) -> bytes:
        """The timestamp that is trusted now, as it lies on disk."""
        return self._load_local_metadata(Timestamp.type)

    def _download_metadata(self, rolename: str, length: int, version: int | None = None) -> bytes:
        if rolename == Timestamp.type and self._timestamp is not None:
            data, self._timestamp = self._timestamp, None
            return data
        return super()._download_metadata(rolename, length, version)

    def _load_root(self) -> None:
        super()._load_root()
        if self._rotated:
            # The timestamp in hand was made before the rotation, perhaps by a key that is trusted no more: ask again.
            self._timestamp = None

    def _persist_root(self, version: int, data: bytes) -> None:
        super()._persist_root(version, data)
        self._rotated = True


@contextlib.contextmanager
def translated(
    what: str, advice: str = "nothing of it is used", *, missing: Outcome = Outcome.SERVER_UNREACHABLE
) -> Iterator[None]:
    """TUF's errors as outcomes; ``advice`` ends the text of a rejection; ``missing`` is a file that is not there."""
    try:
        yield
    except ExpiredMetadataError as error:
        raise UpdateError(
            Outcome.METADATA_EXPIRED, f"{what}: {error}: the server must sign it again, or this clock is wrong"
        ) from error
    except (RepositoryError, DownloadLengthMismatchError) as error:
        raise UpdateError(Outcome.METADATA_REJECTED, f"{what}: {error}; {advice}") from error
    except DownloadHTTPError as error:
        raise UpdateError(missing, f"{what}: {error}") from error
    except DownloadError as error:
        raise UpdateError(Outcome.SERVER_UNREACHABLE, f"{what}: {error}") from error
