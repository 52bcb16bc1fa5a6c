"""From noised cohort sums to one fleet-wide day. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edge_runtime.bundle import Artifact, Manifest, class_cells
from edge_runtime.telemetry.layout import CLASSES, CONFIDENCE, Layout
from model_server.telemetry.aggregates import MONITORED_PREFIX, Cohort
from model_server.telemetry.drift import Day

__all__ = ["Monitored", "days_of", "monitored", "pool"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Monitored:
    """A histogram that drift is looked for in. ``reference`` are the training shares, over the first ``cells`` cells
    of ``histogram``; ``predicted`` says that it depends on the release and not on the world alone."""

    name: str
    histogram: str
    cells: int
    reference: tuple[float, ...]
    predicted: bool


def monitored(manifest: Manifest, artifact: Artifact) -> tuple[Monitored, ...]:
    """Features by their name, then ``classes`` and ``confidence`` if the model has labels."""
    reference = artifact.reference
    if reference is None:
        return ()
    features = tuple(
        Monitored(
            name=feature.name,
            histogram=f"{MONITORED_PREFIX}{feature.name}",
            cells=len(feature.shares),
            reference=feature.shares,
            predicted=False,
        )
        for feature in reference.features
    )
    if not manifest.labels:
        return features
    sizes = dict(Layout.of(artifact).histograms)
    return (
        *features,
        Monitored(
            name=CLASSES,
            histogram=CLASSES,
            cells=class_cells(manifest.labels),
            reference=reference.classes,
            predicted=True,
        ),
        Monitored(
            name=CONFIDENCE,
            histogram=CONFIDENCE,
            cells=sizes[CONFIDENCE],
            reference=reference.confidence,
            predicted=True,
        ),
    )


def pool(cohorts: Sequence[Cohort]) -> Cohort | None:
    """The sum of the cohorts of a day that belong together, as noise allows; None without any.

    Each cohort brings its devices and the same noise, so a small one can cost more than it tells. The largest k are
    taken for which weight/√k is largest, judged by the noised weights, which costs no privacy.
    """
    ranked = sorted(cohorts, key=lambda cohort: cohort.weight, reverse=True)
    best, taken, weight = 0.0, 0, 0.0
    for count, cohort in enumerate(ranked, start=1):
        weight += cohort.weight
        if weight / math.sqrt(count) > best:
            best, taken = weight / math.sqrt(count), count
    if not taken:
        return None
    chosen = ranked[:taken]
    return Cohort(
        histograms={
            name: sum((cohort.histograms[name] for cohort in chosen[1:]), start=values)
            for name, values in chosen[0].histograms.items()
        },
        cell_variances={
            name: sum(cohort.cell_variances[name] for cohort in chosen) for name in chosen[0].cell_variances
        },
        weight=sum(cohort.weight for cohort in chosen),
        weight_variance=sum(cohort.weight_variance for cohort in chosen),
        devices=sum(cohort.devices for cohort in chosen),
    )


def days_of(cohort: Cohort, wanted: Sequence[Monitored]) -> dict[str, Day]:
    """What `drift` takes, by the monitored histogram's name."""
    return {
        one.name: Day(
            sums=cohort.histograms[one.histogram][: one.cells],
            weight=cohort.weight,
            cell_variance=cohort.cell_variances[one.histogram],
            weight_variance=cohort.weight_variance,
        )
        for one in wanted
    }
