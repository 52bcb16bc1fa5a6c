"""TUF's client workflow over the ``tuf/`` of a bundle: no network, the folder of trusted metadata of online checks.

A bundle is carried for longer than a timestamp lives, so the expiry of timestamp and snapshot is not looked at. Root,
targets and ``releases-<model>`` must be unexpired, and no version may be below one that is trusted already.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from tuf.api.exceptions import DownloadHTTPError, DownloadLengthMismatchError, ExpiredMetadataError
from tuf.api.metadata import Root, Snapshot, Targets, Timestamp
from tuf.ngclient.fetcher import FetcherInterface

from edge_runtime.disk import Disk
from edge_runtime.errors import Outcome
from edge_runtime.update.metadata import MetadataClient, translated
from edge_runtime.update.rules import check_root, check_targets, releases_role

__all__ = ["BundleClient"]

_ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)


class BundleClient(MetadataClient):
    """One run of the workflow for one model: `refresh_bundle`, then `released`."""

    def __init__(
        self, *, folder: Path, root: bytes, model: str, files: Mapping[str, bytes], disk: Disk, now: datetime
    ) -> None:
        """``files`` are the metadata files by name. Raises `UpdateError` if the pinned ``root`` is not usable."""
        super().__init__(
            folder=folder,
            url="bundle:/",
            root=root,
            model=model,
            fetcher=_Files(files),
            disk=disk,
            now=now,
        )
        self._now = now

    def refresh_bundle(self) -> None:
        """Down to ``releases-<model>``. What was trusted before stays trusted.

        Raises `UpdateError` with ``METADATA_EXPIRED``, ``METADATA_REJECTED`` or ``UNKNOWN_MODEL``, and `StoreError`.
        """
        with translated("the bundle's metadata", missing=Outcome.METADATA_REJECTED):
            self.refresh()
            check_root(self._trusted_set.root)
            check_targets(self._trusted_set.targets, self._model)
            self._load_targets(releases_role(self._model), Targets.type)

    @property
    def expires(self) -> datetime:
        """When the first of the roles that must be unexpired expires."""
        return min(self._trusted_set[role].expires for role in (Root.type, Targets.type, releases_role(self._model)))

    def _load_timestamp(self) -> None:
        self._check_expiry(Root.type)
        self._trusted_set.reference_time = _ALWAYS  # the other roles are looked at below
        super()._load_timestamp()

    def _load_targets(self, role: str, parent_role: str) -> Targets:
        found = super()._load_targets(role, parent_role)
        self._check_expiry(role)
        return found

    def _persist_metadata(self, rolename: str, data: bytes) -> None:
        if rolename not in (Timestamp.type, Snapshot.type):
            self._check_expiry(rolename)
        super()._persist_metadata(rolename, data)

    def _check_expiry(self, role: str) -> None:
        signed = self._trusted_set[role]
        if signed.is_expired(self._now):
            raise ExpiredMetadataError(f"{role} expired on {signed.expires:%Y-%m-%d}")


class _Files(FetcherInterface):
    """Metadata that is at hand."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    def _fetch(self, url: str) -> Iterator[bytes]:
        yield self._file(url)

    def download_bytes(self, url: str, max_length: int) -> bytes:
        data = self._file(url)
        if len(data) > max_length:
            raise DownloadLengthMismatchError(f"{url} has more than the {max_length} bytes that are read")
        return data

    def _file(self, url: str) -> bytes:
        name = url.rpartition("/")[2]
        if name not in self._files:
            raise DownloadHTTPError(f"tuf/{name} is not in the bundle", 404)
        return self._files[name]
