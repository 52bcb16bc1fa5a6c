"""A server whose files lie in an object store answers devices as one with a folder does, byte for byte."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from model_server.settings import SETTINGS_FILE, Place, Settings, load_settings, settings_text
from model_server.storage.opening import open_storage
from tests.support.managers import publish
from tests.support.object_store import Store
from tests.support.object_store import store as object_store_of_its_own
from tests.support.server import Running, make_bundle, make_folder, running

KEPT = ("etag", "cache-control", "content-type", "content-encoding", "content-range", "accept-ranges", "vary", "allow")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = make_folder(tmp_path_factory.mktemp("folder") / "server")
    with running(settings) as server:
        bundle = make_bundle(settings.directory / "1.bundle", 1, data=bytes(range(256)) * 8192)
        assert publish(server, settings, bundle, 1).status_code == 200
    return settings


def in_objects(settings: Settings, store: Store, folder: Path) -> Settings:
    """A copy of a server whose files lie in an object store."""
    shutil.copytree(settings.directory, folder)
    place = Place(objects=store.bucket(), endpoint=store.endpoint, region=store.options["region"])
    storage = open_storage(folder, place.objects, store.options)
    for part in ("repository", "blobs"):
        for path in (folder / part).rglob("*"):
            if path.is_file():
                storage.replace(path.relative_to(folder).as_posix(), path.read_bytes())
        shutil.rmtree(folder / part)
    (folder / SETTINGS_FILE).write_text(settings_text(place))
    return replace(load_settings(folder), controller_interval_s=60.0)


@pytest.fixture(scope="module")
def both(
    folder: Settings, object_store: Store, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Running, Running]]:
    """The same installation twice: its files in a folder, and in an object store."""
    settings = in_objects(folder, object_store, tmp_path_factory.mktemp("objects") / "server")
    with running(folder) as first, running(settings) as second:
        yield first, second


def target(folder: Settings) -> str:
    [path] = (folder.directory / "repository").rglob("*.model-fp32.onnx")
    return "/" + path.relative_to(folder.directory / "repository").as_posix()


def ask(both: tuple[Running, Running], path: str, method: str = "GET", **headers: str) -> httpx.Response:
    """The answer of both, which must be the same."""
    answers = [
        httpx.request(method, server.url + path, headers={key.replace("_", "-"): text for key, text in headers.items()})
        for server in both
    ]
    first, second = (
        (answer.status_code, {name: answer.headers.get(name) for name in KEPT}, answer.content) for answer in answers
    )
    assert second == first
    return answers[1]


def test_metadata_is_answered_alike(both: tuple[Running, Running]) -> None:
    timestamp = ask(both, "/metadata/timestamp.json")
    assert timestamp.status_code == 200
    assert ask(both, "/metadata/timestamp.json", if_none_match=timestamp.headers["etag"]).status_code == 304
    assert ask(both, "/metadata/1.root.json").headers["cache-control"].endswith("immutable")
    assert ask(both, "/metadata/1.root.json", accept_encoding="identity").headers.get("content-encoding") is None
    assert ask(both, "/metadata/1.root.json", "HEAD").content == b""
    assert ask(both, "/metadata/1.root.json", "POST").status_code == 405


@pytest.mark.parametrize(
    "name",
    ["2.root.json", "nothing.json", "..%2f..%2fkeys%2fonline.pem", "../root.json", "1.root.json.part", ""],
)
def test_what_is_not_there_is_404_in_both(both: tuple[Running, Running], name: str) -> None:
    assert ask(both, f"/metadata/{name}").status_code == 404
    assert ask(both, f"/targets/models/exercise/1/{name}").status_code == 404


@pytest.mark.parametrize(
    "wanted", ["bytes=0-99", "bytes=100-", "bytes=-100", "bytes=0-", "bytes=2097151-2097151", "bytes=0-99999999"]
)
def test_a_range_of_a_target_is_answered_alike(folder: Settings, both: tuple[Running, Running], wanted: str) -> None:
    whole = ask(both, target(folder))
    part = ask(both, target(folder), range=wanted, if_range=whole.headers["etag"])
    assert part.status_code in (200, 206)
    assert part.content in whole.content
    assert ask(both, target(folder), range=wanted, if_range='"of another file"').content == whole.content


def test_a_range_behind_the_end_and_other_targets_answers(folder: Settings, both: tuple[Running, Running]) -> None:
    whole = ask(both, target(folder))
    assert len(whole.content) == 256 * 8192
    assert httpx.get(both[1].url + target(folder), headers={"range": "bytes=9999999-"}).status_code == 416
    assert ask(both, target(folder), if_none_match=whole.headers["etag"]).status_code == 304
    assert ask(both, target(folder), "HEAD").headers["etag"] == whole.headers["etag"]
    assert ask(both, target(folder), "DELETE").status_code == 405


def test_a_store_that_is_away_is_503_and_asks_devices_to_wait(folder: Settings, tmp_path: Path) -> None:
    with ExitStack() as until_gone:
        store = until_gone.enter_context(object_store_of_its_own())
        settings = in_objects(folder, store, tmp_path / "server")
        with running(settings) as server:
            until_gone.close()
            for path in ("/metadata/timestamp.json", target(folder)):
                answer = httpx.get(server.url + path, timeout=60)
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
