"""The report's plots, as SVG text that stands in the page itself."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

INK, BLUE, ORANGE, GREEN, RED, GREY = "#1d2733", "#2563a8", "#d97a1d", "#2f8f5b", "#c0392b", "#9aa5b1"


def rollout(samples: Sequence[Mapping[str, Any]], events: Sequence[Mapping[str, Any]]) -> str:
    """How many devices run each release over time. ``samples``: ``{"seconds", "releases": {release: devices}}``;
    ``events``: ``{"seconds", "label"}``."""
    figure, axes = _figure(8.6, 3.4)
    releases = sorted({release for sample in samples for release in sample["releases"]})
    seconds = [sample["seconds"] for sample in samples]
    for release, colour in zip(releases, (GREY, BLUE, RED, GREEN), strict=False):
        counts = [sample["releases"].get(release, 0) for sample in samples]
        axes.step(seconds, counts, where="post", color=colour, linewidth=2, label=f"release {release}")
        axes.plot(seconds, counts, "o", color=colour, markersize=3.5)
    top = axes.get_ylim()[1]
    for i, event in enumerate(events):
        axes.axvline(event["seconds"], color=INK, linewidth=0.7, linestyle=":")
        axes.text(event["seconds"], top * (1.02 + 0.07 * (i % 3)), event["label"], fontsize=7, ha="left")
    axes.set_xlabel("seconds since the fleet was switched on")
    axes.set_ylabel("devices")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.set_xlim(left=0)
    return _svg(figure)


def hybrid(curves: Sequence[Mapping[str, Any]], points: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy against the share of requests sent to the cloud. ``curves``: ``{"label", "share", "accuracy"}``;
    ``points``: ``{"label", "share", "accuracy"}``, measured through `predict`."""
    figure, axes = _figure(5.6, 3.4)
    for curve, colour in zip(curves, (BLUE, ORANGE, GREEN), strict=False):
        axes.plot(curve["share"], curve["accuracy"], color=colour, linewidth=1.6, label=curve["label"])
    for point, colour in zip(points, (BLUE, ORANGE, GREEN), strict=False):
        axes.plot([point["share"]], [point["accuracy"]], "o", color=colour, markersize=7)
    axes.set_xlabel("share of requests sent to the cloud (dots: τ as shipped, through predict)")
    axes.set_ylabel("accuracy, unseen subjects")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return _svg(figure)


def drift(days: Sequence[Mapping[str, Any]], tolerance: float, turned_on: int, approved_on: int) -> str:
    """The drift statistic of every feature, day by day. ``days``: ``{"day", "statistic": {feature: value}}``."""
    figure, axes = _figure(8.6, 3.4)
    names = sorted({name for day in days for name in day["statistic"]})
    last = {name: next((d["statistic"][name] for d in reversed(days) if name in d["statistic"]), 0.0) for name in names}
    loud = sorted(names, key=lambda name: -last[name])[:3]
    for name in names:
        xs = [d["day"] for d in days if name in d["statistic"]]
        ys = [d["statistic"][name] for d in days if name in d["statistic"]]
        strong = name in loud
        colour = (RED, ORANGE, BLUE)[loud.index(name)] if strong else GREY
        axes.plot(
            xs, ys, color=colour, linewidth=1.8 if strong else 0.7, label=name if strong else None, marker="o", ms=2.5
        )
    axes.axhline(tolerance, color=INK, linewidth=0.8, linestyle="--")
    axes.text(approved_on, tolerance * 1.25, "tolerance", fontsize=7)
    axes.axvline(turned_on - 0.5, color=RED, linewidth=0.8, linestyle=":")
    axes.set_yscale("symlog", linthresh=tolerance)  # below the tolerance noise goes both ways around 0
    axes.text(turned_on - 0.6, axes.get_ylim()[1] * 0.5, "watches turned", fontsize=7, color=RED, ha="right")
    axes.set_xlabel("simulated day")
    axes.set_ylabel("PSI against the approved baseline,\nprivacy noise taken out")
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    return _svg(figure)


def artifacts(rows: Sequence[Mapping[str, Any]]) -> str:
    """Size of every artifact as a bar, its accuracy beside it."""
    figure, axes = _figure(5.6, 3.0)
    for at, row in enumerate(reversed(rows)):
        size = row["bytes"] / 1000
        axes.barh(at, size, color=BLUE if row["precision"] == "int8" else GREY, height=0.62)
        axes.text(size + 1, at, f"{size:.0f} kB, {100 * row['test_accuracy']:.1f} %", fontsize=8, va="center")
    axes.set_yticks(range(len(rows)), [f"{row['target']} {row['precision']}" for row in reversed(rows)])
    axes.margins(x=0.28)
    axes.set_xlabel("kB; beside it the accuracy on unseen subjects")
    return _svg(figure)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # without pyplot there is no global state and no window

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    return figure, axes


def _svg(figure: Any) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
