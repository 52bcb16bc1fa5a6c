"""Rows to metrics. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["ALIKE_BYTES", "MB", "DeltaRow", "Measured", "best_peer", "metrics", "ratio_to_best_peer"]

ALIKE_BYTES = 1024  # a difference that no download shows
FIVE_MB = (4_000_000, 6_000_000)  # bytes of a file that `apply_ms_5mb` is about
MB = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one tool did with one pair of files: bytes of its patch, seconds to make it, the median of milliseconds to
    apply it, and bytes of resident memory that applying took at most beyond what the process had. None, with a
    ``reason``, for a tool that could not; memory is None too where the system does not say."""

    patch_bytes: int | None = None
    make_s: float | None = None
    apply_ms: float | None = None
    peak_bytes: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaRow:
    """One pair of files. ``zstd_bytes`` is the new file compressed alone, at level 19. ``aa_ratio`` is of two medians
    of our own apply, which took turns: this machine's noise."""

    model: str
    target: str
    precision: str
    change: str
    how: str
    old_bytes: int
    new_bytes: int
    zstd_bytes: int
    ours: Measured
    peers: Mapping[str, Measured]
    aa_ratio: float | None = None

    @property
    def extra_mb(self) -> float | None:
        """`apply_extra_mb` of this row."""
        if self.ours.peak_bytes is None:
            return None
        return (self.ours.peak_bytes - self.old_bytes - self.new_bytes) / MB

    def flat(self) -> dict[str, Any]:
        """As the bench's JSON has it: one column for each number of each tool, None where there is none."""
        best = best_peer(self)
        row: dict[str, Any] = {
            "model": self.model,
            "target": self.target,
            "precision": self.precision,
            "change": self.change,
            "how": self.how,
            "full_bytes": self.new_bytes,
            "zstd19_bytes": self.zstd_bytes,
            "ours_bytes": self.ours.patch_bytes,
            **{f"{name}_bytes": peer.patch_bytes for name, peer in self.peers.items()},
            "best_peer": best,
            "ratio_to_best_peer": _rounded(ratio_to_best_peer(self), 4),
            "aa_ratio": _rounded(self.aa_ratio, 3),
            "ours_extra_mb": _rounded(self.extra_mb, 2),
        }
        for name, tool in {"ours": self.ours, **self.peers}.items():
            row |= {
                f"{name}_make_s": _rounded(tool.make_s, 2),
                f"{name}_apply_ms": _rounded(tool.apply_ms, 2),
                f"{name}_peak_mb": None if tool.peak_bytes is None else round(tool.peak_bytes / MB, 2),
            }
        row["reason"] = "; ".join(f"{name} {tool.reason}" for name, tool in self.peers.items() if tool.reason)
        return row


def best_peer(row: DeltaRow) -> str | None:
    """The one with the smallest patch; None where no peer made one."""
    sizes = {name: peer.patch_bytes for name, peer in row.peers.items() if peer.patch_bytes is not None}
    return min(sizes, key=lambda name: sizes[name], default=None)


def ratio_to_best_peer(row: DeltaRow) -> float | None:
    """Bytes of our patch over those of the best peer's, below 1 where ours is smaller; exactly 1 where they differ by
    at most `ALIKE_BYTES`."""
    best = best_peer(row)
    if best is None or row.ours.patch_bytes is None:
        return None
    theirs = row.peers[best].patch_bytes
    assert theirs is not None
    return 1.0 if abs(row.ours.patch_bytes - theirs) <= ALIKE_BYTES else row.ours.patch_bytes / theirs


def metrics(rows: Sequence[DeltaRow]) -> dict[str, float | None]:
    """The three numbers of the bench: the worst row's, except that ``apply_ms_5mb`` is the slowest among the rows of
    a file of 4 to 6 MB. None where no row counts."""
    ratios = [ratio for row in rows if (ratio := ratio_to_best_peer(row)) is not None]
    times = [
        row.ours.apply_ms for row in rows if FIVE_MB[0] <= row.new_bytes <= FIVE_MB[1] and row.ours.apply_ms is not None
    ]
    extras = [row.extra_mb for row in rows if row.extra_mb is not None]
    return {
        "worst_ratio_to_best_peer": _rounded(max(ratios, default=None), 4),
        "apply_ms_5mb": _rounded(max(times, default=None), 1),
        "apply_extra_mb": _rounded(max(extras, default=None), 2),
    }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
