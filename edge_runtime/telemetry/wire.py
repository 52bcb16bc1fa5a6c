"""The report of one device-day as bytes. Pure; the server decodes with it.

All numbers big-endian::

    "EST1" | mode u8 | arm u8 | release u32 | day u32 | daily id 16 bytes
    | length u8, model name | length u8, artifact kind ("onnx/int8") | layout digest 8 bytes
    | for each histogram of the layout, in its order: shift u8, then one u8 a cell

A cell stands for ``value << shift`` counts: the histogram's counts are rounded to the smallest shift at which the
largest fits a byte. ``day`` counts days since 1970-01-01. Nothing in a report names the device; the daily id is random
and lives one day, so that the server can drop a repeated report. The size is fixed for a layout and model.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from edge_runtime.bundle.errors import InvalidName
from edge_runtime.bundle.names import check_model
from edge_runtime.errors import ReportError
from edge_runtime.telemetry.histograms import Histograms
from edge_runtime.telemetry.layout import Layout

__all__ = [
    "MAX_REPORT_BYTES",
    "PrivacyMode",
    "Report",
    "ReportArm",
    "ReportHeader",
    "decode_header",
    "decode_report",
    "encode_report",
]

MAGIC = b"EST1"
MAX_SHIFT = 24
MAX_REPORT_BYTES = 8192  # far above the 1,100 of 20 features: 64 features fit
_FIXED = struct.Struct(">4sBBII16s")


class PrivacyMode(IntEnum):
    """Under which promise a report is sent."""

    OFF = 0
    PLAIN = 1
    CENTRAL = 2
    LOCAL = 3


class ReportArm(IntEnum):
    """Which arm of a rollout the device was in."""

    NONE = 0
    BASELINE = 1
    CANDIDATE = 2
    HOLDBACK = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportHeader:
    """``day`` = days since 1970-01-01; ``daily_id`` 16 random bytes; ``kind`` ``<target>/<precision>``."""

    mode: PrivacyMode
    arm: ReportArm
    release: int
    day: int
    daily_id: bytes
    model: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A decoded report: counts by histogram name, in the layout's order, rounded as the wire form rounds them."""

    header: ReportHeader
    layout: Layout
    counts: dict[str, tuple[int, ...]]


def encode_report(header: ReportHeader, histograms: Histograms) -> bytes:
    """The wire form. Counts above ``255 << 24`` saturate. Raises `ReportError` for a header that cannot be."""
    _check_header(header)
    layout, counts = histograms.layout, histograms.counts()
    if header.kind != layout.kind:
        raise ReportError(f"the report is of {header.kind}, the layout of {layout.kind}")
    model, kind = header.model.encode(), header.kind.encode()
    parts = [
        _FIXED.pack(MAGIC, header.mode, header.arm, header.release, header.day, header.daily_id),
        bytes([len(model)]),
        model,
        bytes([len(kind)]),
        kind,
        layout.digest,
    ]
    parts += [_pack(counts[name]) for name, _ in layout.histograms]
    return b"".join(parts)


def decode_report(data: bytes, layouts: Callable[[str, int, str], Layout | None]) -> Report:
    """Read an untrusted report strictly: every byte accounted for, one spelling only.

    ``layouts`` maps (model, release, kind) to the layout that the signed manifest gives, None if there is none.
    Raises `ReportError`.
    """
    header, digest, at = decode_header(data)
    model, release, kind = header.model, header.release, header.kind
    layout = layouts(model, release, kind)
    if layout is None:
        raise ReportError(f"no layout is known for {model} {release} {kind}")
    if digest != layout.digest:
        raise ReportError(f"the report's histograms are not those of {model} {release} {kind}")
    if len(data) - at != layout.cells + len(layout.histograms):
        raise ReportError(f"the report has {len(data)} bytes, not {at + layout.cells + len(layout.histograms)}")
    counts: dict[str, tuple[int, ...]] = {}
    for name, cells in layout.histograms:
        counts[name] = _unpack(name, data[at], data[at + 1 : at + 1 + cells])
        at += 1 + cells
    return Report(header=header, layout=layout, counts=counts)


def decode_header(data: bytes) -> tuple[ReportHeader, bytes, int]:
    """The header of an untrusted report, its layout digest, and where the histograms start. Raises `ReportError`.

    For a server that reads the histograms of many reports at once; `decode_report` reads one whole report.
    """
    if len(data) > MAX_REPORT_BYTES:
        raise ReportError(f"a report has at most {MAX_REPORT_BYTES} bytes, not {len(data)}")
    if len(data) < _FIXED.size or data[:4] != MAGIC:
        raise ReportError("not a telemetry report of format EST1")
    _, mode, arm, release, day, daily_id = _FIXED.unpack_from(data)
    model, at = _text(data, _FIXED.size)
    kind, at = _text(data, at)
    try:
        header = ReportHeader(
            mode=PrivacyMode(mode),
            arm=ReportArm(arm),
            release=release,
            day=day,
            daily_id=daily_id,
            model=model,
            kind=kind,
        )
    except ValueError as error:
        raise ReportError(f"the report's header: {error}") from error
    _check_header(header)
    if len(data) < at + 8:
        raise ReportError("the report is truncated")
    return header, data[at : at + 8], at + 8


def _check_header(header: ReportHeader) -> None:
    try:
        check_model(header.model)
    except InvalidName as error:
        raise ReportError(f"the report's model: {error}") from error
    if not 1 <= header.release < 2**31 or not 0 <= header.day < 2**31 or len(header.daily_id) != 16:
        raise ReportError("the report's release, day or daily id is out of range")
    if not 1 <= len(header.kind) <= 64:
        raise ReportError("the report's artifact kind must have 1 to 64 characters")


def _pack(counts: Sequence[int]) -> bytes:
    largest, shift = max(counts), 0
    while largest >> shift > 255 and shift < MAX_SHIFT:
        shift += 1
    half = (1 << shift) >> 1
    return bytes([shift, *(min((count + half) >> shift, 255) for count in counts)])


def _unpack(name: str, shift: int, cells: bytes) -> tuple[int, ...]:
    if shift > MAX_SHIFT or (shift > 0 and max(cells) < 128):
        raise ReportError(f"histogram {name!r}: a shift of {shift} is not the smallest that fits")
    return tuple(cell << shift for cell in cells)


def _text(data: bytes, at: int) -> tuple[str, int]:
    if at >= len(data):
        raise ReportError("the report is truncated")
    end = at + 1 + data[at]
    try:
        return data[at + 1 : end].decode("ascii"), end
    except UnicodeDecodeError as error:
        raise ReportError("the report's names are not ASCII") from error
