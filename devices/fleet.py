"""A fleet on one machine: each device is a real `EdgeRuntime` with a real updater, in a folder of its own.

Devices are spread over worker processes. A *period* is what a device does between two check-ins: check for an update,
answer some requests, report. Time is not simulated: a period lasts as long as the work in it.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import multiprocessing.connection
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from devices.field import load_field
from devices.profiles import load_profile
from edge_runtime import Device, DeviceState, EdgeRuntime, Enrolment, Factory, InputError, NoAnswer, RoutingPolicy
from edge_runtime.bundle import open_bundle
from edge_runtime.device import Attribute
from edge_runtime.errors import ConfigurationError, EdgeshipError

__all__ = ["DevicePeriod", "Fleet", "FleetOptions", "FleetPeriod"]

Progress = Callable[[int, int], None]  # devices done, devices in all


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetOptions:
    """``engines`` are dealt to the devices in turn: with ``("onnx", "tflite")`` every second one runs LiteRT.

    ``examples`` is an ``.npz`` of one array an input (first axis: example); each device draws ``requests`` of them a
    period. ``static_default`` is the last link of the fallback chain: output name → nested lists.

    Each device enrols with ``enrolment_token``, unless all share the fleet's ``token``.

    With a ``profile`` (a name or a .toml, see `devices.profiles`) every device says that it has that device's arch, os
    and RAM, so that plans and requirements see it so. It still computes here: its latencies are this machine's.
    """

    server: str
    root: Path
    model: str
    state: Path
    factory: Path
    factory_sha256: str
    examples: Path
    enrolment_token: str | None = None
    token: str | None = None
    channel: str = "stable"
    devices: int = 60
    first: int = 0
    requests: int = 30
    engines: tuple[str, ...] = ("onnx", "tflite")
    workers: int = field(default_factory=lambda: min(4, os.cpu_count() or 1))
    commit_after: int = 20
    seed: int = 1
    static_default: dict[str, Any] | None = None
    profile: str | None = None

    def device_ids(self) -> list[str]:
        """The fixed ids of the fleet."""
        return [f"sim-{i:05d}" for i in range(self.first, self.first + self.devices)]


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePeriod:
    """What one device did in one period. ``outcome`` is the update check's `edge_runtime.errors.Outcome` value."""

    device: str
    engine: str
    outcome: str
    release: int | None
    reported: bool
    answers: dict[str, int]  # how many answers came from each source
    reasons: dict[str, int]
    refused: int  # inputs that the runtime does not accept
    unanswered: int  # no link of the fallback chain held
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetPeriod:
    """One period of every device."""

    number: int
    devices: tuple[DevicePeriod, ...]

    @property
    def releases(self) -> dict[int | None, int]:
        """How many devices run each release."""
        return dict(Counter(d.release for d in self.devices))

    @property
    def answers(self) -> int:
        return sum(sum(d.answers.values()) for d in self.devices)


class Fleet:
    """Use as a context manager. `period` runs one period of the whole fleet and returns when every device is done."""

    def __init__(self, options: FleetOptions) -> None:
        if options.devices < 1 or options.workers < 1:
            raise ConfigurationError("A fleet needs at least one device and one worker process.")
        self.options = options
        self._number = 0
        self._workers: list[tuple[Any, Connection, list[tuple[int, str]]]] = []

    def __enter__(self) -> Self:
        self._check_examples()
        claimed = self.claimed()
        # What all of them really run on, and what they say they are.
        here = {**Device.detect(self.options.state / "host").attributes, **claimed}
        context = multiprocessing.get_context("spawn")  # fork would copy threads of engines that are running
        numbered = list(enumerate(self.options.device_ids(), start=self.options.first))
        for w in range(min(self.options.workers, len(numbered))):
            mine = numbered[w :: self.options.workers]
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, self.options, mine, here), daemon=True)
            process.start()
            theirs.close()
            self._workers.append((process, ours, mine))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process, pipe, _ in self._workers:
            with contextlib.suppress(OSError):
                pipe.send(None)
            process.join(timeout=20)
            if process.is_alive():
                process.terminate()
            pipe.close()
        self._workers.clear()

    def claimed(self) -> dict[str, Attribute]:
        """What the devices say they are. Raises `ConfigurationError` where the profile has no engine for the fleet."""
        if self.options.profile is None:
            return {}
        profile = load_profile(self.options.profile)
        if missing := sorted(set(self.options.engines) - set(profile.targets.value)):
            raise ConfigurationError(
                f"The fleet runs {', '.join(self.options.engines)}, but on {profile.title} there is no engine for "
                f"{', '.join(missing)}" + (f": {profile.targets.note}." if profile.targets.note else ".")
            )
        return dict(profile.attributes())

    def _check_examples(self) -> None:
        """An array that is no input of the model would make every request of every device a refused one."""
        manifest = open_bundle(self.options.factory).manifest
        known = {tensor.name for tensor in manifest.inputs}
        if manifest.hybrid is not None:
            known |= {tensor.name for tensor in manifest.hybrid.inputs}
        strange = sorted(set(load_field(self.options.examples).inputs) - known)
        if strange:
            raise ConfigurationError(
                f"{self.options.examples} holds {', '.join(strange)}, but {manifest.model} takes "
                f"{', '.join(sorted(known))}: leave the others out."
            )

    def period(self, progress: Progress | None = None) -> FleetPeriod:
        """Every device checks for an update, answers its requests and reports.

        Raises:
            EdgeshipError: a worker process failed; the text is its error.
        """
        self._number += 1
        for _, pipe, _ in self._workers:
            pipe.send(self._number)
        done: list[DevicePeriod] = []
        for result in self._results():
            done.append(result)
            if progress is not None:
                progress(len(done), self.options.devices)
        done.sort(key=lambda d: d.device)
        return FleetPeriod(number=self._number, devices=tuple(done))

    def _results(self) -> Iterator[DevicePeriod]:
        waiting = {pipe: len(mine) for _, pipe, mine in self._workers}
        while waiting:
            for pipe in multiprocessing.connection.wait(list(waiting)):
                assert isinstance(pipe, Connection)
                try:
                    message = pipe.recv()
                except EOFError:
                    raise EdgeshipError("A worker process of the fleet died; its error is above.") from None
                if isinstance(message, str):
                    raise EdgeshipError(message)
                yield message
                waiting[pipe] -= 1
                if not waiting[pipe]:
                    del waiting[pipe]


def _work(
    pipe: Connection, options: FleetOptions, devices: Sequence[tuple[int, str]], here: dict[str, Attribute]
) -> None:
    """A worker process: opens its devices, then runs a period for each number that comes down the pipe."""
    logging.basicConfig(filename=options.state / "fleet.log", format="%(asctime)s %(name)s: %(message)s")
    runtimes: list[tuple[str, str, EdgeRuntime]] = []
    try:
        examples = load_field(options.examples)
        for i, device_id in devices:
            engine = options.engines[i % len(options.engines)]
            runtime = EdgeRuntime.open(
                options.state / device_id,
                model=options.model,
                root=options.root,
                server=options.server,
                channel=options.channel,
                token=options.token,
                enrolment=None if options.token is not None else Enrolment(token=options.enrolment_token),
                factory=Factory(options.factory, sha256=options.factory_sha256),
                device=Device(id=device_id, attributes={**here, "simulated": True}),
                policy=RoutingPolicy(static_default=options.static_default),
                engines=(engine,),
                commit_after=options.commit_after,
                background=False,
                device_state=DeviceState,  # of a device that does not tell, not of this machine
            )
            runtimes.append((device_id, engine, runtime))
        while (number := pipe.recv()) is not None:
            for device_id, engine, runtime in runtimes:
                requests = examples.draw(device_id, number, options.requests, options.seed)
                pipe.send(_period(device_id, engine, runtime, requests))
    except EdgeshipError as e:
        pipe.send(f"{type(e).__name__}: {e}")
    except (EOFError, KeyboardInterrupt):
        pass  # the parent went away
    finally:
        for device_id, _, runtime in runtimes:
            try:
                runtime.close()
            except EdgeshipError as e:  # the other devices still have to close
                sys.stderr.write(f"{device_id} could not keep what it counted: {e}\n")


def _period(device_id: str, engine: str, runtime: EdgeRuntime, requests: list[dict[str, Any]]) -> DevicePeriod:
    check = runtime.update()
    answers: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    refused = unanswered = 0
    for inputs in requests:
        try:
            prediction = runtime.predict(inputs)
        except InputError:
            refused += 1
        except NoAnswer:
            unanswered += 1
        else:
            answers[prediction.source.value] += 1
            reasons[prediction.reason.value] += 1
    reported = runtime.report()
    return DevicePeriod(
        device=device_id,
        engine=engine,
        outcome=check.outcome.value,
        release=runtime.release,
        reported=reported,
        answers=dict(answers),
        reasons=dict(reasons),
        refused=refused,
        unanswered=unanswered,
        detail=check.detail,
    )
