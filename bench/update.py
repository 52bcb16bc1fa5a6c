"""What a device's check costs at 1, 100 and 1,000 models, beside python-tuf's own client; and what verifying costs.

The server is `edgeship-server serve` in a process of its own, its repository made by the server's own code; the devices
are our updater and python-tuf's `Updater`, in this process, which has loaded everything before. Times take turns, ours
twice, so that ``aa`` shows the machine's noise. Bytes are those of HTTP, heads included, both ways, counted by a proxy
on the socket.

* cold: a new device, up to the plan in its hands. python-tuf: `refresh`, `get_targetinfo` and `download_target` of it.
* warm: nothing changed. python-tuf: `refresh` of a new `Updater` on the same folder, as its users do, with one fetcher.
  Both keep their connection from one check to the next.
* changed: the plan of another model was published. Bytes grow with how far versions differ between models, since that
  compresses less: ``changed_bytes_mixed`` adds what the snapshot takes more with versions between 1 and 500.

``verify_vs_sha256`` is the throughput of our whole verified download of a large file over loopback, onto the disk, over
that of `hashlib.sha256` of the same file, which downloads nothing. The rows have the parts, and ``verify_vs_alone``:
the same download over one that verifies nothing.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from tuf.api.metadata import TargetFile
from tuf.ngclient import Updater as StockUpdater
from tuf.ngclient.urllib3_fetcher import Urllib3Fetcher

from bench.live.counting import Counted, counting
from bench.live.processes import edgeship
from edge_runtime.bundle import plan_path
from edge_runtime.clock import SystemClock as DeviceClock
from edge_runtime.device import Device
from edge_runtime.disk import RealDisk
from edge_runtime.errors import Outcome
from edge_runtime.store import Store
from edge_runtime.update.download import download
from edge_runtime.update.fetcher import Transport, default_client
from edge_runtime.update.plan import Plan, State
from edge_runtime.update.updater import Updater
from model_server.clock import SystemClock
from model_server.commands.local import init
from model_server.installation import open_publisher
from model_server.settings import load_settings
from model_server.signing.publisher import Publisher

MODELS = (1, 100, 1000)
PLAN = Plan(
    model="model-0000",
    channel="stable",
    rollout="r-1",
    salt="salt",
    candidate=1,
    baseline=None,
    share=0,
    holdback=0,
    predicate=None,
    state=State.HALTED,
    attempt=1,
)
Samples = dict[str, list[float]]


def run(quick: bool) -> tuple[dict[str, Any], list[dict[str, Any]], Samples]:
    cold, warm, size = (2, 10, 8 << 20) if quick else (7, 200, 256 << 20)
    rows: list[dict[str, Any]] = []
    samples: Samples = {}
    for models in MODELS:
        with tempfile.TemporaryDirectory(prefix="edgeship-bench-") as scratch:
            row, times = _models(models, Path(scratch), cold, warm, 0 if models > 1 else size)
        rows.append(row)
        samples |= {f"{models}/{what}": values for what, values in times.items()}
        _show(row)
    return metrics(rows), rows, samples


def metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """From the rows for the fewest and the most models. ``cold_ms`` and ``warm_*`` are of the most. Pure."""
    few, many = rows[0], rows[-1]
    return {
        "cold_ms": many["cold_ms"],
        "warm_bytes": many["warm_bytes"],
        "warm_requests": many["warm_requests"],
        "warm_ms_1_model": few["warm_ms"],
        "warm_ms_1000_models": many["warm_ms"],
        "changed_bytes_1000_models": many["changed_bytes"],
        "verify_vs_sha256": few["verify_vs_sha256"],
    }


class _Ours:
    """A device of ours, new."""

    def __init__(self, folder: Path, server: str, root: bytes) -> None:
        self._store = Store(folder)
        self._updater = Updater(
            store=self._store,
            device=Device(id="device-1", attributes={}),
            model=PLAN.model,
            channel=PLAN.channel,
            root=root,
            server=server,
            engines=("onnx",),
        )

    def check(self) -> None:
        result = self._updater.check()
        if result.outcome is not Outcome.UNCHANGED or result.plan is None:
            raise RuntimeError(f"the check ended as {result.outcome}: {result.detail}")

    def close(self) -> None:
        self._updater.close()
        self._store.close()


class _Stock:
    """A device with python-tuf's client, new. Its fetcher, and so its connection, stays."""

    def __init__(self, folder: Path, server: str, root: bytes) -> None:
        self._folder, self._server, self._root = folder, server, root
        for name in ("metadata", "targets"):
            (folder / name).mkdir(parents=True)
        self._fetcher = Urllib3Fetcher()

    def updater(self) -> StockUpdater:
        return StockUpdater(
            str(self._folder / "metadata"),
            f"{self._server}/metadata/",
            str(self._folder / "targets"),
            f"{self._server}/targets/",
            fetcher=self._fetcher,
            bootstrap=self._root,
        )

    def first(self) -> None:
        updater = self.updater()
        updater.refresh()
        target = updater.get_targetinfo(plan_path(PLAN.channel, PLAN.model))
        if target is None:
            raise RuntimeError("python-tuf finds no plan")
        updater.download_target(target, str(self._folder / "plan.json"))

    def check(self) -> None:
        self.updater().refresh()


def _models(models: int, scratch: Path, cold: int, warm: int, size: int) -> tuple[dict[str, Any], Samples]:
    folder = scratch / "server"
    started = time.perf_counter()
    names = [f"model-{number:04d}" for number in range(models)]
    init(folder, names, ("a", "b", "c"), b"only a bench", SystemClock())
    made_s = time.perf_counter() - started
    publisher = open_publisher(load_settings(folder), SystemClock())
    publisher.put_plan(PLAN)
    root = (folder / "root.json").read_bytes()
    times: Samples = {}
    with edgeship(folder, scratch) as server, counting(server.url) as counted:
        row: dict[str, Any] = {"models": models, "made_s": made_s}
        row |= _cold(scratch, server.url, root, cold, times)
        row |= _warm(scratch, server.url, root, warm, times)
        row |= _counts(scratch, counted, root, publisher, names[-1])
        row |= _verify(scratch, server.url, root, folder, size, cold, times)
    return row, times


def _cold(scratch: Path, url: str, root: bytes, rounds: int, times: Samples) -> dict[str, Any]:
    for number in range(rounds + 1):
        with closing(_Ours(scratch / f"cold-{number}", url, root)) as ours:
            _timed(times, "cold", ours.check, keep=number > 0)  # the first of all loads modules
        stock = _Stock(scratch / f"cold-stock-{number}", url, root)
        _timed(times, "cold stock", stock.first, keep=number > 0)
    return {"cold_ms": median(times["cold"]), "cold_ms_stock": median(times["cold stock"])}


def _warm(scratch: Path, url: str, root: bytes, rounds: int, times: Samples) -> dict[str, Any]:
    with (
        closing(_Ours(scratch / "warm", url, root)) as ours,
        closing(_Ours(scratch / "warm-again", url, root)) as again,
    ):
        stock = _Stock(scratch / "warm-stock", url, root)
        stock.first()
        for number in range(rounds + 1):
            _timed(times, "warm", ours.check, keep=number > 0)  # the first one is cold
            _timed(times, "warm stock", stock.check, keep=number > 0)
            _timed(times, "warm again", again.check, keep=number > 0)
    ms, again_ms = median(times["warm"]), median(times["warm again"])
    return {"warm_ms": ms, "warm_ms_stock": median(times["warm stock"]), "aa": again_ms / ms}


def _counts(scratch: Path, counted: Counted, root: bytes, publisher: Publisher, other: str) -> dict[str, Any]:
    """Bytes and requests. With one model, what changes is its own plan."""
    found: dict[str, Any] = {}
    stock = _Stock(scratch / "counted-stock", counted.url, root)
    with closing(_Ours(scratch / "counted", counted.url, root)) as ours:
        for what in ("cold", "warm", "changed"):
            if what == "changed":
                publisher.put_plan(replace(PLAN, model=other, rollout="r-2"))
            for who, check in (("", ours.check), ("_stock", stock.first if what == "cold" else stock.check)):
                counted.clear()
                check()
                found |= {f"{what}_bytes{who}": counted.bytes, f"{what}_requests{who}": counted.requests}
    found["changed_bytes_mixed"] = found["changed_bytes"] + _mixed_versions(publisher)
    return found


def _mixed_versions(publisher: Publisher) -> int:
    """Bytes that the compressed snapshot takes more when each role has had its own number of versions."""
    snapshot = publisher.repository.snapshot().signed.to_dict()
    now = len(gzip.compress(json.dumps(snapshot, separators=(",", ":")).encode(), 6))
    rng = random.Random(1)
    for meta in snapshot["meta"].values():
        meta["version"] = rng.randint(1, 500)
    return len(gzip.compress(json.dumps(snapshot, separators=(",", ":")).encode(), 6)) - now


def _verify(
    scratch: Path, url: str, root: bytes, folder: Path, size: int, rounds: int, times: Samples
) -> dict[str, Any]:
    """Megabytes a second of: a digest alone, our download with and without it, and python-tuf's."""
    names = ("sha256", "download verified", "download alone", "download stock")
    if not size:
        return {
            "verify_vs_sha256": None,
            "verify_vs_alone": None,
            **{f"{name.replace(' ', '_')}_mb_per_s": None for name in names},
        }
    file = scratch / "large"
    file.write_bytes(random.Random(1).randbytes(size))
    path = f"models/{PLAN.model}/1/large.onnx"
    target = TargetFile.from_file(path, str(file), ["sha256"])
    served = folder / "repository" / "targets" / target.get_prefixed_paths()[0]
    served.parent.mkdir(parents=True)
    served.write_bytes(file.read_bytes())
    address = f"{url}/targets/{target.get_prefixed_paths()[0]}"
    disk, part = RealDisk(), scratch / "part"
    updater = _Stock(scratch / "large-stock", url, root).updater()
    updater.refresh()
    with closing(Transport(partial(default_client, url), DeviceClock())) as transport:
        ways: dict[str, Callable[[], object]] = {
            "sha256": lambda: _digest(file),
            "download verified": lambda: download(transport, address, target, part, disk),
            "download alone": lambda: _fetch_only(transport, address, size, part, disk),
            "download stock": lambda: updater.download_target(target, str(part)),
        }
        for _ in range(rounds):
            for name, way in ways.items():
                _timed(times, name, way)
                for left in (part, part.with_name(f"{part.name}.etag")):
                    left.unlink(missing_ok=True)
    speed = {name: size / 1e3 / median(times[name]) for name in names}
    found: dict[str, Any] = {
        "verify_vs_sha256": speed["download verified"] / speed["sha256"],
        "verify_vs_alone": speed["download verified"] / speed["download alone"],
    }
    return found | {f"{name.replace(' ', '_')}_mb_per_s": speed[name] for name in names}


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _fetch_only(transport: Transport, url: str, size: int, part: Path, disk: RealDisk) -> None:
    """What `download` does, without verifying."""
    with transport.get(url, {"Accept-Encoding": "identity"}) as response:
        for chunk in transport.chunks(response, size):
            disk.append(part, chunk)


def _timed(times: Samples, name: str, work: Callable[[], object], *, keep: bool = True) -> None:
    """Milliseconds."""
    started = time.perf_counter()
    work()
    took = (time.perf_counter() - started) * 1e3
    if keep:
        times.setdefault(name, []).append(took)


def _show(row: Mapping[str, Any]) -> None:
    print(f"{row['models']} models; made in {row['made_s']:.1f} s", flush=True)
    print(f"  {'':10}{'ms':>9}{'stock':>9}{'bytes':>10}{'stock':>10}{'requests':>10}{'stock':>7}")
    for what in ("cold", "warm", "changed"):
        ms = "".join(f"{row[key]:9.2f}" if (key := f"{what}_ms{who}") in row else f"{'':9}" for who in ("", "_stock"))
        counts = "".join(f"{row[f'{what}_bytes{who}']:>10,}" for who in ("", "_stock"))
        requests = f"{row[f'{what}_requests']:>10}{row[f'{what}_requests_stock']:>7}"
        print(f"  {what:10}{ms}{counts}{requests}", flush=True)
    print(f"  A/A {row['aa']:.2f}; changed, versions mixed: {row['changed_bytes_mixed']:,} bytes", flush=True)
    if row["verify_vs_sha256"] is not None:
        speeds = {key.removesuffix("_mb_per_s"): value for key, value in row.items() if key.endswith("_mb_per_s")}
        print(f"  MB/s: {', '.join(f'{name} {value:.0f}' for name, value in speeds.items())}", flush=True)
