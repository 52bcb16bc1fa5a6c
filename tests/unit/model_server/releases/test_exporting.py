"""Exported releases: a server, the command, and a device that has no network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.bundle import open_bundle
from edge_runtime.clock import SystemClock
from edge_runtime.device import Device
from edge_runtime.errors import Outcome
from edge_runtime.store import Store
from edge_runtime.update.sideload import Sideload, Sideloaded
from model_server.cli import main
from model_server.settings import Settings
from tests.support.managers import publish, sign_the_policy, stage
from tests.support.server import Running, credentials, make_bundle, make_folder, running
from tests.support.world import Canary


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return make_folder(tmp_path / "server")


@pytest.fixture
def server(settings: Settings, tmp_path: Path) -> Iterator[Running]:
    """Releases 1 and 2 are published, 2 with a delta from 1 where that is worth it."""
    with running(settings) as server:
        for release in (1, 2):
            data = b"model" * 4000 + b"%d" % release
            publish(server, settings, make_bundle(tmp_path / f"{release}.bundle", release, data=data), release)
        yield server


def install(settings: Settings, folder: Path, bundle: Path) -> Sideloaded:
    store = Store(folder)
    sideload = Sideload(
        store=store,
        device=Device(id="watch-1", attributes={"arch": "x86_64", "os": "linux"}),
        model="exercise",
        root=(settings.directory / "root.json").read_bytes(),
        engines=("onnx",),
        clock=SystemClock(),
        try_out=Canary(),
    )
    result = sideload.install(bundle)
    store.close()
    return result


def test_what_a_server_exports_is_installed_by_a_device_without_a_network(
    server: Running, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "exported.bundle"
    to = ("--server", server.url, "--api-key", credentials(settings)["admin_api_key"], "--json")
    assert main(["release", "export", "exercise", "2", "--out", str(out), *to]) == 0
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    bundle = open_bundle(out)
    assert said["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest() == bundle.sha256
    assert (bundle.manifest.release, bundle.policy) == (2, None)
    assert bundle.release_document is not None
    assert {"1.root.json", "timestamp.json"} < set(bundle.tuf)
    assert not [name for name in bundle.tuf if "gesture" in name or "rollouts" in name]
    result = install(settings, tmp_path / "device", out)
    assert (result.outcome, result.active) == (Outcome.INSTALLED, 2)


def test_the_same_state_is_exported_as_the_same_bytes_and_nothing_is_left_behind(server: Running) -> None:
    first, second = (server.admin.get("/v1/releases/exercise/1/bundle") for _ in range(2))
    assert first.content == second.content
    assert int(first.headers["content-length"]) == len(first.content)
    assert list(server.services.settings.spool_dir.iterdir()) == []


def test_a_signed_policy_travels_with_every_release(server: Running, settings: Settings, tmp_path: Path) -> None:
    server.admin.post("/v1/policies/exercise", json={"revoke": [1]})
    for person in ("alice", "bob"):
        sign_the_policy(server, settings, person)
    assert server.admin.post("/v1/policies/exercise/publish").status_code == 200
    for release, outcome in ((2, Outcome.INSTALLED), (1, Outcome.REVOKED)):
        path = tmp_path / f"exported-{release}.bundle"
        path.write_bytes(server.admin.get(f"/v1/releases/exercise/{release}/bundle").content)
        policy = open_bundle(path).policy
        assert policy is not None
        assert policy.revoked == (1,)
        assert install(settings, tmp_path / f"device-{release}", path).outcome is outcome


def test_what_is_not_published_or_was_changed_on_disk_is_not_exported(
    server: Running, settings: Settings, tmp_path: Path
) -> None:
    stage(server, make_bundle(tmp_path / "3.bundle", 3))
    for release in (3, 4):
        answer = server.admin.get(f"/v1/releases/exercise/{release}/bundle")
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:edgeship:problem:UnknownRelease")
    assert server.device.get("/v1/releases/exercise/2/bundle").status_code == 403
    files = {ref["file"]: ref["sha256"] for ref in server.admin.get("/v1/releases/exercise/2").json()["files"]}
    for file in ("model-fp32.onnx", "manifest.json"):
        digest = files[file]
        path = settings.directory / "blobs" / "sha256" / digest[:2] / digest
        good = path.read_bytes()
        path.write_bytes(good[:-1] + b"!")
        answer = server.admin.get("/v1/releases/exercise/2/bundle")
        assert (answer.status_code, answer.json()["type"]) == (500, "urn:edgeship:problem:RepositoryDamaged")
        path.write_bytes(good)
    assert list(server.services.settings.spool_dir.iterdir()) == []
    assert server.admin.get("/v1/releases/exercise/2/bundle").status_code == 200


def test_an_export_that_came_damaged_leaves_no_file(
    server: Running, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model_server.releases.api.repr_digest", lambda sha256: "sha-256=:AAAA:")
    to = ("--server", server.url, "--api-key", credentials(settings)["admin_api_key"])
    assert main(["release", "export", "exercise", "1", "--out", str(tmp_path / "x.bundle"), *to]) == 1
    assert [path for path in tmp_path.iterdir() if "x.bundle" in path.name] == []
