from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import pytest

from converters.errors import ModelUnreadable, UnsupportedModel
from converters.sources.recognize import recognize
from tests.support import tiny


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, "")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.onnx", tiny.onnx_bytes(), "onnx"),
        ("a", tiny.onnx_bytes(), "onnx"),
        ("a.bin", tiny.tflite_bytes(), "tflite"),
        ("a.zip", zipped("config.json", "metadata.json", "model.weights.h5"), "keras"),
        ("a.zip", zipped("net.mlpackage/Manifest.json", "net.mlpackage/Data/x"), "mlpackage"),
        ("a", zipped("model/archive_format", "model/data.pkl"), "pt2"),
        ("a.pt2", zipped("serialized_exported_program.json"), "pt2"),
        ("a.joblib", b"x\x9c whatever joblib compresses with", "pickle"),
        ("a.model", pickle.dumps([1]), "pickle"),
        ("a.onnx", pickle.dumps([1]), "pickle"),
    ],
)
def test_the_content_tells_the_format_and_the_name_only_where_it_must(
    name: str, content: bytes, kind: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    assert recognize(tmp_path / name) == kind


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        (("saved_model.pb",), "savedmodel"),
        (("Manifest.json", "Data/x"), "mlpackage"),
        (("MLmodel", "model.pkl"), "mlflow"),
    ],
)
def test_a_folder_is_known_by_the_files_in_it(files: tuple[str, ...], kind: str, tmp_path: Path) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("{}")
    assert recognize(tmp_path) == kind


@pytest.mark.parametrize(
    ("name", "content", "way"),
    [
        ("a.h5", b"\x89HDF\r\n\x1a\n....", "save it as model.keras"),
        ("a.pt", zipped("archive/data.pkl", "archive/version"), r"torch\.export\.save"),
        ("a.pth", pickle.dumps([1]), r"torch\.export\.save"),
        ("a.jit", zipped("net/constants.pkl", "net/data.pkl", "net/code/x.py"), "TorchScript"),
        ("a.pb", b"\x0a\x10graph", r"tf\.saved_model\.save"),
        ("a.mlmodel", b"\x08\x01....", "mlprogram"),
        ("a.safetensors", b"\x40\0\0\0\0\0\0\0{...", "weights only"),
        ("a.npz", zipped("w.npy"), "weights only"),
        ("a.skops", zipped("schema.json"), r"skops\.io\.load"),
        ("a.ort", b"\x08\0\0\0ORTM....", r"give the \.onnx"),
        ("a.bundle", zipped("models/net/1/manifest.json"), "edgeship-convert inspect"),
        ("a.zip", zipped("net/saved_model.pb"), "unpack it"),
        ("a.csv", b"a,b,c\n1,2,3\n", r"Give a \.keras file, a SavedModel folder"),
    ],
)
def test_a_format_that_cannot_be_used_comes_with_the_way_to_one_that_can(
    name: str, content: bytes, way: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnsupportedModel, match=way):
        recognize(tmp_path / name)


def test_what_is_missing_empty_or_not_what_its_name_says_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "text.tflite").write_text("hello there, this is text")
    (tmp_path / "cut.keras").write_bytes(zipped("config.json", "metadata.json")[:60])
    for name, message in (
        ("none.onnx", "no such file"),
        ("empty.onnx", "is empty"),
        ("text.tflite", "does not hold what its name says"),
        ("cut.keras", "damaged zip"),
    ):
        with pytest.raises(ModelUnreadable, match=message):
            recognize(tmp_path / name)


def test_an_empty_folder_lists_what_can_be_given(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=r"mlflow:<model URI>"):
        recognize(tmp_path)
