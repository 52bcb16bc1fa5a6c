"""Send one encoded report. The path is anonymous: no device id, and a fleet token that all devices share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_runtime.errors import ReportError

if TYPE_CHECKING:
    import httpx

__all__ = ["upload"]

TIMEOUT_S = 30.0


def upload(report: bytes, client: httpx.Client, server: str, token: str | None) -> bool:
    """POST ``report`` to ``{server}/v1/telemetry``; True when it was taken (or had been before).

    False when the server could not be reached or asks to try later: keep the report. Raises `ReportError` when the
    server refuses the report for good: drop it.
    """
    import httpx

    from edge_runtime.network import post

    headers = {"Content-Type": "application/octet-stream"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    try:
        response = post(client, f"{server.rstrip('/')}/v1/telemetry", report, headers, TIMEOUT_S)
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError):
        return False
    if response.is_success or response.status_code == 409:
        return True
    if response.status_code in (408, 425, 429) or response.status_code >= 500:
        return False
    raise ReportError(f"the server refused the telemetry report with status {response.status_code}")
