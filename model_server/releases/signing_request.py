"""The metadata that adds one release, and the review that a manager's machine does before it signs. Pure.

The server proposes; what protects the fleet is this review, run where the server has no say: the proposal must differ
from the last published metadata by exactly one release, whose files are exactly the manager's own copy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from tuf.api.metadata import TargetFile, Targets

from edge_runtime.bundle import (
    MANIFEST_FILE,
    RELEASE_FILE,
    Delta,
    FileRef,
    InvalidName,
    ManifestError,
    read_release,
    split_target_path,
    target_path,
)
from model_server.errors import ReleaseNotNewer, ReviewFailed

__all__ = ["Review", "check_newer", "check_next", "check_target", "highest_release", "next_metadata", "review"]

MAX_LIFE = timedelta(days=91)  # 90, and a day for clocks that differ


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """What a signature would add. ``files`` are the added ones, sorted; ``kept`` counts those that stay."""

    model: str
    release: int
    metadata_version: int
    expires: datetime
    files: tuple[FileRef, ...]
    kept: int
    ceiling: tuple[tuple[int, int], ...]
    deltas: tuple[Delta, ...]
    audit_head: str | None


def highest_release(model: str, targets: Targets) -> int:
    """The highest release of ``model`` that ``targets`` lists, or 0.

    Raises ReviewFailed for a path that no release of this model can have.
    """
    highest = 0
    for path in targets.targets:
        if path == f"models/{model}/policy.json":
            continue
        try:
            owner, release, _ = split_target_path(path)
        except InvalidName as error:
            raise ReviewFailed(f"the metadata of {model} lists {path!r}, which is no file of a release") from error
        if owner != model:
            raise ReviewFailed(f"the metadata of {model} lists {path!r}, a file of another model")
        highest = max(highest, release)
    return highest


def check_newer(model: str, release: int, current: Targets) -> None:
    """Raises ReleaseNotNewer unless ``release`` is above every release in ``current``."""
    newest = highest_release(model, current)
    if release <= newest:
        raise ReleaseNotNewer(
            f"{model} {release} is not newer than {newest}, which is published: numbers only grow, build it as "
            f"release {newest + 1}"
        )


def next_metadata(
    model: str, release: int, current: Targets, files: Mapping[str, FileRef], expires: datetime
) -> Targets:
    """The next version of ``releases-<model>``: everything in ``current``, and the files of one more release.

    Raises ReleaseNotNewer unless ``release`` is above every release in ``current``.
    """
    check_newer(model, release, current)
    targets = dict(current.targets)
    for name, ref in sorted(files.items()):
        path = target_path(model, release, name)
        targets[path] = TargetFile(ref.bytes, {"sha256": ref.sha256}, path)
    return Targets(
        version=current.version + 1,
        expires=expires,
        targets=targets,
        unrecognized_fields=dict(current.unrecognized_fields),
    )


def review(
    model: str,
    release: int,
    *,
    current: Targets,
    pending: Targets,
    own: Mapping[str, FileRef],
    release_document: bytes,
    now: datetime,
) -> Review:
    """Compare a proposal with the last published metadata and with the signer's own copy of the bundle.

    ``current`` must have been verified from the pinned root; ``own`` are the files of the signer's bundle by name.
    Raises ReviewFailed with the first thing that is not as it must be.
    """

    def refuse(reason: str) -> ReviewFailed:
        return ReviewFailed(f"{model} {release}: {reason}. Nothing was signed")

    check_next(current, pending, now, refuse)
    for path, target in current.targets.items():
        if path not in pending.targets:
            raise refuse(f"{path} was published and is gone")
        if pending.targets[path] != target:
            raise refuse(f"{path} was published and is changed")
    if release <= highest_release(model, current):
        raise refuse(f"release {highest_release(model, current)} is published; numbers only grow")
    added = {path: target for path, target in pending.targets.items() if path not in current.targets}
    expected = {target_path(model, release, name): ref for name, ref in own.items()}
    document_path = target_path(model, release, RELEASE_FILE)
    document_ref = FileRef(file=RELEASE_FILE, bytes=len(release_document), sha256=_sha256(release_document))
    check_target(document_path, added.get(document_path), document_ref, refuse)
    try:
        document = read_release(release_document)
    except ManifestError as error:
        raise refuse(f"{RELEASE_FILE}: {error}") from error
    if (document.model, document.release) != (model, release):
        raise refuse(f"{RELEASE_FILE} is for {document.model} {document.release}")
    for delta in document.deltas:  # what they make is checked against the signed digests, on every device
        if delta.artifact not in own:
            raise refuse(f"{RELEASE_FILE} lists a delta to {delta.artifact}, which is not in your bundle")
        if delta.file in own:
            raise refuse(f"{RELEASE_FILE} lists {delta.file} as a delta, which is a file of your bundle")
        if target_path(model, delta.from_release, MANIFEST_FILE) not in current.targets:
            raise refuse(f"{RELEASE_FILE} lists a delta from release {delta.from_release}, which is not published")
        ref = FileRef(file=delta.file, bytes=delta.bytes, sha256=delta.sha256)
        expected[target_path(model, release, delta.file)] = ref
    for path in added:
        if path not in expected and path != document_path:
            raise refuse(f"{path} is in the proposal and not in your bundle")
    for path, ref in expected.items():
        check_target(path, added.get(path), ref, refuse)
    return Review(
        model=model,
        release=release,
        metadata_version=pending.version,
        expires=pending.expires,
        files=tuple(
            FileRef(file=path.rpartition("/")[2], bytes=target.length, sha256=target.hashes["sha256"])
            for path, target in sorted(added.items())
        ),
        kept=len(current.targets),
        ceiling=document.ceiling,
        deltas=document.deltas,
        audit_head=document.audit_head,
    )


def check_next(current: Targets, pending: Targets, now: datetime, refuse: Callable[[str], ReviewFailed]) -> None:
    """What holds for every proposal of a releases role, whatever it changes in the list of files."""
    if pending.version != current.version + 1:
        raise refuse(f"the proposal has version {pending.version}; after {current.version} comes {current.version + 1}")
    if pending.delegations is not None or pending.unrecognized_fields != current.unrecognized_fields:
        raise refuse("the proposal changes more than the list of files")
    if pending.spec_version != current.spec_version:
        raise refuse(f"the proposal is written for TUF {pending.spec_version}, not {current.spec_version}")
    if not now < pending.expires <= now + MAX_LIFE:
        raise refuse(f"the proposal would expire on {pending.expires:%Y-%m-%d}, not within 90 days")


def check_target(path: str, target: TargetFile | None, ref: FileRef, refuse: Callable[[str], ReviewFailed]) -> None:
    """The file in the proposal is the one that the signer holds, and nothing is said of it but its size and digest."""
    if target is None:
        raise refuse(f"{path} is not in the proposal")
    if target.unrecognized_fields or set(target.hashes) != {"sha256"}:
        raise refuse(f"{path} carries more than a size and a sha256")
    if target.length != ref.bytes or target.hashes["sha256"] != ref.sha256:
        raise refuse(
            f"{path} is not the file that you hold (staged: {target.length} bytes, sha256 "
            f"{target.hashes['sha256'][:12]}…; yours: {ref.bytes} bytes, {ref.sha256[:12]}…)"
        )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
