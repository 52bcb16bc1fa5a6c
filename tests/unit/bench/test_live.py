"""What the benches of devices' requests count, and how rows become metrics."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import checkin, update
from bench.checkin import Sample
from bench.live.counting import Counted, counting
from bench.live.wrk import read_load
from devices.static_server import StaticServer, serve


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StaticServer]:
    (tmp_path / "file.json").write_bytes(b"x" * 5000)
    with serve(tmp_path) as server:
        yield server


def ask(counted: Counted, *heads: bytes) -> bytes:
    """All that comes back for some requests on one connection, which the last one closes."""
    host, _, port = counted.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        answer = b""
        for head in heads:
            connection.sendall(head)
        while piece := connection.recv(65_536):
            answer += piece
    return answer


def test_every_byte_is_counted_both_ways_and_every_request(server: StaticServer) -> None:
    first, last = b"GET /file.json HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /no HTTP/1.1\r\nConnection: close\r\n\r\n"
    with counting(server.url) as counted:
        answer = ask(counted, first, last)
        assert answer.count(b"HTTP/1.1 ") == 2
        assert (counted.requests, counted.bytes) == (2, len(first) + len(last) + len(answer))
        counted.clear()
        answer = ask(counted, last)
        assert (counted.requests, counted.bytes) == (1, len(last) + len(answer))


def test_the_load_is_read_from_the_last_line() -> None:
    output = 'Running 1s test\n\n{"requests":10,"us":500000,"bytes":99,"failed":0,"p50_us":1500,"p99_us":2500}\n'
    load = read_load(output)
    assert (load.rps, load.failed, load.p50_ms, load.p99_ms) == (20.0, 0, 1.5, 2.5)


def samples(*rps: float) -> list[Sample]:
    return [Sample(rps=each, p99_ms=1e3 / each, cpu_us=None) for each in rps]


def test_a_check_in_row_has_medians_and_ratios_of_them() -> None:
    row = checkin.row("c", {"ours": samples(1, 100, 200), "nginx": samples(400, 400), "ours again": samples(110)})
    assert (row["rps"], row["nginx_rps"], row["rps_vs_nginx"], row["aa"]) == (100, 400, 0.25, 1.1)
    assert checkin.metrics([row]) == {"rps": 100, "rps_vs_nginx": 0.25, "p99_ms": 10.0}


def test_without_nginx_or_wrk_their_metrics_are_null() -> None:
    row = checkin.row("c", {"ours": samples(100), "ours again": samples(100)})
    assert checkin.metrics([row]) == {"rps": 100, "rps_vs_nginx": None, "p99_ms": 10.0}
    assert checkin.metrics([]) == {"rps": None, "rps_vs_nginx": None, "p99_ms": None}


def test_update_metrics_are_of_the_fewest_and_the_most_models() -> None:
    few = {"cold_ms": 1, "warm_ms": 2, "warm_bytes": 3, "warm_requests": 1, "changed_bytes": 4, "verify_vs_sha256": 5}
    many = {key: None if key == "verify_vs_sha256" else value * 10 for key, value in few.items()}
    assert update.metrics([few, {}, many]) == {
        "cold_ms": 10,
        "warm_bytes": 30,
        "warm_requests": 10,
        "warm_ms_1_model": 2,
        "warm_ms_1000_models": 20,
        "changed_bytes_1000_models": 40,
        "verify_vs_sha256": 5,
    }
