"""How many check-ins a second one server process answers, beside nginx on the same folder.

A check-in is a device's conditional GET of the timestamp, answered 304. Other rows: the same file whole, a snapshot as
gzip, and a range of a target. Both servers are one process pinned to one processor, wrk with 64 connections to another;
they take turns, ours twice, so that ``aa`` shows the machine's noise. ``cpu_us`` is the server's processor time for one
request, which hardly depends on what else the machine does. Without wrk every metric is null; without nginx its ones.
"""

from __future__ import annotations

import hashlib
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from bench.live import wrk
from bench.live.nginx import nginx
from bench.live.processes import Process, edgeship
from model_server.clock import SystemClock
from model_server.commands.local import init

RANGE_BYTES = 65_536
MODELS = 100
OURS, AGAIN, NGINX = "ours", "ours again", "nginx"
Samples = dict[str, list[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """``conditional``: with the ETag that the server gives. ``status`` is what it must answer."""

    name: str
    path: str
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    conditional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    rps: float
    p99_ms: float
    cpu_us: float | None


def run(quick: bool) -> tuple[dict[str, Any], list[dict[str, Any]], Samples]:
    if not wrk.installed():
        print("wrk is not installed (Debian: apt-get install wrk): nothing is measured", file=sys.stderr, flush=True)
        return metrics([]), [{"case": "nothing", "reason": "wrk is not installed"}], {}
    rounds, seconds = (1, 1) if quick else (7, 4)
    with tempfile.TemporaryDirectory(prefix="edgeship-bench-") as name:
        scratch = Path(name)
        cases = _folder(scratch / "server")
        with _servers(scratch) as servers:
            found: dict[str, dict[str, list[Sample]]] = {case.name: {who: [] for who in servers} for case in cases}
            for number in range(rounds):
                for case in cases:
                    for who, server in servers.items():
                        found[case.name][who].append(_measure(case, server, seconds, scratch))
                print(f"    round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    rows = [row(case, samples) for case, samples in found.items()]
    _show(rows)
    raw = {
        f"{case}/{who}/{what}": [getattr(sample, what) for sample in samples]
        for case, by_server in found.items()
        for who, samples in by_server.items()
        for what in ("rps", "p99_ms", "cpu_us")
    }
    return metrics(rows), rows, raw


def row(case: str, found: dict[str, list[Sample]]) -> dict[str, Any]:
    """Medians, and ratios of medians; None where there is no nginx. Pure."""
    ours, peer = found[OURS], found.get(NGINX, [])
    rps, peer_rps = _middle(ours, "rps"), _middle(peer, "rps")
    again = _middle(found[AGAIN], "rps")
    return {
        "case": case,
        "rps": rps,
        "nginx_rps": peer_rps,
        "rps_vs_nginx": rps / peer_rps if rps and peer_rps else None,
        "aa": again / rps if rps and again else None,
        "p99_ms": _middle(ours, "p99_ms"),
        "nginx_p99_ms": _middle(peer, "p99_ms"),
        "cpu_us": _middle(ours, "cpu_us"),
        "nginx_cpu_us": _middle(peer, "cpu_us"),
    }


def metrics(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Those of the first row, the check-in. Pure."""
    return {name: rows[0][name] if rows else None for name in ("rps", "rps_vs_nginx", "p99_ms")}


def _middle(samples: list[Sample], what: str) -> float | None:
    values = [value for sample in samples if (value := getattr(sample, what)) is not None]
    return median(values) if values else None


def _folder(folder: Path) -> list[Case]:
    """A server's folder with one target, and what to ask for."""
    init(folder, [f"model-{number:04d}" for number in range(MODELS)], ("a", "b", "c"), b"only a bench", SystemClock())
    data = random.Random(1).randbytes(16 * RANGE_BYTES)
    digest = hashlib.sha256(data).hexdigest()
    target = folder / "repository" / "targets" / "models" / "model-0000" / "1" / f"{digest}.model.onnx"
    target.parent.mkdir(parents=True)
    target.write_bytes(data)
    part = {"Range": f"bytes={RANGE_BYTES}-{2 * RANGE_BYTES - 1}"}
    gzip = {"Accept-Encoding": "gzip"}
    return [
        Case(name="timestamp, unchanged", path="/metadata/timestamp.json", status=304, headers=gzip, conditional=True),
        Case(name="timestamp, whole", path="/metadata/timestamp.json", status=200, headers=gzip),
        Case(name="snapshot, gzip", path="/metadata/1.snapshot.json", status=200, headers=gzip),
        Case(name="64 KiB of a target", path=f"/targets/models/model-0000/1/{target.name}", status=206, headers=part),
    ]


@contextmanager
def _servers(scratch: Path) -> Iterator[dict[str, Process]]:
    with (
        edgeship(scratch / "server", scratch, cpu=0) as ours,
        nginx(scratch / "server" / "repository", scratch, cpu=0) as peer,
    ):
        if peer is None:
            print("nginx is not installed (Debian: apt-get install nginx-light)", file=sys.stderr, flush=True)
        yield {OURS: ours, **({} if peer is None else {NGINX: peer}), AGAIN: ours}


def _measure(case: Case, server: Process, seconds: int, scratch: Path) -> Sample:
    url, headers = server.url + case.path, dict(case.headers)
    if case.conditional:
        headers["If-None-Match"] = httpx.head(url, headers=headers).headers["etag"]
    answer = httpx.get(url, headers=headers)
    if answer.status_code != case.status:
        raise RuntimeError(f"{url} answers {answer.status_code}, not {case.status}")
    before = server.cpu_s()
    load = wrk.wrk(url, headers, seconds, scratch, cpu=1 if (os.cpu_count() or 1) > 1 else None)
    after = server.cpu_s()
    if load.failed:
        raise RuntimeError(f"{load.failed} of {load.requests} requests for {url} failed")
    cpu_us = None if before is None or after is None else (after - before) / load.requests * 1e6
    return Sample(rps=load.rps, p99_ms=load.p99_ms, cpu_us=cpu_us)


def _show(rows: list[dict[str, Any]]) -> None:
    print(f"{'':22}{'rps':>9}{'nginx':>9}{'ratio':>7}{'A/A':>7}{'p99 ms':>8}{'nginx':>8}{'cpu us':>8}{'nginx':>8}")
    for each in rows:
        numbers = [each[name] for name in ("rps", "nginx_rps", "rps_vs_nginx", "aa", "p99_ms", "nginx_p99_ms")]
        numbers += [each["cpu_us"], each["nginx_cpu_us"]]
        forms = ("9.0f", "9.0f", "7.2f", "7.2f", "8.2f", "8.2f", "8.1f", "8.1f")
        shown = (
            format("-" if number is None else format(number, form), f">{form.split('.')[0]}")
            for number, form in zip(numbers, forms, strict=True)
        )
        print(f"{each['case']:22}{''.join(shown)}", flush=True)
