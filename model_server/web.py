"""The edge of the HTTP API: bodies with caps, callers, and errors as RFC 9457 problems."""

from __future__ import annotations

import hashlib
import logging
import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

import pydantic
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import OperationalError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from edge_runtime.bundle.errors import EdgeshipError
from edge_runtime.enrolment.protocol import is_assertion
from model_server.errors import (
    BodyTooLarge,
    EnrolmentBusy,
    MalformedRequest,
    QueueFull,
    TooManyTries,
)
from model_server.problems import problem, problem_of, storage_error

__all__ = [
    "Authorize",
    "AuthorizeRoute",
    "add_problems",
    "answer_of",
    "caller",
    "capped_body",
    "parse_body",
    "person",
    "route_of",
    "spool_body",
    "spread_s",
]

log = logging.getLogger(__name__)
PROBLEM = "application/problem+json"
# Takes the Authorization header, answers who it is; raises Unauthorized or Forbidden.
Authorize = Callable[[str | None], str]
# The same for a route, as in ``GET /v1/status``, and the header.
AuthorizeRoute = Callable[[str, str | None], str]
Model = TypeVar("Model", bound=pydantic.BaseModel)
Answer = TypeVar("Answer")


async def answer_of(authorize: Callable[[str | None], Answer], authorization: str | None) -> Answer:
    """Ask an `Authorize`, in a thread where it has to look a device up and verify a signature."""
    if is_assertion(authorization):
        return await run_in_threadpool(authorize, authorization)
    return authorize(authorization)


def caller(authorize: Authorize) -> Callable[[Request], Awaitable[str]]:
    """A dependency: the name of the caller, or Unauthorized before anything of the body is read."""

    async def dependency(request: Request) -> str:
        return await answer_of(authorize, request.headers.get("authorization"))

    return dependency


def person(authorize: AuthorizeRoute) -> Callable[[Request], str]:
    """A dependency for routes of people: the name of the caller. In a thread, since the database is asked each time."""

    def dependency(request: Request) -> str:
        return authorize(route_of(request), request.headers.get("authorization"))

    return dependency


def route_of(request: Request) -> str:
    """The route that was matched, as in ``GET /v1/releases/{model}``."""
    return f"{request.method} {request.scope['route'].path}"


def capped_body(limit: int) -> Callable[[Request], Awaitable[bytes]]:
    """A dependency: the whole body, or BodyTooLarge once ``limit`` bytes are passed, without reading on."""

    async def dependency(request: Request) -> bytes:
        pieces: list[bytes] = []
        async for piece in _pieces(request, limit):
            pieces.append(piece)
        return b"".join(pieces)

    return dependency


async def spool_body(request: Request, path: Path, limit: int) -> str:
    """Write the body to ``path``, or raise BodyTooLarge once ``limit`` bytes are passed. Its sha256 in hex."""
    digest = hashlib.sha256()
    with path.open("xb") as file:
        async for piece in _pieces(request, limit):
            file.write(piece)
            digest.update(piece)
    return digest.hexdigest()


def parse_body(model: type[Model], body: bytes) -> Model:
    """Parse and validate a JSON body. Raises MalformedRequest, which names the key path and repeats no content."""
    try:
        return model.model_validate_json(body or b"{}")
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise MalformedRequest(f"{where}: {first['msg']}" if where else str(first["msg"])) from error


def spread_s(least_s: float, share: float = 1.0, uniform: Callable[[float, float], float] = random.uniform) -> int:
    """A Retry-After: whole seconds, ``least_s`` or up to ``share`` more, so that those who are all told to wait now do
    not all come back at once."""
    return math.ceil(least_s * uniform(1.0, 1.0 + share))


def add_problems(app: FastAPI, statuses: Mapping[type[EdgeshipError], int]) -> None:
    """Answer every error with a problem: our own by ``statuses`` (the closest class of an error counts), the
    framework's by its own status. What may be sent again later says when, in Retry-After."""

    async def ours(request: Request, error: Exception) -> JSONResponse:
        found = problem_of(error, statuses)
        if found["status"] >= HTTPStatus.INTERNAL_SERVER_ERROR:
            log.error("%s %s: %s", request.method, request.url.path, error, exc_info=error)
        answer = _answer(found)
        if isinstance(error, EnrolmentBusy | QueueFull):
            answer.headers["retry-after"] = str(spread_s(error.retry_after_s))
        if isinstance(error, BodyTooLarge):
            answer.headers["connection"] = "close"  # else the server would go on reading what it has refused
        if isinstance(error, TooManyTries):
            answer.headers["retry-after"] = str(error.retry_after_s)
        return answer

    async def framework(request: Request, error: Exception) -> JSONResponse:
        status = error.status_code if isinstance(error, HTTPException) else 500
        return _answer(problem(status, HTTPStatus(status).phrase, "HTTPError"))

    async def malformed(request: Request, error: Exception) -> JSONResponse:
        parts = error.errors()[0]["loc"] if isinstance(error, RequestValidationError) else ()
        where = ".".join(str(part) for part in parts)
        detail = f"{where}: not a value that is allowed here"
        return _answer(problem(HTTPStatus.BAD_REQUEST, detail, "MalformedRequest"))

    async def storage(request: Request, error: Exception) -> JSONResponse:
        named = storage_error(error)
        if named is None:
            raise error
        return await ours(request, named)

    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        # The framework logs the traceback and answers with this; what went wrong is nobody's business outside.
        answer = _answer(problem_of(error, statuses))
        answer.headers["connection"] = "close"  # uvicorn drops the connection after a traceback: say so first
        return answer

    app.add_exception_handler(EdgeshipError, ours)
    app.add_exception_handler(HTTPException, framework)
    app.add_exception_handler(RequestValidationError, malformed)
    app.add_exception_handler(OSError, storage)
    app.add_exception_handler(OperationalError, storage)
    app.add_exception_handler(Exception, unexpected)


def _answer(found: Mapping[str, Any]) -> JSONResponse:
    status = found["status"]
    headers = dict(_HEADERS.get(status, {}))
    if status in _COME_BACK_S:
        headers["retry-after"] = str(spread_s(_COME_BACK_S[status]))
    return JSONResponse(dict(found), status_code=status, headers=headers, media_type=PROBLEM)


_HEADERS: Mapping[int, dict[str, str]] = {
    HTTPStatus.UNAUTHORIZED: {"www-authenticate": "Bearer"},
    # Else uvicorn would go on reading the body that was refused.
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: {"connection": "close"},
}
_COME_BACK_S: Mapping[int, float] = {HTTPStatus.TOO_MANY_REQUESTS: 30.0, HTTPStatus.SERVICE_UNAVAILABLE: 30.0}


async def _pieces(request: Request, limit: int) -> AsyncIterator[bytes]:
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced[:20]) > limit:
        raise BodyTooLarge(f"the body has {announced[:20]} bytes; at most {limit} are accepted here")
    received = 0
    try:
        async for piece in request.stream():
            received += len(piece)
            if received > limit:
                raise BodyTooLarge(f"the body has more than {limit} bytes, which is all that is accepted here")
            yield piece
    except ClientDisconnect as gone:  # nobody reads the answer, and the log needs no traceback of it
        raise MalformedRequest("the client went away before its request was complete") from gone
