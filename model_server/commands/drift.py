"""Drift for people: the verdict and an approval. Programs use ``--json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape

from model_server.commands.show import table

__all__ = ["show_approval", "show_drift"]

SHOWN_DAYS = 14  # the newest ones; --json has all


def show_drift(console: Console, verdict: Mapping[str, Any]) -> None:
    model, baseline, days = verdict["model"], verdict["baseline"], verdict["days"]
    if not baseline["approved"]:
        console.print(f"{model}: no baseline is approved. Any drift stays unseen until one is:")
        console.print(f"edgeship-server drift approve {model} --from DAY --to DAY --by NAME", soft_wrap=True)
        return
    if verdict["alarm"]:
        features = escape(", ".join(verdict["features"])) or "no single one"
        console.print(f"{model}: [bold]drift since {verdict['since']}[/bold]; histograms that moved: {features}")
    else:
        console.print(f"{model}: no alarm")
    console.print(
        f"Baseline: {baseline['days'][0]} to {baseline['days'][-1]}, {baseline['devices']:,} device-days, approved by "
        f"{escape(baseline['approved_by'])}. ε = {verdict['epsilon']:g} a device-day."
    )
    if days:
        hidden = len(days) - SHOWN_DAYS
        console.print(
            table(
                "Days" if hidden <= 0 else f"Days (the newest {SHOWN_DAYS} of {len(days)})",
                ["day", "devices", "largest effect", "of", "its evidence (log10)", "alarm"],
                [_day(day) for day in days[-SHOWN_DAYS:]],
            )
        )
    console.print(f"What cannot be seen: {escape(verdict['cannot_see'])}")


def show_approval(console: Console, approval: Mapping[str, Any]) -> None:
    days = approval["days"]
    console.print(
        f"{approval['model']}: {len(days)} days from {days[0]} to {days[-1]} are the baseline, {approval['devices']:,} "
        f"device-days, approved by {escape(approval['approved_by'])}"
    )
    console.print(
        table(
            "Histograms",
            ["histogram", "gap between training and field", "tolerance"],
            [
                (name, f"{approval['training_gap'][name]:.4f}", f"{tolerance:.4f}")
                for name, tolerance in approval["tolerance"].items()
            ],
        )
    )
    if approval["unsteady"]:
        console.print(f"The days differ among themselves in: {escape(', '.join(approval['unsteady']))}")


def _day(day: Mapping[str, Any]) -> tuple[str, ...]:
    effects: Mapping[str, float] = day["statistic"]
    if not effects:
        return day["day"], "too few", "–", "–", "–", "–"
    name = max(effects, key=lambda name: effects[name])
    evidence = day["evidence"][name]
    return (
        day["day"],
        f"{day['devices']:,}",
        f"{effects[name]:.4f}",
        name,
        "–" if evidence is None else f"{evidence:.1f}",
        "yes" if day["alarm"] else "no",
    )
