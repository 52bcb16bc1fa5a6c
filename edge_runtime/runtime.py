"""EdgeRuntime: what an app embeds.

Nothing here imports NumPy or an engine before `EdgeRuntime.open`; httpx and tuf load with the first update, report,
upload or cloud call.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from edge_runtime.errors import ConfigurationError, InvalidName, NoModel, Outcome, RuntimeClosed, WrongInputs
from edge_runtime.hybrid.policy import Mode, RoutingPolicy

if TYPE_CHECKING:
    import httpx
    from numpy.typing import NDArray

    from edge_runtime.answering import Answering
    from edge_runtime.authorization import Authorizer
    from edge_runtime.background import Background
    from edge_runtime.clock import Clock
    from edge_runtime.device import Device
    from edge_runtime.device_state import DeviceState
    from edge_runtime.disk import Disk
    from edge_runtime.enrolment.options import Enrolment
    from edge_runtime.factory import Factory
    from edge_runtime.hybrid.breaker import Breaker
    from edge_runtime.hybrid.client import CloudClient
    from edge_runtime.outcomes import Outcomes
    from edge_runtime.prediction import Prediction
    from edge_runtime.telemetry.wire import PrivacyMode
    from edge_runtime.update.conditions import UpdateRules
    from edge_runtime.update.sideload import Sideloaded
    from edge_runtime.update.updater import CheckResult
    from edge_runtime.upkeep import Upkeep

__all__ = ["EdgeRuntime"]

SECONDS_A_DAY = 86_400

_log = logging.getLogger("edge_runtime")


class EdgeRuntime:
    """One model on one device. Thread-safe. Open it with `open`, and `close` it or use it as a context manager."""

    def __init__(self, upkeep: Upkeep, answering: Answering, background: Background | None, device: Device) -> None:
        """For `open`."""
        self._upkeep = upkeep
        self._answering = answering
        self._background = background
        self._device = device
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._running = 0
        self._closed = False

    @classmethod
    def open(
        cls,
        state: str | PathLike[str],
        *,
        model: str,
        root: bytes | str | PathLike[str] | None = None,
        server: str | None = None,
        channel: str = "stable",
        factory: Factory | None = None,
        policy: RoutingPolicy | None = None,
        token: str | None = None,
        enrolment: Enrolment | None = None,
        device: Device | None = None,
        engines: Sequence[str] = ("onnx", "tflite"),
        cloud: str | None = None,
        cloud_token: str | None = None,
        telemetry: Literal["central", "plain", "off"] = "central",
        threads: int = 1,
        interpreters: int = 1,
        commit_after: int = 20,
        background: bool = True,
        update_interval_s: float = 1800.0,
        updates: UpdateRules | None = None,
        device_state: Callable[[], DeviceState] | None = None,
        http: Callable[[], httpx.Client] | None = None,
        clock: Clock | None = None,
        disk: Disk | None = None,
    ) -> EdgeRuntime:
        """Open the state folder and load the release in it, or the factory bundle's.

        ``root`` is TUF's root metadata (its bytes, or a path) that updates and signed bundles are trusted by;
        ``server`` the base URL for updates and reports. With ``enrolment`` this device makes a key of its own, enrols,
        and signs what it sends; reports wait until it has. ``token`` is one that a whole fleet shares, for servers that
        still take it. ``cloud`` is the base URL of an Open Inference Protocol endpoint, by default the server.
        ``engines`` are the artifact targets to choose from, best first, when a release is installed; one that is
        installed keeps its artifact. ``telemetry`` is the privacy mode; ``plain`` is for fleets without personal data.
        ``threads`` may be used by one run of the engine;
        ``interpreters`` bounds the copies of a model that a non-re-entrant engine makes for concurrent calls. A new
        release is committed after ``commit_after`` good predictions. With ``background``, a thread checks for updates
        and reports every ``update_interval_s``, starting after the first prediction; without it, call `update`,
        `report` and `upload_telemetry`. ``updates`` are the rules for metered networks, maintenance windows, battery
        and bandwidth; ``device_state`` says what they are about, called in the thread of a check, by default
        `device_state.sample`, which Linux answers. ``http``, ``clock`` and ``disk`` are for tests.

        Raises `ConfigurationError`, `NoModel`, `StoreLocked` and other `StoreError`, and for the factory bundle
        `BundleError`, `UpdateError` where no artifact fits this device, and `EngineError`.
        """
        from edge_runtime.answering import Answering, check_static_default
        from edge_runtime.authorization import Bearer
        from edge_runtime.background import Background
        from edge_runtime.bundle import check_channel, check_model
        from edge_runtime.clock import SystemClock
        from edge_runtime.device import Device
        from edge_runtime.device_state import sample
        from edge_runtime.enrolment.enroller import Enroller
        from edge_runtime.outcomes import Outcomes
        from edge_runtime.store import Store
        from edge_runtime.telemetry.spool import Spool
        from edge_runtime.update.updater import Updater
        from edge_runtime.upkeep import Setup, Upkeep
        from edge_runtime.waits import Waits

        policy = policy or RoutingPolicy()
        cloud = cloud or server
        try:
            check_model(model)
            check_channel(channel)
        except InvalidName as error:
            raise ConfigurationError(str(error)) from error
        _check_options(policy, cloud, engines, threads, interpreters, commit_after, update_interval_s)
        _check_addresses(server=server, cloud=cloud)
        _check_tokens(token=token, cloud_token=cloud_token, enrolment=None if enrolment is None else enrolment.token)
        _check_enrolment(enrolment, token, server)
        check_static_default(policy)
        mode = _privacy_mode(telemetry)
        trusted = _root_bytes(root, server)
        folder, clock = Path(state), clock or SystemClock()

        def today() -> int:
            return int(clock.wall().timestamp() // SECONDS_A_DAY)

        def connect(breaker: Breaker) -> CloudClient:
            from edge_runtime.hybrid.client import CloudClient

            return CloudClient(cloud or "", by if cloud_token is None else Bearer(cloud_token), policy, breaker)

        with ExitStack() as undo:
            store = Store(folder, disk=disk)
            undo.callback(store.close)
            device = device or Device.detect(folder, disk=disk)
            waits = Waits(folder, store.disk, clock)
            outcomes = Outcomes(
                folder, device=device, model=model, channel=channel, disk=disk, clock=clock, waits=waits
            )
            by: Authorizer = Bearer(token)
            enroller = None
            if enrolment is not None and server is not None and trusted is not None:
                by = enroller = Enroller(
                    folder=folder if enrolment.folder is None else Path(enrolment.folder),
                    disk=store.disk,
                    clock=clock,
                    waits=waits,
                    device=device.id,
                    server=server,
                    root=trusted,
                    token=enrolment.token,
                    refusal=partial(_turned_away, outcomes),
                )
            spool = Spool(folder / "telemetry", store.disk, model=model, mode=mode, today=today)
            updater = None
            if server is not None and trusted is not None:
                updater = Updater(
                    store=store,
                    device=device,
                    model=model,
                    channel=channel,
                    root=trusted,
                    server=server,
                    engines=engines,
                    http=http,
                    clock=clock,
                    rules=updates,
                    state=device_state or sample,
                    longest_s=update_interval_s,
                    waits=waits,
                )
            setup = Setup(
                model=model,
                device=device,
                engines=tuple(engines),
                policy=policy,
                factory=factory,
                root=trusted,
                server=server,
                by=by,
                enroller=enroller,
                waits=waits,
                threads=threads,
                interpreters=interpreters,
                commit_after=commit_after,
                http=http or _http_client,
                clock=clock,
            )
            upkeep = Upkeep(setup, store, outcomes, spool, updater)
            upkeep.open()
            worker = None
            if background:
                chores: list[Callable[[], object]] = []
                if server is not None:
                    chores = [upkeep.update, upkeep.report, upkeep.upload_telemetry]
                if enroller is not None:
                    chores.insert(0, upkeep.enrol)
                worker = Background(upkeep.settle, chores, interval_s=update_interval_s)
            answering = Answering(
                policy,
                None if cloud is None else connect,
                milestones=frozenset({1, commit_after}),
                milestone=worker.wake if worker is not None else _nothing,
            )
            undo.pop_all()
        runtime = cls(upkeep, answering, worker, device)
        if worker is not None:
            worker.start()
            if upkeep.loaded is None:
                worker.wake()  # no prediction will come before there is a model
        return runtime

    def predict(self, inputs: Mapping[str, NDArray[Any]]) -> Prediction:
        """Answer one example. ``inputs`` map the manifest's input names to arrays of exactly its dtype and shape, with
        or without the batch axis; the cloud model's inputs may be added.

        No I/O unless the cloud is asked. Raises `InputError` for inputs that are refused, `NoAnswer` where every link
        of the fallback chain failed, `NoModel` where there is no release yet, and `RuntimeClosed`.
        """
        start = time.perf_counter()
        with self._lock:
            if self._closed:
                raise _closed()
            self._running += 1
        try:
            loaded = self._upkeep.loaded
            if loaded is None:
                return self._without_model(start)
            return self._answering.one(loaded, inputs, start)
        finally:
            self._leave()

    async def apredict(self, inputs: Mapping[str, NDArray[Any]]) -> Prediction:
        """`predict` in a thread, for apps that run an event loop."""
        import asyncio

        return await asyncio.to_thread(self.predict, inputs)

    def predict_batch(self, batch: Sequence[Mapping[str, NDArray[Any]]]) -> list[Prediction]:
        """Answer many examples, all with the same release, in one run of the engine where it has a batch axis.

        Each is answered as `predict` would. One that is refused raises its `InputError`, which says which one it was,
        before anything is run.
        """
        if isinstance(batch, Mapping):
            raise WrongInputs("predict_batch takes a list of mappings, one an example; for one mapping call predict")
        start = time.perf_counter()
        with self._lock:
            if self._closed:
                raise _closed()
            self._running += 1
        try:
            loaded = self._upkeep.loaded
            if loaded is None:
                return [self._without_model(start) for _ in batch]
            return self._answering.many(loaded, batch, start)
        finally:
            self._leave()

    def update(self) -> CheckResult:
        """Check for an update now, and use the release that the plan asks for. What goes wrong with the check is an
        `Outcome` of the result; so is a rule that holds a download back. One that takes longer than
        ``update_interval_s`` goes on at the next call. Raises `ConfigurationError` without a server, `StoreError` and
        `RuntimeClosed`."""
        self._check_open()
        return self._upkeep.update()

    def enrol(self) -> bool:
        """Enrol this device now; whether it is enrolled. Reports and uploads do so by themselves; an app without a
        background thread calls this before it asks the cloud. `stats` says why not. Raises `ConfigurationError` where
        `open` was given no enrolment."""
        self._check_open()
        return self._upkeep.enrol()

    def install_bundle(self, path: str | PathLike[str]) -> Sideloaded:
        """Install a release from a bundle that the server exported, without a network, and use it. It is verified from
        the root that `open` was given, and goes on trial as a downloaded one does; the next `update` follows the
        channel's plan again. What is wrong with the bundle is an `Outcome` of the result. Raises `ConfigurationError`
        without a root, `StoreError` and `RuntimeClosed`."""
        self._check_open()
        return self._upkeep.install_bundle(path)

    def report(self) -> bool:
        """Send outcomes and counters to the server now; whether it took them. They are kept until it does, or
        refuses them for good, which is logged."""
        self._check_open()
        return self._upkeep.report()

    def telemetry_report(self, day: int | None = None) -> bytes:
        """The encoded report of ``day`` (days since 1970-01-01), by default today's so far. Raises `ReportError`."""
        self._check_open()
        spool = self._upkeep.spool
        return spool.report(spool.today if day is None else day)

    def upload_telemetry(self) -> int:
        """Send the telemetry of days that are over; returns how many reports the server took."""
        self._check_open()
        return self._upkeep.upload_telemetry()

    @property
    def release(self) -> int | None:
        """The release that answers on this device now; None where there is none, or it is switched off."""
        loaded = self._upkeep.loaded
        return None if loaded is None or loaded.session is None else loaded.release

    @property
    def device(self) -> Device:
        return self._device

    def stats(self) -> dict[str, Any]:
        """Counters, latencies and the last errors, as plain values that JSON can hold."""
        from edge_runtime.summary import summary

        return summary(self._upkeep, self._answering, self._background, self._device)

    def close(self) -> None:
        """Wait for predictions under way and for an update step that is running, then keep what was counted. A download
        stops at its next chunk; the next `open` goes on with it. Closing twice is fine. Raises `StoreError` where it
        could not be kept; the folder is released in any case."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        with ExitStack() as last:
            last.callback(self._upkeep.store.close)
            self._upkeep.stop()
            if self._background is not None:
                self._background.stop()
            with self._lock:
                while self._running:
                    self._idle.wait()
            last.callback(self._answering.close)
            self._upkeep.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _leave(self) -> None:
        with self._lock:
            self._running -= 1
            if self._closed and not self._running:
                self._idle.notify_all()

    def _check_open(self) -> None:
        if self._closed:
            raise _closed()

    def _without_model(self, start: float) -> Prediction:
        answer = self._answering.without_model(start)
        if answer is None:
            raise NoModel(
                "no release is installed yet: call update, install a bundle, or give EdgeRuntime.open a factory one"
            )
        return answer


def _check_options(
    policy: RoutingPolicy,
    cloud: str | None,
    engines: Sequence[str],
    threads: int,
    interpreters: int,
    commit_after: int,
    update_interval_s: float,
) -> None:
    if cloud is None and policy.mode in (Mode.PREFER_IN_CLOUD, Mode.ONLY_IN_CLOUD):
        raise ConfigurationError(
            f"mode {policy.mode.value} needs a cloud endpoint: give EdgeRuntime.open cloud or server"
        )
    unknown = [name for name in engines if name not in ("onnx", "tflite")]
    if unknown or not engines or isinstance(engines, str):
        raise ConfigurationError(f"engines must be some of onnx and tflite, not {engines!r}")
    if min(threads, interpreters, commit_after) < 1 or not update_interval_s > 0:
        raise ConfigurationError("threads, interpreters, commit_after and update_interval_s must be positive")


def _check_addresses(**addresses: str | None) -> None:
    for name, address in addresses.items():
        if address is not None and not address.startswith(("http://", "https://")):
            raise ConfigurationError(f"{name} {address!a} is not an address like https://models.example.com")


def _check_tokens(**tokens: str | None) -> None:
    for name, token in tokens.items():
        if token is not None and not (token.isascii() and token.isprintable()):
            raise ConfigurationError(f"{name} must be printable ASCII on one line; the one given is not")


def _turned_away(outcomes: Outcomes, why: str) -> None:
    _log.warning("the server does not let this device in; it goes on asking, ever less often: %s", why)
    outcomes.record(Outcome.ENROLMENT_REFUSED, None, why)


def _check_enrolment(enrolment: Enrolment | None, token: str | None, server: str | None) -> None:
    if enrolment is None:
        return
    from edge_runtime.enrolment.key import check_available

    if token is not None:
        raise ConfigurationError("give EdgeRuntime.open token or enrolment: a device that enrols signs what it sends")
    if server is None:
        raise ConfigurationError("enrolment needs a server, and its root metadata")
    check_available()


def _privacy_mode(telemetry: str) -> PrivacyMode:
    from edge_runtime.telemetry.wire import PrivacyMode

    if telemetry == "local":
        raise ConfigurationError("telemetry mode local is not in this version; use central, plain or off")
    if telemetry not in ("central", "plain", "off"):
        raise ConfigurationError(f"telemetry must be central, plain or off, not {telemetry!r}")
    return PrivacyMode[telemetry.upper()]


def _root_bytes(root: bytes | str | PathLike[str] | None, server: str | None) -> bytes | None:
    if root is None:
        if server is not None:
            raise ConfigurationError(
                "a server needs root metadata to be trusted by: give EdgeRuntime.open its root.json"
            )
        return None
    if isinstance(root, bytes):
        return root
    try:
        return Path(root).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read the root metadata {root}: {error.strerror}") from error


def _http_client() -> httpx.Client:
    import httpx

    from edge_runtime.network import bounded

    return bounded(httpx.Client(timeout=httpx.Timeout(30.0, connect=10.0)))


def _closed() -> RuntimeClosed:
    return RuntimeClosed("this EdgeRuntime was closed; open another one")


def _nothing() -> None:
    """For a runtime without a background thread."""
