"""Packages that nobody should trust."""

from __future__ import annotations

import io
import json
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from converters import CoreMLReference
from converters.errors import ModelUnreadable
from converters.mil import archive
from converters.quiet import load_tool
from converters.targets.coreml import pack_program
from tests.unit.converters.mil.programs import build

ROOT = "model.mlpackage"
MODEL = f"{ROOT}/Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = f"{ROOT}/Data/com.apple.CoreML/weights/weight.bin"
MANIFEST = f"{ROOT}/Manifest.json"
Files = dict[str, bytes]


@pytest.fixture(scope="module")
def package() -> bytes:
    weight = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    return pack_program(build(lambda mb, x: mb.linear(x=x, weight=weight), (1, 32)))


def files_of(package: bytes) -> Files:
    with zipfile.ZipFile(io.BytesIO(package)) as archive_file:
        return {name: archive_file.read(name) for name in archive_file.namelist()}


def zipped(files: Files, *, modes: dict[str, int] | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive_file:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (modes or {}).get(name, stat.S_IFREG | 0o644) << 16
            archive_file.writestr(info, data)
    return buffer.getvalue()


def without(name: str) -> Callable[[Files], Files]:
    return lambda files: {key: data for key, data in files.items() if key != name}


def with_manifest(path: str) -> Callable[[Files], Files]:
    def change(files: Files) -> Files:
        manifest = json.loads(files[MANIFEST])
        manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"] = path
        return {**files, MANIFEST: json.dumps(manifest).encode()}

    return change


ATTACKS: dict[str, tuple[Callable[[Files], Files], str]] = {
    "a name that climbs out": (lambda files: {**files, f"{ROOT}/../../evil": b""}, "leaves the package"),
    "an absolute name": (lambda files: {**files, "/tmp/evil": b""}, "leaves the package"),
    "a name with backslashes": (lambda files: {**files, "..\\evil": b""}, "leaves the package"),
    "two packages": (lambda files: {**files, "other.mlpackage/Manifest.json": b"{}"}, "exactly one .mlpackage"),
    "thousands of files": (lambda files: {**files, **{f"{ROOT}/{i}": b"" for i in range(1001)}}, "a handful"),
    "no manifest": (without(MANIFEST), "Manifest.json is missing or damaged"),
    "a manifest that is no JSON": (lambda files: {**files, MANIFEST: b"{" * 9}, "Manifest.json is missing or damaged"),
    "a manifest that climbs out": (with_manifest("../../../etc/passwd"), "leaves the package"),
    "a manifest of what is not there": (with_manifest("com.apple.CoreML/other.mlmodel"), "is not there"),
    "a model of noise": (lambda files: {**files, MODEL: bytes(range(256)) * 8}, "cannot be read"),
    "an empty model": (lambda files: {**files, MODEL: b""}, "not an mlprogram"),
    "no weight file": (lambda files: {**files, WEIGHTS.replace("weight.bin", "x"): b"", WEIGHTS: b""}, "damaged"),
    "a truncated weight file": (lambda files: {**files, WEIGHTS: files[WEIGHTS][:-64]}, "damaged or shorter"),
    "a weight file of zeros": (lambda files: {**files, WEIGHTS: bytes(len(files[WEIGHTS]))}, "damaged or shorter"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hostile_package_is_refused_by_name(package: bytes, attack: str) -> None:
    change, message = ATTACKS[attack]
    with pytest.raises(ModelUnreadable, match=message):
        CoreMLReference(zipped(change(files_of(package))))


def test_a_weight_file_that_is_missing_is_named(package: bytes) -> None:
    # The manifest names its folder, so that the folder alone stays.
    files = without(WEIGHTS)(files_of(package)) | {f"{ROOT}/Data/com.apple.CoreML/weights/": b""}
    with pytest.raises(ModelUnreadable, match=r"weight file 'weight\.bin' is missing"):
        CoreMLReference(zipped(files))


def test_a_link_in_a_zip_or_in_a_folder_is_refused(package: bytes, tmp_path: Path) -> None:
    files = files_of(package) | {f"{ROOT}/link": b"/etc/passwd"}
    with pytest.raises(ModelUnreadable, match="link is a link"):
        CoreMLReference(zipped(files, modes={f"{ROOT}/link": stat.S_IFLNK | 0o777}))
    with zipfile.ZipFile(io.BytesIO(package)) as archive_file:
        archive_file.extractall(tmp_path)
    assert CoreMLReference(tmp_path / ROOT).outputs == CoreMLReference(package).outputs
    (tmp_path / WEIGHTS).rename(tmp_path / "elsewhere")
    (tmp_path / WEIGHTS).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelUnreadable, match="is a link"):
        CoreMLReference(tmp_path / ROOT)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(
    package: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_PACKAGE_BYTES", 1 << 20)
    bomb = zipped(files_of(package) | {f"{ROOT}/bomb": bytes(1 << 22)})
    assert len(bomb) < 1 << 17
    with pytest.raises(ModelUnreadable, match="unpacks to more than 1 MiB"):
        archive.package_in(bomb, tmp_path)
    assert list(tmp_path.iterdir()) == []
    # A directory that lies about the size: the entry says 10 bytes.
    lying = bomb.replace((1 << 22).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    with pytest.raises(ModelUnreadable):
        archive.package_in(lying, tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 1 << 20


def test_a_neural_network_is_not_a_program(tmp_path: Path) -> None:
    ct = load_tool("coremltools")
    builder = ct.models.neural_network.NeuralNetworkBuilder(
        [("x", ct.models.datatypes.Array(1, 4, 4))], [("y", ct.models.datatypes.Array(1, 4, 4))]
    )
    builder.add_activation("relu", "RELU", "x", "y")
    model = ct.models.MLModel(builder.spec, skip_model_load=True)
    model.save(str(tmp_path / "net.mlpackage"))
    with pytest.raises(ModelUnreadable, match="neuralNetwork, not an mlprogram"):
        CoreMLReference(tmp_path / "net.mlpackage")


def test_what_is_no_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelUnreadable, match=r"nothing\.zip: no such file"):
        CoreMLReference(tmp_path / "nothing.zip")
    with pytest.raises(ModelUnreadable, match=r"not a zipped \.mlpackage"):
        CoreMLReference(b"PK\x03\x04" + bytes(100))
