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

    def refused(self, headers: Mapping[str, str]) -> bool:
        """The server answered 401, with these headers; whether another `header` may do better."""
        ...


@dataclass(frozen=True, slots=True)
class Bearer:
    """A token that says who calls, or nobody."""

    token: str | None = field(repr=False)

    def header(self, body: bytes) -> str | None:
        return None if self.token is None else f"Bearer {self.token}"

    def refused(self, headers: Mapping[str, str]) -> bool:
        return False


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
    return once() if response.status_code == 401 and by.refused(response.headers) else response
