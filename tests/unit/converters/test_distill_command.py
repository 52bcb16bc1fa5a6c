from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.cli import main

CENTRES = np.random.default_rng(9).normal(0, 2, (3, 5))


@pytest.fixture(scope="module")
def files(keras: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher whose last layer knows the centres, and data around them."""
    folder = tmp_path_factory.mktemp("distill")
    row = keras.Input((5,), name="row")
    dense = keras.layers.Dense(3, name="logits")
    teacher = keras.Model(row, dense(row), name="teacher")
    dense.set_weights([2 * CENTRES.T, -(CENTRES**2).sum(axis=1)])
    teacher.save(folder / "teacher.keras")
    hidden = keras.layers.Dense(6, activation="relu")(row)
    keras.Model(row, keras.layers.Dense(3)(hidden), name="mine").save(folder / "student.keras")
    rng = np.random.default_rng(1)
    for name, count in (("training", 30), ("pool", 150), ("validation", 60), ("evaluation", 90)):
        label = rng.integers(0, 3, count)
        x = (CENTRES[label] + rng.normal(0, 1.5, (count, 5))).astype(np.float32)
        np.savez(folder / f"{name}.npz", row=x, label=label)
    return folder


def command(files: Path, out: Path, *more: str) -> list[str]:
    data = [f"--{name}={files / name}.npz" for name in ("training", "pool", "validation", "evaluation")]
    short = ("--seeds", "2", "--epochs", "2", "--batch-size", "32")
    return ["distill", str(files / "teacher.keras"), *data, *short, "--out", str(out), *more]


def test_distilling_writes_a_student_that_can_be_loaded_and_what_it_came_to(
    keras: Any, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(command(files, out, "--student", str(files / "student.keras"), "--json")) == 0
    printed, _ = capsys.readouterr()
    report = json.loads((out / "distill.json").read_text())
    assert report == json.loads(printed)
    assert sorted(path.name for path in out.iterdir()) == ["distill.html", "distill.json", "student.keras"]
    assert report["seeds"] == [0, 1]
    assert {run["arm"] for run in report["runs"]} == {"labels", "distilled"}
    assert report["comparison"]["sentence"].split(":")[0] == report["comparison"]["verdict"]
    assert report["teacher"]["kind"] == "keras"
    assert report["rows"]["validation_from"] == "file"
    assert set(report["data"]) == {"training", "pool", "validation", "evaluation"}
    model = keras.models.load_model(out / "student.keras")
    with np.load(files / "evaluation.npz") as held:
        reached = (model.predict(held["row"], verbose=0).argmax(axis=1) == held["label"]).mean()
    kept = next(
        run for run in report["runs"] if (run["arm"], run["seed"]) == (report["kept"]["arm"], report["kept"]["seed"])
    )
    assert reached == pytest.approx(kept["evaluation"])


def test_a_student_of_the_family_within_an_estimated_latency(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    budget = ("--family", "auto", "--max-parameters", "300", "--max-latency-ms", "1", "--profile", "raspberry-pi-5-8gb")
    assert main(command(files, tmp_path / "out", *budget, "--seeds", "1")) == 0
    out, err = capsys.readouterr()
    assert "ms estimated: " in out
    assert "not measured" in out.replace("\n", " ")
    assert "labels alone" in out
    assert "one seed" in out
    assert "training distilled, seed 0" in err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--family", "mlp"), "needs a budget"),
        (("--family", "conv2d", "--max-parameters", "900"), "family conv2d does not take rows"),
        (("--student", "S", "--max-parameters", "9"), "--max-parameters: a budget picks"),
        (("--student", "missing.keras"), "missing.keras"),
        (("--family", "mlp", "--max-parameters", "900", "--profile", "toaster"), "no device profile 'toaster'"),
        (("--family", "mlp", "--max-parameters", "900", "--alpha", "2"), "alpha"),
        (("--family", "mlp", "--max-parameters", "900", "--pool", "no.npz"), "no.npz: no such file"),
    ],
    ids=lambda value: value.split(" ")[0] if isinstance(value, str) else None,
)
def test_what_cannot_be_is_a_named_error_and_writes_nothing(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], message: str
) -> None:
    line = [str(files / "student.keras") if part == "S" else part for part in more]
    missing_file = {"missing.keras", "no.npz"} & set(more)
    assert main(command(files, tmp_path / "out", *line)) == (1 if missing_file else 2)
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_refused_before_the_work(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert main(command(files, tmp_path, "--family", "mlp", "--max-parameters", "900")) == 1
    out, err = capsys.readouterr()
    assert "--overwrite" in err
    assert "training" not in err.split("error:")[0]
    assert out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_student_or_a_family_is_needed(files: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(command(files, tmp_path / "out"))
    assert stopped.value.code == 2
