"""What the signed ceiling of a release holds back, in words for the person who waits. Pure."""

from __future__ import annotations

from datetime import datetime

from edge_runtime.update.plan import ceiling_share
from model_server.quantities import format_ceiling, format_share

__all__ = ["Steps", "ceiling_wait"]

Steps = tuple[tuple[int, int], ...]  # (age in seconds, largest share in parts of `PARTS`)


def ceiling_wait(release: int, ceiling: Steps, published: datetime, share: int, now: datetime) -> str | None:
    """Why devices that a stage of ``share`` selects may stay where they are; None if the ceiling never holds them.

    No device can have seen the release before it was ``published``, so its age since then gives the largest share that
    any device may allow now; one that saw the release later allows less.
    """
    if not ceiling or ceiling[0][1] >= share:
        return None
    allowed = min(share, ceiling_share(ceiling, max(0.0, (now - published).total_seconds())))
    return (
        f"devices that the signed ceiling of release {release} holds back: it lets at most {format_share(allowed)} "
        f"have it now, measured from when each device first saw it ({format_ceiling(ceiling)})"
    )
