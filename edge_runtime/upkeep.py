"""Everything a runtime does besides predicting: load and swap releases, check for updates, report. Never on the
predict path; one thing at a time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from edge_runtime.errors import ConfigurationError, NoModel, Outcome, ReportError, RuntimeClosed
from edge_runtime.loaded import Loaded, make_loaded
from edge_runtime.loading import install_factory, load_active
from edge_runtime.outcomes import CounterDelta, Outcomes, Posted
from edge_runtime.stats import Counters, Totals
from edge_runtime.telemetry.wire import ReportArm
from edge_runtime.update.plan import Arm, Plan, arm
from edge_runtime.waits import Purpose, Waits

if TYPE_CHECKING:
    from os import PathLike

    import httpx

    from edge_runtime.authorization import Authorizer
    from edge_runtime.clock import Clock
    from edge_runtime.device import Device
    from edge_runtime.enrolment.enroller import Enroller
    from edge_runtime.enrolment.record import Record
    from edge_runtime.factory import Factory
    from edge_runtime.hybrid.policy import RoutingPolicy
    from edge_runtime.session import Session
    from edge_runtime.store import Slot, Store
    from edge_runtime.telemetry.spool import Spool
    from edge_runtime.update.sideload import Sideloaded
    from edge_runtime.update.updater import CheckResult, Updater

__all__ = ["Setup", "Upkeep"]

_log = logging.getLogger("edge_runtime")
_ARMS = {
    "none": ReportArm.NONE,
    "baseline": ReportArm.BASELINE,
    "candidate": ReportArm.CANDIDATE,
    "holdback": ReportArm.HOLDBACK,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What `EdgeRuntime.open` was given, once checked."""

    model: str
    device: Device
    engines: Sequence[str]
    policy: RoutingPolicy
    factory: Factory | None
    root: bytes | None
    server: str | None
    by: Authorizer
    enroller: Enroller | None
    waits: Waits
    threads: int
    interpreters: int
    commit_after: int
    http: Callable[[], httpx.Client]
    clock: Clock


class Upkeep:
    """``loaded`` is the release that answers now; it is replaced as a whole, by one assignment."""

    def __init__(self, setup: Setup, store: Store, outcomes: Outcomes, spool: Spool, updater: Updater | None) -> None:
        self.loaded: Loaded | None = None
        self.last_check: CheckResult | None = None
        self.store = store
        self.spool = spool
        self._setup = setup
        self._outcomes = outcomes
        self._updater = updater
        self._client: httpx.Client | None = None
        self._counters: dict[tuple[int, Arm], Counters] = {}
        self._counted: dict[tuple[int, Arm], Totals] = {}
        self._good: dict[tuple[int, Arm], int] = {}
        self._mutex = threading.RLock()
        self._closed = False

    def open(self) -> None:
        """Load the active release; without one, the factory model. Raises `NoModel` where there is none and no root
        to trust one by later, and what `install_factory` and `load_active` raise."""
        factory, plan = self._setup.factory, self._plan()
        self.loaded = self._load(plan)
        if self.loaded is None and factory is not None:
            setup = self._setup
            if install_factory(factory, self.store, setup.device, setup.model, setup.engines):
                self.loaded = self._load(plan)
            if self.store.slots.active is None:
                _log.warning("the factory release of %s is revoked, below the floor or does not load", setup.model)
        if self.loaded is None and self._setup.root is None:
            raise NoModel(
                f"no release of {self._setup.model} can be used here: give EdgeRuntime.open a factory bundle, "
                "or the root metadata of a server to get one from, or of a signed bundle to install"
            )

    def settle(self) -> None:
        """Tell the store about good predictions, which commit a release on trial. Raises `StoreError`."""
        with self._open_mutex():
            loaded, active = self.loaded, self.store.slots.active
            if loaded is None or active is None or active.release != loaded.release:
                return
            key = (loaded.release, loaded.arm)
            good = loaded.counters.good
            new = good - self._good.get(key, 0)
            if new and self.store.slots.trial is not None:
                committed = self.store.good(new, commit_after=self._setup.commit_after)
                if committed:
                    self._note(Outcome.COMMITTED, loaded.release, f"{self._setup.commit_after} good predictions")
            self._good[key] = good

    def update(self) -> CheckResult:
        """One update check; swaps the release where the check changed it. Raises `ConfigurationError` without a server,
        `StoreError`, and `RuntimeClosed` where `stop` ended a download."""
        if self._updater is None:
            raise ConfigurationError(
                "there is no server to check: give EdgeRuntime.open a server and its root metadata"
            )
        with self._open_mutex():
            self.settle()
            result = self._updater.check()
            ends = [*result.notes, (result.outcome, result.release, result.detail)]
            blind = result.outcome is Outcome.SERVER_UNREACHABLE or not result.requests
            for event in self._outcomes.checked(ends, blind=blind):
                self._log(event.outcome, event.release, event.detail)
            self.last_check = result
            self._follow(self._plan())
            return result

    def enrol(self) -> bool:
        """Whether this device is enrolled; it asks, where it is time to. Raises `ConfigurationError` without
        enrolment."""
        if self._setup.enroller is None:
            raise ConfigurationError("this device does not enrol: give EdgeRuntime.open an Enrolment")
        with self._open_mutex():
            client = self._http()
        return self._enrolled(client)

    def install_bundle(self, path: str | PathLike[str]) -> Sideloaded:
        """Install a signed bundle and swap to its release. Raises `ConfigurationError` without a root, and
        `StoreError`."""
        from edge_runtime.update.canary import run_canary
        from edge_runtime.update.sideload import Sideload

        setup = self._setup
        if setup.root is None:
            raise ConfigurationError("there is no root metadata to trust a bundle by: give EdgeRuntime.open its root")
        with self._open_mutex():
            self.settle()
            sideload = Sideload(
                store=self.store,
                device=setup.device,
                model=setup.model,
                root=setup.root,
                engines=setup.engines,
                clock=setup.clock,
                try_out=run_canary,
            )
            result = sideload.install(path)
            if self._updater is not None:
                self._updater.recheck()
            self._note(result.outcome, result.release, result.detail)
            self._follow(self._plan())
            return result

    def report(self) -> bool:
        """Post outcomes and counters; whether the server took them. A device that is to enrol does so first, and keeps
        its reports until then. Raises `ConfigurationError` without a server."""
        server = self._server("to report to")
        with self._open_mutex():
            self.settle()
            self._move_counters()
            loaded, plan = self.loaded, self._plan()
            session = None if loaded is None else loaded.session
            client = self._http()
        if not self._enrolled(client):
            return False
        posted = self._outcomes.post(
            client,
            server,
            self._setup.by,
            running=None if loaded is None or session is None else loaded.release,
            plan=plan,
            engine=None if session is None else session.engine.name,
        )
        if posted is Posted.REFUSED:
            _log.warning("the server refused the outcome report for good; what it counted is lost")
        return posted is Posted.ACCEPTED

    @property
    def report_error(self) -> str | None:
        """Why the server did not take the last report; None where it did, or none was sent."""
        enroller = self._setup.enroller
        if enroller is not None and enroller.record.state != "enrolled":
            why = enroller.record.detail or "it has not asked yet"
            return f"this device is not enrolled: {why}; the report is kept"
        return self._outcomes.problem

    @property
    def enrolment(self) -> Record | None:
        """None where the device does not enrol."""
        return None if self._setup.enroller is None else self._setup.enroller.record

    def upload_telemetry(self) -> int:
        """Send the reports of days that are over, and keep what was counted today; returns how many the server took.
        Raises `ConfigurationError` without a server, and `StoreError`."""
        from edge_runtime.telemetry.upload import upload

        server = self._server("to send telemetry to")
        sent, waits = 0, self._setup.waits
        for day in self.spool.waiting():
            try:
                with self._open_mutex():
                    client = self._http()
                if waits.left_s(Purpose.TELEMETRY) > 0 or not self._enrolled(client):
                    break
                slow_down = partial(waits.asked, Purpose.TELEMETRY)
                if not upload(self.spool.report(day), client, server, self._setup.by, slow_down):
                    break  # not reachable now; the next upload goes on here
                sent += 1
            except ReportError as error:
                _log.warning("telemetry of day %d is dropped: %s", day, error)
            self.spool.drop(day)
        self.spool.save()
        return sent

    def stop(self) -> None:
        """From any thread: end a download that is under way, so that `close` need not wait for it."""
        if self._updater is not None:
            self._updater.stop()

    def close(self) -> None:
        """Keep what was counted and end the trial's start in order. Raises `StoreError`."""
        with self._mutex:
            try:
                self.settle()
                self._move_counters()
                self.spool.save()
                self.store.ended_cleanly()
            finally:
                self._closed = True
                if self._client is not None:
                    self._client.close()
                if self._updater is not None:
                    self._updater.close()
                if self.loaded is not None and self.loaded.session is not None:
                    self.loaded.session.close()

    def totals(self) -> dict[tuple[int, Arm], Totals]:
        """Counters since the runtime was opened, by release and arm. Without the mutex, which a download holds for as
        long as it takes: the list is a copy, made at once."""
        return {key: counters.totals() for key, counters in list(self._counters.items())}

    @contextmanager
    def _open_mutex(self) -> Iterator[None]:
        with self._mutex:
            if self._closed:
                raise RuntimeClosed("this EdgeRuntime was closed; open another one")
            yield

    def _load(self, plan: Plan | None) -> Loaded | None:
        """The active release, ready to answer; None where there is none."""
        setup = self._setup
        found = load_active(self.store, setup.model, self._note, threads=setup.threads, interpreters=setup.interpreters)
        return None if found is None else self._loaded(*found, plan)

    def _loaded(self, slot: Slot, session: Session | None, plan: Plan | None) -> Loaded:
        setup, which = self._setup, arm(plan, self._setup.device.id, slot.release)
        return make_loaded(
            session,
            slot.manifest,
            slot.artifact,
            arm=which,
            policy=setup.policy,
            counters=self._counters.setdefault((slot.release, which), Counters()),
            recorder=self.spool.recorder(slot.release, slot.artifact, _ARMS[which]),
        )

    def _follow(self, plan: Plan | None) -> None:
        """Make ``loaded`` what the store and the plan say; requests that are under way finish with what they have."""
        loaded, state = self.loaded, self.store.slots
        wanted = None if state.active is None or state.disabled else state.active
        if wanted is None:
            if loaded is not None and loaded.session is not None:
                self.loaded = replace(loaded, session=None)
            return
        runs = loaded is not None and loaded.session is not None and loaded.release == wanted.release
        if loaded is None or not runs or loaded.artifact.file != wanted.artifact:
            fresh = self._load(plan)
            if fresh is not None:
                self.loaded = fresh
            elif loaded is not None:
                self.loaded = replace(loaded, session=None)
            return
        which = arm(plan, self._setup.device.id, loaded.release)
        if which != loaded.arm:
            self.loaded = replace(
                loaded,
                arm=which,
                counters=self._counters.setdefault((loaded.release, which), Counters()),
                recorder=self.spool.recorder(loaded.release, loaded.artifact, _ARMS[which]),
            )

    def _move_counters(self) -> None:
        """Hand what was counted since the last time over to the outcome reports."""
        for key, counters in self._counters.items():
            now, before = counters.totals(), self._counted.get(key)
            delta = _delta(key, now, before)
            if delta.requests:
                self._outcomes.count(delta)
            self._counted[key] = now

    def _note(self, outcome: Outcome, release: int | None, detail: str) -> None:
        self._outcomes.record(outcome, release, detail)
        self._log(outcome, release, detail)

    @staticmethod
    def _log(outcome: Outcome, release: int | None, detail: str) -> None:
        if outcome is Outcome.CLOCK_WRONG:
            _log.warning("%s: %s", outcome.value, detail)
        elif outcome is not Outcome.UNCHANGED:
            _log.info("%s: release %s: %s", outcome.value, release, detail)

    def _plan(self) -> Plan | None:
        return None if self._updater is None else self._updater.plan

    def _enrolled(self, client: httpx.Client) -> bool:
        """Whether this device may send."""
        return self._setup.enroller is None or self._setup.enroller.ready(client)

    def _server(self, purpose: str) -> str:
        if self._setup.server is None:
            raise ConfigurationError(f"there is no server {purpose}: give EdgeRuntime.open one")
        return self._setup.server

    def _http(self) -> httpx.Client:
        if self._client is None:
            self._client = self._setup.http()
        return self._client


def _delta(key: tuple[int, Arm], now: Totals, before: Totals | None) -> CounterDelta:
    def added(name: str) -> int:
        value: int = getattr(now, name)
        return value if before is None else value - int(getattr(before, name))

    def bins(after: Sequence[int], earlier: Sequence[int] | None) -> dict[int, int]:
        start = [0] * len(after) if earlier is None else earlier
        return {at: a - b for at, (a, b) in enumerate(zip(after, start, strict=True)) if a > b}

    return CounterDelta(
        release=key[0],
        arm=key[1],
        requests=added("requests"),
        errors=added("errors"),
        fallbacks=added("fallbacks"),
        refused=added("refused"),
        latency_device=bins(now.latency_device, None if before is None else before.latency_device),
        latency_cloud=bins(now.latency_cloud, None if before is None else before.latency_cloud),
    )
