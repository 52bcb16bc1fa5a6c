from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from converters.errors import OutputError, OutputExists, OutputFull
from converters.evaluate import BURST, LEAST_ROUNDS, accuracy, interleaved_latency, machine
from converters.output import written_whole
from converters.parity import compare


def test_parity_is_over_all_outputs() -> None:
    expected = {"logits": np.array([[1.0, 0.0], [0.0, 1.0]]), "aux": np.array([[5.0], [5.0]])}
    actual = {"logits": np.array([[1.0, 0.5], [0.25, 0.0]]), "aux": np.array([[7.0], [5.0]])}
    parity = compare(expected, actual)
    assert parity.max_abs_error == 2.0
    assert parity.mean_abs_error == pytest.approx((0.5 + 0.25 + 1.0 + 2.0) / 6)
    assert parity.scale == 5.0
    assert parity.mismatched == 0


def test_equal_infinities_and_nans_agree_and_others_are_counted() -> None:
    inf, nan = np.inf, np.nan
    expected = {"logits": np.array([[inf, -inf, nan, 1.0, inf]])}
    actual = {"logits": np.array([[inf, inf, nan, nan, 2.0]])}
    parity = compare(expected, actual)
    assert parity.mismatched == 3
    assert parity.max_abs_error == 0.0


def test_accuracy_is_the_share_of_rows_decided_as_labelled() -> None:
    assert accuracy(np.array([[0.1, 0.9], [0.9, 0.1], [0.2, 0.3]]), np.array([1, 1, 1])) == pytest.approx(2 / 3)


def test_calls_take_turns_twice_a_round_and_the_median_is_of_single_calls() -> None:
    now, order = [0.0], []

    def call(name: str, seconds: float) -> None:
        order.append(name)
        now[0] += seconds

    measured = interleaved_latency({"a": lambda: call("a", 10e-6), "b": lambda: call("b", 30e-6)}, clock=lambda: now[0])
    assert measured == {"a": (pytest.approx(10.0), pytest.approx(1.0)), "b": (pytest.approx(30.0), pytest.approx(1.0))}
    timed = order[-4 * BURST :]
    assert timed == ["a"] * BURST + ["b"] * BURST + ["a"] * BURST + ["b"] * BURST


def test_noise_shows_in_the_ratio_of_a_model_with_itself() -> None:
    now, calls = [0.0], [0]

    def uneven() -> None:
        calls[0] += 1
        now[0] += 10e-6 if (calls[0] // BURST) % 4 in (1, 2) else 20e-6

    ((_, ratio),) = interleaved_latency({"uneven": uneven}, clock=lambda: now[0]).values()
    assert ratio > 1.0


def test_slow_models_are_measured_within_a_budget() -> None:
    now, calls = [0.0], [0]

    def slow() -> None:
        calls[0] += 1
        now[0] += 1.0

    interleaved_latency({"slow": slow}, clock=lambda: now[0])
    assert calls[0] <= 3 + 2 * 3 * LEAST_ROUNDS


def test_the_machine_is_described_in_one_short_line() -> None:
    assert "CPUs" in machine()
    assert len(machine()) <= 256
    assert "\n" not in machine()


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with written_whole(out) as folder:
        (folder / "a").write_text("a")
        assert not out.exists()
    assert (out / "a").read_text() == "a"
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def write_then_fail(folder: Path, error: Exception) -> None:
    (folder / "a").write_text("new")
    raise error


def test_a_folder_does_not_appear_when_something_fails(tmp_path: Path) -> None:
    for error, expected in (
        (ValueError("bug"), ValueError),
        (OSError(errno.ENOSPC, "full"), OutputFull),
        (OSError(errno.EACCES, "denied"), OutputError),
    ):
        with pytest.raises(expected), written_whole(tmp_path / "out") as folder:
            write_then_fail(folder, error)
        assert list(tmp_path.iterdir()) == []


def test_an_overwritten_folder_is_kept_when_its_successor_fails(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with written_whole(out) as folder:
        (folder / "a").write_text("old")
    with pytest.raises(ValueError, match="bug"), written_whole(out, overwrite=True, ours=("a",)) as folder:
        write_then_fail(folder, ValueError("bug"))
    assert (out / "a").read_text() == "old"
    with written_whole(out, overwrite=True, ours=("a",)) as folder:
        (folder / "b").write_text("new")
    assert [path.name for path in out.iterdir()] == ["b"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_overwriting_never_takes_what_nobody_here_wrote(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in ("model.keras", "report.json", "x-1.bundle"):
        (out / name).write_text("mine")
    with (
        pytest.raises(OutputExists, match=r"holds model\.keras, which this command did not write"),
        written_whole(out, overwrite=True, ours=("*.bundle", "report.json")),
    ):
        pass
    assert (out / "model.keras").read_text() == "mine"


def test_of_two_runs_into_one_folder_the_second_to_end_is_refused_and_the_first_stays(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(OutputExists), written_whole(out) as late:
        (late / "a").write_text("late")
        with written_whole(out) as early:
            (early / "a").write_text("early")
    assert (out / "a").read_text() == "early"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


WRITING = """
import sys, time
from pathlib import Path
from converters.output import written_whole

with written_whole(Path(sys.argv[1])) as folder:
    (folder / "a").write_text("half")
    print("writing", flush=True)
    time.sleep(600)
"""


def test_what_a_killed_run_left_is_removed_by_the_next_and_a_live_run_is_left_alone(tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / ".out.backup"
    other.mkdir()
    with subprocess.Popen([sys.executable, "-c", WRITING, str(out)], stdout=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "writing\n"
            (held,) = (path for path in tmp_path.iterdir() if path != other)
            with pytest.raises(ValueError, match="bug"), written_whole(out) as folder:
                write_then_fail(folder, ValueError("bug"))
            assert (held / "new" / "a").read_text() == "half"
        finally:
            writer.kill()
    with written_whole(out) as folder:
        (folder / "a").write_text("whole")
    assert (out / "a").read_text() == "whole"
    assert set(tmp_path.iterdir()) == {out, other}


def test_what_was_there_comes_back_where_a_run_was_killed_between_taking_it_away_and_replacing_it(
    tmp_path: Path,
) -> None:
    out, held = tmp_path / "out", tmp_path / ".out.edgeship-x"
    for folder in (held / "old", held / "new"):
        folder.mkdir(parents=True)
        (folder / "a").write_text(folder.name)
    (held / "lock").touch()
    with pytest.raises(OutputExists), written_whole(out):
        pass
    assert (out / "a").read_text() == "old"
    assert set(tmp_path.iterdir()) == {out}


def test_the_folder_one_stands_in_can_be_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    with written_whole(Path()) as folder:
        (folder / "a").write_text("a")
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["out", "out/a"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with written_whole(tmp_path / "out") as folder:
        (folder / "a").write_text("a")
    assert (tmp_path / "out" / "a").is_file()


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputExists, match="not a folder"), written_whole(tmp_path / "out", overwrite=True):
        pass
