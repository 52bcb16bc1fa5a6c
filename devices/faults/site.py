"""What the device of a trial talks to: two real servers, whose one difference is the plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx

from devices.faults.releases import MODEL, SimulatedRelease, release
from devices.repository import TufRepository
from devices.static_server import serve
from edge_runtime import Factory
from edge_runtime.update.fetcher import default_client
from edge_runtime.update.plan import PARTS, Plan, State

__all__ = ["SERVER", "Site", "client_of", "open_site"]

SERVER = "http://simulated.invalid"  # the one address that devices know, whichever server they are led to
RELEASES = (1, 2, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """``ports`` by the candidate of the plan that is served there. Release 1 is the factory's."""

    root: bytes
    factory: Factory
    ports: dict[int, int]

    @property
    def releases(self) -> dict[int, SimulatedRelease]:
        return {number: release(number) for number in RELEASES}


def client_of(port: int) -> Callable[[], httpx.Client]:
    """Makes the HTTP client of a device, which leads it to a server on this machine."""

    def lead(request: httpx.Request) -> None:
        request.url = request.url.copy_with(host="127.0.0.1", port=port)

    def make() -> httpx.Client:
        client = default_client(SERVER)
        client.event_hooks = {"request": [lead]}
        return client

    return make


@contextmanager
def open_site(folder: Path) -> Iterator[Site]:
    """Serve, from ``folder``, a repository whose plan asks for release 2, and one later, whose plan asks for 3."""
    repository = TufRepository(folder / "later", datetime.now(UTC).replace(microsecond=0), models=(MODEL,))
    for number in RELEASES:
        repository.add_release(release(number))
    repository.set_plan(_plan(2, 1))
    repository.publish()
    earlier = (repository.metadata / "timestamp.json").read_bytes()
    repository.set_plan(_plan(3, 2))
    repository.publish()
    (folder / "earlier").mkdir()
    for name in ("metadata", "targets"):
        _copy(folder / "later" / name, folder / "earlier" / name)
    (folder / "earlier" / "metadata" / "timestamp.json").write_bytes(earlier)
    with ExitStack() as running:
        ports: dict[int, int] = {}
        for candidate, name in ((2, "earlier"), (3, "later")):
            server = running.enter_context(serve(folder / name))
            ports[candidate] = httpx.URL(server.url).port or 80
        yield Site(root=repository.root_bytes, factory=release(1).factory(folder), ports=ports)


def _plan(candidate: int, baseline: int) -> Plan:
    return Plan(
        model=MODEL,
        channel="stable",
        rollout=f"to-{candidate}",
        salt="salt",
        candidate=candidate,
        baseline=baseline,
        share=PARTS,
        holdback=0,
        predicate=None,
        state=State.COMPLETE,
        attempt=1,
    )


def _copy(source: Path, target: Path) -> None:
    for file in source.rglob("*"):
        if file.is_file():
            place = target / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(file.read_bytes())
