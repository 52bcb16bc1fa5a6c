"""What a telemetry report must be to be counted: decoded, of an open day, of a layout that a release has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta

from edge_runtime.bundle import Manifest
from edge_runtime.errors import ReportError
from edge_runtime.telemetry.layout import Layout
from edge_runtime.telemetry.wire import PrivacyMode, decode_header
from model_server.errors import MalformedRequest, ReportRefused, UnknownLayout, UnknownRelease
from model_server.telemetry.aggregates import Mechanism

__all__ = ["EPOCH", "CohortKey", "Mechanisms", "Submission", "admit"]

EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class CohortKey:
    """Device-days that are summed together. ``layout`` is a layout's digest in hex, ``arm`` a `ReportArm`."""

    day: date
    model: str
    release: int
    layout: str
    arm: int


@dataclass(frozen=True, slots=True)
class Submission:
    """A report that was admitted: its ``histograms`` are still in the wire form, of the mechanism's length."""

    key: CohortKey
    daily_id: bytes
    histograms: bytes
    mechanism: Mechanism


class Mechanisms:
    """The mechanism of each artifact of each release, made once from its manifest."""

    def __init__(self, manifests: Callable[[str, int], Manifest | None]) -> None:
        self._manifests = manifests
        self._of_kind: dict[tuple[str, int], dict[str, Mechanism]] = {}

    def of_release(self, model: str, release: int) -> dict[str, Mechanism]:
        """By artifact kind, such as ``onnx/int8``. Raises `UnknownRelease`."""
        known = self._of_kind.get((model, release))
        if known is not None:
            return known
        manifest = self._manifests(model, release)
        if manifest is None:  # not remembered: it may be published later
            raise UnknownRelease(f"{model} has no published release {release}")
        layouts = [Layout.of(artifact) for artifact in manifest.artifacts]
        found = {layout.kind: Mechanism(layout, has_labels=bool(manifest.labels)) for layout in layouts}
        self._of_kind[model, release] = found
        return found

    def by_digest(self, model: str, release: int, digest: str) -> Mechanism:
        """The mechanism of a layout's digest in hex. Raises `UnknownRelease` or `UnknownLayout`."""
        for mechanism in self.of_release(model, release).values():
            if mechanism.layout.digest.hex() == digest:
                return mechanism
        raise UnknownLayout(f"{model} {release} has no artifact with telemetry layout {digest}")


def admit(data: bytes, today: date, late_days: int, mechanisms: Mechanisms) -> Submission:
    """Check everything about a report that can be said without the others.

    Raises `MalformedRequest`, `ReportRefused`, `UnknownRelease` or `UnknownLayout`.
    """
    try:
        header, digest, start = decode_header(data)
    except ReportError as error:
        raise MalformedRequest(str(error)) from error
    if header.mode is not PrivacyMode.CENTRAL:
        raise ReportRefused(
            f"the report was made for privacy mode {header.mode.name.lower()}; this version takes central only"
        )
    latest = (today - EPOCH).days
    if not latest - late_days <= header.day <= latest:
        open_days = f"{today - timedelta(days=late_days)} to {today}" if late_days else f"{today}"
        raise ReportRefused(f"the report is of day {header.day} since 1970-01-01; open is {open_days}")
    of_kind = mechanisms.of_release(header.model, header.release)
    mechanism = of_kind.get(header.kind)
    if mechanism is None:
        raise UnknownLayout(f"{header.model} {header.release} has no artifact {header.kind!r}")
    if mechanism.layout.digest != digest:
        raise UnknownLayout(f"the report's histograms are not those of {header.model} {header.release} {header.kind}")
    if len(data) - start != mechanism.report_bytes:
        raise MalformedRequest(f"the report has {len(data)} bytes, not {start + mechanism.report_bytes}")
    return Submission(
        key=CohortKey(
            day=EPOCH + timedelta(days=header.day),
            model=header.model,
            release=header.release,
            layout=digest.hex(),
            arm=int(header.arm),
        ),
        daily_id=header.daily_id,
        histograms=data[start:],
        mechanism=mechanism,
    )
