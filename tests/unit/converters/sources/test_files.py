from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from converters.errors import ModelUnreadable
from converters.sources.files import check_archive, files_in, read_inside, read_model


def test_a_file_is_read_whole_up_to_the_limit_and_not_beyond(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"12345")
    assert read_model(path, limit=5) == b"12345"
    with pytest.raises(ModelUnreadable, match="has 5 bytes; at most 4"):
        read_model(path, limit=4)


def test_what_is_missing_empty_or_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    for name, message in (("none", "no such file"), ("empty", "is empty"), ("pipe", "not a file"), (".", "not a file")):
        with pytest.raises(ModelUnreadable, match=message):
            read_model(tmp_path / name)


def test_a_part_of_a_file_inside_is_read_by_offset_and_length(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "weights").write_bytes(b"0123456789")
    assert read_inside(tmp_path, "data/weights", offset=2, length=3) == b"234"
    assert read_inside(tmp_path, "data/weights", offset=8) == b"89"
    for offset, length in ((8, 3), (11, None), (-1, 2), (0, -1)):
        with pytest.raises(ModelUnreadable, match="has 10 bytes"):
            read_inside(tmp_path, "data/weights", offset=offset, length=length)


def test_a_folder_is_listed_sorted_with_relative_names(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two").write_bytes(b"2")
    (tmp_path / "a").write_bytes(b"1")
    assert list(files_in(tmp_path)) == [("a", b"1"), ("b/two", b"2")]
    with pytest.raises(ModelUnreadable, match="more than 1 bytes"):
        list(files_in(tmp_path, limit=1))


def test_an_ordinary_zip_passes_with_its_names(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("assets/words", "a b")
    assert check_archive(tmp_path / "a.zip", "a.zip") == ("config.json", "assets/words")
