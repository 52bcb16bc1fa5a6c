"""The gate in front of a real server: what it refuses, keeps, shows and writes down."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from edge_runtime.bundle import open_bundle, target_path, write_bundle, write_manifest
from model_server.audit.tables import AuditRow
from model_server.cli import main
from model_server.db.base import reading
from model_server.settings import Settings
from tests.support.managers import ended, publish, spool_empties, stage, until, upload
from tests.support.server import PASSPHRASE, Running, SteppedClock, key_file, make_bundle, make_folder, running


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return make_folder(tmp_path / "server")


def with_hook(settings: Settings, script: str, **changes: object) -> Settings:
    return replace(settings, readiness=("/bin/sh", "-c", script, "ready"), **changes)  # type: ignore[arg-type]


def changed(bundle: Path, out: Path, **changes: object) -> Path:
    """The bundle with another manifest."""
    own = open_bundle(bundle)
    manifest = replace(own.manifest, **changes)  # type: ignore[arg-type]
    files = {name: own.read(name) for name in own.files} | {"manifest.json": write_manifest(manifest)}
    write_bundle(out, {target_path(manifest.model, manifest.release, name): data for name, data in files.items()})
    return out


def audit(server: Running, action: str) -> list[dict[str, object]]:
    with reading(server.services.engine) as session:
        details = session.scalars(select(AuditRow.detail).where(AuditRow.action == action))
        return [json.loads(detail) for detail in details]


def test_what_the_gate_found_is_kept_shown_to_signers_and_written_down(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {"summary": "fit for the fleet", "checks": [{"name": "latency", "passed": True, "detail": "[3 ms]"}]}
    about = tmp_path / "about.json"
    bundle = make_bundle(tmp_path / "1.bundle", 1)
    with running(with_hook(settings, f"cat > {about}; echo '{json.dumps(said)}'"), SteppedClock()) as server:
        readiness = stage(server, bundle).json()["readiness"]
        assert [(check["name"], check["passed"]) for check in readiness["checks"]] == [
            (name, True) for name in ("owner", "measured", "accuracy-kept", "personal-data", "interface-kept")
        ]
        assert (readiness["hook"]["summary"], readiness["hook"]["checks"]) == (said["summary"], said["checks"])
        assert server.admin.get("/v1/releases/exercise/1").json()["readiness"] == readiness
        [entry] = audit(server, "release.staged")
        assert (entry["readiness"], entry["allow_interface_change"]) == (readiness, False)
        told = json.loads(about.read_text())
        assert (told["model"], told["release"], told["newest_published"]) == ("exercise", 1, None)
        assert told["staged_by"] == "person:alice"
        assert (told["bundle_sha256"], told["manifest"]["owner"]) == (open_bundle(bundle).sha256, "Alice")
        passphrase = tmp_path / "passphrase"
        passphrase.write_bytes(PASSPHRASE)
        key = server.admin.headers["authorization"].removeprefix("Bearer ")
        to = ["--server", server.url, "--api-key", key]
        sign = ["release", "sign", "exercise", "1", "--key", str(key_file(settings, "releases", "alice")), "--yes"]
        assert main([*sign, "--bundle", str(bundle), "--passphrase-file", str(passphrase), *to]) == 0
        out = capsys.readouterr().out
        assert out.index("fit for the fleet") < out.index("signed by alice")
        assert "[3 ms]" in out


def test_a_release_that_is_not_ready_is_refused_before_it_is_proposed(settings: Settings, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "1.bundle", 1)
    with running(with_hook(settings, "echo it forgets people >&2; exit 1"), SteppedClock()) as server:
        nobody = stage(server, changed(bundle, tmp_path / "nobody.bundle", owner="not stated"))
        assert (nobody.status_code, nobody.json()["type"]) == (422, "urn:edgeship:problem:ReadinessRefused")
        assert nobody.json()["detail"] == "owner: no owner is stated"
        refused = stage(server, bundle)
        assert (refused.status_code, refused.json()["type"]) == (422, "urn:edgeship:problem:ReadinessRefused")
        assert refused.json()["detail"] == "/bin/sh ended with exit status 1: it forgets people"
        assert server.admin.get("/v1/releases/exercise").json()["releases"] == []
        assert [entry["reason"] for entry in audit(server, "release.refused")] == [
            "owner: no owner is stated",
            "/bin/sh ended with exit status 1: it forgets people",
        ]


def test_a_command_that_cannot_start_stages_nothing(settings: Settings, tmp_path: Path) -> None:
    with running(replace(settings, readiness=("/no/such/command",))) as server:
        refused = stage(server, make_bundle(tmp_path / "1.bundle", 1))
        assert (refused.status_code, refused.json()["type"]) == (500, "urn:edgeship:problem:ReadinessBroken")
        assert "/no/such/command" in refused.json()["detail"]
        assert server.admin.get("/v1/releases/exercise").json()["releases"] == []


def test_a_command_that_exchanges_the_bundle_gets_nothing_staged(settings: Settings, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "1.bundle", 1)
    with running(with_hook(settings, 'sed -i "s/a model/a mode1/g" "$1"')) as server:
        refused = stage(server, bundle)
        assert refused.status_code == 422
        assert "DigestMismatch" in refused.json()["type"]
        assert server.admin.get("/v1/releases/exercise").json()["releases"] == []


def test_a_job_is_cancelled_while_the_command_runs(settings: Settings, tmp_path: Path) -> None:
    with running(with_hook(settings, "sleep 600")) as server:
        job = upload(server, make_bundle(tmp_path / "1.bundle", 1)).json()["id"]
        until(server, job, lambda found: found["progress"] == "readiness")
        server.admin.delete(f"/v1/jobs/{job}")
        assert ended(server, job)["state"] == "cancelled"
        spool_empties(server)


def test_a_changed_interface_is_staged_only_if_that_is_said_and_then_everybody_knows(
    settings: Settings, tmp_path: Path
) -> None:
    first, second = (make_bundle(tmp_path / f"{release}.bundle", release) for release in (1, 2))
    manifest = open_bundle(second).manifest
    [output] = manifest.outputs
    renamed = changed(second, tmp_path / "renamed.bundle", outputs=(replace(output, name="scores"),))
    with running(settings) as server:
        publish(server, settings, first)
        refused = stage(server, renamed)
        assert refused.status_code == 422
        assert "output scores is new" in refused.json()["detail"]
        staged = stage(server, renamed, allow_interface_change="true")
        assert staged.status_code == 201
        assert "allowed when it was staged" in staged.json()["readiness"]["checks"][-1]["detail"]
        assert audit(server, "release.staged")[-1]["allow_interface_change"] is True
