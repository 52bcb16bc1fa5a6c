"""A field baseline: approved by a named person, frozen, kept as JSON. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np

from model_server.telemetry.drift import Baseline, Day, DriftSettings, effect_size, freeze
from model_server.telemetry.pooling import Monitored

__all__ = ["Frozen", "from_document", "make_baseline", "to_document"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """``days`` are those that were judged and used, ``devices`` their device-days together (noised), ``releases``
    those whose predictions are part of it. ``training_gap`` is how far training lies from the field, as effect sizes.
    ``unsteady`` names histograms whose tolerance is larger than was asked, since the approved days differ."""

    histograms: dict[str, Baseline]
    days: tuple[date, ...]
    devices: int
    releases: tuple[int, ...]
    training_gap: dict[str, float]
    unsteady: tuple[str, ...]


def make_baseline(
    days: Mapping[date, Mapping[str, Day]],
    wanted: Sequence[Monitored],
    releases: Sequence[int],
    devices: int,
    settings: DriftSettings,
) -> Frozen:
    """Freeze what ``days`` show of each monitored histogram; one that no day shows is left out."""
    histograms: dict[str, Baseline] = {}
    gap: dict[str, float] = {}
    unsteady: list[str] = []
    for one in wanted:
        shown = [day[one.name] for day in days.values() if one.name in day]
        if not shown:
            continue
        frozen = freeze(shown, settings)
        histograms[one.name] = frozen
        gap[one.name] = effect_size(frozen.shares, np.array(one.reference), settings)
        if frozen.tolerance > frozen.asked(settings) * (1 + 1e-9):
            unsteady.append(one.name)
    return Frozen(
        histograms=histograms,
        days=tuple(sorted(days)),
        devices=devices,
        releases=tuple(sorted(releases)),
        training_gap=gap,
        unsteady=tuple(unsteady),
    )


def to_document(frozen: Frozen) -> str:
    """JSON, as stored."""
    return json.dumps(
        {
            "histograms": {
                name: {
                    "shares": baseline.shares.tolist(),
                    "tolerance": baseline.tolerance,
                    "privacy_error": baseline.privacy_error,
                }
                for name, baseline in frozen.histograms.items()
            },
            "days": [day.isoformat() for day in frozen.days],
            "devices": frozen.devices,
            "releases": frozen.releases,
            "training_gap": frozen.training_gap,
            "unsteady": frozen.unsteady,
        },
        sort_keys=True,
        allow_nan=False,
    )


def from_document(document: str) -> Frozen:
    """The inverse of `to_document`, for what this server stored."""
    stored: dict[str, Any] = json.loads(document)
    return Frozen(
        histograms={
            name: Baseline(
                shares=np.array(one["shares"], np.float64),
                tolerance=one["tolerance"],
                privacy_error=one["privacy_error"],
            )
            for name, one in stored["histograms"].items()
        },
        days=tuple(date.fromisoformat(day) for day in stored["days"]),
        devices=stored["devices"],
        releases=tuple(stored["releases"]),
        training_gap=stored["training_gap"],
        unsteady=tuple(stored["unsteady"]),
    )
