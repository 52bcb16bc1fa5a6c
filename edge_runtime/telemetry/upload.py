"""Send one encoded report. The path is anonymous: the server lets go of who sent it before it reads the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from edge_runtime.authorization import Authorizer, send
from edge_runtime.errors import ReportError

if TYPE_CHECKING:
    import httpx

__all__ = ["upload"]

TIMEOUT_S = 30.0


def upload(
    report: bytes,
    client: httpx.Client,
    server: str,
    by: Authorizer,
    slow_down: Callable[[Mapping[str, str]], object] = lambda headers: None,
) -> bool:
    """POST ``report`` to ``{server}/v1/telemetry``; True when it was taken (or had been before).

    False when the server could not be reached, asks to try later, or does not know who sends: keep the report.
    ``slow_down`` is given the headers of any answer. Raises `ReportError` when the server refuses the report for good:
    drop it.
    """
    import httpx

    try:
        url = f"{server.rstrip('/')}/v1/telemetry"
        response = send(client, url, report, "application/octet-stream", TIMEOUT_S, by)
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError):
        return False
    slow_down(response.headers)
    if response.is_success or response.status_code == 409:
        return True
    if response.status_code in (401, 403, 408, 425, 429) or response.status_code >= 500:
        return False
    raise ReportError(f"the server refused the telemetry report with status {response.status_code}")
