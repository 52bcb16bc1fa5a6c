"""A server with a TUF repository, a clock that tests move, and devices that check for updates."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from devices.repository import TufRepository
from devices.static_server import StaticServer
from edge_runtime import slots
from edge_runtime.bundle import write_manifest
from edge_runtime.device import Device
from edge_runtime.device_state import DeviceState
from edge_runtime.disk import Disk
from edge_runtime.errors import Outcome, UpdateError
from edge_runtime.store import Slot, Store
from edge_runtime.update.conditions import UpdateRules
from edge_runtime.update.plan import PARTS, Plan, State
from edge_runtime.update.updater import CheckResult, Updater
from tests.support import tiny

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
PLAN = Plan(
    model="tiny",
    channel="stable",
    rollout="r-1",
    salt="salt",
    candidate=2,
    baseline=1,
    share=PARTS,
    holdback=0,
    predicate=None,
    state=State.RUNNING,
    attempt=1,
)
RELEASES = {
    number: tiny.release(number, seed=number, golden_count=1, tflite_data=tiny.tflite_bytes()) for number in range(1, 6)
}


@dataclass
class ManualClock:
    now: datetime = NOW
    since_boot: float = 1000.0

    def wall(self) -> datetime:
        return self.now

    def boot(self) -> float:
        return self.since_boot

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.since_boot += seconds


@dataclass
class Canary:
    """Stands in for the subprocess; `bad` releases fail."""

    bad: set[int] = field(default_factory=set)
    tried: list[int] = field(default_factory=list)

    def __call__(self, slot: Slot) -> None:
        slot.read_artifact()
        slot.read_golden()
        self.tried.append(slot.release)
        if slot.release in self.bad:
            raise UpdateError(Outcome.CANARY_FAILED, f"release {slot.release}: bad")


class TestDevice:
    """One device's store and updater. `restart` is what a new process does. ``rules`` are read when it opens, ``state``
    and ``clock`` at each check; its sleeps take no time but the clock's."""

    __test__ = False

    def __init__(
        self, folder: Path, world: World, *, device: Device, engines: Sequence[str], model: str, channel: str
    ) -> None:
        self.folder = folder
        self.world = world
        self.device = device
        self.canary = Canary()
        self.rules = UpdateRules()
        self.state = DeviceState()
        self.clock = world.clock
        self.longest_s = math.inf
        self.slept: list[float] = []
        self._arguments = {"model": model, "channel": channel, "engines": engines}
        self.open()

    def open(self, disk: Disk | None = None) -> None:
        self.store = Store(self.folder, disk=disk)
        self.updater = Updater(
            store=self.store,
            device=self.device,
            root=self.world.root,
            server=self.world.server.url,
            clock=self.clock,
            try_out=self.canary,
            rules=self.rules,
            state=lambda: self.state,
            longest_s=self.longest_s,
            wait=self.sleep,
            **self._arguments,  # type: ignore[arg-type]
        )

    def close(self) -> None:
        self.updater.close()
        self.store.close()

    def restart(self, disk: Disk | None = None) -> None:
        self.close()
        self.open(disk)

    def sleep(self, seconds: float) -> bool:
        self.slept.append(seconds)
        self.clock.advance(seconds)
        return False

    def follow(self, rules: UpdateRules, **state: float | bool) -> None:
        """From now on: these rules, in this state."""
        self.rules, self.state = rules, DeviceState(**state)  # type: ignore[arg-type]
        self.restart()

    def check(self) -> CheckResult:
        return self.updater.check()

    def adopt(self, number: int) -> None:
        """Give the device a first model, as a factory bundle does."""
        release = RELEASES[number]
        files = {name: release.files[name] for name in (release.artifact.file, release.artifact.golden.file)}
        self.store.install(write_manifest(release.manifest), release.artifact, files)
        self.store.apply(slots.adopt)

    def commit(self) -> None:
        self.store.start()
        self.store.good(1, commit_after=1)

    @property
    def active(self) -> int | None:
        return None if self.store.slots.active is None else self.store.slots.active.release

    @property
    def previous(self) -> int | None:
        return None if self.store.slots.previous is None else self.store.slots.previous.release


class World:
    """``repository`` is what the server serves; releases 1 and 2 are published and a plan moves devices to 2."""

    def __init__(self, folder: Path, server: StaticServer) -> None:
        self.folder = folder
        self.server = server
        self.clock = ManualClock()
        server.now = self.clock.wall
        self.repository = TufRepository(server.folder, NOW)
        self.root = self.repository.root_bytes
        for number in (1, 2):
            self.repository.add_release(RELEASES[number])
        self.plan(PLAN)
        self.devices: list[TestDevice] = []

    def plan(self, plan: Plan | None = None, **changes: object) -> None:
        """Publish a plan: `PLAN`, or the one given, with changes."""
        self.repository.set_plan(dataclasses.replace(plan or PLAN, **changes))  # type: ignore[arg-type]
        self.repository.publish()

    def device(
        self,
        name: str = "device-1",
        *,
        model: str = "tiny",
        channel: str = "stable",
        engines: Sequence[str] = ("onnx", "tflite"),
        attributes: dict[str, str | int | float | bool] | None = None,
        first: int | None = 1,
    ) -> TestDevice:
        device = TestDevice(
            self.folder / name,
            self,
            device=Device(id=name, attributes=attributes or {"arch": "x86_64", "os": "linux"}),
            engines=engines,
            model=model,
            channel=channel,
        )
        if first is not None:
            device.adopt(first)
        self.devices.append(device)
        return device

    def close(self) -> None:
        for device in self.devices:
            device.close()

    def tampered(self, path: str, change: Callable[[bytes], bytes]) -> None:
        """Change the file of a target on the server behind the signers' backs."""
        file = self.repository.file(path)
        file.write_bytes(change(file.read_bytes()))
