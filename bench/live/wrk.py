"""wrk, the load generator: the same for every server. Results come out of its own numbers, as JSON by its Lua hook."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.live.processes import pinned

__all__ = ["CLIENTS", "Load", "installed", "read_load", "wrk"]

CLIENTS = 64
_SCRIPT = """\
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\\n{"requests":%d,"us":%d,"bytes":%d,"failed":%d,"p50_us":%d,"p99_us":%d}\\n',
    summary.requests, summary.duration, summary.bytes, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One run. ``failed`` requests got no answer, or one with a status from 400."""

    requests: int
    seconds: float
    bytes: int
    failed: int
    p50_ms: float
    p99_ms: float

    @property
    def rps(self) -> float:
        return self.requests / self.seconds


def installed() -> bool:
    return shutil.which("wrk") is not None


def wrk(url: str, headers: Mapping[str, str], seconds: int, scratch: Path, cpu: int | None) -> Load:
    """Ask for one address with `CLIENTS` connections from one thread. Raises: subprocess.CalledProcessError."""
    script = scratch / "report.lua"
    script.write_text(_SCRIPT)
    command = ["wrk", "-t1", f"-c{CLIENTS}", f"-d{seconds}s", "--timeout", "30s", "-s", str(script)]
    for name, value in headers.items():
        command += ["-H", f"{name}: {value}"]
    done = subprocess.run([*command, url], capture_output=True, text=True, check=True, preexec_fn=pinned(cpu))
    return read_load(done.stdout)


def read_load(output: str) -> Load:
    """The last line of what wrk printed. Pure."""
    values = json.loads(output.strip().splitlines()[-1])
    return Load(
        requests=values["requests"],
        seconds=values["us"] / 1e6,
        bytes=values["bytes"],
        failed=values["failed"],
        p50_ms=values["p50_us"] / 1e3,
        p99_ms=values["p99_us"] / 1e3,
    )
