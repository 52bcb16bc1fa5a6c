"""Stage, sign, publish over a real socket; a stock TUF client downloads and verifies what came out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge_runtime.bundle import open_bundle, read_release
from model_server.client import Client
from model_server.errors import KeyRejected, ReviewFailed, ServerRefused, ServerUnreachable
from model_server.releases.service import ReleaseService
from model_server.settings import Settings
from tests.support.managers import api, download, manager, publish, sign, spool_empties, stage
from tests.support.postgres import copy_rows
from tests.support.server import PASSPHRASE, Running, make_bundle, make_folder, running


@pytest.fixture
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    settings = make_folder(tmp_path / "server")
    if getattr(request, "param", "sqlite") == "sqlite":
        return settings
    database = request.getfixturevalue("postgres_database")
    copy_rows(settings.database_url, database)
    return replace(settings, database=database)


on_both = pytest.mark.parametrize("settings", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def server(settings: Settings) -> Iterator[Running]:
    with running(settings) as server:
        yield server


def test_what_two_people_signed_reaches_a_stock_tuf_client_file_by_file(
    server: Running, settings: Settings, tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path / "1.bundle", 1)
    assert publish(server, settings, bundle).json()["state"] == "published"
    own = open_bundle(bundle)
    for name in own.files:
        assert download(server, settings, tmp_path / "client", f"models/exercise/1/{name}") == own.read(name)
    document = download(server, settings, tmp_path / "client", "models/exercise/1/release.json")
    assert document is not None
    assert read_release(document).ceiling == ((0, 100_000_000),)


def test_before_publishing_devices_see_nothing_of_it(server: Running, settings: Settings, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "1.bundle", 1)
    stage(server, bundle)
    sign(server, settings, "alice", bundle)
    assert download(server, settings, tmp_path / "client", "models/exercise/1/manifest.json") is None


@on_both
def test_releases_follow_each_other_and_old_ones_stay(server: Running, settings: Settings, tmp_path: Path) -> None:
    for release in (1, 2, 7):
        bundle = make_bundle(tmp_path / f"{release}.bundle", release, data=b"model %d" % release)
        assert publish(server, settings, bundle, release).status_code == 200
    for release in (1, 2, 7):
        data = download(server, settings, tmp_path / "c", f"models/exercise/{release}/model-fp32.onnx")
        assert data == b"model %d" % release
    assert [r["release"] for r in server.admin.get("/v1/releases/exercise").json()["releases"]] == [1, 2, 7]


@on_both
def test_publishing_twice_is_fine_and_changes_nothing(server: Running, settings: Settings, tmp_path: Path) -> None:
    publish(server, settings, make_bundle(tmp_path / "1.bundle", 1))
    before = server.services.repository.timestamp().signed.version
    assert server.admin.post("/v1/releases/exercise/1/publish").json()["state"] == "published"
    assert server.services.repository.timestamp().signed.version == before


@on_both
def test_the_answers_say_who_has_signed_and_how_many_are_missing(
    server: Running, settings: Settings, tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path / "1.bundle", 1)
    staged = stage(server, bundle).json()
    assert (staged["state"], staged["threshold"], staged["missing"]) == ("staged", 2, 2)
    assert {ref["file"] for ref in staged["files"]} == {*open_bundle(bundle).files, "release.json"}
    approval, answer = sign(server, settings, "alice", bundle)
    assert (approval.person, approval.signed_by, answer["missing"]) == ("alice", ("alice",), 1)


def test_a_number_that_is_not_newer_is_refused(server: Running, settings: Settings, tmp_path: Path) -> None:
    publish(server, settings, make_bundle(tmp_path / "2.bundle", 2), 2)
    for release in (1, 2):
        refused = stage(server, make_bundle(tmp_path / f"again-{release}.bundle", release, data=b"other"))
        assert (refused.status_code, refused.json()["type"]) == (409, "urn:edgeship:problem:ReleaseNotNewer")


@on_both
def test_one_release_of_a_model_waits_at_a_time_and_can_be_withdrawn(
    server: Running, settings: Settings, tmp_path: Path
) -> None:
    stage(server, make_bundle(tmp_path / "1.bundle", 1))
    second = make_bundle(tmp_path / "2.bundle", 2)
    assert stage(server, second).status_code == 409
    assert stage(server, make_bundle(tmp_path / "g.bundle", 1, model="gesture")).status_code == 201
    assert server.admin.delete("/v1/releases/exercise/1").status_code == 204
    assert server.admin.get("/v1/releases/exercise/1").status_code == 404
    assert publish(server, settings, second, 2).status_code == 200
    assert server.admin.delete("/v1/releases/exercise/2").status_code == 409


def test_a_model_that_nobody_delegated_is_refused(server: Running, tmp_path: Path) -> None:
    refused = stage(server, make_bundle(tmp_path / "1.bundle", 1, model="unheard-of"))
    assert (refused.status_code, refused.json()["type"]) == (404, "urn:edgeship:problem:UnknownModel")


@pytest.mark.parametrize("cut", [0, 10, -1])
def test_a_damaged_bundle_is_refused_and_leaves_nothing_staged(server: Running, tmp_path: Path, cut: int) -> None:
    data = make_bundle(tmp_path / "1.bundle", 1).read_bytes()
    damaged = data[:cut] if cut >= 0 else data[:100] + bytes([data[100] ^ 1]) + data[101:]
    refused = stage(server, damaged)
    assert refused.status_code == 422
    assert refused.json()["detail"].startswith("the bundle: ")
    assert str(server.services.settings.spool_dir) not in refused.json()["detail"]
    assert server.admin.get("/v1/releases/exercise").json()["releases"] == []
    spool_empties(server)


def test_a_ceiling_that_cannot_be_is_refused(server: Running, tmp_path: Path) -> None:
    assert stage(server, make_bundle(tmp_path / "1.bundle", 1), ceiling="soon=all").status_code == 400


def test_a_signer_who_holds_another_bundle_signs_nothing(server: Running, settings: Settings, tmp_path: Path) -> None:
    stage(server, make_bundle(tmp_path / "1.bundle", 1))
    other = make_bundle(tmp_path / "other.bundle", 1, data=b"another model")
    with pytest.raises(ReviewFailed, match=r"model-fp32\.onnx|manifest\.json"):
        sign(server, settings, "alice", other)
    wrong_number = make_bundle(tmp_path / "2.bundle", 2)
    with pytest.raises(ReviewFailed, match="holds exercise 2"):
        sign(server, settings, "alice", wrong_number)
    assert server.admin.get("/v1/releases/exercise/1").json()["signatures"] == []


def test_a_signer_can_say_no(server: Running, settings: Settings, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "1.bundle", 1)
    stage(server, bundle)
    with pytest.raises(ReviewFailed, match="not confirmed"):
        sign(server, settings, "alice", bundle, confirm=lambda review: False)
    assert server.admin.get("/v1/releases/exercise/1").json()["signatures"] == []


def test_a_signer_trusts_the_root_they_hold_and_no_other(server: Running, settings: Settings, tmp_path: Path) -> None:
    from model_server.clock import SystemClock
    from model_server.commands.local import init

    init(tmp_path / "elsewhere", ["exercise"], ["alice", "bob", "carol"], PASSPHRASE, SystemClock())
    bundle = make_bundle(tmp_path / "1.bundle", 1)
    stage(server, bundle)
    root = (tmp_path / "elsewhere" / "root.json").read_bytes()
    with pytest.raises(ReviewFailed, match="does not verify from your root"):
        sign(server, settings, "alice", bundle, by=replace(manager(settings, "alice"), root=root))


def test_a_key_of_another_role_cannot_sign(server: Running, settings: Settings, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "1.bundle", 1)
    stage(server, bundle)
    with pytest.raises(KeyRejected):
        sign(server, settings, "alice", bundle, by=manager(settings, "alice", "targets"))


def test_a_crash_between_publishing_and_noting_it_is_repaired_on_the_next_start(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_bundle(tmp_path / "1.bundle", 1)
    with running(settings) as server:
        stage(server, bundle)
        for person in ("alice", "bob"):
            sign(server, settings, person, bundle)

        def power_cut(*args: object) -> None:
            raise OSError("power cut")

        with monkeypatch.context() as patch:
            patch.setattr(ReleaseService, "_mark_published", power_cut)
            assert server.admin.post("/v1/releases/exercise/1/publish").status_code == 500
        assert server.admin.get("/v1/releases/exercise/1").json()["state"] == "staged"
    with running(settings) as server:
        assert server.admin.get("/v1/releases/exercise/1").json()["state"] == "published"
        data = make_bundle(tmp_path / "x.bundle", 1)
        manifest = download(server, settings, tmp_path / "client", "models/exercise/1/manifest.json")
        assert manifest == open_bundle(data).read("manifest.json")


def test_after_such_a_crash_publishing_again_is_enough(
    server: Running, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_bundle(tmp_path / "1.bundle", 1)
    stage(server, bundle)
    for person in ("alice", "bob"):
        sign(server, settings, person, bundle)

    def power_cut(*args: object) -> None:
        raise OSError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(ReleaseService, "_mark_published", power_cut)
        assert server.admin.post("/v1/releases/exercise/1/publish").status_code == 500
    assert server.admin.post("/v1/releases/exercise/1/publish").json()["state"] == "published"


def test_a_staged_file_can_be_fetched_by_name_only(server: Running, tmp_path: Path) -> None:
    stage(server, make_bundle(tmp_path / "1.bundle", 1))
    answer = server.admin.get("/v1/releases/exercise/1/files/model-fp32.onnx")
    assert hashlib.sha256(answer.content).digest() == hashlib.sha256(b"a model").digest()
    for name in ("none", "..%2f..%2fcredentials.json"):
        assert server.admin.get(f"/v1/releases/exercise/1/files/{name}").status_code == 404


@pytest.mark.parametrize("release", ["0", "-1", "99999999999999999999", "one"])
def test_a_release_number_that_cannot_be_is_a_problem(server: Running, release: str) -> None:
    answer = server.admin.get(f"/v1/releases/exercise/{release}")
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_client_names_what_it_could_not_reach_or_was_refused(server: Running, settings: Settings) -> None:
    with api(server, settings) as client:
        with pytest.raises(ServerRefused, match="404") as refused:
            client.get("/v1/releases/unheard-of")
        assert refused.value.status == 404
    with Client("http://127.0.0.1:9", "key") as client, pytest.raises(ServerUnreachable, match=r"127\.0\.0\.1:9"):
        client.get("/v1/status")
