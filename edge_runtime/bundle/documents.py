"""The two small documents beside a manifest: ``release.json`` of one release, ``policy.json`` of a model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from edge_runtime.bundle import limits
from edge_runtime.bundle.errors import ManifestError
from edge_runtime.bundle.manifest import FORMAT_VERSION
from edge_runtime.bundle.names import MAX_RELEASE, check_file, check_model, delta_file
from edge_runtime.bundle.reading import check_format, key_paths, sha256
from edge_runtime.bundle.semantics import check_unique
from edge_runtime.bundle.strict_json import MAX_INTEGER, Node, canonical, parse
from edge_runtime.bundle.writing import document_bytes, plain

__all__ = [
    "Delta",
    "PolicyDocument",
    "ReleaseDocument",
    "read_policy",
    "read_release",
    "write_policy",
    "write_release",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """A file that turns release ``from_release``'s artifact into this release's artifact file ``artifact``.

    ``file`` is always ``<artifact>.from-<from_release>.delta``.
    """

    artifact: str
    from_release: int
    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseDocument:
    """``release.json``: what staging adds to a release before anyone signs it.

    ``ceiling`` is the largest share of a fleet by age: pairs of (seconds since a device first verified the release,
    parts of 10**8), ages ascending from 0, shares never falling; empty means no ceiling. ``audit_head`` is the sha256
    that heads the audit chain, or None until there is one.
    """

    format: int = FORMAT_VERSION
    critical: tuple[str, ...] = ()
    model: str
    release: int
    ceiling: tuple[tuple[int, int], ...]
    deltas: tuple[Delta, ...] = ()
    audit_head: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyDocument:
    """``policy.json``: the lowest release of a model that may run, and the revoked ones, ascending."""

    format: int = FORMAT_VERSION
    critical: tuple[str, ...] = ()
    model: str
    min_release: int = 1
    revoked: tuple[int, ...] = ()

    def allows(self, release: int) -> bool:
        """Whether ``release`` is at or above the floor and not revoked."""
        return release >= self.min_release and release not in self.revoked


def read_release(data: bytes) -> ReleaseDocument:
    """Read ``release.json``. Raises `ManifestError` or `UnsupportedFormat`, as `read_manifest` does."""
    node = parse(data, max_bytes=limits.MAX_RELEASE_BYTES, what="release.json")
    critical = check_format(node, _release_keys())
    document = ReleaseDocument(
        critical=critical,
        model=node.get("model").name(check_model),
        release=node.get("release").integer(1, MAX_RELEASE),
        ceiling=_ceiling(node.get("ceiling")),
        deltas=tuple(_delta(n) for n in node.get("deltas").items(0, limits.MAX_DELTAS)),
        audit_head=node.get("audit_head").optional(sha256),
    )
    check_unique((d.file.lower() for d in document.deltas), "deltas", "file")
    for i, delta in enumerate(document.deltas):
        if delta.from_release >= document.release:
            raise ManifestError("must be an earlier release", key_path=f"deltas[{i}].from_release")
    return document


def write_release(document: ReleaseDocument) -> bytes:
    """The canonical JSON of ``release.json``. Raises `ManifestError` if it breaks FORMAT.md."""
    body = plain(document)
    body["ceiling"] = [{"age_s": plain(age), "share": plain(share)} for age, share in document.ceiling]
    data = canonical(body)
    if read_release(data) != document:
        raise ManifestError("release.json does not survive being written and read; use tuples, ints and str")
    return data


def read_policy(data: bytes) -> PolicyDocument:
    """Read ``policy.json``. Raises `ManifestError` or `UnsupportedFormat`, as `read_manifest` does."""
    node = parse(data, max_bytes=limits.MAX_POLICY_BYTES, what="policy.json")
    critical = check_format(node, _policy_keys())
    revoked = node.get("revoked")
    document = PolicyDocument(
        critical=critical,
        model=node.get("model").name(check_model),
        min_release=node.get("min_release").integer(1, MAX_RELEASE),
        revoked=tuple(n.integer(1, MAX_RELEASE) for n in revoked.items(0, limits.MAX_REVOKED)),
    )
    if list(document.revoked) != sorted(set(document.revoked)):
        raise revoked.fail("must ascend, no release twice")
    return document


def write_policy(document: PolicyDocument) -> bytes:
    """The canonical JSON of ``policy.json``. Raises `ManifestError` if it breaks FORMAT.md."""
    data = document_bytes(document)
    if read_policy(data) != document:
        raise ManifestError("policy.json does not survive being written and read; use tuples, ints and str")
    return data


def _ceiling(node: Node) -> tuple[tuple[int, int], ...]:
    steps = node.items(0, limits.MAX_CEILING_STEPS)
    ceiling = tuple(
        (step.get("age_s").integer(0, MAX_INTEGER), step.get("share").integer(0, limits.PARTS)) for step in steps
    )
    if ceiling and ceiling[0][0] != 0:
        raise steps[0].get("age_s").fail("the first age must be 0")
    for i in range(1, len(ceiling)):
        if ceiling[i][0] <= ceiling[i - 1][0]:
            raise steps[i].get("age_s").fail("ages must ascend")
        if ceiling[i][1] < ceiling[i - 1][1]:
            raise steps[i].get("share").fail("shares must not fall")
    return ceiling


def _delta(node: Node) -> Delta:
    artifact = node.get("artifact").name(check_file)
    from_release = node.get("from_release").integer(1, MAX_RELEASE)
    file = node.get("file")
    name = file.name(lambda value: delta_file(artifact, from_release))
    if file.value != name:
        raise file.fail(f"must be {name!r}")
    return Delta(
        artifact=artifact,
        from_release=from_release,
        file=name,
        bytes=node.get("bytes").integer(1, limits.MAX_FILE_BYTES),
        sha256=sha256(node.get("sha256")),
    )


@cache
def _release_keys() -> frozenset[str]:
    return (
        key_paths(ReleaseDocument) | {"ceiling.age_s", "ceiling.share"} | {f"deltas.{key}" for key in key_paths(Delta)}
    )


@cache
def _policy_keys() -> frozenset[str]:
    return key_paths(PolicyDocument)
