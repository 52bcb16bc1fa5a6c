"""``edgeship-device`` as a person and as a script use it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from edge_runtime import slots
from edge_runtime.cli import main
from edge_runtime.store import Store
from tests.support import tiny
from tests.support.sideloading import export
from tests.support.update_fixtures import server, world
from tests.support.world import RELEASES, World

__all__ = ["server", "world"]


@pytest.fixture
def model(tmp_path: Path) -> list[str]:
    factory = RELEASES[1].factory(tmp_path)
    return [str(tmp_path / "state"), "--model", "tiny", "--factory", str(factory.path), "--sha256", factory.sha256]


@pytest.fixture
def inputs(tmp_path: Path) -> str:
    np.savez(tmp_path / "inputs.npz", window=tiny.windows(3))
    return str(tmp_path / "inputs.npz")


def test_predict_answers_every_example_as_json(
    model: list[str], inputs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", *model, "--inputs", inputs, "--many", "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)["predictions"]
    assert [answer["index"] for answer in answers] == tiny.expected(tiny.windows(3), 1).argmax(axis=1).tolist()
    assert {answer["source"] for answer in answers} == {"device"}


def test_predict_answers_one_example_for_people(
    model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "one.npz", window=tiny.windows(1)[0])
    assert main(["predict", *model, "--inputs", str(tmp_path / "one.npz"), "--mode", "only_on_device"]) == 0
    label, _, source, reason = capsys.readouterr().out.strip().split("\t")
    assert (label in tiny.LABELS, source, reason) == (True, "device", "Confident")


def test_update_installs_reports_and_shows(
    world: World, model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "root.json").write_bytes(world.root)
    (tmp_path / "token").write_text("fleet\n")
    # The command reads the real clock, which is ahead of the test's server: a named outcome either way.
    there = ["--server", world.server.url, "--root", str(tmp_path / "root.json")]
    status = main(["update", *model, *there, "--token-file", str(tmp_path / "token"), "--engine", "onnx", "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert (status, shown["outcome"]) in [(0, "Installed"), (1, "ClockWrong")]
    assert shown["running"] == (2 if status == 0 else 1)
    assert shown["reported"]


def test_status_shows_what_is_installed(model: list[str], inputs: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["predict", *model, "--inputs", inputs, "--many"])
    capsys.readouterr()
    assert main(["status", model[0]]) == 0
    assert "active:   release 1, tiny-fp32.onnx" in capsys.readouterr().out
    assert main(["status", model[0], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["active"]["release"] == 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["status", "no/such/folder"], "not a state folder"),
        (["predict", "{state}", "--model", "tiny", "--inputs", "{missing}"], "not an .npz"),
        (["predict", "{state}", "--model", "tiny", "--inputs", "{inputs}"], "--factory"),
        (["predict", "{state}", "--model", "tiny", "--inputs", "{inputs}", "--mode", "only_in_cloud"], "--cloud"),
        (["update", "{state}", "--model", "tiny"], "--server"),
        (["predict", "{state}", "--model", "tiny", "--inputs", "{inputs}", "--factory", "x"], "--sha256"),
        (["update", "{state}", "--model", "tiny", "--server", "http://127.0.0.1:9"], "root metadata"),
        (["update", "{state}", "--model", "tiny", "--token-file", "{missing}"], "cannot read"),
        (["tuf", "--metadata-dir", "x", "refresh"], "--metadata-url"),
    ],
)
def test_what_cannot_be_done_ends_with_a_named_error_and_status_1(
    arguments: list[str], text: str, tmp_path: Path, inputs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"state": tmp_path / "state", "missing": tmp_path / "missing", "inputs": inputs}
    assert main([argument.format(**places) for argument in arguments]) == 1
    error = capsys.readouterr().err
    assert text in error
    assert "Traceback" not in error


def test_inputs_that_are_no_arrays_are_refused(
    model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04nonsense")
    np.save(tmp_path / "array.npy", tiny.windows(1))
    np.savez(tmp_path / "uneven.npz", window=tiny.windows(2), context=tiny.windows(3))
    for name in ("bad.npz", "array.npy", "uneven.npz"):
        assert main(["predict", *model, "--inputs", str(tmp_path / name), "--many"]) == 1
        assert "ConfigurationError" in capsys.readouterr().err


def test_it_runs_as_a_module_too() -> None:
    done = subprocess.run([sys.executable, "-m", "edge_runtime.cli", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "predict" in done.stdout


def test_a_folder_that_no_runtime_ever_opened_is_no_state_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", str(tmp_path)]) == 1
    assert "not a state folder" in capsys.readouterr().err


def test_a_reader_that_had_enough_ends_it_quietly(model: list[str], inputs: str) -> None:
    main(["predict", *model, "--inputs", inputs, "--many"])
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as out:
        done = subprocess.run(
            [sys.executable, "-m", "edge_runtime.cli", "status", model[0]],
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (done.returncode, done.stderr) == (1, "")


def test_a_terminal_without_the_characters_of_a_label_gets_others(model: list[str], inputs: str) -> None:
    main(["predict", *model, "--inputs", inputs, "--many"])
    done = subprocess.run(
        [sys.executable, "-m", "edge_runtime.cli", "status", model[0]],
        env={**os.environ, "PYTHONIOENCODING": "ascii:strict"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "previous: \\u2013" in done.stdout


def test_an_outcome_is_named_once(
    world: World, model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "root.json").write_bytes(world.root)
    there = ["--server", "http://127.0.0.1:9", "--root", str(tmp_path / "root.json")]
    assert main(["update", *model, *there]) == 1
    shown = capsys.readouterr()
    assert shown.err.count("ServerUnreachable") == 1
    assert shown.out == "running: release 1\n"


def test_a_root_that_was_altered_is_named_with_what_to_do(
    world: World, model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "root.json").write_bytes(world.root[:-9])
    assert main(["update", *model, "--server", world.server.url, "--root", str(tmp_path / "root.json")]) == 1
    error = capsys.readouterr().err
    assert error.count("MetadataRejected") == 1
    assert "--root" in error
    assert "copy it again" in error


@pytest.mark.parametrize(("status", "text"), [(401, "token"), (404, "model"), (422, "is lost"), (500, "500")])
def test_a_report_that_is_not_taken_is_explained(
    world: World, model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], status: int, text: str
) -> None:
    (tmp_path / "root.json").write_bytes(world.root)
    world.server.answers = [(status, {}, b"")]
    main(["update", *model, "--server", world.server.url, "--root", str(tmp_path / "root.json")])
    error = capsys.readouterr().err
    assert f"did not take the report: it answered {status}" in error
    assert text in error


@pytest.fixture
def updatable(world: World, model: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The arguments of an update whose device and server are at the real time."""
    from edge_runtime import device_state

    monkeypatch.setattr(device_state, "sample", device_state.DeviceState)
    now = datetime.now(UTC).replace(microsecond=0)
    world.server.now = None
    repository = world.repository
    for signed in (repository.snapshot, repository.timestamp, *repository.roles.values()):
        signed.expires = now + timedelta(days=1)
    repository.root.expires = now + timedelta(days=1)
    repository.publish_root()
    repository.publish()
    (tmp_path / "root.json").write_bytes((repository.metadata / "1.root.json").read_bytes())
    return ["update", *model, "--server", world.server.url, "--root", str(tmp_path / "root.json")]


def test_a_window_that_is_closed_is_shown_by_update_and_status(
    updatable: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    later = (datetime.now(UTC) + timedelta(hours=3)).strftime("%H:%M")
    after = (datetime.now(UTC) + timedelta(hours=4)).strftime("%H:%M")
    rules = ["--window", f"{later}-{after}", "--time-zone", "UTC"]
    assert main([*updatable, *rules]) == 0
    assert f"DeferredWindow: release 2 waits for {later}-" in capsys.readouterr().out
    assert main(["status", updatable[1]]) == 0
    assert "last check: DeferredWindow: release 2 waits" in capsys.readouterr().out
    assert main([*updatable, "--minimum-battery", "0", "--bytes-per-s", "1000000", "--metered", "allow"]) == 0
    assert "Installed" in capsys.readouterr().out
    assert main(["status", updatable[1], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["standing"] == []


def test_a_clock_that_is_far_wrong_is_shown_by_update_and_status(
    world: World, updatable: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    world.server.now = lambda: datetime.now(UTC) + timedelta(days=3)
    assert main(updatable) == 0
    assert "3.0 days behind" in capsys.readouterr().err
    assert main(["status", updatable[1]]) == 0
    assert "last check: ClockWrong: this device's clock is 3.0 days behind" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (["--window", "2-5"], "is no window"),
        (["--metered", "sometimes"], "invalid choice"),
    ],
)
def test_a_rule_that_is_mistyped_is_a_wrong_command_line(
    updatable: list[str], rule: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*updatable, *rule])
    assert caught.value.code == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize("rule", [["--time-zone", "Mars"], ["--minimum-battery", "20"], ["--bytes-per-s", "0"]])
def test_a_rule_that_cannot_work_is_named(
    updatable: list[str], rule: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*updatable, *rule]) == 1
    assert "ConfigurationError" in capsys.readouterr().err


def test_status_says_what_a_denied_release_waits_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path / "state")
    store.apply(lambda state: slots.deny(state, 2, 1, "r-1"))
    store.close()
    assert main(["status", str(tmp_path / "state")]) == 0
    assert "release 2: it failed here in attempt 1 of rollout r-1" in capsys.readouterr().out


def test_install_takes_a_signed_bundle_and_names_what_is_wrong_with_another(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    far = world.clock.now + timedelta(days=3650)  # the command reads the real clock
    world.repository.root.expires = far
    world.repository.root.version += 1
    world.repository.publish_root()
    for role in world.repository.roles.values():
        role.expires = far
    world.repository.publish()
    (tmp_path / "root.json").write_bytes(world.root)
    to = ["--model", "tiny", "--engine", "onnx"]
    trusting = [*to, "--root", str(tmp_path / "root.json")]
    state, bundle = str(tmp_path / "offline"), export(world, 2)
    assert main(["install", state, str(bundle), *trusting, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["running"] == 2
    assert main(["install", state, str(bundle), *trusting]) == 0
    assert "Unchanged" in capsys.readouterr().out
    unsigned = RELEASES[3].factory(tmp_path).path
    assert main(["install", state, str(unsigned), *trusting]) == 1
    out, err = capsys.readouterr()
    assert (out, "MetadataRejected: the bundle is not signed" in err) == ("running: release 2\n", True)
    assert main(["install", state, str(bundle), *to]) == 1
    assert "install needs --root" in capsys.readouterr().err
    store = Store(Path(state))
    assert main(["install", state, str(bundle), *trusting]) == 1
    assert "StoreLocked" in capsys.readouterr().err
    store.close()
