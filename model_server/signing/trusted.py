"""What is published, as a manager's own machine sees it: verified from the root that the manager pins, by TUF's client.

The folder ``trust`` remembers what was seen, so that nobody can show an older state later.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from tuf.api.exceptions import DownloadError, DownloadHTTPError, ExpiredMetadataError, RepositoryError
from tuf.api.metadata import Metadata, Root, Signed, Targets
from tuf.ngclient import FetcherInterface, Updater

from edge_runtime.errors import UpdateError
from edge_runtime.update.rules import check_role
from model_server.errors import ReviewFailed
from model_server.signing.repository import parse_metadata
from model_server.signing.roles import delegated_models, releases_role
from model_server.signing.state import State

__all__ = ["trusted_state"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def trusted_state(
    source: str,
    models: Iterable[str],
    root: bytes,
    trust: Path,
    *,
    files: Mapping[str, bytes],
    fresh: bool,
    accept_expired: bool,
    now: datetime,
) -> State:
    """The offline roles, and ``releases-<model>`` of those ``models`` that are delegated.

    ``files`` are the metadata files by name, as ``source`` shows them. ``fresh``: they come from a server, and must be
    up to date. What is carried by hand outlives a timestamp's day: if it is out of date, what is signed over it is
    not the next version, and cannot be published. ``accept_expired`` reads an offline role that has expired, to sign
    it again.

    Raises: ReviewFailed if something does not verify, has expired, or the top-level targets list a file.
    """
    trust.mkdir(parents=True, exist_ok=True)
    try:
        client = _Client(str(trust), "carried:/", fetcher=_FilesFetcher(files), bootstrap=root)
        client.refresh()
        client.check_expiry(now, fresh=fresh, accept_expired=accept_expired)
        targets = parse_metadata((trust / "targets.json").read_bytes(), Targets, "targets")
        if targets.signed.targets:
            raise ReviewFailed(f"the top-level targets list files ({min(targets.signed.targets)}); they must list none")
        known = [model for model in models if model in delegated_models(targets.signed)]
        for model in known:
            client.read_role(releases_role(model), now, accept_expired=accept_expired)
    except ExpiredMetadataError as error:
        raise ReviewFailed(
            f"what {source} publishes has expired: {error}. If it is a role that people sign and you are about to sign "
            "it again, say --accept-expired"
        ) from error
    except (RepositoryError, DownloadError) as error:
        raise ReviewFailed(f"what {source} publishes does not verify from your root: {error}") from error
    return State(
        root=parse_metadata((trust / "root.json").read_bytes(), Root, "root"),
        targets=targets,
        releases={model: _role(trust, releases_role(model)) for model in known},
    )


class _FilesFetcher(FetcherInterface):
    """Answers from files that are at hand."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    def _fetch(self, url: str) -> Iterator[bytes]:
        data = self._files.get(url.rpartition("/")[2])
        if data is None:
            raise DownloadHTTPError(f"{url.rpartition('/')[2]} is not there", 404)
        yield data


class _Client(Updater):
    """TUF's client, whose internals (tuf is pinned) tell the expiry of what people sign from that of what the server
    signs."""

    def refresh(self) -> None:
        self._trusted_set.reference_time = _EPOCH
        super().refresh()

    def check_expiry(self, now: datetime, *, fresh: bool, accept_expired: bool) -> None:
        """Raises: ExpiredMetadataError."""
        trusted = self._trusted_set
        online: list[Signed] = [trusted.timestamp, trusted.snapshot] if fresh else []
        offline: list[Signed] = [] if accept_expired else [trusted.root, trusted.targets]
        for signed in online + offline:
            _check(signed.type, signed, now)

    def read_role(self, role: str, now: datetime, *, accept_expired: bool) -> None:
        """Raises: ExpiredMetadataError, ReviewFailed."""
        metadata = self._load_targets(role, Targets.type)
        try:
            check_role(self._trusted_set.targets, role, metadata)
        except UpdateError as error:
            raise ReviewFailed(str(error)) from error
        if not accept_expired:
            _check(role, metadata, now)


def _check(name: str, signed: Signed, now: datetime) -> None:
    if signed.is_expired(now):
        raise ExpiredMetadataError(f"{name} expired on {signed.expires:%Y-%m-%d}")


def _role(trust: Path, role: str) -> Metadata[Targets]:
    return parse_metadata((trust / f"{role}.json").read_bytes(), Targets, role)
