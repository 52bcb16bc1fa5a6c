"""What a bundle may hold: the tree of one release, and that its files are exactly those its documents state. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from edge_runtime.bundle import limits
from edge_runtime.bundle.documents import PolicyDocument, ReleaseDocument, read_policy, read_release
from edge_runtime.bundle.errors import ArchiveError, BundleTooLarge, DigestMismatch, InvalidName
from edge_runtime.bundle.manifest import FileRef, Manifest
from edge_runtime.bundle.names import (
    MANIFEST_FILE,
    POLICY_FILE,
    RELEASE_FILE,
    check_file,
    check_model,
    policy_path,
    split_target_path,
    target_path,
)
from edge_runtime.bundle.reading import read_manifest
from edge_runtime.bundle.semantics import manifest_files

__all__ = ["Contents", "Layout", "SizedFile", "check_contents", "check_layout", "check_same"]

_DOCUMENT_BYTES = {
    MANIFEST_FILE: limits.MAX_MANIFEST_BYTES,
    RELEASE_FILE: limits.MAX_RELEASE_BYTES,
    POLICY_FILE: limits.MAX_POLICY_BYTES,
}


class SizedFile(Protocol):
    """What a `FileRef`, a `Golden` and an `Artifact` have in common."""

    @property
    def file(self) -> str: ...
    @property
    def bytes(self) -> int: ...
    @property
    def sha256(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The entries of a bundle, sorted out. ``files`` maps a file name of the release to its entry, ``tuf`` a metadata
    file name to its entry; ``documents`` are the entries that a reader parses and holds in memory."""

    model: str
    release: int
    files: Mapping[str, str]
    policy: str | None
    tuf: Mapping[str, str]
    documents: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """A bundle whose documents were read and whose files were compared with them."""

    layout: Layout
    manifest: Manifest
    release_document: ReleaseDocument | None
    policy: PolicyDocument | None
    policy_file: FileRef | None
    files: Mapping[str, FileRef]
    tuf: Mapping[str, bytes]


def check_layout(entries: Mapping[str, int]) -> Layout:
    """Sort out entry paths, given with their sizes in bytes.

    Raises `InvalidName` for a path outside the grammar and `ArchiveError` for a tree that is not one release.
    """
    _check_case(entries)
    files: dict[str, str] = {}
    policies: dict[str, str] = {}
    tuf: dict[str, str] = {}
    releases: set[tuple[str, int]] = set()
    for path in entries:
        top, _, rest = path.partition("/")
        if top == "tuf":
            tuf[_metadata_file(rest, path)] = path
        elif top == "models" and rest.endswith(f"/{POLICY_FILE}") and rest.count("/") == 1:
            policies[check_model(rest.removesuffix(f"/{POLICY_FILE}"))] = path
        else:
            model, release, file = split_target_path(path)
            releases.add((model, release))
            files[file] = path
    if len(releases) > 1:
        raise ArchiveError(f"a bundle holds one release, this one has files of {len(releases)}")
    if MANIFEST_FILE not in files:
        raise ArchiveError(f"the bundle has no models/<model>/<release>/{MANIFEST_FILE}")
    [(model, release)] = releases
    if set(policies) - {model}:
        raise ArchiveError(f"the bundle is for {model}, but holds another model's {POLICY_FILE}")
    if POLICY_FILE in files:
        raise InvalidName(f"{files[POLICY_FILE]!r}: {POLICY_FILE} belongs beside the releases, not in one")
    layout = Layout(
        model=model,
        release=release,
        files=files,
        policy=policies.get(model),
        tuf=tuf,
        documents=frozenset(
            [path for file, path in files.items() if file in _DOCUMENT_BYTES] + [*policies.values(), *tuf.values()]
        ),
    )
    _check_sizes(layout, entries)
    return layout


def check_contents(layout: Layout, refs: Mapping[str, FileRef], documents: Mapping[str, bytes]) -> Contents:
    """Read the documents and compare every file with what they state.

    ``refs`` has the size and sha256 found for each entry path, ``documents`` the bytes of `Layout.documents`. Raises
    `ManifestError` for a document that breaks the format, `DigestMismatch` for a file of another size or sha256, and
    `ArchiveError` for a file that is missing, not listed, or listed under another model or release.
    """
    manifest = read_manifest(documents[layout.files[MANIFEST_FILE]])
    release_document = None
    if RELEASE_FILE in layout.files:
        release_document = read_release(documents[layout.files[RELEASE_FILE]])
    policy = read_policy(documents[layout.policy]) if layout.policy else None
    _check_identity(layout, manifest, release_document, policy)
    stated = _stated(manifest, release_document)
    found = {file: refs[path] for file, path in layout.files.items()}
    for file, ref in stated.items():
        if file not in found:
            raise ArchiveError(f"{file!r} is listed, but not in the bundle")
        check_same(ref, found[file].bytes, found[file].sha256)
    extra = found.keys() - stated.keys() - {MANIFEST_FILE, RELEASE_FILE}
    if extra:
        raise ArchiveError(f"{min(extra)!r} is in the bundle, but neither the manifest nor {RELEASE_FILE} lists it")
    return Contents(
        layout=layout,
        manifest=manifest,
        release_document=release_document,
        policy=policy,
        policy_file=refs[layout.policy] if layout.policy else None,
        files=found,
        tuf={file: documents[path] for file, path in layout.tuf.items()},
    )


def check_same(ref: SizedFile, size: int, sha256: str) -> None:
    """Raise `DigestMismatch` unless a file of this size and sha256 is the one that ``ref`` states."""
    if size != ref.bytes:
        raise DigestMismatch(f"{ref.file!r} has {size} bytes, {ref.bytes} are stated: fetch it again")
    if sha256 != ref.sha256:
        raise DigestMismatch(f"{ref.file!r} has sha256 {sha256}, {ref.sha256} is stated: fetch it again")


def _stated(manifest: Manifest, release_document: ReleaseDocument | None) -> dict[str, FileRef]:
    """The files that the documents list, by name."""
    stated = {ref.file: ref for _, ref in manifest_files(manifest)}
    artifacts = {artifact.file for artifact in manifest.artifacts}
    for delta in release_document.deltas if release_document is not None else ():
        if delta.artifact not in artifacts:
            raise ArchiveError(f"{RELEASE_FILE} has a delta for {delta.artifact!r}, which is not an artifact")
        if delta.file in stated:
            raise ArchiveError(f"{delta.file!r} is listed by both the manifest and {RELEASE_FILE}")
        stated[delta.file] = FileRef(file=delta.file, bytes=delta.bytes, sha256=delta.sha256)
    return stated


def _check_case(paths: Iterable[str]) -> None:
    seen: dict[str, str] = {}
    for path in paths:
        other = seen.setdefault(path.lower(), path)
        if other != path:
            raise ArchiveError(f"{path!r} and {other!r} are one file where case does not matter")


def _metadata_file(name: str, path: str) -> str:
    if "/" in name or not name.endswith(".json"):
        raise InvalidName(f"{path!r}: tuf/ holds metadata files named <name>.json only")
    return check_file(name)


def _check_sizes(layout: Layout, sizes: Mapping[str, int]) -> None:
    for path in layout.documents:
        cap = _DOCUMENT_BYTES[path.rpartition("/")[2]] if path.startswith("models/") else limits.MAX_TUF_FILE_BYTES
        if sizes[path] > cap:
            raise BundleTooLarge(f"{path!r} has {sizes[path]} bytes; at most {cap} are read")
    if sum(sizes[path] for path in layout.tuf.values()) > limits.MAX_TUF_BYTES:
        raise BundleTooLarge(f"the files of tuf/ have more than {limits.MAX_TUF_BYTES} bytes")


def _check_identity(
    layout: Layout, manifest: Manifest, release: ReleaseDocument | None, policy: PolicyDocument | None
) -> None:
    here = target_path(layout.model, layout.release, MANIFEST_FILE)
    if (manifest.model, manifest.release) != (layout.model, layout.release):
        raise ArchiveError(f"{here} says it is {manifest.model} {manifest.release}")
    if release is not None and (release.model, release.release) != (layout.model, layout.release):
        raise ArchiveError(f"{RELEASE_FILE} beside {here} says it is {release.model} {release.release}")
    if policy is not None and policy.model != layout.model:
        raise ArchiveError(f"{policy_path(layout.model)} says it is for {policy.model}")
