"""How a device says who it is to the server: by a token that it was given, or by signing what it sends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import httpx

__all__ = ["Authorizer", "Bearer", "send"]


class Authorizer(Protocol):
    def header(self, body: bytes) -> str | None:
        """The Authorization header for a request with this body; None for none."""
        ...

    def corrected(self, headers: Mapping[str, str]) -> bool:
        """The answer was 401, with these headers; whether the next `header` may do better."""
        ...

    def unknown(self) -> None:
        """The server that devices enrol at does not know who this is."""
        ...


@dataclass(frozen=True, slots=True)
class Bearer:
    """A token that says who calls, or nobody."""

    token: str | None = field(repr=False)

    def header(self, body: bytes) -> str | None:
        return None if self.token is None else f"Bearer {self.token}"

    def corrected(self, headers: Mapping[str, str]) -> bool:
        return False

    def unknown(self) -> None:
        """A token cannot be mended."""


def send(
    client: httpx.Client, url: str, body: bytes, content_type: str, timeout_s: float, by: Authorizer
) -> httpx.Response:
    """POST ``body``, and once more where the first was refused for a reason that could be mended.

    Raises `httpx.HTTPError`, `httpx.InvalidURL` and `httpx.StreamError`.
    """
    from edge_runtime.network import post

    def once() -> httpx.Response:
        authorization = by.header(body)
        more = {} if authorization is None else {"Authorization": authorization}
        return post(client, url, body, {"Content-Type": content_type, **more}, timeout_s)

    response = once()
    if response.status_code == 401 and by.corrected(response.headers):
        response = once()
    if response.status_code == 401:
        by.unknown()
    return response
