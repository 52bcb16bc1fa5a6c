"""What is refused without PyTorch. What needs it is in tests/unit/converters/foreign/test_torch_environment.py."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import pytest

from converters.errors import ModelUnreadable
from converters.sources.torch import TorchSource, named_axes
from converters.torch_program import Tensor

PLAIN = {
    "net/models/model.json": b"{}",
    "net/data/weights/weight_0": b"1234",
    "net/data/sample_inputs/model.pt": b"",
    "net/archive_format": b"pt2",
}


def archive(path: Path, entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as made:
        for name, data in entries.items():
            made.writestr(name, data)
    return path


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelUnreadable, match=r"none\.pt2: no such file"):
        TorchSource(tmp_path / "none.pt2")


def test_a_pickle_of_weights_is_refused_with_the_way_to_make_a_program(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(pickle.dumps({"weight": [1.0]}))
    with pytest.raises(ModelUnreadable, match=r"weights\.pt is not an ExportedProgram.*torch\.export\.save"):
        TorchSource(path)


def test_what_torch_save_or_torchscript_wrote_is_refused_as_a_pickle(tmp_path: Path) -> None:
    path = archive(tmp_path / "weights.pth", {"archive/data.pkl": b"\x80\x02.", "archive/data/0": b"1234"})
    with pytest.raises(ModelUnreadable, match=r"holds a pickle \(torch\.save\) or TorchScript.*torch\.export\.export"):
        TorchSource(path)


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "net.pt2", PLAIN)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ModelUnreadable, match=r"net\.pt2 is not an ExportedProgram: it is a damaged file"):
        TorchSource(path)


def test_a_zip_of_something_else_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "photos.pt2", {"photos/1.png": b"x"})
    with pytest.raises(ModelUnreadable, match=r"photos\.pt2 is not an ExportedProgram of this format"):
        TorchSource(path)


@pytest.mark.parametrize(
    "name",
    [
        "net/data/aotinductor/model/code.wrapper.so",
        "net/code.py",
        "net/models/model.so",
        "net/data/weights/deeper/weight_0",
        "net/xl_model_weights/elsewhere",
    ],
)
def test_entries_that_no_program_has_are_refused_by_name(tmp_path: Path, name: str) -> None:
    path = archive(tmp_path / "net.pt2", {**PLAIN, name: b"x"})
    with pytest.raises(ModelUnreadable, match=f"holds '{name.removeprefix('net/')}', which is not part of"):
        TorchSource(path)


@pytest.mark.parametrize("name", ["net/../../outside", "/etc/passwd", "net\\..\\outside"])
def test_entries_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    path = archive(tmp_path / "net.pt2", {**PLAIN, name: b"x"})
    with pytest.raises(ModelUnreadable, match="which leaves its folder"):
        TorchSource(path)


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "net.pt2", {**PLAIN, "net/data/weights/weight_1": bytes(32 << 20)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(ModelUnreadable, match="a zip bomb, or no model"):
        TorchSource(path)


def test_symbols_get_the_name_of_the_axis_where_they_are_first_met() -> None:
    first = Tensor(name="signal", dtype="float32", sizes=("s77", "s3", 4))
    second = Tensor(name="out", dtype="float32", sizes=("s77", "2*s3", "s3"))
    assert [each.sizes for each in named_axes((first, second))] == [
        ("signal_0", "signal_1", 4),
        ("signal_0", None, "signal_1"),
    ]
