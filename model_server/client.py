"""The HTTP client of the command line: JSON in, JSON out, problems as errors."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from model_server.errors import ServerRefused, ServerUnreachable, SettingsError

__all__ = ["Client", "repr_digest"]

TIMEOUT_S = 30.0
UPLOAD_TIMEOUT_S = 600.0
CHUNK_BYTES = 1 << 20
MAX_DOCUMENT_BYTES = 16 << 20


class Client:
    """Talks to one server with one key.

    Every method raises ServerUnreachable (no connection, a time-out, a broken answer) or ServerRefused (a problem,
    with its status).
    """

    def __init__(self, server: str, api_key: str | None, *, transport: httpx.BaseTransport | None = None) -> None:
        """Without a key, only a session can be opened. Raises SettingsError for what is no address or key."""
        if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
            raise SettingsError("the API key holds characters that no key has: copy it whole, and nothing else")
        self.server = server.rstrip("/")
        shown = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
        try:
            self._http = httpx.Client(
                base_url=self.server,
                headers={"user-agent": "edgeship-server-cli"} | shown,
                timeout=TIMEOUT_S,
                transport=transport,
            )
        except httpx.InvalidURL as error:
            raise SettingsError(f"{server} is no address of a server: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def get(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        return self._json(self._send("GET", path, params=params))

    def get_bytes(self, path: str) -> bytes:
        """A document, of at most `MAX_DOCUMENT_BYTES`."""
        data = bytearray()
        with self._stream("GET", path) as response:
            for piece in response.iter_bytes():
                data += piece
                if len(data) > MAX_DOCUMENT_BYTES:
                    raise ServerUnreachable(f"{self.server}{path} has more than {MAX_DOCUMENT_BYTES} bytes")
        return bytes(data)

    def post(self, path: str, body: Mapping[str, object] | None = None) -> Any:
        return self._json(self._send("POST", path, json=dict(body or {})))

    def delete(self, path: str) -> Any:
        return self._json(self._send("DELETE", path))

    def download(self, path: str, out: Path) -> str:
        """A large file, in pieces; its sha256, which is the one that the server states. ``out`` appears whole or not
        at all."""
        part = out.with_name(f".{out.name}.{secrets.token_hex(4)}.part")
        found = hashlib.sha256()
        try:
            with self._stream("GET", path, timeout=UPLOAD_TIMEOUT_S) as response, part.open("xb") as file:
                for piece in response.iter_bytes():
                    found.update(piece)
                    file.write(piece)
                stated = response.headers.get("repr-digest")
            if stated != repr_digest(found.hexdigest()):
                raise ServerUnreachable(f"{self.server}{path} came damaged: its sha256 is {found.hexdigest()}")
            part.replace(out)
        finally:
            part.unlink(missing_ok=True)
        return found.hexdigest()

    def upload(self, path: str, file: Path, params: Mapping[str, str], sent: Callable[[int], None]) -> Any:
        """POST a file's bytes in pieces. ``sent`` hears how many are on their way."""

        def pieces() -> Iterator[bytes]:
            with file.open("rb") as stream:
                while piece := stream.read(CHUNK_BYTES):
                    yield piece
                    sent(stream.tell())

        headers = {"content-type": "application/octet-stream", "content-length": str(file.stat().st_size)}
        return self._json(
            self._send("POST", path, params=params, content=pieces(), headers=headers, timeout=UPLOAD_TIMEOUT_S)
        )

    @contextmanager
    def _stream(self, method: str, path: str, **options: Any) -> Iterator[httpx.Response]:
        try:
            with self._http.stream(method, path, **options) as response:
                if not response.is_success:
                    response.read()
                    raise _refused(method, path, response)
                yield response
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServerUnreachable(f"{method} {self.server}{path}: {error or type(error).__name__}") from error

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **options)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServerUnreachable(f"{method} {self.server}{path}: {error or type(error).__name__}") from error
        if response.is_success:
            return response
        raise _refused(method, path, response)

    def _json(self, response: httpx.Response) -> Any:
        if not response.content:
            return None
        try:
            return response.json()
        except ValueError as error:
            raise ServerUnreachable(f"{response.request.url} answered with something that is not JSON") from error


def repr_digest(sha256: str) -> str:
    """A sha256 in hex as the header Repr-Digest states it (RFC 9530)."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"


def _refused(method: str, path: str, response: httpx.Response) -> ServerRefused:
    return ServerRefused(response.status_code, f"{method} {path}: {response.status_code} {_problem(response)}")


def _problem(response: httpx.Response) -> str:
    """The text of an RFC 9457 problem, or the start of whatever came instead."""
    try:
        body = response.json()
    except ValueError:
        return response.text[:200]
    if isinstance(body, dict) and isinstance(body.get("detail"), str):
        return str(body["detail"])
    return response.text[:200]
