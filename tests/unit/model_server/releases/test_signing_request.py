import hashlib
from collections.abc import Mapping
from copy import deepcopy
from datetime import UTC, datetime, timedelta

import pytest
from tuf.api.metadata import Delegations, TargetFile, Targets

from edge_runtime.bundle import Delta, FileRef, ReleaseDocument, delta_file, target_path, write_release
from model_server.errors import ReleaseNotNewer, ReviewFailed
from model_server.releases.signing_request import Review, highest_release, next_metadata, review

NOW = datetime(2026, 11, 23, tzinfo=UTC)
EXPIRES = NOW + timedelta(days=90)
CEILING = ((0, 100_000_000),)


def ref(name: str, data: bytes) -> FileRef:
    return FileRef(file=name, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


OWN: Mapping[str, FileRef] = {name: ref(name, name.encode()) for name in ("manifest.json", "m.onnx", "card.md")}
DOCUMENT = write_release(ReleaseDocument(model="m", release=2, ceiling=CEILING))
STAGED = {**OWN, "release.json": ref("release.json", DOCUMENT)}


def published() -> Targets:
    old = {name: ref(name, b"old " + name.encode()) for name in ("manifest.json", "m.onnx", "release.json")}
    return next_metadata("m", 1, Targets(version=4, expires=EXPIRES), old, EXPIRES)


def proposal() -> Targets:
    return next_metadata("m", 2, published(), STAGED, EXPIRES)


def judge(pending: Targets, *, document: bytes = DOCUMENT, own: Mapping[str, FileRef] = OWN) -> Review:
    return review("m", 2, current=published(), pending=pending, own=own, release_document=document, now=NOW)


def test_a_proposal_that_adds_exactly_the_signers_files_is_shown_whole() -> None:
    found = judge(proposal())
    assert [ref.file for ref in found.files] == ["card.md", "m.onnx", "manifest.json", "release.json"]
    assert (found.metadata_version, found.kept, found.ceiling) == (6, 3, CEILING)


def test_next_metadata_keeps_what_was_published_and_adds_one_version() -> None:
    pending = proposal()
    assert pending.version == 6
    assert {path: pending.targets[path] for path in published().targets} == published().targets


@pytest.mark.parametrize("release", [1, 2])
def test_release_numbers_only_grow(release: int) -> None:
    with pytest.raises(ReleaseNotNewer, match="release 3"):
        next_metadata("m", release, proposal(), STAGED, EXPIRES)


def swap_artifact(pending: Targets) -> None:
    path = target_path("m", 2, "m.onnx")
    pending.targets[path] = TargetFile(6, {"sha256": "0" * 64}, path)


def swap_manifest(pending: Targets) -> None:
    path = target_path("m", 2, "manifest.json")
    pending.targets[path].length += 1


def add_file(pending: Targets) -> None:
    path = target_path("m", 2, "extra.onnx")
    pending.targets[path] = TargetFile(1, {"sha256": "0" * 64}, path)


def add_release(pending: Targets) -> None:
    path = target_path("m", 3, "manifest.json")
    pending.targets[path] = TargetFile(1, {"sha256": "0" * 64}, path)


def add_policy(pending: Targets) -> None:
    pending.targets["models/m/policy.json"] = TargetFile(1, {"sha256": "0" * 64}, "models/m/policy.json")


def drop_file(pending: Targets) -> None:
    del pending.targets[target_path("m", 2, "card.md")]


def drop_document(pending: Targets) -> None:
    del pending.targets[target_path("m", 2, "release.json")]


def change_published(pending: Targets) -> None:
    path = target_path("m", 1, "m.onnx")
    pending.targets[path] = TargetFile(1, {"sha256": "0" * 64}, path)


def drop_published(pending: Targets) -> None:
    del pending.targets[target_path("m", 1, "m.onnx")]


def jump_version(pending: Targets) -> None:
    pending.version += 1


def repeat_version(pending: Targets) -> None:
    pending.version -= 1


def delegate(pending: Targets) -> None:
    pending.delegations = Delegations({}, {})


def live_long(pending: Targets) -> None:
    pending.expires = NOW + timedelta(days=3650)


def be_expired(pending: Targets) -> None:
    pending.expires = NOW


def add_field(pending: Targets) -> None:
    pending.unrecognized_fields["x-extra"] = 1


def add_custom(pending: Targets) -> None:
    pending.targets[target_path("m", 2, "m.onnx")].unrecognized_fields["custom"] = {"a": 1}


def weaken_hash(pending: Targets) -> None:
    pending.targets[target_path("m", 2, "m.onnx")].hashes["md5"] = "0" * 32


@pytest.mark.parametrize(
    "tamper",
    [
        swap_artifact,
        swap_manifest,
        add_file,
        add_release,
        add_policy,
        drop_file,
        drop_document,
        change_published,
        drop_published,
        jump_version,
        repeat_version,
        delegate,
        live_long,
        be_expired,
        add_field,
        add_custom,
        weaken_hash,
    ],
)
def test_any_other_difference_is_refused(tamper: object) -> None:
    assert callable(tamper)
    pending = deepcopy(proposal())
    tamper(pending)
    with pytest.raises(ReviewFailed, match="Nothing was signed"):
        judge(pending)


@pytest.mark.parametrize(
    "document",
    [
        b"{}",
        write_release(ReleaseDocument(model="m", release=3, ceiling=CEILING)),
        write_release(ReleaseDocument(model="other", release=2, ceiling=CEILING)),
    ],
)
def test_a_release_document_for_something_else_is_refused_even_if_it_is_staged(document: bytes) -> None:
    pending = next_metadata("m", 2, published(), {**OWN, "release.json": ref("release.json", document)}, EXPIRES)
    with pytest.raises(ReviewFailed):
        judge(pending, document=document)


def test_another_release_document_than_the_staged_one_is_refused() -> None:
    other = write_release(ReleaseDocument(model="m", release=2, ceiling=((0, 1),)))
    with pytest.raises(ReviewFailed, match=r"release\.json is not the file"):
        judge(proposal(), document=other)


def test_metadata_with_a_path_of_another_model_is_refused() -> None:
    path = target_path("other", 1, "manifest.json")
    with pytest.raises(ReviewFailed):
        highest_release("m", Targets(targets={path: TargetFile(1, {"sha256": "0" * 64}, path)}))


def test_the_policy_of_a_model_is_not_a_release() -> None:
    path = "models/m/policy.json"
    assert highest_release("m", Targets(targets={path: TargetFile(1, {"sha256": "0" * 64}, path)})) == 0


def with_deltas(*deltas: Delta) -> tuple[Targets, bytes]:
    """A proposal with a release.json that lists ``deltas``, and their files."""
    document = write_release(ReleaseDocument(model="m", release=2, ceiling=CEILING, deltas=deltas))
    files = {delta.file: FileRef(file=delta.file, bytes=delta.bytes, sha256=delta.sha256) for delta in deltas}
    staged = {**OWN, "release.json": ref("release.json", document), **files}
    return next_metadata("m", 2, published(), staged, EXPIRES), document


def delta(artifact: str = "m.onnx", from_release: int = 1) -> Delta:
    return Delta(
        artifact=artifact, from_release=from_release, file=delta_file(artifact, from_release), bytes=3, sha256="1" * 64
    )


def test_deltas_that_staging_made_are_part_of_the_difference() -> None:
    pending, document = with_deltas(delta())
    found = judge(pending, document=document)
    assert found.deltas == (delta(),)
    assert "m.onnx.from-1.delta" in [each.file for each in found.files]


def test_a_delta_is_signed_only_as_the_release_document_lists_it() -> None:
    pending, document = with_deltas(delta())
    path = target_path("m", 2, "m.onnx.from-1.delta")
    pending.targets[path].length += 1
    with pytest.raises(ReviewFailed, match=r"from-1\.delta"):
        judge(pending, document=document)
    del pending.targets[path]
    with pytest.raises(ReviewFailed, match="not in the proposal"):
        judge(pending, document=document)
    pending, _ = with_deltas(delta())
    unlisted = write_release(ReleaseDocument(model="m", release=2, ceiling=CEILING))
    pending.targets[target_path("m", 2, "release.json")] = TargetFile.from_data(
        target_path("m", 2, "release.json"), unlisted, ["sha256"]
    )
    with pytest.raises(ReviewFailed, match="not in your bundle"):
        judge(pending, document=unlisted)


def test_a_delta_to_a_file_that_the_signer_does_not_hold_is_not_signed() -> None:
    pending, document = with_deltas(delta("other.onnx"))
    with pytest.raises(ReviewFailed, match=r"to other\.onnx, which is not in your bundle"):
        judge(pending, document=document)


def test_a_file_of_the_bundle_is_not_replaced_by_a_delta_of_its_name() -> None:
    own = {**OWN, "m.onnx.from-1.delta": FileRef(file="m.onnx.from-1.delta", bytes=5, sha256="2" * 64)}
    pending, document = with_deltas(delta())
    with pytest.raises(ReviewFailed, match="which is a file of your bundle"):
        review("m", 2, current=published(), pending=pending, own=own, release_document=document, now=NOW)


def test_a_delta_from_a_release_that_is_not_published_is_not_signed() -> None:
    document = write_release(ReleaseDocument(model="m", release=3, ceiling=CEILING, deltas=(delta(from_release=2),)))
    staged = {**OWN, "release.json": ref("release.json", document)}
    staged["m.onnx.from-2.delta"] = FileRef(file="m.onnx.from-2.delta", bytes=3, sha256="1" * 64)
    pending = next_metadata("m", 3, published(), staged, EXPIRES)
    with pytest.raises(ReviewFailed, match="from release 2, which is not published"):
        review("m", 3, current=published(), pending=pending, own=OWN, release_document=document, now=NOW)
