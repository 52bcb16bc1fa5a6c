"""Who may use the endpoints for devices: enrolled ones by what they sign, others by the fleet's or a person's key.

A captured assertion must not carry another body. The name of the caller is known before the body is read; `SignedBody`
then lets no body end that is not the one that was signed, whichever endpoint reads it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_runtime.enrolment.protocol import audience, is_assertion
from model_server.clock import Clock
from model_server.enrolment.assertions import claimed_body, verify
from model_server.enrolment.devices import Devices
from model_server.errors import Forbidden, Unauthorized
from model_server.signing.repository import Repository

__all__ = ["DEVICE", "FLEET", "Audiences", "DeviceGate", "SignedBody"]

DEVICE = "device:"
FLEET = "fleet:"
Authorize = Callable[[str | None], str]


class Audiences:
    """The names of this server's repository: one for each version of its root, since a device is pinned to the one that
    was current when its app was built."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._known: frozenset[str] = frozenset()

    def has(self, name: str) -> bool:
        if name not in self._known:  # a root that is newer than this process's last look
            self._known = frozenset(audience(root) for root in self._repository.root_versions())
        return name in self._known


class DeviceGate:
    """An `Authorize`: the name of the caller, as in ``device:watch-7``, ``fleet:fleet`` or ``person:alice``. ``others``
    name those who sign nothing; the fleet's token is let in where ``fleet_token`` says so."""

    def __init__(
        self, devices: Devices, audiences: Audiences, clock: Clock, others: Authorize, *, fleet_token: bool
    ) -> None:
        self._devices = devices
        self._audiences = audiences
        self._clock = clock
        self._others = others
        self._fleet_token = fleet_token

    def __call__(self, authorization: str | None) -> str:
        """Raises Unauthorized or Forbidden, DeviceNotEnrolled, DeviceRevoked."""
        if not is_assertion(authorization):
            name = self._others(authorization)
            if name.startswith(FLEET) and not self._fleet_token:
                raise Forbidden("the fleet's token is not taken here any more: devices enrol with keys of their own")
            return name
        assertion = (authorization or "").partition(" ")[2].strip()
        device, _ = verify(assertion, self._devices.key_of, self._audiences.has, self._clock.now())
        return DEVICE + device

    def check_reporter(self, caller: str, device: str) -> None:
        """A device reports for itself, and one that has enrolled does so by its own key only. Raises Forbidden."""
        if caller.startswith(DEVICE) and caller != DEVICE + device:
            raise Forbidden("a device cannot report for another one")
        if caller.startswith(FLEET) and self._devices.has(device):
            raise Forbidden("this device has enrolled: the fleet's token cannot report for it any more")


class SignedBody:
    """ASGI middleware: a request with an assertion has the body that the assertion states, or Unauthorized is raised in
    place of its last piece. Whether the assertion is good is for the gate to say."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"]
            if any(is_assertion(each) for each in given):
                # With two, the one that is compared here need not be the one that the endpoint verifies.
                stated = claimed_body(given[0].partition(" ")[2].strip()) if len(given) == 1 else None
                receive = _compared(receive, stated)
        await self._app(scope, receive, send)


def _compared(receive: Receive, stated: str | None) -> Receive:
    digest = hashlib.sha256()

    async def wrapped() -> Message:
        message = await receive()
        if message["type"] == "http.request":
            digest.update(message.get("body", b""))
            if not message.get("more_body", False) and digest.hexdigest() != stated:
                raise Unauthorized("the assertion was signed for another body")
        return message

    return wrapped
