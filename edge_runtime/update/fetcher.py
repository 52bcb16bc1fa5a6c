"""Bytes over HTTP, counted and bounded: for TUF's metadata and for the small documents and large files it signs.

Whatever the network or the server does ends in an `UpdateError`.
"""

from __future__ import annotations

import ssl
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import httpx

from edge_runtime.clock import Clock
from edge_runtime.errors import Outcome, UpdateError
from edge_runtime.headers import stated_time
from edge_runtime.network import bounded, within

__all__ = ["Answer", "ServerAnswered", "TooLarge", "Transport", "default_client"]

# Slower than this over a whole file is as bad as not answering, and otherwise a server could hold a device for ever.
MINIMUM_BYTES_PER_S = 1024
GRACE_S = 60.0
MAX_DRAINED_BYTES = 9999
MAX_ETAG = 1024


class ServerAnswered(UpdateError):
    """The server answered with an error status, kept in ``status``."""

    def __init__(self, status: int, url: str) -> None:
        super().__init__(
            Outcome.SERVER_UNREACHABLE, f"the server answered {status} for {url}: check the server address"
        )
        self.status = status


class TooLarge(UpdateError):
    """The server sent more than the signed metadata, or a cap, allows."""

    def __init__(self, url: str, limit: int) -> None:
        super().__init__(Outcome.VERIFICATION_FAILED, f"the server sent more than the {limit} bytes allowed for {url}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer in memory: ``status`` 200 or 304, its ``etag`` or None, and the decoded body."""

    status: int
    etag: str | None
    body: bytes


def default_client(server: str) -> httpx.Client:
    """An HTTP client for ``server`` with bounded waits. Redirects are not followed: an address is given, not found."""
    timeout = httpx.Timeout(30.0, connect=10.0)
    if server.startswith("http://"):
        # Loading the trusted certificates takes longer than a check; a context that trusts nobody needs none.
        return bounded(httpx.Client(timeout=timeout, verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)))
    return bounded(httpx.Client(timeout=timeout))


class Transport:
    """GET requests of one updater. ``requests`` and ``received`` (body bytes as they came over the network) only grow.
    ``clock_off_s``: how far the wall clock was ahead of the Date in the last answer, in seconds; None without one.

    The client is made at the first request and kept for the next, so that a check is one request on an open connection.
    ``slow_down`` is given the headers of an answer that asks to come back later.
    """

    def __init__(
        self,
        client: Callable[[], httpx.Client],
        clock: Clock,
        slow_down: Callable[[Mapping[str, str]], object] = lambda headers: None,
    ) -> None:
        self._make = client
        self._slow_down = slow_down
        self._client: httpx.Client | None = None
        self._clock = clock
        self.requests = 0
        self.received = 0
        self.clock_off_s: float | None = None

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    @contextmanager
    def get(self, url: str, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        """An answer whose body is not read yet. Raises `UpdateError`, also for what goes wrong while it is read."""
        try:
            if self._client is None:
                self._client = self._make()
            self.requests += 1
            with ExitStack() as closing:
                with within(GRACE_S):  # the head; `chunks` bounds the body
                    response = closing.enter_context(self._client.stream("GET", url, headers=dict(headers)))
                stated = stated_time(response.headers)
                if stated is not None:
                    self.clock_off_s = (self._clock.wall() - stated).total_seconds()
                if response.status_code in (429, 503):
                    self._slow_down(response.headers)
                yield response
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise UpdateError(
                Outcome.SERVER_UNREACHABLE, f"{url}: {type(error).__name__} {error}; the next check tries again"
            ) from error

    def chunks(self, response: httpx.Response, expected: int) -> Iterator[bytes]:
        """The body as it comes, without decoding. Raises `UpdateError` if the server takes far too long over
        ``expected`` bytes; what the caller does between two chunks takes none of its time."""
        deadline = self._clock.boot() + GRACE_S + expected / MINIMUM_BYTES_PER_S
        chunks = response.iter_raw()  # as received: a chunk size would wait for a trickle to fill it
        while True:
            with within(GRACE_S):  # a body may come as framing alone, in which there is never a chunk
                chunk = next(chunks, None)
            if chunk is None:
                return
            self.received += len(chunk)
            came = self._clock.boot()
            late = came > deadline
            yield chunk
            deadline += self._clock.boot() - came
            if late:
                raise UpdateError(
                    Outcome.SERVER_UNREACHABLE, f"{response.url} came too slowly; the next check tries again"
                )

    def fetch(self, url: str, limit: int, headers: Mapping[str, str] | None = None) -> Answer:
        """A whole small file of at most ``limit`` bytes, compressed on the way where the server can.

        Raises `ServerAnswered` for a status other than 200 and 304, `TooLarge`, and `UpdateError`.
        """
        with self.get(url, {"Accept-Encoding": "gzip", **(headers or {})}) as response:
            if response.status_code == 200:
                body = self._body(response, url, limit)
            else:
                self._drain(response)
                body = b""
            if response.status_code not in (200, 304):
                raise ServerAnswered(response.status_code, url)
            return Answer(status=response.status_code, etag=_etag(response), body=body)

    def _drain(self, response: httpx.Response) -> None:
        """Read a short answer that nobody needs to its end, so that its connection can be used again."""
        stated = "0" if response.status_code == 304 else response.headers.get("Content-Length", "")
        if not (stated.isdecimal() and len(stated) <= len(str(MAX_DRAINED_BYTES))):
            return
        drained = 0
        for chunk in self.chunks(response, MAX_DRAINED_BYTES):
            drained += len(chunk)
            if drained > MAX_DRAINED_BYTES:
                return

    def _body(self, response: httpx.Response, url: str, limit: int) -> bytes:
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("identity", "gzip"):
            raise UpdateError(Outcome.SERVER_UNREACHABLE, f"{url} came in the encoding {encoding!a}, not gzip")
        # Not httpx's decoder: it inflates a chunk whole, and 64 KiB of gzip can hold 64 MiB.
        inflate = zlib.decompressobj(wbits=31) if encoding == "gzip" else None
        body = bytearray()
        travelled = 0
        for chunk in self.chunks(response, limit):
            travelled += len(chunk)
            if travelled > limit + limit // 64 + 1024:  # gzip may hold nothing, for ever; a little is its own overhead
                raise TooLarge(url, limit)
            if inflate is None:
                body += chunk
            else:
                try:
                    body += inflate.decompress(chunk, limit + 1 - len(body))
                except zlib.error as error:
                    raise UpdateError(Outcome.SERVER_UNREACHABLE, f"{url} came as damaged gzip: {error}") from error
            if len(body) > limit:
                raise TooLarge(url, limit)
        if inflate is not None and not inflate.eof:
            raise UpdateError(Outcome.SERVER_UNREACHABLE, f"{url} came as gzip that ends too early")
        return bytes(body)


def _etag(response: httpx.Response) -> str | None:
    """The answer's ETag, unless it is one that could not be kept or sent back."""
    etag = response.headers.get("ETag", "")
    return etag if etag.isascii() and 0 < len(etag) <= MAX_ETAG else None
