from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.cli import main
from converters.data import save_dataset
from converters.quiet import load_tool
from edge_runtime import golden
from edge_runtime.bundle import open_bundle, pack_release
from tests.unit.converters.conftest import dataset

RECIPE = """
labels = ["slow", "medium", "fast"]
owner = "Ann"
contact = "ann@example.com"
predicts = "How fast a wave is."

[ranges]
window = [-10000.0, 20000.0]
"""


@pytest.fixture
def files(student: Any, tmp_path: Path) -> dict[str, str]:
    student.save(tmp_path / "waves.keras")
    for name, rows, seed in (("calibration", 200, 3), ("evaluation", 200, 2)):
        save_dataset(dataset(rows, seed), tmp_path / f"{name}.npz")
    (tmp_path / "waves.toml").write_text(RECIPE)
    return {path.name: str(path) for path in tmp_path.iterdir()} | {"out": str(tmp_path / "out")}


def command(files: dict[str, str], *more: str) -> list[str]:
    return [
        "run",
        files["waves.keras"],
        *("--name", "waves", "--release", "4"),
        *("--calibration", files["calibration.npz"], "--evaluation", files["evaluation.npz"]),
        *("--recipe", files["waves.toml"]),
        *("--targets", "onnx", "--no-peak-memory"),
        *("--out", files["out"]),
        *more,
    ]


def test_run_inspect_and_verify_follow_each_other(
    student: Any,
    files: dict[str, str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(command(files, "--edge-case", f"same={files['evaluation.npz']}")) == 0
    text, progress = capfd.readouterr()
    assert "waves release 4: keras source" in text
    assert "onnx int8, in float: " in text
    assert "…" not in text
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    (row,) = report["artifacts"]
    both = [f"{row['accuracy']:.4f}", f"{row['source_accuracy']:.4f}"]
    (line,) = (line.split() for line in text.splitlines() if line.strip().startswith("onnx int8 "))
    assert line[5:7] == both
    assert max(map(len, text[: text.index("in float")].splitlines())) <= 80
    assert "measuring onnx int8" in progress
    bundle = tmp_path / "out" / "waves-4.bundle"
    assert (report["artifacts"][0]["precision"], report["artifacts"][0]["status"]) == ("int8", "ok")
    assert report["artifacts"][0]["edge_cases"][0]["accuracy"] == report["artifacts"][0]["accuracy"]

    assert main(["inspect", str(bundle), "--json"]) == 0
    shown = json.loads(capfd.readouterr().out)
    assert not shown["signed"]
    assert shown["manifest"]["inputs"][0]["range"] == [-10000.0, 20000.0]
    assert shown["manifest"]["labels"] == ["slow", "medium", "fast"]
    measured = shown["manifest"]["artifacts"][0]["measured"]
    assert measured["source_accuracy"] == pytest.approx(row["source_accuracy"], abs=1e-6)
    assert main(["inspect", str(bundle)]) == 0
    text = capfd.readouterr().out
    for words in ("waves release 4", "onnx int8", "unsigned", "range -10000 to 20000", shown["sha256"]):
        assert words in text
    (line,) = (line.split() for line in text.splitlines() if line.strip().startswith("onnx int8 "))
    assert line[3:5] == both
    assert main(["inspect", str(bundle), "--card"]) == 0
    assert "How fast a wave is." in capfd.readouterr().out

    assert main(["verify", str(bundle), "--source", files["waves.keras"], "--json"]) == 0
    (verified,) = json.loads(capfd.readouterr().out)["artifacts"]
    assert verified["passed"]
    assert verified["decision_agreement"] == 1.0
    assert 0 < verified["max_abs_error"] < 1.0
    other = load_tool("keras").models.clone_model(student)
    other.save(tmp_path / "other.keras")
    assert main(["verify", str(bundle), "--source", str(tmp_path / "other.keras")]) == 3
    assert "FAILED" in capfd.readouterr().out
    assert main(command(files)) == 1
    assert "or replace it with --overwrite" in capfd.readouterr().err


def test_json_alone_is_on_standard_output(files: dict[str, str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(command(files, "--precision", "fp32,int8", "--json")) == 0
    out, err = capfd.readouterr()
    assert [row["precision"] for row in json.loads(out)["artifacts"]] == ["fp32", "int8"]
    assert err == ""


def test_verify_fails_a_bundle_whose_artifact_is_not_the_one_that_was_measured(
    files: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(command(files, "--precision", "fp32")) == 0
    bundle = open_bundle(tmp_path / "out" / "waves-4.bundle")
    (artifact,) = bundle.manifest.artifacts
    examples = golden.read(bundle.read(artifact.golden.file))
    other = golden.write(examples.inputs, {name: array + 1 for name, array in examples.outputs.items()})
    tree = tmp_path / "tree"
    tree.mkdir()
    assert bundle.manifest.card is not None
    for name in (artifact.file, bundle.manifest.card.file):
        (tree / name).write_bytes(bundle.read(name))
    (tree / artifact.golden.file).write_bytes(other)
    digest = hashlib.sha256(other).hexdigest()
    changed = replace(artifact, golden=replace(artifact.golden, bytes=len(other), sha256=digest))
    pack_release(tree, replace(bundle.manifest, artifacts=(changed,)), tmp_path / "other.bundle")
    capfd.readouterr()
    assert main(["verify", str(tmp_path / "other.bundle")]) == 3
    assert "FAILED" in capfd.readouterr().out


def test_errors_are_one_line_with_a_name_and_exit_code_1(
    files: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.bundle").write_bytes(b"PK")
    (tmp_path / "bad.keras").write_bytes(b"PK no zip")
    np.savez(tmp_path / "old.npz", window=dataset(20, 2).inputs["window"], labels=np.zeros(20, int))
    for arguments, error in (
        (["run", str(tmp_path / "bad.keras"), *command(files)[2:]], "ModelUnreadable"),
        (command(files, "--evaluation", files["waves.toml"]), "DataUnreadable"),
        (command(files, "--evaluation", str(tmp_path / "old.npz")), "WrongNames"),
        (["inspect", str(tmp_path / "bad.bundle")], "ArchiveError"),
        (["verify", str(tmp_path / "bad.bundle")], "ArchiveError"),
    ):
        assert main(arguments) == 1
        assert f"error: {error}: " in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_ending_the_command_leaves_nothing_behind(files: dict[str, str], tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    running = subprocess.Popen(
        [sys.executable, "-m", "converters.cli", *command(files)], stderr=subprocess.PIPE, text=True
    )
    assert running.stderr is not None
    assert "[1/" in running.stderr.readline()
    running.send_signal(signal.SIGTERM)
    _, told = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "interrupted; nothing was written" in told
    assert set(tmp_path.iterdir()) == before


def test_wrong_usage_is_exit_code_2(capfd: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["melt"], ["inspect"]):
        with pytest.raises(SystemExit) as raised:
            main(arguments)
        assert raised.value.code == 2
    assert "usage:" in capfd.readouterr().err


def test_the_matrix_names_every_pair_with_its_tools_or_the_way_around(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix", "--json"]) == 0
    rows = json.loads(capfd.readouterr().out)
    sources = {"keras", "savedmodel", "onnx", "torch", "sklearn", "tflite", "coreml"}
    assert {(row["source"], row["target"]) for row in rows} == {
        (source, target) for source in sources for target in ("onnx", "tflite", "coreml")
    }
    assert all(row["tools"] if row["precisions"] else row["instead"] for row in rows)
