from __future__ import annotations

import hashlib
import io
import os
import stat
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.bundle import (
    ArchiveError,
    BundleError,
    BundleTooLarge,
    DigestMismatch,
    Limits,
    ManifestError,
    PolicyDocument,
    archive,
    open_bundle,
    pack_release,
    read_manifest,
    verify_file,
    write_bundle,
    write_policy,
    write_release,
)
from tests.support import bundles


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of a release in a folder, as a converter leaves them, with one that is not part of it."""
    folder = tmp_path / "release"
    folder.mkdir()
    for name, data in bundles.FILES.items():
        (folder / name).write_bytes(data)
    (folder / "notes.txt").write_text("not part of the release")
    return folder


@pytest.fixture
def path(folder: Path, tmp_path: Path) -> Path:
    path = tmp_path / "exercise-2.bundle"
    pack_release(folder, bundles.manifest(), path)
    return path


def test_a_packed_release_opens_from_a_path_and_from_bytes(path: Path) -> None:
    for source in (path, str(path), path.read_bytes()):
        bundle = open_bundle(source)
        assert bundle.manifest == bundles.manifest()
        assert {name: bundle.read(name) for name in bundles.FILES} == dict(bundles.FILES)
        assert set(bundle.files) == {*bundles.FILES, "manifest.json"}
        assert read_manifest(bundle.read("manifest.json")) == bundle.manifest
        assert bundle.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert bundle.size == path.stat().st_size
        assert (dict(bundle.tuf), bundle.release_document, bundle.policy) == ({}, None, None)


def test_packing_twice_gives_the_same_bytes_and_says_their_digest(folder: Path, path: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.bundle"
    for name in bundles.FILES:
        os.utime(folder / name, (1, 1))
    digest = pack_release(folder, bundles.manifest(), again)
    assert again.read_bytes() == path.read_bytes()
    assert digest == hashlib.sha256(again.read_bytes()).hexdigest()


def test_the_order_in_which_files_are_given_does_not_matter() -> None:
    files = bundles.paths()
    out = io.BytesIO()
    write_bundle(out, dict(reversed(files.items())))
    assert out.getvalue() == bundles.bundle()


def test_any_zip_tool_can_list_a_bundle(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == sorted(bundles.paths())
        assert archive.read("models/exercise/2/card.md") == bundles.FILES["card.md"]


def test_an_exported_bundle_carries_what_staging_and_signing_added() -> None:
    delta = b"a delta"
    document = bundles.release_document()
    document = replace(document, deltas=(replace(document.deltas[0], sha256=bundles.sha256(delta)),))
    policy = PolicyDocument(model="exercise", min_release=1, revoked=(1,))
    out = io.BytesIO()
    write_bundle(
        out,
        {
            **bundles.paths(),
            "models/exercise/2/release.json": write_release(document),
            "models/exercise/2/model-fp32.onnx.from-1.delta": delta,
            "models/exercise/policy.json": write_policy(policy),
            "tuf/1.root.json": b"{}",
            "tuf/timestamp.json": b'{"signed":1}',
        },
    )
    bundle = open_bundle(out.getvalue())
    assert bundle.release_document == document
    assert bundle.policy == policy
    assert bundle.tuf == {"1.root.json": b"{}", "timestamp.json": b'{"signed":1}'}
    assert bundle.read("model-fp32.onnx.from-1.delta") == delta
    assert "policy.json" not in bundle.files  # it is the model's, not the release's


def test_a_release_document_is_packed_with_the_deltas_it_lists(folder: Path) -> None:
    delta = b"a delta"
    document = bundles.release_document()
    document = replace(document, deltas=(replace(document.deltas[0], sha256=bundles.sha256(delta)),))
    (folder / document.deltas[0].file).write_bytes(delta)
    out = io.BytesIO()
    pack_release(folder, bundles.manifest(), out, document)
    assert open_bundle(out.getvalue()).release_document == document


def test_a_file_that_the_bundle_does_not_hold_is_named(path: Path) -> None:
    for name in ("other", "", "../card.md", "models/exercise/2/card.md"):
        with pytest.raises(ArchiveError, match="holds no file"):
            open_bundle(path).read(name)


def test_reading_verifies_again_what_changed_on_disk_since(path: Path) -> None:
    bundle = open_bundle(path)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"a model", b"A MODEL"))
    with pytest.raises(DigestMismatch, match="sha256"):
        bundle.read("model-fp32.onnx")
    with pytest.raises(DigestMismatch, match="sha256"):
        bundle.copy("model-fp32.onnx", io.BytesIO())
    path.write_bytes(data[:100])
    with pytest.raises(ArchiveError):
        bundle.read("model-fp32.onnx")
    with pytest.raises(ArchiveError):
        bundle.copy("model-fp32.onnx", io.BytesIO())
    path.unlink()
    with pytest.raises(ArchiveError, match="cannot open"):
        bundle.read("model-fp32.onnx")


def test_copying_writes_the_file_and_passes_errors_of_its_target_on(path: Path) -> None:
    out = io.BytesIO()
    open_bundle(path).copy("model-fp32.onnx", out)
    assert out.getvalue() == b"a model"

    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        open_bundle(path).copy("model-fp32.onnx", Full())


def open_files() -> int:
    """How many files this process has open, where the system tells."""
    folder = Path("/proc/self/fd")
    return sum(1 for _ in folder.iterdir()) if folder.is_dir() else 0


def test_what_cannot_be_read_is_an_archive_error_that_names_the_path(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "empty").touch()
    (tmp_path / "link").symlink_to("missing")
    before = open_files()
    for name in ("missing", "fifo", "empty", ".", "link", "a\0b"):
        with pytest.raises(ArchiveError) as caught:
            open_bundle(tmp_path / name)
        assert str(tmp_path) in str(caught.value)
    assert open_files() == before


def test_errors_about_the_content_name_the_path_too(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"a model", b"A model"))
    with pytest.raises(ArchiveError, match="CRC-32") as caught:
        open_bundle(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_manifest_error_keeps_its_key_path() -> None:
    entries = bundles.raw_entries()
    for entry in entries:
        if entry.name.endswith(b"manifest.json"):
            entry.data = entry.data.replace(b'"float32"', b'"float64"', 1)
    with pytest.raises(ManifestError) as caught:
        open_bundle(bundles.forge(entries))
    assert caught.value.key_path == "hybrid.inputs[0].dtype"


def test_limits_can_be_lowered_but_not_raised(path: Path) -> None:
    size = path.stat().st_size
    open_bundle(path, Limits(max_bytes=size, max_entries=5))
    for limits in (Limits(max_bytes=size - 1), Limits(max_entries=4)):
        with pytest.raises(BundleTooLarge):
            open_bundle(path, limits)
    for wrong in ({"max_bytes": 2**31 + 1}, {"max_bytes": 0}, {"max_entries": 257}, {"max_entries": 0}):
        with pytest.raises(ValueError, match="must be from 1"):
            Limits(**wrong)


def test_a_large_artifact_is_never_held_twice(tmp_path: Path) -> None:
    size = 24 * 2**20
    block = bytes(range(256)) * 4096
    data_path = tmp_path / "model-fp32.onnx"
    with data_path.open("wb") as stream:
        for _ in range(size // len(block)):
            stream.write(block)
    for name, data in bundles.FILES.items():
        if name != data_path.name:
            (tmp_path / name).write_bytes(data)
    digest = hashlib.sha256(block * (size // len(block))).hexdigest()
    manifest = replace(bundles.manifest(), artifacts=(bundles.artifact(bytes=size, sha256=digest),))
    tracemalloc.start()
    try:
        pack_release(tmp_path, manifest, tmp_path / "large.bundle")
        bundle = open_bundle(tmp_path / "large.bundle")
        with (tmp_path / "copy").open("wb") as out:
            bundle.copy("model-fp32.onnx", out)
        streamed = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        assert len(bundle.read("model-fp32.onnx")) == size
        read = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert streamed < 5 * 2**20
    assert read < size + 3 * 2**20
    assert (tmp_path / "copy").stat().st_size == size


def test_a_bundle_appears_complete_or_not_at_all(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "x.bundle"
    out.parent.mkdir()
    out.write_bytes(b"the old one")
    (folder / "card.md").write_bytes(b"# Another card\n")
    with pytest.raises(DigestMismatch, match=r"card\.md"):
        pack_release(folder, bundles.manifest(), out)
    (folder / "card.md").unlink()
    with pytest.raises(FileNotFoundError):
        pack_release(folder, bundles.manifest(), out)
    assert [p.name for p in out.parent.iterdir()] == ["x.bundle"]
    assert out.read_bytes() == b"the old one"


class Changing(type(Path())):  # type: ignore[misc]
    """A file that says something else each time it is opened."""

    opened = 0

    def open(self, *arguments: Any, **options: Any) -> Any:
        Changing.opened += 1
        if Changing.opened > 1:
            return io.BytesIO(b"A model")
        return super().open(*arguments, **options)


def test_a_file_that_changes_while_it_is_packed_is_noticed_and_nothing_appears(folder: Path, tmp_path: Path) -> None:
    files: dict[str, bytes | Path] = dict(bundles.paths())
    files["models/exercise/2/model-fp32.onnx"] = Changing(folder / "model-fp32.onnx")
    (tmp_path / "out").mkdir()
    with pytest.raises(ArchiveError, match="changed while it was packed"):
        write_bundle(tmp_path / "out" / "x.bundle", files)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_bundle_that_changes_while_it_is_read_is_noticed() -> None:
    data = bundles.bundle()

    class Swapped(io.BytesIO):
        """Another central directory once the entries were read."""

        def read(self, size: int | None = -1) -> bytes:
            position = self.tell()
            found = super().read(size)
            return bytes(len(found)) if seen and position > len(data) // 2 and position == tail else found

    class Source(archive._Source):
        def open(self) -> archive._Stream:
            return archive._Stream(Swapped(data))

    seen: list[bool] = []
    tail = int.from_bytes(data[-6:-2], "little")
    archive._read_bundle(Source(data), Limits())
    original = archive.check_layout

    def layout(entries: Any) -> Any:
        seen.append(True)  # the directory has been read, the entries not yet
        return original(entries)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive, "check_layout", layout)
        with pytest.raises(ArchiveError, match="changed while it was read"):
            archive._read_bundle(Source(data), Limits())


def test_a_packed_bundle_is_readable_by_whom_the_umask_allows(path: Path) -> None:
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize(
    "change",
    [
        {"models/exercise/2/manifest.json": b"{}"},
        {"models/exercise/2/card.md": b"changed"},
        {"models/exercise/2/extra": b"x"},
        {"models/exercise/3/extra": b"x"},
        {"models/other/policy.json": b"{}"},
        {"rollouts/stable/exercise.json": b"{}"},
        {"tuf/a/b.json": b"{}"},
        {"../x": b""},
        {"tuf/" + "x" * 300 + ".json": b"{}"},
        {f"tuf/{i}.json": b"{}" for i in range(252)},
        {"tuf/large.json": b"x" * 5_000_001},
        {f"tuf/large{i}.json": b"x" * 4_200_000 for i in range(4)},
    ],
    ids=lambda c: next(iter(c))[:40],
)
def test_a_writer_refuses_what_a_reader_refuses_before_it_writes(change: dict[str, bytes]) -> None:
    out = io.BytesIO()
    with pytest.raises(BundleError):
        write_bundle(out, {**bundles.paths(), **change})
    assert out.getvalue() == b""


def test_verify_file_gives_back_the_bytes_it_was_given_or_raises() -> None:
    artifact = bundles.artifact()
    assert verify_file(artifact, b"a model") == b"a model"
    assert verify_file(artifact.golden, b"golden examples") == b"golden examples"
    with pytest.raises(DigestMismatch, match="8 bytes, 7 are stated"):
        verify_file(artifact, b"a model!")
    with pytest.raises(DigestMismatch, match="sha256"):
        verify_file(artifact, b"A model")
