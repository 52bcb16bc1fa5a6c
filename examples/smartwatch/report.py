"""How the demo ends: tables in the terminal, and one page that needs no other file."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

from examples.smartwatch import plots

Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]  # title, headings, rows


def tables(summary: Mapping[str, Any]) -> list[Table]:
    """The summary as tables; the terminal and the page show the same ones."""
    s = summary
    teacher, student, hybrid, down, bad = s["teacher"], s["student"], s["hybrid"], s["cloud_down"], s["bad_release"]
    before, after = s["drift"]["before"], s["drift"]["after"]
    return [
        (
            "Models (means of the training seeds; accuracy on subjects that training never saw)",
            ("model", "parameters", "accuracy", "seeds"),
            [
                (
                    f"{name}, one window",
                    f"{m['parameters']:,}",
                    _share(m["test_accuracy"]),
                    ", ".join(_share(seed["test_accuracy"]) for seed in m["seeds"]),
                )
                for name, m in (("teacher", teacher), ("student", student))
            ],
        ),
        (
            "Artifacts of release 1",
            ("target", "precision", "bytes", "accuracy", "max |error|", "same decision", "p50 µs", "evaluated with"),
            [
                (
                    a["target"],
                    a["precision"],
                    f"{a['bytes']:,}",
                    _share(a["test_accuracy"]),
                    f"{a['max_abs_error_vs_source']:.2g}",
                    _share(a["agreement"]),
                    "–" if a["p50_us"] is None else f"{a['p50_us']:.0f}",
                    a["evaluated_with"],
                )
                for a in s["artifacts"]
            ],
        ),
        (
            f"Rollout of release 2 to {s['rollout']['devices']} devices "
            f"({s['release']['signatures']} signatures, {s['release']['threshold']} needed)",
            ("stage", "share asked for", "share of the fleet on it"),
            [
                (
                    {"all": "all but the holdback"}.get(stage["stage"], stage["stage"]),
                    _share(stage["share"]),
                    _share(stage["adopted"]),
                )
                for stage in s["rollout"]["stages"]
            ],
        ),
        (
            "Unseen subjects through predict()",
            ("", "accuracy", "requests", "on the device", "in the cloud"),
            [
                ("on the device only", _share(hybrid["accuracy_on_device_only"]), "", "", ""),
                (
                    "hybrid",
                    _share(hybrid["accuracy_hybrid"]),
                    f"{hybrid['requests']:,}",
                    f"{hybrid['on_device']:,}",
                    f"{hybrid['cloud']:,}",
                ),
                ("in the cloud only", _share(hybrid["accuracy_cloud_only"]), "", "", ""),
            ],
        ),
        (
            "When things break",
            ("what", "what happened"),
            [
                ("cloud killed", f"{down['answered']} of {down['requests']} answered, {down['degraded']} as degraded"),
                (
                    f"release {bad['release']} ({bad['fault']})",
                    f"{bad['state']} after {bad['reports_before_halt']} reports of its arm; {bad['reason']}; "
                    f"at most {bad['devices_at_worst']} devices had it, {bad['devices_on_it_at_end']} at the end",
                ),
                ("drift, before", f"{before['days']} days watched, alarm: {_yes(before['alarm'])}"),
                (
                    "drift, after the turn",
                    f"alarm: {_yes(after['alarm'])} on day {after['days_to_alarm']}, features: "
                    + (", ".join(after["features"]) or "none"),
                ),
                (
                    "telemetry",
                    f"{s['telemetry']['mode']} mode, ε = {s['telemetry']['epsilon']:g} a device-day, "
                    f"{s['telemetry']['bytes_per_device_day']:.0f} bytes a device-day, "
                    f"{s['telemetry']['raw_inputs_uploaded']} uploads with a raw sample in them "
                    f"(of {s['telemetry']['uploads_searched']:,}; the same search found "
                    f"{s['telemetry']['raw_inputs_in_cloud_requests']} cloud requests that carry one, as they must)",
                ),
            ],
        ),
    ]


def terminal(summary: Mapping[str, Any]) -> str:
    """The tables as text."""
    from rich.console import Console
    from rich.table import Table as RichTable

    out = io.StringIO()
    console = Console(file=out, width=118, highlight=False)
    for title, headings, rows in tables(summary):
        table = RichTable(title=title, title_justify="left", title_style="bold", show_lines=False)
        for i, heading in enumerate(headings):
            table.add_column(heading, overflow="fold", justify="left" if i == 0 or len(headings) == 2 else "right")
        for row in rows:
            table.add_row(*row)
        console.print(table)
        console.print()
    return out.getvalue()


def page(summary: Mapping[str, Any], details: Mapping[str, Any]) -> str:
    """The report: self-contained HTML with inline SVG."""
    figures = [
        ("Rollout over time", plots.rollout(details["rollout"]["samples"], details["rollout"]["events"])),
        (
            "Accuracy against share sent to the cloud",
            plots.hybrid(details["hybrid"]["curves"], details["hybrid"]["points"]),
        ),
        (
            "Drift over days",
            plots.drift(
                details["drift"]["days"],
                details["drift"]["tolerance"],
                details["drift"]["turned_on"],
                details["drift"]["approved_on"],
            ),
        ),
        ("Artifacts of release 1", plots.artifacts(summary["artifacts"])),
    ]
    body = "".join(_html_table(*table) for table in tables(summary))
    drawn = "".join(f"<figure><figcaption>{html.escape(title)}</figcaption>{svg}</figure>" for title, svg in figures)
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in details["notes"])
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>Edgeship demo</title><style>{_CSS}</style><main><h1>From a trained model to a healthy fleet</h1>"
        f"<p>{html.escape(details['intro'])}</p>{drawn}{body}<h2>How to read this</h2><ul>{notes}</ul></main></html>\n"
    )


def _html_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(h)}</th>" for h in headings)
    lines = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in rows)
    return f"<h2>{html.escape(title)}</h2><div class='wide'><table><tr>{head}</tr>{lines}</table></div>"


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


_CSS = """
body{font:15px/1.5 system-ui,sans-serif;color:#1d2733;background:#f6f7f9;margin:0}
main{max-width:60rem;margin:0 auto;padding:2rem 1rem}
h1{font-size:1.7rem;margin:0 0 .5rem}h2{font-size:1.05rem;margin:2rem 0 .5rem}
figure{background:#fff;border:1px solid #dde2e8;border-radius:6px;padding:1rem;margin:1rem 0}
figcaption{font-weight:600;margin-bottom:.5rem}svg{max-width:100%;height:auto}
.wide{overflow-x:auto}table{border-collapse:collapse;background:#fff;width:100%;font-variant-numeric:tabular-nums}
th,td{border:1px solid #dde2e8;padding:.35rem .6rem;text-align:left;vertical-align:top}th{background:#eef1f5}
"""
