"""Large targets: resumed where they stopped, never longer than signed, never half kept as whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tuf.api.metadata import TargetFile

from devices.faults.disks import WatchedDisk
from devices.static_server import Handler, StaticServer
from edge_runtime.disk import RealDisk
from edge_runtime.errors import Outcome, StoreFull, UpdateError
from edge_runtime.update.download import download, etag_path
from edge_runtime.update.fetcher import Transport, default_client
from tests.support.disks import FullDisk
from tests.support.world import ManualClock

DATA = hashlib.shake_256(b"a model").digest(300_000)
TARGET = TargetFile.from_data("models/tiny/2/tiny.onnx", DATA, ["sha256"])


class Download:
    def __init__(self, folder: Path, server: StaticServer) -> None:
        (server.folder / "file").write_bytes(DATA)
        self.server = server
        self.part = folder / "incoming" / "part"
        self.part.parent.mkdir()
        self.transport = Transport(partial(default_client, "http://"), ManualClock())

    def __call__(self, disk: WatchedDisk | None = None) -> None:
        download(self.transport, f"{self.server.url}/file", TARGET, self.part, disk or RealDisk())

    def fails(self, disk: WatchedDisk | None = None) -> Outcome:
        with pytest.raises(UpdateError) as caught:
            self(disk)
        return caught.value.outcome

    def hang_up_after(self, length: int) -> None:
        self.server.faults["/file"] = lambda handler: handler.send_file(DATA, length=length)

    def ranges(self) -> list[str | None]:
        return [headers.get("range") for _, _, headers in self.server.requests]


@pytest.fixture
def fetch(tmp_path: Path, server: StaticServer) -> Iterator[Download]:
    made = Download(tmp_path, server)
    yield made
    made.transport.close()


def test_a_file_arrives_with_the_signed_bytes(fetch: Download) -> None:
    fetch()
    assert fetch.part.read_bytes() == DATA
    assert fetch.transport.received == len(DATA)


def test_a_broken_download_goes_on_where_it_stopped(fetch: Download) -> None:
    fetch.hang_up_after(100_000)
    assert fetch.fails() is Outcome.DOWNLOAD_FAILED
    have = fetch.part.stat().st_size
    assert 0 < have <= 100_000
    fetch.server.faults.clear()
    fetch()
    assert fetch.part.read_bytes() == DATA
    assert fetch.ranges() == [None, f"bytes={have}-"]
    assert fetch.transport.received == len(DATA)


def test_a_download_may_break_many_times(fetch: Download) -> None:
    for _ in range(5):
        fetch.hang_up_after(50_000)
        assert fetch.fails() is Outcome.DOWNLOAD_FAILED
    assert fetch.part.stat().st_size >= 5 * 40_000
    fetch.server.faults.clear()
    fetch()
    assert fetch.part.read_bytes() == DATA


def test_a_file_that_is_whole_already_is_not_asked_for(fetch: Download) -> None:
    fetch()
    fetch.server.clear()
    fetch()
    assert fetch.server.requests == []


def test_a_changed_file_on_the_server_starts_again(fetch: Download) -> None:
    (fetch.server.folder / "file").write_bytes(b"y" * 300_000)
    fetch.server.faults["/file"] = lambda handler: handler.send_file(b"y" * 300_000, length=1000)
    assert fetch.fails() is Outcome.DOWNLOAD_FAILED
    fetch.server.faults.clear()
    (fetch.server.folder / "file").write_bytes(DATA)
    fetch()
    assert fetch.part.read_bytes() == DATA


def test_a_damaged_first_part_is_found_and_downloaded_again(fetch: Download) -> None:
    fetch.hang_up_after(100_000)
    fetch.fails()
    fetch.server.faults.clear()
    data = fetch.part.read_bytes()
    fetch.part.write_bytes(b"\0" + data[1:])
    fetch()
    assert fetch.part.read_bytes() == DATA


def test_a_damaged_whole_part_is_found_and_downloaded_again(fetch: Download) -> None:
    fetch()
    fetch.part.write_bytes(b"\0" + DATA[1:])
    fetch()
    assert fetch.part.read_bytes() == DATA


def test_a_part_longer_than_the_file_starts_again(fetch: Download) -> None:
    fetch.part.write_bytes(DATA + b"more")
    etag_path(fetch.part).write_bytes(b'"x"')
    fetch()
    assert fetch.part.read_bytes() == DATA


def test_without_an_etag_a_download_starts_again(fetch: Download) -> None:
    fetch.server.etags = False
    fetch.hang_up_after(100_000)
    fetch.fails()
    fetch.server.faults.clear()
    fetch()
    assert fetch.ranges() == [None, None]
    assert fetch.part.read_bytes() == DATA


def test_wrong_bytes_are_removed(fetch: Download) -> None:
    (fetch.server.folder / "file").write_bytes(b"y" * len(DATA))
    assert fetch.fails() is Outcome.VERIFICATION_FAILED
    assert list(fetch.part.parent.iterdir()) == []


def test_a_longer_file_is_refused_before_it_is_all_here(fetch: Download) -> None:
    (fetch.server.folder / "file").write_bytes(DATA + bytes(50_000_000))
    assert fetch.fails() is Outcome.VERIFICATION_FAILED
    assert fetch.transport.received < len(DATA) + 1_000_000
    assert list(fetch.part.parent.iterdir()) == []


def test_a_shorter_file_is_a_download_that_failed(fetch: Download) -> None:
    (fetch.server.folder / "file").write_bytes(DATA[:-1])
    assert fetch.fails() is Outcome.DOWNLOAD_FAILED


def test_a_missing_file_is_a_download_that_failed(fetch: Download) -> None:
    (fetch.server.folder / "file").unlink()
    assert fetch.fails() is Outcome.DOWNLOAD_FAILED


def part_of_another(handler: Handler) -> None:
    handler.send(206, DATA[5:], Content_Range=f"bytes 5-{len(DATA) - 1}/{len(DATA)}")


def no_such_range(handler: Handler) -> None:
    handler.send(416, b"", Content_Range="bytes */3")


def compressed(handler: Handler) -> None:
    handler.send(200, DATA, Content_Encoding="gzip")


@pytest.mark.parametrize("fault", [part_of_another, no_such_range, compressed])
def test_an_answer_that_does_not_fit_the_question_fails_and_the_next_try_works(fetch: Download, fault: object) -> None:
    fetch.hang_up_after(100_000)
    fetch.fails()
    fetch.server.faults["/file"] = fault  # type: ignore[assignment]
    assert fetch.fails() is Outcome.DOWNLOAD_FAILED
    fetch.server.faults.clear()
    fetch()
    assert fetch.part.read_bytes() == DATA


def test_without_room_nothing_is_downloaded(fetch: Download) -> None:
    class Small(WatchedDisk):
        def free_bytes(self, path: Path) -> int:
            return len(DATA) + 1000

    with pytest.raises(StoreFull, match="stay free"):
        fetch(Small())
    assert fetch.server.requests == []


def test_a_disk_that_fills_up_meanwhile_keeps_nothing(fetch: Download) -> None:
    for allowed in range(4):
        with pytest.raises(StoreFull):
            fetch(FullDisk(allowed))
        assert list(fetch.part.parent.iterdir()) == []
    fetch()
    assert fetch.part.read_bytes() == DATA
