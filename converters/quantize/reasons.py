"""Why a search did not reach what was asked for, in one sentence of the report. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from converters.quantize.found import Found, Tried
from edge_runtime.bundle.manifest import Precision

__all__ = ["why_not", "why_nothing"]


def why_not(found: Found, asked: Precision, limit: float, rows: int) -> str:
    """Why the search over ``rows`` held-out rows reached another precision than ``asked``."""
    candidates = [each for each in found.tried if each.precision == asked]
    drops = [each.drop for each in candidates if each.drop is not None]
    if not found.tried[:-1]:
        return f"the model has no weights of convolutions or matrix products to quantize; it stays {found.precision}"
    if not drops:
        return f"{asked} was not possible ({why_nothing(candidates)}); reached {found.precision}"
    early = "".join(f"; the search at {precision} ran out of {what}" for precision, what in found.exhausted.items())
    if min(drops) <= limit:
        return (
            f"the best {asked} loses {min(drops):.4f} on {rows} held-out calibration rows, which is within the limit "
            f"of {limit:g} by less than a standard error; reached {found.precision}, which is well within it "
            f"(without fallback, {asked} stays){early}"
        )
    return (
        f"no {asked} of {len(candidates)} candidates stayed within {limit:g} on {rows} held-out calibration rows "
        f"(the best lost {min(drops):.4f}); reached {found.precision}{early}"
    )


def why_nothing(candidates: Sequence[Tried]) -> str:
    """Why nothing could be made: of several recipes that fail alike, the first one's words."""
    notes = list(dict.fromkeys(each.note for each in candidates if each.note))
    if not notes:
        return "there is no recipe for it"
    return notes[0] + ("; other recipes fail for other reasons" if len(notes) > 1 else "")
