"""Ask the cloud model, over the Open Inference Protocol. Loaded, with httpx, when a request first goes to the cloud."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np

from edge_runtime.errors import BreakerOpen, CloudRefused, CloudUnreachable
from edge_runtime.hybrid.breaker import Breaker
from edge_runtime.hybrid.deferral import score
from edge_runtime.hybrid.oip import HEADER_LENGTH, InferenceAnswer, decode_answer, encode_binary, encode_json
from edge_runtime.network import bounded, within

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_runtime.authorization import Authorizer
    from edge_runtime.bundle.manifest import Hybrid
    from edge_runtime.hybrid.policy import RoutingPolicy

__all__ = ["CloudAnswer", "CloudClient"]

MAX_ANSWER_BYTES = 16 * 2**20
MAX_CONNECTIONS = 16
# Not a matter of how the tensors are written, so asking again as JSON would not help.
_FINAL = frozenset({401, 403, 404, 408, 429})


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudAnswer:
    """What the cloud said to one example: ``outputs`` by its own names, the winning class of the first output and its
    softmax probability, and who answered, as ``model/release``."""

    outputs: dict[str, NDArray[Any]]
    index: int
    confidence: float
    cloud: str

    def copy(self) -> CloudAnswer:
        """The same answer with arrays of its own."""
        return CloudAnswer(
            outputs={name: array.copy() for name, array in self.outputs.items()},
            index=self.index,
            confidence=self.confidence,
            cloud=self.cloud,
        )


class CloudClient:
    """One endpoint: kept-alive connections, time limits, breaker, and whether it understands binary tensors.

    Thread-safe. ``monotonic`` is in seconds.
    """

    def __init__(
        self,
        url: str,
        by: Authorizer,
        policy: RoutingPolicy,
        breaker: Breaker,
        *,
        http: httpx.Client | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url.rstrip("/")
        self._timeout_s = policy.cloud_timeout_s
        self._connect_s = policy.connect_timeout_s
        self._breaker = breaker
        self._monotonic = monotonic
        self._json_only = False
        self._headers = {"Accept-Encoding": "identity"}  # so that the cap on an answer's size is one on what was sent
        self._by = by
        limits = httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS)
        self._http = http or bounded(httpx.Client(limits=limits, follow_redirects=False))

    def ask(self, hybrid: Hybrid, inputs: Mapping[str, NDArray[Any]], classes: int) -> CloudAnswer:
        """The answer of the newest of ``hybrid.releases`` that the endpoint has; its first output are ``classes``
        logits or log-probabilities. Raises `BreakerOpen`, `CloudRefused` and `CloudUnreachable`."""
        ticket = self._breaker.allow(self._monotonic())
        if ticket is None:
            raise BreakerOpen(f"{self._url} failed too often lately and is not asked for now")
        healthy = False
        try:
            answer = self._newest(hybrid, inputs, classes)
            healthy = True
            return answer
        except CloudRefused as error:
            # A server that says no to this request is up; one that is overloaded or broken needs a rest.
            healthy = error.status < 500 and error.status != 429
            raise
        finally:
            self._breaker.record(ticket, self._monotonic(), ok=healthy)

    def close(self) -> None:
        self._http.close()

    def _newest(self, hybrid: Hybrid, inputs: Mapping[str, NDArray[Any]], classes: int) -> CloudAnswer:
        deadline = self._monotonic() + self._timeout_s
        missing: CloudRefused | None = None
        for release in sorted(hybrid.releases, reverse=True):
            try:
                answer = self._infer(f"{self._url}/v2/models/{hybrid.model}/versions/{release}/infer", inputs, deadline)
                return _scored(answer, hybrid.model, release, classes)
            except CloudRefused as error:
                if error.status != 404:
                    raise
                missing = error
        raise missing or CloudUnreachable(f"the manifest names no release of {hybrid.model}")

    def _infer(self, url: str, inputs: Mapping[str, NDArray[Any]], deadline: float) -> InferenceAnswer:
        if not self._json_only:
            body, header = encode_binary(inputs)
            headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(header)}
            try:
                return self._post(url, body, headers, deadline)
            except CloudRefused as error:
                if not 400 <= error.status < 500 or error.status in _FINAL:
                    raise
        answer = self._post(url, encode_json(inputs), {"Content-Type": "application/json"}, deadline)
        self._json_only = True  # it took as JSON what it refused as binary: do not try that again
        return answer

    def _post(self, url: str, body: bytes, headers: Mapping[str, str], deadline: float) -> InferenceAnswer:
        response, received = self._exchange(url, body, headers, deadline)
        if response.status_code == 401 and self._by.corrected(response.headers):
            response, received = self._exchange(url, body, headers, deadline)
        if response.status_code != 200:
            detail = received[:200].decode(errors="replace")
            raise CloudRefused(response.status_code, f"{url} answered with status {response.status_code}: {detail}")
        return decode_answer(received, response.headers.get(HEADER_LENGTH))

    def _exchange(
        self, url: str, body: bytes, headers: Mapping[str, str], deadline: float
    ) -> tuple[httpx.Response, bytes]:
        left = deadline - self._monotonic()
        if left <= 0:
            raise CloudUnreachable(f"{url}: no time left after the first try")
        timeout = httpx.Timeout(left, connect=min(self._connect_s, left))
        authorization = self._by.header(body)
        more = {} if authorization is None else {"Authorization": authorization}
        try:
            request = self._http.build_request(
                "POST", url, content=body, headers={**self._headers, **headers, **more}, timeout=timeout
            )
            with within(left):
                response = self._http.send(request, stream=True)
                try:
                    received = self._receive(response, deadline)
                finally:
                    response.close()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise CloudUnreachable(f"{url}: {type(error).__name__}: {error}") from error
        return response, received

    def _receive(self, response: httpx.Response, deadline: float) -> bytes:
        received = bytearray()
        for chunk in response.iter_raw():
            received += chunk
            if len(received) > MAX_ANSWER_BYTES:
                raise CloudUnreachable(f"{response.url} sent more than {MAX_ANSWER_BYTES} bytes")
            if self._monotonic() > deadline:
                raise CloudUnreachable(f"{response.url} took longer than {self._timeout_s} s")
        return bytes(received)


def _scored(answer: InferenceAnswer, model: str, release: int, classes: int) -> CloudAnswer:
    """Refuse what is not an answer to one example of ``classes`` classes, and drop the batch axis."""
    if answer.model not in (None, model) or answer.version not in (None, "", str(release)):
        raise CloudUnreachable(f"asked {model} {release}, {answer.model} {answer.version} answered")
    first = next(iter(answer.outputs.values()))
    if first.size != classes or first.dtype.kind != "f":
        raise CloudUnreachable(f"the cloud's first output is {first.dtype}{list(first.shape)}, not {classes} logits")
    scored = score(first.reshape(-1).tolist())
    if scored is None or any(a.dtype.kind == "f" and not np.isfinite(a).all() for a in answer.outputs.values()):
        raise CloudUnreachable("the cloud answered with values that are not finite")
    outputs = {
        name: array[0] if array.ndim > 1 and array.shape[0] == 1 else array for name, array in answer.outputs.items()
    }
    return CloudAnswer(outputs=outputs, index=scored[0], confidence=scored[1], cloud=f"{model}/{release}")
