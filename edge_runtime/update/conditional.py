"""The check that costs one request: if the timestamp is the one that was verified last, so is everything below it.

A full check leaves a record of what it verified. As long as the server answers with the identical timestamp, and no
role in use has expired, the plan in the record is the plan. A root rotation always makes a new timestamp.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from edge_runtime.bundle.errors import ManifestError
from edge_runtime.bundle.limits import MAX_CEILING_STEPS, PARTS
from edge_runtime.bundle.names import MAX_RELEASE
from edge_runtime.bundle.reading import sha256
from edge_runtime.bundle.strict_json import MAX_INTEGER, Node
from edge_runtime.disk import Disk, read_sealed, write_sealed
from edge_runtime.update.plan import Ceiling, Plan

if TYPE_CHECKING:
    from edge_runtime.update.fetcher import Answer, Transport

__all__ = [
    "MAX_TIMESTAMP_BYTES",
    "NEVER",
    "RECORD_FILE",
    "Scope",
    "Verified",
    "ask",
    "doubt_record",
    "load",
    "save",
    "unchanged",
]

MAX_TIMESTAMP_BYTES = 16_384
RECORD_FILE = "verified.json"
NEVER = "0" * 64  # the digest of no timestamp


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What a record is about; with another server, root, model or channel it says nothing."""

    server: str
    root_sha256: str
    model: str
    channel: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What the last full check verified. ``expires``: the first expiry of a role in use. ``plan`` None: there is none.
    ``ceilings`` of the signed releases that the plan names."""

    timestamp_sha256: str
    etag: str | None
    expires: datetime
    plan: Plan | None
    ceilings: Mapping[int, Ceiling]


def ask(transport: Transport, url: str, verified: Verified | None) -> Answer:
    """One GET of the timestamp, conditional on the verified one. Status 304 means unchanged. Raises `UpdateError`."""
    headers = {} if verified is None or verified.etag is None else {"If-None-Match": verified.etag}
    answer = transport.fetch(url, MAX_TIMESTAMP_BYTES, headers)
    if answer.status == 304 and answer.etag is None and verified is not None:
        return replace(answer, etag=verified.etag)
    return answer


def unchanged(verified: Verified, answer: Answer, now: datetime) -> bool:
    """Whether the record still holds."""
    same = answer.status == 304 or hashlib.sha256(answer.body).hexdigest() == verified.timestamp_sha256
    return same and now < verified.expires


def save(disk: Disk, path: Path, scope: Scope, verified: Verified) -> None:
    """Keep a record, unless it is there already. Raises `StoreError`."""
    if load(disk, path, scope) == verified:
        return
    plan = None if verified.plan is None else verified.plan.to_json().decode()
    body: dict[str, object] = {
        "format": 1,
        "scope": [scope.server, scope.root_sha256, scope.model, scope.channel],
        "timestamp_sha256": verified.timestamp_sha256,
        "etag": verified.etag,
        "expires": verified.expires.isoformat(),
        "plan": plan,
        "ceilings": [[release, [list(step) for step in steps]] for release, steps in verified.ceilings.items()],
    }
    write_sealed(disk, path, body)


def doubt_record(disk: Disk, path: Path) -> None:
    """Make a record one that never holds, whatever it is about, so that the next check is a full one. Its plan stays
    known. Raises `StoreError`."""
    body = read_sealed(disk, path)
    if body is not None:
        write_sealed(disk, path, {**body, "timestamp_sha256": NEVER, "etag": None})


def load(disk: Disk, path: Path, scope: Scope) -> Verified | None:
    """The record for ``scope``, or None if there is none or it is damaged: then a full check makes a new one."""
    body = read_sealed(disk, path)
    if body is None or body.get("scope") != [scope.server, scope.root_sha256, scope.model, scope.channel]:
        return None
    node = Node(body)
    try:
        node.get("format").integer(1, 1)
        expires = datetime.fromisoformat(node.get("expires").text(1, 64))
        plan = node.get("plan").optional(lambda value: Plan.from_json(str(value.value).encode()))
        return Verified(
            timestamp_sha256=sha256(node.get("timestamp_sha256")),
            etag=node.get("etag").optional(lambda value: value.text(1, 1024)),
            expires=expires,
            plan=plan,
            ceilings=dict(_ceiling(entry) for entry in node.get("ceilings").items(0, 2)),
        )
    except (ManifestError, ValueError):
        return None


def _ceiling(node: Node) -> tuple[int, Ceiling]:
    release, steps = node.items(2, 2)
    return release.integer(1, MAX_RELEASE), tuple(
        (age.integer(0, MAX_INTEGER), share.integer(0, PARTS))
        for age, share in (step.items(2, 2) for step in steps.items(0, MAX_CEILING_STEPS))
    )
