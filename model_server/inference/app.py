"""The Open Inference Protocol endpoint as a bare ASGI app: everything under ``/v2``.

It is no FastAPI application, because its bodies are tensors and its errors are the protocol's: ``{"error": …}`` with
a status from `_STATUSES`, not problem details.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edge_runtime.bundle.errors import EdgeshipError
from model_server.errors import (
    BodyTooLarge,
    Forbidden,
    MalformedRequest,
    MethodRefused,
    ModelUnavailable,
    NotFound,
    QueueFull,
    Unauthorized,
)
from model_server.inference.engine import PLATFORM, ServedModel
from model_server.inference.protocol import HEADER_LENGTH, Limits, TensorSpec
from model_server.inference.repository import Repository
from model_server.web import answer_of

__all__ = ["InferenceApp", "create_inference_app"]

Scope = Any  # what ASGI passes: MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
# Takes the Authorization header, answers who it is; raises Unauthorized, or answers None, to refuse.
Authorize = Callable[[str | None], str | None]

_STATUSES: Mapping[type[EdgeshipError], int] = {
    MalformedRequest: 400,
    Unauthorized: 401,
    Forbidden: 403,
    NotFound: 404,
    MethodRefused: 405,
    BodyTooLarge: 413,
    QueueFull: 429,
    ModelUnavailable: 503,
}
_EXTENSIONS = ["binary_tensor_data", "model_repository"]
_SMALL_BODY = 64 * 1024  # of requests that carry no tensors
_WORTH_READING = 2**20
_JSON = b"application/json"
_BINARY = b"application/octet-stream"

Headers = list[tuple[bytes, bytes]]


class _Reply:
    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, body: bytes, headers: Headers) -> None:
        self.status, self.body, self.headers = status, body, headers


def create_inference_app(models_dir: Path, authorize: Authorize, limits: Limits | None = None) -> InferenceApp:
    """The endpoint over ``models_dir/<model>/<version>/model.onnx``. Health needs no authorization; the rest does."""
    return InferenceApp(models_dir, authorize, limits or Limits())


class InferenceApp:
    """An ASGI app for paths that start with ``/v2``. `close` stops its threads."""

    def __init__(self, models_dir: Path, authorize: Authorize, limits: Limits) -> None:
        self._authorize = authorize
        self._limits = limits
        self._repository = Repository(models_dir, lambda name, number, data: ServedModel(name, number, data, limits))

    def close(self) -> None:
        """Stop every model's thread."""
        self._repository.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # lifespan and websockets: nothing here needs them
        body = _Body(scope, receive)
        try:
            reply = await self._answer(scope, body)
        except _Gone:
            return
        except tuple(_STATUSES) as error:
            reply = _refusal(error)
            if body.left_unread:
                reply.headers.append((b"connection", b"close"))  # else uvicorn would go on reading what was refused
        await send(
            {
                "type": "http.response.start",
                "status": reply.status,
                "headers": [*reply.headers, (b"content-length", b"%d" % len(reply.body))],
            }
        )
        await send({"type": "http.response.body", "body": reply.body})

    async def _answer(self, scope: Scope, body: _Body) -> _Reply:
        method: str = scope["method"]
        path: str = scope["path"]
        if path != "/v2" and not path.startswith("/v2/"):
            raise NotFound("the Open Inference Protocol is under /v2")
        parts = path.removeprefix("/v2").strip("/").split("/") if path.strip("/") != "v2" else []
        if parts in (["health", "live"], ["health", "ready"]):
            _allow(method, "GET")
            return _json({parts[1]: True})
        await self._check_caller(body.headers)
        match parts:
            case []:
                _allow(method, "GET")
                return _json({"name": "edgeship", "version": _version(), "extensions": _EXTENSIONS})
            case ["repository", "index"]:
                _allow(method, "POST")
                return _json(await self._index(await body.read(_SMALL_BODY)))
            case ["models", model]:
                return await self._model(method, model, None)
            case ["models", model, "versions", number]:
                return await self._model(method, model, number)
            case ["models", model, "ready"]:
                return await self._ready(method, model, None)
            case ["models", model, "versions", number, "ready"]:
                return await self._ready(method, model, number)
            case ["models", model, "infer"]:
                return await self._infer(method, model, None, body)
            case ["models", model, "versions", number, "infer"]:
                return await self._infer(method, model, number, body)
            case _:
                raise NotFound(f"this server has nothing at {ascii(path)[:200]}")

    async def _check_caller(self, headers: Mapping[bytes, bytes]) -> None:
        given = headers.get(b"authorization")
        if await answer_of(self._authorize, None if given is None else given.decode("latin-1")) is None:
            raise Unauthorized("this needs a device's assertion, or a token: Authorization: Bearer …")

    async def _model(self, method: str, model: str, number: str | None) -> _Reply:
        _allow(method, "GET")
        served = await self._repository.get(model, number)
        return _json(
            {
                "name": model,
                "versions": self._repository.versions(model),
                "platform": PLATFORM,
                "inputs": [_described(spec) for spec in served.inputs],
                "outputs": [_described(spec) for spec in served.outputs],
            }
        )

    async def _ready(self, method: str, model: str, number: str | None) -> _Reply:
        _allow(method, "GET")
        served = await self._repository.get(model, number)
        return _json({"name": model, "version": served.version, "ready": True})

    async def _infer(self, method: str, model: str, number: str | None, body: _Body) -> _Reply:
        _allow(method, "POST")
        if body.headers.get(b"content-encoding", b"identity") != b"identity":
            raise MalformedRequest("compressed requests are not supported by this server")
        await self._repository.get(model, number)  # before the body is read: it may not exist
        data = await body.read(self._limits.max_body_bytes)
        served = await self._repository.get(model, number)  # and it may have been replaced while the body came
        stated = body.headers.get(HEADER_LENGTH.encode())
        answer = await served.infer(data, None if stated is None else stated.decode("latin-1"))
        if answer.header_length is None:
            return _Reply(200, answer.body, [(b"content-type", _JSON)])
        length = (b"Inference-Header-Content-Length", b"%d" % answer.header_length)
        return _Reply(200, answer.body, [(b"content-type", _BINARY), length])

    async def _index(self, body: bytes) -> list[dict[str, str]]:
        ready_only = _ready_only(body)
        index: list[dict[str, str]] = []
        for model in self._repository.models():
            for number in self._repository.versions(model):
                why = await self._repository.state(model, number)
                if why is None:
                    index.append({"name": model, "version": number, "state": "READY", "reason": ""})
                elif not ready_only:
                    index.append({"name": model, "version": number, "state": "UNAVAILABLE", "reason": why})
        return index


class _Gone(Exception):
    """The client went away before its request was complete."""


class _Body:
    """A request's headers, and its body, which is read at most once and never past a limit."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self._receive = receive
        announced = self.headers.get(b"content-length", b"0")
        self._announced = int(announced) if announced.isdigit() and len(announced) < 16 else 0
        self._large = self._announced > _WORTH_READING or b"transfer-encoding" in self.headers
        self._complete = False

    @property
    def left_unread(self) -> bool:
        """Whether the client may still be sending, and more than is worth reading to keep its connection."""
        return self._large and not self._complete

    async def read(self, limit: int) -> bytes:
        """The whole body. Raises `BodyTooLarge`."""
        if self._announced > limit:
            raise BodyTooLarge(f"the body has {self._announced} bytes, and at most {limit} are accepted here")
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            part: bytes = message.get("body", b"")
            size += len(part)
            if size > limit:
                raise BodyTooLarge(f"the body has more than {limit} bytes, which is all that is accepted here")
            parts.append(part)
            if not message.get("more_body", False):
                self._complete = True
                return b"".join(parts)


def _ready_only(body: bytes) -> bool:
    """Of a request to the repository index; clients such as tritonclient send it without a body."""
    if not body.strip():
        return False
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MalformedRequest("the request is not JSON") from error
    ready = asked.get("ready", False) if isinstance(asked, dict) else None
    if not isinstance(ready, bool):
        raise MalformedRequest('the request must be {"ready": true or false}')
    return ready


def _allow(method: str, allowed: str) -> None:
    if method != allowed:
        raise MethodRefused(f"use {allowed} here", allowed=allowed)


def _described(spec: TensorSpec) -> dict[str, object]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def _json(value: object) -> _Reply:
    return _Reply(200, json.dumps(value, separators=(",", ":")).encode(), [(b"content-type", _JSON)])


def _refusal(error: EdgeshipError) -> _Reply:
    status = next(_STATUSES[kind] for kind in type(error).__mro__ if kind in _STATUSES)
    headers: Headers = [(b"content-type", _JSON)]
    if isinstance(error, QueueFull):
        headers.append((b"retry-after", b"%d" % error.retry_after_s))
    if isinstance(error, Unauthorized):
        headers.append((b"www-authenticate", b"Bearer"))
    if isinstance(error, MethodRefused):
        headers.append((b"allow", error.allowed.encode()))
    return _Reply(status, json.dumps({"error": str(error)}).encode(), headers)


def _version() -> str:
    try:
        return version("edgeship")
    except PackageNotFoundError:  # run from a checkout that was not installed
        return "0"
