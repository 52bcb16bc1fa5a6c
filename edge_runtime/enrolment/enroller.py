"""Enrolling this device, and signing what it sends from then on.

    no key ──► key on the disk ──► asked ──► enrolled ──► signs ──► 401: asks again, with the same key
                                     │
                                     └──► refused: said once; again after an hour, two, … a day

Cut off anywhere, it goes on with the same key, which the server takes for the same device.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from edge_runtime.clock import Clock
from edge_runtime.disk import Disk
from edge_runtime.enrolment.key import DeviceKey, load_key, load_or_make_key
from edge_runtime.enrolment.protocol import (
    SCHEME,
    audience,
    claims,
    signing_input,
    statement,
    to_base64url,
    token_digest,
)
from edge_runtime.enrolment.record import MAX_DETAIL, Record, load_record, save_record
from edge_runtime.errors import StoreError
from edge_runtime.headers import stated_time
from edge_runtime.waits import Purpose, Waits

if TYPE_CHECKING:
    import httpx

__all__ = ["Enroller"]

TIMEOUT_S = 30.0
SAME_TIME_S = 30.0  # a server that is no further off refused for another reason than the time
FIRST_REFUSAL_S, LAST_REFUSAL_S = 3600.0, 86_400.0
FIRST_FAILURE_S, LAST_FAILURE_S = 30.0, 1800.0
# Another try with the same token and key cannot end otherwise until a person does something.
_REFUSED = frozenset({400, 401, 403, 409, 413, 415, 422})

_log = logging.getLogger("edge_runtime")


class Enroller:
    """An `Authorizer` for ``device`` at ``server``, whose repository has the root metadata ``root``. Thread-safe.

    ``refusal`` is told why, when the server does not let this device in.
    """

    def __init__(
        self,
        *,
        folder: Path,
        disk: Disk,
        clock: Clock,
        waits: Waits,
        device: str,
        server: str,
        root: bytes,
        token: str | None,
        refusal: Callable[[str], object],
    ) -> None:
        """Raises `StoreError`."""
        self._folder = folder
        self._disk = disk
        self._clock = clock
        self._waits = waits
        self._server = server.rstrip("/")
        self._token = token
        self._refusal = refusal
        self._off = timedelta(0)  # of the assertions' time from the wall clock
        self._failures = 0  # since the start: what fails again and again is asked ever less often
        self._key: DeviceKey | None = None
        self._mutex = threading.Lock()
        here = Record(device=device, server=self._server, repository=audience(root))
        kept = load_record(disk, folder)
        self._record = here
        if kept is not None and (kept.device, kept.server) == (device, self._server):
            # Not by the repository: the next version of an app may come with its next root.
            self._record = replace(kept, repository=here.repository)
        if self._record.state == "refused" and token is not None and self._record.token != _short(token):
            self._record = here  # another token may be let in
            waits.forget(Purpose.ENROLMENT)

    @property
    def record(self) -> Record:
        return self._record

    def ready(self, client: httpx.Client) -> bool:
        """Whether this device may send: it is enrolled, or has just become so. Raises nothing that the network, the
        server or the disk do."""
        with self._mutex:
            if self._record.state == "enrolled" and self._loaded() is not None:
                return True
            if self._token is None:
                self._record = replace(self._record, state="waiting", detail="no enrolment token was given")
                return False
            if self._waits.left_s(Purpose.ENROLMENT) > 0:
                return False
            try:
                key = self._key = load_or_make_key(self._folder, self._disk)
            except StoreError as error:
                self._failed(f"its key cannot be kept: {error}")
                return False
            return self._ask(client, key, self._token)

    def header(self, body: bytes) -> str | None:
        """An assertion for ``body``; None as long as there is no key."""
        key = self._loaded()
        if key is None:
            return None
        now = self._clock.wall() + self._off
        text = signing_input(claims(self._record.device, self._record.repository, now, body))
        return f"{SCHEME} {text}.{to_base64url(key.sign(text.encode()))}"

    # The next two take no lock: `ready` may hold it for as long as a server takes, and a prediction must not wait.

    def corrected(self, headers: Mapping[str, str]) -> bool:
        """Only the assertions' time follows the server's Date; this device's clock, and what metadata expires by, do
        not."""
        stated, wall = stated_time(headers), self._clock.wall()
        if stated is not None and abs((stated - wall - self._off).total_seconds()) > SAME_TIME_S:
            self._off = stated - wall
            return True
        return False

    def unknown(self) -> None:
        """It asks to be enrolled again, with the same key."""
        if self._record.state == "enrolled" and self._token is not None:
            self._failed("the server does not know what this device signs: it asks to be enrolled again")
            self._record = replace(self._record, state="waiting")

    def _ask(self, client: httpx.Client, key: DeviceKey, token: str) -> bool:
        import httpx

        from edge_runtime.network import exchange

        device = self._record.device
        asked = {
            "token": token,
            "device": device,
            "public_key": to_base64url(key.public),
            "proof": to_base64url(key.sign(statement(token, device, key.public))),
        }
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        body = json.dumps(asked, separators=(",", ":")).encode()
        try:
            response, answer = exchange(client, f"{self._server}/v1/devices", body, headers, TIMEOUT_S)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            self._failed(f"the server did not answer: {error or type(error).__name__}")
            return False
        status = response.status_code
        if response.is_success and _said(answer, "device") == device:
            self._keep(replace(self._record, state="enrolled", detail="", token="", refusals=0))
            _log.info("device %s is enrolled at %s", device, self._server)
            return True
        if status in _REFUSED:
            self._refused(f"it answered {status}: {_said(answer, 'detail') or 'without a word'}", token)
            return False
        self._waits.asked(Purpose.ENROLMENT, response.headers)
        self._failed(f"the server answered {status}" + (" about another device" if response.is_success else ""))
        return False

    def _refused(self, why: str, token: str) -> None:
        why, before = why[:MAX_DETAIL], self._record
        refusals = before.refusals + 1 if before.state == "refused" else 1
        self._keep(replace(before, state="refused", detail=why, token=_short(token), refusals=refusals))
        self._waits.wait(Purpose.ENROLMENT, _back_off(FIRST_REFUSAL_S, LAST_REFUSAL_S, refusals))
        if (before.state, before.detail) != ("refused", why):
            self._refusal(why)

    def _failed(self, why: str) -> None:
        """For now."""
        self._failures += 1
        self._record = replace(self._record, detail=why[:MAX_DETAIL])
        self._waits.wait(Purpose.ENROLMENT, _back_off(FIRST_FAILURE_S, LAST_FAILURE_S, self._failures))

    def _loaded(self) -> DeviceKey | None:
        if self._key is None:
            with contextlib.suppress(StoreError):
                self._key = load_key(self._folder, self._disk)
        return self._key

    def _keep(self, record: Record) -> None:
        self._record = record
        with contextlib.suppress(StoreError):  # then the next process asks again, which costs nothing
            save_record(self._disk, self._folder, record)


def _back_off(first_s: float, last_s: float, times: int) -> float:
    return min(first_s * 2.0 ** min(times - 1, 16), last_s)


def _short(token: str) -> str:
    return token_digest(token)[:12]


def _said(answer: bytes, key: str) -> str | None:
    """A text of the server's answer, as far as it can be shown."""
    try:
        body = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    value = body.get(key) if isinstance(body, dict) else None
    return "".join(c for c in value if c.isprintable()) if isinstance(value, str) else None
