from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.cli import main
from converters.describe import read_release_file
from converters.errors import InvalidRequest
from tests.unit.converters.conftest import dataset

RELEASE = """
owner = "Ann"
contact = "ann@example.com"
version = "1.0.0"
predicts = "How fast a wave is."
dataset = "synthetic waves"
labels = ["slow", "medium", "fast"]
personal_data = false
seeds = [7]
known_failures = ["two waves"]

[ranges]
window = [-10000.0, 20000.0]

[[features]]
name = "mean-x"
input = "window"
reduce = "mean"
index = 0

[hybrid]
model = "waves-cloud"
releases = [1]
inputs = [{ name = "context", dtype = "float32", shape = ["n", 32, 3] }]

[requirements]
os = ["Linux"]
"""


@pytest.fixture
def files(student: Any, tmp_path: Path) -> dict[str, str]:
    student.save(tmp_path / "waves.keras")
    for name, rows, seed in (("calibration", 60, 3), ("evaluation", 60, 2)):
        data = dataset(rows, seed)
        np.savez(tmp_path / f"{name}.npz", labels=data.labels, **data.inputs)  # type: ignore[arg-type]
    (tmp_path / "release.toml").write_text(RELEASE)
    return {path.name: str(path) for path in tmp_path.iterdir()} | {"out": str(tmp_path / "out")}


def convert_command(files: dict[str, str], *more: str) -> list[str]:
    return [
        "convert",
        *("--model", files["waves.keras"]),
        *("--calibration", files["calibration.npz"]),
        *("--evaluation", files["evaluation.npz"]),
        *("--targets", "onnx"),
        *("--out", files["out"]),
        *more,
    ]


def test_convert_pack_and_inspect_follow_each_other(
    files: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(convert_command(files, "--confidence", files["calibration.npz"], "--json")) == 0
    out, err = capfd.readouterr()
    report = json.loads(out)
    assert [(a["target"], a["precision"]) for a in report["artifacts"]] == [("onnx", "fp32"), ("onnx", "int8")]
    assert (tmp_path / "out" / report["artifacts"][0]["file"]).is_file()
    assert "[1/6] waves: answers of the source" in err
    pack = [
        "pack",
        files["out"],
        *("--model", "waves"),
        *("--release", "4"),
        *("--describe", files["release.toml"]),
        *("--training", files["calibration.npz"]),
        *("--evaluation", files["evaluation.npz"]),
        *("--out", str(tmp_path)),
    ]
    assert main([*pack, "--json"]) == 0
    packed = json.loads(capfd.readouterr().out)
    assert main(["inspect", packed["bundle"], "--json"]) == 0
    shown = json.loads(capfd.readouterr().out)
    assert shown["sha256"] == packed["sha256"]
    assert not shown["signed"]
    assert shown["manifest"]["inputs"][0]["range"] == [-10000.0, 20000.0]
    assert shown["manifest"]["hybrid"]["model"] == "waves-cloud"
    assert main(["inspect", packed["bundle"]]) == 0
    text = capfd.readouterr().out
    for words in ("waves release 4", "onnx int8", "unsigned", packed["sha256"]):
        assert words in text
    assert main(pack) == 1
    assert "error: OutputExists" in capfd.readouterr().err


def test_a_table_for_people_shows_every_artifact(files: dict[str, str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(convert_command(files, "--precisions", "fp32", "--name", "tiny")) == 0
    out = capfd.readouterr().out
    assert "tiny:" in out
    assert "onnx fp32" in out


def test_what_int8_leaves_in_float_is_readable_in_80_columns(
    files: dict[str, str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(convert_command(files, "--targets", "onnx,tflite")) == 0
    out = capfd.readouterr().out
    assert "…" not in out
    assert max(len(line.rstrip()) for line in out.splitlines() if "measured" not in line) <= 80
    artifacts = json.loads((Path(files["out"]) / "report.json").read_text())["artifacts"]
    lines = out.partition("left in float")[2].splitlines()
    for artifact in (each for each in artifacts if each["precision"] == "int8"):
        (line,) = (line for line in lines if f"{artifact['target']} int8" in line)
        assert ", ".join(artifact["float_operators"]) in line
    assert main(convert_command(files)) == 1
    assert "or replace it with --overwrite (overwrite=True)" in capfd.readouterr().err


def test_errors_are_one_line_with_a_name_and_exit_code_1(
    files: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.bundle").write_bytes(b"PK")
    for command, error in (
        (convert_command(files, "--model", files["release.toml"]), "ModelUnreadable"),
        (convert_command(files, "--evaluation", files["release.toml"]), "DataUnreadable"),
        (convert_command(files, "--targets", "ncnn"), "InvalidRequest"),
        (["inspect", str(tmp_path / "bad.bundle")], "ArchiveError"),
    ):
        assert main(command) == 1
        assert f"error: {error}: " in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_wrong_usage_is_exit_code_2(capfd: pytest.CaptureFixture[str]) -> None:
    for command in ([], ["convert"], ["melt"]):
        with pytest.raises(SystemExit) as raised:
            main(command)
        assert raised.value.code == 2
    assert "usage:" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("owner = ", "ownr = "), "unknown keys ownr"),
        (('owner = "Ann"', ""), "owner is missing"),
        (("reduce = ", "redcue = "), "redcue"),
        (('labels = ["slow", "medium", "fast"]', "labels = 3"), "int"),
        (("[ranges]", "[ranges"), "not TOML"),
        (("releases = [1]", ""), "releases"),
    ],
)
def test_a_release_file_that_cannot_be_used_is_refused(change: tuple[str, str], message: str, tmp_path: Path) -> None:
    path = tmp_path / "release.toml"
    path.write_text(RELEASE.replace(*change))
    with pytest.raises(InvalidRequest, match=message):
        read_release_file(path)
    with pytest.raises(InvalidRequest, match="cannot be read"):
        read_release_file(tmp_path / "none.toml")
