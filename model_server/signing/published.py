"""The version and the expiry of every role that is published, without reading again what has not changed.

A versioned file never changes, so a role is read again only when the snapshot names another version of it, and nothing
is read while the timestamp is the same.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from tuf.api.metadata import Snapshot, Targets, Timestamp

from model_server.errors import RepositoryDamaged
from model_server.signing.repository import Repository, parse_metadata
from model_server.signing.roles import Expiry, delegated_models, releases_role, rollouts_role

__all__ = ["PublishedRole", "PublishedRoles", "renewal_due"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRole:
    """``offline``: people sign it, and the server cannot."""

    role: str
    version: int
    expires: datetime
    offline: bool


class PublishedRoles:
    """The roles of one repository, from any thread."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._mutex = threading.Lock()
        self._state: object = None
        self._roles: tuple[PublishedRole, ...] = ()

    def all(self) -> tuple[PublishedRole, ...]:
        """Top-level roles first. Costs one `Repository.state` while nothing is published. Raises RepositoryDamaged."""
        with self._mutex:
            state = self._repository.state()  # before it is read: what is published meanwhile is read the next time
            if state != self._state:
                self._roles = tuple(self._read({(role.role, role.version): role for role in self._roles}))
                self._state = state
            return self._roles

    def _read(self, known: dict[tuple[str, int], PublishedRole]) -> Iterator[PublishedRole]:
        root, timestamp = self._repository.root().signed, self._repository.timestamp().signed
        snapshot, targets = self._repository.snapshot().signed, self._repository.top_level_targets().signed
        for signed, offline in ((root, True), (targets, True), (snapshot, False), (timestamp, False)):
            yield PublishedRole(role=signed.type, version=signed.version, expires=signed.expires, offline=offline)
        for model in delegated_models(targets):
            for role, offline in ((releases_role(model), True), (rollouts_role(model), False)):
                meta = snapshot.meta.get(f"{role}.json")
                if meta is None:
                    raise RepositoryDamaged(f"the snapshot does not list {role}")
                found = known.get((role, meta.version))
                yield found or self._delegated(role, meta.version, offline)

    def _delegated(self, role: str, version: int, offline: bool) -> PublishedRole:
        name = f"{version}.{role}.json"
        signed = parse_metadata(self._repository.file(name), Targets, name).signed
        return PublishedRole(role=role, version=version, expires=signed.expires, offline=offline)


def renewal_due(roles: Iterable[PublishedRole], expiry: Expiry, now: datetime) -> bool:
    """Whether the server has a role to sign again: an online one that has used up half of its time. Pure."""
    lives = {Snapshot.type: expiry.snapshot, Timestamp.type: expiry.timestamp}
    return any(not role.offline and role.expires - now < lives.get(role.role, expiry.rollouts) / 2 for role in roles)
