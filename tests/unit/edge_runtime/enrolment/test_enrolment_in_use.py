"""An app that embeds the runtime with enrolment: what it is told, what waits, and what never reaches it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devices.static_server import StaticServer, serve
from edge_runtime import ConfigurationError, EdgeRuntime, Enrolment
from edge_runtime.cli import main
from edge_runtime.enrolment import key
from edge_runtime.errors import EdgeshipError
from tests.support import tiny
from tests.support.world import ManualClock

ROOT = b"{}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StaticServer]:
    with serve(tmp_path / "site") as running:
        yield running


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny.release(1).factory(tmp_path_factory.mktemp("factory"))


def opened(tmp_path: Path, server: StaticServer, factory: Any, **options: Any) -> EdgeRuntime:
    settings: dict[str, Any] = {"enrolment": Enrolment(token="ese_secret"), "background": False, **options}
    return EdgeRuntime.open(
        tmp_path / "state", model="tiny", root=ROOT, server=server.url, factory=factory, engines=("onnx",), **settings
    )


def test_reports_wait_until_the_device_is_enrolled(tmp_path: Path, server: StaticServer, factory: Any) -> None:
    clock = ManualClock()
    server.answers = [(500, {}, b"")]
    with opened(tmp_path, server, factory, clock=clock) as runtime:
        runtime.predict({"window": tiny.windows(1)[0]})
        assert not runtime.report()
        assert server.paths() == ["/v1/devices"]
        assert runtime.stats()["enrolment"] == {"state": "waiting", "detail": "the server answered 500"}
        assert "not enrolled" in runtime.stats()["report_error"]
        device = runtime.device.id
        server.answers = [(201, {}, json.dumps({"device": device}).encode()), (202, {}, b"{}")]
        clock.advance(60)
        assert runtime.report()
        assert server.paths() == ["/v1/devices", "/v1/devices", "/v1/outcomes"]
        assert server.requests[-1][2]["authorization"].startswith("Edgeship-Device ")
        report = json.loads(server.posts[-1][1])
        assert (report["device"], report["counters"][0]["requests"]) == (device, 1)
        assert runtime.stats()["enrolment"] == {"state": "enrolled", "detail": ""}


def test_a_refusal_is_an_outcome_and_predictions_go_on(
    tmp_path: Path, server: StaticServer, factory: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server.answers = [(403, {}, b'{"detail": "expired"}')]
    with opened(tmp_path, server, factory) as runtime:
        assert not runtime.enrol()
        for _ in range(5):
            assert not runtime.report()
            assert runtime.upload_telemetry() == 0
            assert runtime.predict({"window": tiny.windows(1)[0]}).source.value == "device"
        assert runtime.stats()["enrolment"]["state"] == "refused"
    assert server.paths() == ["/v1/devices"]
    assert len([record for record in caplog.records if "let this device in" in record.message]) == 1
    spooled = json.loads((tmp_path / "state" / "outcomes.json").read_text())
    assert spooled["outcomes"] == [["EnrolmentRefused", None, "it answered 403: expired"]]


def test_the_background_thread_enrols(tmp_path: Path, server: StaticServer, factory: Any) -> None:
    server.answers = [(403, {}, b"{}")]
    with opened(tmp_path, server, factory, background=True, update_interval_s=3600.0) as runtime:
        runtime.predict({"window": tiny.windows(1)[0]})
        while "/v1/devices" not in server.paths():
            assert runtime.predict({"window": tiny.windows(1)[0]}).release == 1
    assert "/v1/outcomes" not in server.paths()


def test_what_cannot_work_is_said_when_it_is_opened(
    tmp_path: Path, server: StaticServer, factory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match="token or enrolment"):
        opened(tmp_path, server, factory, token="esf_fleet")
    with pytest.raises(ConfigurationError, match="needs a server"):
        EdgeRuntime.open(tmp_path / "state", model="tiny", factory=factory, enrolment=Enrolment(token="t"))
    with pytest.raises(ConfigurationError, match="printable ASCII"):
        opened(tmp_path, server, factory, enrolment=Enrolment(token="two\nlines"))
    with opened(tmp_path, server, factory, enrolment=None) as runtime:
        assert runtime.stats()["enrolment"] is None
        with pytest.raises(ConfigurationError, match="Enrolment"):
            runtime.enrol()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"edgeship\[device\]"):
        key.check_available()


def test_the_command_enrols_once_and_status_shows_it(
    tmp_path: Path, server: StaticServer, capsys: pytest.CaptureFixture[str]
) -> None:
    state, root, token = tmp_path / "state", tmp_path / "root.json", tmp_path / "token.txt"
    root.write_bytes(ROOT)
    token.write_text("ese_secret\n")
    line = ["enrol", str(state), "--server", server.url, "--root", str(root), "--token-file", str(token)]
    server.answers = [(403, {}, b'{"detail": "expired"}')]
    assert main(line) == 1
    assert "is not enrolled: it answered 403: expired" in capsys.readouterr().err
    device = json.loads((state / "device.json").read_text())["id"]
    server.answers = [(201, {}, json.dumps({"device": device}).encode())]
    assert main([*line, "--json"]) == 0  # at once: whoever types it knows of something new
    assert json.loads(capsys.readouterr().out) == {"device": device, "state": "enrolled", "detail": ""}
    asked = {json.loads(body)["public_key"] for _, body in server.posts}
    assert len(asked) == 1
    assert main(["status", str(state), "--json"]) == 0
    shown = capsys.readouterr().out
    assert json.loads(shown)["enrolment"] == {
        "device": device, "server": server.url, "state": "enrolled", "detail": "",
    }  # fmt: skip
    assert main(["status", str(state)]) == 0
    shown += capsys.readouterr().out
    assert f"{device}, enrolled at" in shown
    assert json.loads((state / "device-key.json").read_text())["ed25519"] not in shown


def test_a_folder_in_use_is_not_enrolled_by_the_command(tmp_path: Path, server: StaticServer, factory: Any) -> None:
    from edge_runtime.enrolment.command import enrol

    with opened(tmp_path, server, factory), pytest.raises(EdgeshipError, match="in use"):
        enrol(tmp_path / "state", server.url, ROOT, "ese_secret")
    with pytest.raises(ConfigurationError, match="not a server address"):
        enrol(tmp_path / "state", "models.example.com", ROOT, "ese_secret")
