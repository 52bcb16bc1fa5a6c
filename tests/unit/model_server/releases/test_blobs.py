import hashlib
from pathlib import Path
from typing import BinaryIO

import pytest

from model_server.errors import RepositoryDamaged
from model_server.releases.blobs import Blobs
from model_server.storage.folder import FolderStorage

SHA = hashlib.sha256(b"data").hexdigest()


def test_a_file_is_found_by_its_digest(tmp_path: Path) -> None:
    blobs = Blobs(FolderStorage(tmp_path))
    assert blobs.put(b"data") == SHA
    assert blobs.put(b"data") == SHA
    assert (blobs.read(SHA), blobs.check(SHA)) == (b"data", 4)


@pytest.mark.parametrize("damage", [b"", b"dat", b"Data", b"data "])
def test_a_changed_file_is_never_given_out(tmp_path: Path, damage: bytes) -> None:
    blobs = Blobs(FolderStorage(tmp_path))
    blobs.put(b"data")
    (tmp_path / blobs.name(SHA)).write_bytes(damage)
    for look in (blobs.read, blobs.check):
        with pytest.raises(RepositoryDamaged, match="was changed"):
            look(SHA)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for look in (Blobs(FolderStorage(tmp_path)).read, Blobs(FolderStorage(tmp_path)).check):
        with pytest.raises(RepositoryDamaged, match=SHA):
            look(SHA)


@pytest.mark.parametrize("name", ["", "../x", "A" * 64, "0" * 63])
def test_what_is_not_a_digest_is_no_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(RepositoryDamaged):
        Blobs(FolderStorage(tmp_path)).name(name)


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def full(out: BinaryIO) -> None:
        out.write(b"da")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        Blobs(FolderStorage(tmp_path)).add(SHA, full)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
