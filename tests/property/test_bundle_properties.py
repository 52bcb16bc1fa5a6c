"""What holds for every manifest and every bundle, and for every way to damage one."""

from __future__ import annotations

import io
import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from edge_runtime.bundle import (
    Bundle,
    BundleError,
    InvalidName,
    Manifest,
    ManifestError,
    check_file,
    check_model,
    open_bundle,
    read_manifest,
    read_policy,
    read_release,
    split_target_path,
    target_path,
    write_bundle,
    write_manifest,
    write_release,
)
from tests.support import bundles
from tests.support.manifests import releases_with_files

ROOT = Path(__file__).parents[2]
VALIDATOR = Draft202012Validator(json.loads((ROOT / "docs/spec/manifest.schema.json").read_text(encoding="utf-8")))

quick = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
many = settings(deadline=None, max_examples=400)


def pack(manifest: Manifest, files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    entries = {"manifest.json": write_manifest(manifest), **files}
    write_bundle(out, {target_path(manifest.model, manifest.release, name): data for name, data in entries.items()})
    return out.getvalue()


def contents(bundle: Bundle) -> dict[str, object]:
    """Everything that a reader can get out of a bundle."""
    return {
        "manifest": bundle.manifest,
        "release": bundle.release_document,
        "policy": bundle.policy,
        "tuf": dict(bundle.tuf),
        **{f"file {name}": bundle.read(name) for name in bundle.files},
    }


@cache
def small() -> tuple[bytes, dict[str, object]]:
    """The smallest bundle that still has every kind of entry."""
    manifest = bundles.manifest(
        preprocessing=bundles.Preprocessing(in_graph="", caller=""),
        card=None,
        hybrid=None,
        segments=(),
        edge_cases=(),
        guard=None,
    )
    files = {name: bundles.FILES[name] for name in ("model-fp32.onnx", "model-fp32.onnx.golden.npz")}
    out = io.BytesIO()
    entries = {
        **{target_path("exercise", 2, name): data for name, data in files.items()},
        target_path("exercise", 2, "manifest.json"): write_manifest(manifest),
        target_path("exercise", 2, "release.json"): write_release(bundles.release_document(deltas=())),
        "models/exercise/policy.json": b'{"format":1,"model":"exercise","min_release":1,"revoked":[]}',
        "tuf/timestamp.json": b"{}",
    }
    write_bundle(out, entries)
    return out.getvalue(), contents(open_bundle(out.getvalue()))


def detected_or_harmless(data: bytes, before: dict[str, object]) -> bool:
    """Harmless: all that can be read is what could be read before."""
    try:
        return contents(open_bundle(data)) == before
    except BundleError:
        return True


@quick
@given(releases_with_files())
def test_a_manifest_reads_back_as_it_was_written(release: tuple[Manifest, dict[str, bytes]]) -> None:
    data = write_manifest(release[0])
    assert read_manifest(data) == release[0]
    assert write_manifest(read_manifest(data)) == data
    VALIDATOR.validate(json.loads(data))


@quick
@given(releases_with_files(), st.randoms(use_true_random=False))
def test_a_bundle_reads_back_as_it_was_written_and_is_always_the_same_bytes(
    release: tuple[Manifest, dict[str, bytes]], shuffle: random.Random
) -> None:
    manifest, files = release
    data = pack(manifest, files)
    bundle = open_bundle(data)
    assert bundle.manifest == manifest
    assert {name: bundle.read(name) for name in bundle.files if name != "manifest.json"} == files
    names = list(files)
    shuffle.shuffle(names)
    assert pack(manifest, {name: files[name] for name in names}) == data


def test_every_bit_flip_and_many_other_changes_of_a_byte_of_a_small_bundle_are_detected() -> None:
    data, _ = small()
    for position, byte in enumerate(data):
        for value in {*(byte ^ (1 << bit) for bit in range(8)), 0, 255, byte ^ 255} - {byte}:
            with pytest.raises(BundleError):
                open_bundle(data[:position] + bytes([value]) + data[position + 1 :])


@pytest.mark.long
def test_every_change_of_every_byte_of_a_small_bundle_is_detected() -> None:
    data, _ = small()
    for position, byte in enumerate(data):
        for value in range(256):
            if value != byte:
                with pytest.raises(BundleError):
                    open_bundle(data[:position] + bytes([value]) + data[position + 1 :])


@quick
@given(releases_with_files(), st.data())
def test_a_one_byte_change_of_any_bundle_is_detected(
    release: tuple[Manifest, dict[str, bytes]], data: st.DataObject
) -> None:
    original = pack(*release)
    for _ in range(10):
        position = data.draw(st.integers(0, len(original) - 1))
        value = original[position] ^ data.draw(st.integers(1, 255))
        with pytest.raises(BundleError):
            open_bundle(original[:position] + bytes([value]) + original[position + 1 :])


edits = st.tuples(
    st.sampled_from(["overwrite", "insert", "delete", "copy", "cut"]),
    st.floats(0, 1),
    st.floats(0, 1),
    st.binary(max_size=8)
    | st.sampled_from([b"PK\1\2", b"PK\3\4", b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\7\x08", b"\xff" * 4]),
)


def edit(data: bytes, how: str, a: float, b: float, new: bytes) -> bytes:
    start, end = sorted((int(a * len(data)), int(b * len(data))))
    return {
        "overwrite": data[:start] + new + data[start + len(new) :],
        "insert": data[:start] + new + data[start:],
        "delete": data[:start] + data[min(end, start + 64) :],
        "copy": data[:end] + data[start:end] + data[end:],
        "cut": data[:start],
    }[how]


@many
@given(st.lists(edits, min_size=1, max_size=5))
def test_a_damaged_bundle_is_refused_with_a_bundle_error_or_reads_the_same(changes: list[Any]) -> None:
    data, before = small()
    for change in changes:
        data = edit(data, *change)
    assert detected_or_harmless(data, before)


@many
@given(st.binary(max_size=300) | st.binary(max_size=200).map(lambda b: b + b"PK\5\6" + bytes(18)))
def test_arbitrary_bytes_raise_nothing_but_a_bundle_error(data: bytes) -> None:
    with pytest.raises(BundleError):
        open_bundle(data)


# Structure-aware: a forged archive with valid framing and anything inside.
names = st.sampled_from(
    [
        b"models/exercise/2/manifest.json",
        b"models/exercise/2/a",
        b"models/exercise/policy.json",
        b"tuf/root.json",
        b"../x",
        b"",
    ]
) | st.binary(max_size=20)
numbers = st.sampled_from([0, 1, 8, 20, 0x21, 0xFFFF])
lies = st.dictionaries(
    st.sampled_from(["flags", "method", "needed", "crc", "size", "compressed", "extra"]), numbers, max_size=2
)


@many
@given(
    st.lists(
        st.builds(
            bundles.RawEntry,
            name=names,
            data=st.sampled_from([b"", b"{}", write_manifest(bundles.manifest())]) | st.binary(max_size=40),
            local=lies,
            central=lies | st.fixed_dictionaries({"offset": st.integers(0, 2**32 - 1)}),
        ),
        max_size=4,
    ),
    st.dictionaries(st.sampled_from(["entries", "here", "size", "offset", "disk", "comment"]), numbers, max_size=2),
)
def test_forged_archives_raise_nothing_but_a_bundle_error(entries: list[bundles.RawEntry], end: dict[str, int]) -> None:
    try:
        open_bundle(bundles.forge(sorted(entries, key=lambda e: e.name), end=end))
    except BundleError:
        pass
    else:
        pytest.fail("no such archive holds the files of its manifest")


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**54), 2**54)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["batch", "window", "float32", "0" * 64, "../x", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@many
@given(st.data())
def test_a_mutated_manifest_is_refused_with_a_manifest_error_or_is_a_manifest(data: st.DataObject) -> None:
    document: Any = bundles.document()
    for _ in range(data.draw(st.integers(1, 3))):
        place: Any = document
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = data.draw(st.sampled_from(keys))
            if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.integers(0, 3)) == 0:
                break
            place = place[key]
        if data.draw(st.booleans()) and isinstance(place, dict):
            del place[key]
            if not place:
                break
        else:
            place[key] = data.draw(json_values)
    text = json.dumps(document).encode()
    try:
        manifest = read_manifest(text)
    except ManifestError:
        return
    assert read_manifest(write_manifest(manifest)) == manifest
    VALIDATOR.validate(json.loads(write_manifest(manifest)))
    assert VALIDATOR.is_valid(document)


@many
@given(st.binary(max_size=200) | json_values.map(lambda v: json.dumps(v).encode()))
def test_arbitrary_documents_raise_nothing_but_a_manifest_error(data: bytes) -> None:
    for read in (read_manifest, read_release, read_policy):
        with pytest.raises(ManifestError):
            read(data)


@many
@given(st.text(max_size=12))
def test_a_name_is_refused_or_makes_a_path_with_one_reading(name: str) -> None:
    for check in (check_model, check_file):
        try:
            assert check(name) == name
        except InvalidName:
            continue
        assert name.isascii()
        assert not set("/\\:\0\n ") & set(name)
        model, file = (name, "x") if check is check_model else ("x", name)
        assert split_target_path(target_path(model, 7, file)) == (model, 7, file)
