"""From checked inputs to a prediction: gates, the local model, deferral, the cloud, the fallback chain. No I/O but the
cloud call."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_runtime.errors import BreakerOpen, CloudError, CloudRefused, ConfigurationError, InputError, NoAnswer
from edge_runtime.hybrid.breaker import Breaker
from edge_runtime.hybrid.cache import AnswerCache
from edge_runtime.hybrid.chain import first_answer
from edge_runtime.hybrid.policy import Mode, Route, RoutingPolicy, after_local, first
from edge_runtime.inputs import Checked, raise_out_of_range
from edge_runtime.loaded import Failure, Loaded, Local, microseconds_since, run_local, run_rows
from edge_runtime.prediction import REASON_CELLS, Prediction, Reason, Source
from edge_runtime.telemetry.layout import LATENCY_CLOUD, LATENCY_DEVICE, latency_bin, latency_cell

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_runtime.hybrid.client import CloudAnswer, CloudClient

__all__ = ["Answering", "check_static_default"]

_log = logging.getLogger("edge_runtime")


def check_static_default(policy: RoutingPolicy) -> None:
    """Raise `ConfigurationError` for a static default that is no array: found now, not when nothing else answers."""
    for name, value in (policy.static_default or {}).items():
        try:
            array = np.array(value)
        except ValueError as error:
            raise ConfigurationError(f"static_default of output {name!r} is not an array: {error}") from error
        if array.dtype.kind == "O":
            raise ConfigurationError(f"static_default of output {name!r} is not an array of numbers: {value!r}")


class _Request:
    """One request on its way: ``local`` is what the local model said, once it was run, ``local_us`` how long that
    took."""

    __slots__ = ("checked", "loaded", "local", "local_us", "start")

    def __init__(self, loaded: Loaded, checked: Checked, start: float) -> None:
        self.loaded = loaded
        self.checked = checked
        self.start = start
        self.local: Local | Failure | None = None
        self.local_us = 0.0


class Answering:
    """Thread-safe. ``connect`` makes the cloud client when it is first needed; None means that there is no cloud.
    ``milestone`` is called with the number of good local runs after each one of ``milestones``."""

    def __init__(
        self,
        policy: RoutingPolicy,
        connect: Callable[[Breaker], CloudClient] | None,
        *,
        milestones: frozenset[int] = frozenset(),
        milestone: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.policy = policy
        self.breaker = Breaker(policy.breaker)
        self.cache = AnswerCache(policy.cache_bytes, policy.cache_age_s) if policy.cache_bytes else None
        self.last_error: str | None = None
        self._connect = connect
        self._client: CloudClient | None = None
        self._connecting = threading.Lock()
        self._milestones = milestones
        self._milestone = milestone
        self._monotonic = monotonic

    def close(self) -> None:
        """Close the connection to the cloud; nobody may be predicting."""
        if self._client is not None:
            self._client.close()

    def one(self, loaded: Loaded, inputs: Mapping[str, NDArray[Any]], start: float) -> Prediction:
        """Answer one example; ``start`` is when the call began, by `time.perf_counter`."""
        request = _Request(loaded, self._checked(loaded, inputs), start)
        route = self._first(request)
        if route.to == "device" and loaded.session is not None:
            request.local = run_local(loaded, loaded.session, request.checked.local)
            request.local_us = microseconds_since(start)
        return self._finish(request, route)

    def many(self, loaded: Loaded, batch: Sequence[Mapping[str, NDArray[Any]]], start: float) -> list[Prediction]:
        """Answer examples together. One that is refused raises before anything is run."""
        requests = []
        for at, inputs in enumerate(batch):
            try:
                checked = self._checked(loaded, inputs)
            except InputError as error:
                raise type(error)(f"example {at}, counted from 0: {error}") from error
            requests.append(_Request(loaded, checked, start))
        routes = [self._first(request) for request in requests]
        at_home = [request for request, route in zip(requests, routes, strict=True) if route.to == "device"]
        if at_home and loaded.session is not None:
            answers = run_rows(loaded, loaded.session, [request.checked.local for request in at_home])
            share_us = microseconds_since(start) / len(at_home)
            for request, answer in zip(at_home, answers, strict=True):
                request.local, request.local_us = answer, share_us
        return [self._finish(request, route) for request, route in zip(requests, routes, strict=True)]

    def without_model(self, start: float) -> Prediction | None:
        """The answer of a device that has no release at all: the static default, if the policy has one."""
        default = self.policy.static_default
        if default is None:
            return None
        output = {name: np.array(value) for name, value in default.items()}  # `check_static_default` tried that
        return Prediction(
            output=output,
            label=None,
            index=None,
            confidence=None,
            source=Source.DEFAULT,
            reason=Reason.NO_LOCAL_MODEL,
            release=None,
            cloud=None,
            degraded=True,
            latency_us=microseconds_since(start),
        )

    def _checked(self, loaded: Loaded, inputs: Mapping[str, NDArray[Any]]) -> Checked:
        try:
            checked = loaded.check.example(inputs)
            if checked.out_of_range:
                if self.policy.out_of_range == "refuse":
                    raise_out_of_range(checked)
                if self.policy.out_of_range == "accept":
                    loaded.counters.accept_out_of_range()
        except InputError as error:
            loaded.refuse(error)
            raise
        return checked

    def _first(self, request: _Request) -> Route:
        return first(
            self.policy,
            local=request.loaded.session is not None,
            cloud=self._connect is not None and request.checked.cloud is not None,
            out_of_range=bool(request.checked.out_of_range),
            size=request.checked.bytes,
        )

    def _finish(self, request: _Request, route: Route) -> Prediction:
        """Everything after the local run, or instead of it."""
        local = request.local
        cloud = self._connect is not None and request.checked.cloud is not None
        if type(local) is Local:
            threshold = request.loaded.threshold
            route = after_local(self.policy, cloud=cloud, confidence=local.confidence, threshold=threshold)
            if route.to == "device":
                return self._device(request, local, route.reason, degraded=False)
        elif type(local) is Failure:
            self._note(local.text)
            asks = cloud and self.policy.mode is not Mode.ONLY_ON_DEVICE
            route = Route("cloud" if asks else "chain", local.reason)
        if route.to != "cloud":
            return self._chain(request, route.reason, None)
        asked = self._ask(request)
        if isinstance(asked, CloudError):
            return self._chain(request, _reason(asked), asked)
        answer, cloud_us = asked
        return self._from_cloud(request, answer, Source.CLOUD, route.reason, cloud_us)

    def _chain(self, request: _Request, reason: Reason, refused: CloudError | None) -> Prediction:
        """Cache, the device's own answer marked as degraded, the static default. ``refused``: the cloud was asked."""
        why = f"the cloud was not asked ({reason.value})" if refused is None else f"cloud: {refused}"
        links: list[tuple[str, Callable[[], Prediction | str]]] = [
            ("device", lambda: self._on_device(request, reason)),
            ("static default", lambda: self._default(request, reason)),
        ]
        if refused is not None:
            links.insert(0, ("cache", lambda: self._cached(request, reason)))
        try:
            return first_answer(why, links)
        except NoAnswer:
            request.loaded.counters.fail(failed=type(request.local) is Failure)
            raise

    def _cached(self, request: _Request, reason: Reason) -> Prediction | str:
        cloud = request.checked.cloud
        if self.cache is None or cloud is None:
            return "switched off"
        answer = self.cache.get(self.cache.key(request.loaded.release, cloud), self._monotonic())
        return "no answer is kept" if answer is None else self._from_cloud(request, answer, Source.CACHE, reason, None)

    def _on_device(self, request: _Request, reason: Reason) -> Prediction | str:
        loaded, local = request.loaded, request.checked.local
        if request.local is None:
            complete = len(local) == len(loaded.manifest.inputs)
            if loaded.session is None:
                return "there is no local model to run"
            if self.policy.mode is Mode.ONLY_IN_CLOUD:
                return f"mode {self.policy.mode.value} forbids the local model"
            if not complete:
                return "the local model's inputs were not all given"
            began = time.perf_counter()
            request.local = run_local(loaded, loaded.session, local)
            request.local_us = microseconds_since(began)
        if isinstance(request.local, Failure):
            self._note(request.local.text)
            return request.local.text
        return self._device(request, request.local, reason, degraded=True)

    def _device(self, request: _Request, local: Local, reason: Reason, *, degraded: bool) -> Prediction:
        self._count(request, Source.DEVICE, reason, local.winner, local.confidence, None)
        return _prediction(
            request, local.outputs, local.winner, local.confidence, Source.DEVICE, reason, degraded=degraded
        )

    def _from_cloud(
        self, request: _Request, answer: CloudAnswer, source: Source, reason: Reason, cloud_us: float | None
    ) -> Prediction:
        self._count(request, source, reason, answer.index, answer.confidence, cloud_us)
        outputs, scores = dict(answer.outputs), request.loaded.first
        if scores not in outputs:
            # Whoever answers, an app finds the scores under the name that the manifest gives them.
            outputs = {scores: outputs.pop(next(iter(outputs))), **outputs}
        return _prediction(request, outputs, answer.index, answer.confidence, source, reason, cloud=answer.cloud)

    def _default(self, request: _Request, reason: Reason) -> Prediction | str:
        default, loaded = self.policy.static_default, request.loaded
        if default is None:
            return "the policy has none"
        dtypes = {spec.name: spec.dtype for spec in loaded.manifest.outputs}
        try:
            output = {name: np.array(value, dtype=dtypes.get(name)) for name, value in default.items()}
        except (ValueError, TypeError, OverflowError) as error:
            return f"the policy's is not of the model's dtype: {error}"
        scores = output.get(loaded.first)
        winner = None
        if loaded.decides and scores is not None and scores.size == len(loaded.labels):
            winner = int(scores.argmax())
        self._count(request, Source.DEFAULT, reason, winner, None, None)
        return _prediction(request, output, winner, None, Source.DEFAULT, reason, degraded=True)

    def _ask(self, request: _Request) -> tuple[CloudAnswer, float] | CloudError:
        """The cloud's answer and how long it took, in microseconds; or why there is none."""
        loaded, inputs = request.loaded, request.checked.cloud
        hybrid = loaded.manifest.hybrid
        if hybrid is None or inputs is None or self._connect is None:
            raise TypeError("asked the cloud without a cloud model, its inputs or an endpoint")
        began = time.perf_counter()
        try:
            answer = self._connected(self._connect).ask(hybrid, inputs, len(loaded.labels))
        except CloudError as error:
            if not isinstance(error, BreakerOpen):
                self._note(str(error))
            return error
        if self.cache is not None:
            self.cache.put(self.cache.key(loaded.release, inputs), answer, self._monotonic())
        return answer, microseconds_since(began)

    def _connected(self, connect: Callable[[Breaker], CloudClient]) -> CloudClient:
        if self._client is None:
            with self._connecting:
                if self._client is None:
                    self._client = connect(self.breaker)
        return self._client

    def _count(
        self,
        request: _Request,
        source: Source,
        reason: Reason,
        winner: int | None,
        confidence: float | None,
        cloud_us: float | None,
    ) -> None:
        loaded, local = request.loaded, request.local
        cell = REASON_CELLS[reason]
        device_bin = latency_bin(request.local_us) if type(local) is Local else None
        cloud_bin = None if cloud_us is None else latency_bin(cloud_us)
        good = loaded.counters.answered(source, cell, device_bin, cloud_bin, type(local) is Failure)
        if good in self._milestones:
            self._milestone()
        if loaded.recorder is not None:
            inputs = request.checked.local
            loaded.recorder.histograms.observe(
                inputs if loaded.batched else {name: array[np.newaxis] for name, array in inputs.items()},
                winner,
                confidence,
                cell,
                None if device_bin is None else latency_cell(LATENCY_DEVICE, device_bin),
                None if cloud_bin is None else latency_cell(LATENCY_CLOUD, cloud_bin),
            )

    def _note(self, text: str) -> None:
        """Log an error the first time that it is this one; a model that fails always would fill the log."""
        if text != self.last_error:
            self.last_error = text
            _log.warning("%s", text)


def _prediction(
    request: _Request,
    output: dict[str, NDArray[Any]],
    winner: int | None,
    confidence: float | None,
    source: Source,
    reason: Reason,
    *,
    cloud: str | None = None,
    degraded: bool = False,
) -> Prediction:
    loaded = request.loaded
    return Prediction(
        output=output,
        label=None if winner is None else loaded.labels[winner],
        index=winner,
        confidence=confidence,
        source=source,
        reason=reason,
        release=loaded.release,
        cloud=cloud,
        degraded=degraded,
        latency_us=microseconds_since(request.start),
    )


def _reason(error: CloudError) -> Reason:
    if isinstance(error, BreakerOpen):
        return Reason.BREAKER_OPEN
    return Reason.CLOUD_REFUSED if isinstance(error, CloudRefused) else Reason.CLOUD_UNREACHABLE
