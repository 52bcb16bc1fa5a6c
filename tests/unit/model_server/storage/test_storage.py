"""What holds for every storage: a folder, and an object store over HTTP."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import BinaryIO

import pytest

from model_server.errors import LeaseLost, NotStored, SettingsError, StorageUnavailable
from model_server.storage.objects import open_objects
from model_server.storage.opening import open_storage
from model_server.storage.protocol import Storage
from tests.support.object_store import Store


def put(storage: Storage, name: str, data: bytes) -> bool:
    return storage.create(name, lambda out: out.write(data))


def test_what_was_created_is_read_back_whole_and_in_pieces(storage: Storage) -> None:
    data = bytes(range(256)) * 10_000  # several pieces
    assert put(storage, "blobs/ab/one", data)
    assert storage.read("blobs/ab/one").data == data
    assert storage.size("blobs/ab/one") == len(data)
    assert b"".join(storage.pieces("blobs/ab/one")) == data
    assert b"".join(storage.pieces("blobs/ab/one", 5, 2_000_000)) == data[5:2_000_000]
    assert b"".join(storage.pieces("blobs/ab/one", 2_559_990)) == data[2_559_990:]
    with storage.local("blobs/ab/one") as path:
        assert path.read_bytes() == data


def test_a_name_that_is_taken_stays_as_it_is(storage: Storage) -> None:
    assert put(storage, "a/1.json", b"first")
    assert not put(storage, "a/1.json", b"second")
    assert storage.read("a/1.json").data == b"first"


def test_of_many_that_create_one_name_one_wins(storage: Storage) -> None:
    won: list[int] = []
    start = threading.Barrier(8)

    def race(number: int) -> None:
        start.wait()
        if put(storage, "a/1.json", str(number).encode()):
            won.append(number)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [winner] = won
    assert storage.read("a/1.json").data == str(winner).encode()


def test_a_write_that_fails_leaves_nothing(storage: Storage) -> None:
    def full(out: BinaryIO) -> None:
        out.write(b"half")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        storage.create("a/1.json", full)
    assert storage.size("a/1.json") is None
    assert list(storage.names("a/")) == []


def test_a_replacement_of_what_was_replaced_meanwhile_is_refused(storage: Storage) -> None:
    storage.replace("a/now.json", b"1")
    seen = storage.read("a/now.json").version
    storage.replace("a/now.json", b"2", seen)
    with pytest.raises(LeaseLost):
        storage.replace("a/now.json", b"3", seen)
    assert storage.read("a/now.json").data == b"2"
    assert storage.version("a/now.json") == storage.read("a/now.json").version != seen


def test_a_copy_is_the_same_bytes_under_a_second_name(storage: Storage) -> None:
    put(storage, "blobs/one", b"data")
    storage.copy("blobs/one", "targets/one")
    storage.copy("blobs/one", "targets/one")
    storage.remove("blobs/one")
    assert storage.read("targets/one").data == b"data"


def test_names_below_a_folder_are_listed(storage: Storage) -> None:
    for name in ("a/1.json", "a/b/2.json", "ab/3.json"):
        put(storage, name, b"x")
    assert sorted(storage.names("a/")) == ["a/1.json", "a/b/2.json"]
    storage.remove("a/1.json")
    storage.remove("a/1.json")
    assert sorted(storage.names("a/")) == ["a/b/2.json"]
    assert list(storage.names("nothing/")) == []


def test_what_is_not_there_is_named(storage: Storage) -> None:
    with pytest.raises(NotStored, match=r"a/1\.json"):
        storage.read("a/1.json")
    with pytest.raises(NotStored, match=r"a/1\.json"):
        storage.version("a/1.json")
    with pytest.raises(NotStored, match=r"a/1\.json"):
        list(storage.pieces("a/1.json"))
    with pytest.raises(NotStored, match=r"a/1\.json"), storage.local("a/1.json"):
        pass
    with pytest.raises(NotStored, match=r"a/1\.json"):
        storage.copy("a/1.json", "a/2.json")
    assert storage.size("a/1.json") is None


def test_a_store_that_overwrites_in_silence_is_refused(object_store: Store) -> None:
    url = object_store.bucket()
    with pytest.raises(SettingsError, match="ignores If-None-Match"):
        open_objects(url, object_store.careless)
    open_objects(url, object_store.options)


@pytest.mark.parametrize("url", ["s3://", "nothing://bucket", "s3://no such bucket/x"])
def test_an_address_that_is_none_is_refused(tmp_path: Path, url: str, object_store: Store) -> None:
    with pytest.raises((SettingsError, StorageUnavailable)):
        open_storage(tmp_path, url, object_store.options)


def test_a_store_that_does_not_answer_is_said(tmp_path: Path, object_store: Store) -> None:
    with pytest.raises(StorageUnavailable, match="s3://bucket/x does not answer"):
        open_storage(tmp_path, "s3://bucket/x", {"endpoint": "http://127.0.0.1:9", "region": "eu-central-1"})
