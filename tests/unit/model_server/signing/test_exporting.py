"""An exported folder serves devices as the server does: by a plain file server, and by nginx as documented."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from tuf.ngclient import Updater

from model_server.commands.main import main
from model_server.errors import RepositoryDamaged
from model_server.installation import open_publisher
from model_server.settings import Settings
from model_server.signing.exporting import export
from model_server.signing.publisher import Publisher
from tests.support.managers import publish
from tests.support.plans import PLAN
from tests.support.server import SteppedClock, make_bundle, make_folder, running

PAGE = Path(__file__).parents[4] / "docs" / "spec" / "static-files.md"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = make_folder(tmp_path_factory.mktemp("published") / "server")
    with running(settings) as server:
        bundle = make_bundle(settings.directory / "1.bundle", 1, data=bytes(range(256)) * 4096)
        assert publish(server, settings, bundle, 1).status_code == 200
    open_publisher(settings, SteppedClock()).put_plan(PLAN)
    return settings


@pytest.fixture
def settings(published: Settings, tmp_path: Path) -> Settings:
    shutil.copytree(published.directory, tmp_path / "server")
    return replace(published, directory=tmp_path / "server")


@pytest.fixture
def publisher(settings: Settings) -> Publisher:
    return open_publisher(settings, SteppedClock())


def quiet(done: int, total: int) -> None:
    assert 0 < done <= total


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def follow(url: str, settings: Settings, folder: Path) -> bytes:
    """What a stock TUF client, which trusts the root, finds of the artifact."""
    (folder / "targets").mkdir(parents=True, exist_ok=True)
    root = (settings.directory / "root.json").read_bytes()
    updater = Updater(str(folder), f"{url}/metadata/", str(folder / "targets"), f"{url}/targets/", bootstrap=root)
    target = updater.get_targetinfo("models/exercise/1/model-fp32.onnx")
    assert target is not None
    return Path(updater.download_target(target)).read_bytes()


def test_the_command_writes_the_state_once_and_then_what_is_new(
    settings: Settings, publisher: Publisher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", str(tmp_path / "out"), "--dir", str(settings.directory)]
    assert main(command) == 0
    assert "0 were there" in capsys.readouterr().out
    first = names(tmp_path / "out")
    assert main(command) == 0
    assert "0 files written" in capsys.readouterr().out
    publisher.put_plan(replace(PLAN, share=50))
    assert main([*command, "--json"]) == 0
    assert '"written": 4,' in capsys.readouterr().out  # the plan, its role, the snapshot, the timestamp
    assert first < names(tmp_path / "out")
    assert not [name for name in names(tmp_path / "out") if "claims" in name or name.startswith(".")]


def test_another_publication_in_the_middle_leaves_the_state_that_was_begun_with(
    publisher: Publisher, tmp_path: Path
) -> None:
    before = publisher.repository.timestamp_bytes()

    def publish_more(done: int, total: int) -> None:
        if done == 2:
            for share in (60, 70):
                publisher.put_plan(replace(PLAN, share=share))

    export(publisher.repository, tmp_path / "out", publish_more)
    assert (tmp_path / "out" / "metadata" / "timestamp.json").read_bytes() == before


def test_wherever_it_is_cut_off_what_the_folder_shows_is_whole(
    settings: Settings, publisher: Publisher, tmp_path: Path
) -> None:
    export(publisher.repository, tmp_path / "out", quiet)
    publisher.put_plan(replace(PLAN, share=80))
    cuts = 0
    while cut_off(publisher, tmp_path, files=cuts):
        with serving(tmp_path / f"cut-{cuts}") as url:
            follow(url, settings, tmp_path / f"client-{cuts}")
        cuts += 3
    assert cuts > 6


def cut_off(publisher: Publisher, folder: Path, files: int) -> bool:
    """Export anew beside an earlier export, and end after so many files. False if that was all."""

    def cut(done: int, total: int) -> None:
        if done > files:
            raise KeyboardInterrupt

    shutil.copytree(folder / "out", folder / f"cut-{files}")
    try:
        export(publisher.repository, folder / f"cut-{files}", cut)
    except KeyboardInterrupt:
        return True
    return False


def test_a_target_that_was_exchanged_is_not_exported(settings: Settings, publisher: Publisher, tmp_path: Path) -> None:
    [path] = (settings.directory / "repository").rglob("*.model-fp32.onnx")
    path.unlink()
    path.write_bytes(b"another")
    with pytest.raises(RepositoryDamaged, match=r"model-fp32\.onnx is not the file that was signed"):
        export(publisher.repository, tmp_path / "out", quiet)
    assert "metadata/timestamp.json" not in names(tmp_path / "out")
    assert not [name for name in names(tmp_path / "out") if "onnx" in name]


def test_a_file_in_the_folders_place_is_refused(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("mine")
    assert main(["export", str(tmp_path / "out"), "--dir", str(settings.directory)]) == 1
    assert "is no folder" in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == "mine"


def test_nginx_as_documented_serves_it_as_this_server_does(
    settings: Settings, publisher: Publisher, tmp_path: Path
) -> None:
    binary = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if binary is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("this test needs nginx")
    export(publisher.repository, tmp_path / "out", quiet)
    with nginx(binary, tmp_path / "out", tmp_path / "nginx") as url, running(settings) as server:
        assert follow(url, settings, tmp_path / "client") == bytes(range(256)) * 4096
        [artifact] = (tmp_path / "out").rglob("*.model-fp32.onnx")
        for path in (
            "/metadata/timestamp.json",
            "/metadata/1.targets.json",
            f"/{artifact.relative_to(tmp_path / 'out')}",
        ):
            theirs, ours = httpx.get(url + path), httpx.get(server.url + path)
            assert theirs.content == ours.content
            for header in ("cache-control", "content-type"):
                assert theirs.headers[header] == ours.headers[header]
            assert theirs.headers.get("content-encoding") == ours.headers.get("content-encoding")
            again = httpx.get(url + path, headers={"if-none-match": theirs.headers["etag"]})
            assert again.status_code == 304
        part = {"range": "bytes=100-199", "if-range": theirs.headers["etag"]}
        assert httpx.get(url + path, headers=part).content == theirs.content[100:200]
        assert httpx.get(f"{url}/metadata/2.root.json").status_code == 404


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    from devices.static_server import serve

    with serve(folder) as server:
        yield server.url


@contextmanager
def nginx(binary: str, folder: Path, work: Path) -> Iterator[str]:
    """nginx with the locations of the page, on a free port."""
    work.mkdir()
    [locations] = re.findall(r"```nginx\n(.*?)```", PAGE.read_text(), re.DOTALL)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    temporary = " ".join(
        f"{kind}_temp_path {work / kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (work / "nginx.conf").write_text(
        f"{'user root; ' if os.getuid() == 0 else ''}daemon off; pid {work / 'pid'}; error_log {work / 'error.log'};\n"
        "events {}\n"
        f"http {{ access_log off; {temporary} types {{ application/json json; }}\n"
        f"server {{ listen 127.0.0.1:{port}; {locations.replace('/srv/models', str(folder))} }} }}\n"
    )
    process = subprocess.Popen([binary, "-c", str(work / "nginx.conf"), "-p", str(work)])
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/metadata/timestamp.json")
                break
            except httpx.ConnectError:
                assert process.poll() is None, (work / "error.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)
