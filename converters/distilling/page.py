"""distill.html: one page, no scripts, nothing loaded from elsewhere. Pure."""

from __future__ import annotations

from html import escape

from converters.distilling.comparing import Spread
from converters.distilling.report import DistillingReport

__all__ = ["page"]

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse}td,th{text-align:left;padding:.25rem .7rem;border-bottom:1px solid #ddd}"
    ".quiet{color:#667}"
)
WIDTH, LEFT, ROW = 640, 120, 34
COLOURS = {"labels": "#7a6a00", "distilled": "#12683b"}


def page(report: DistillingReport) -> str:
    """Both arms over seeds as dots with their means, the teacher as a line, the comparison, and every run."""
    student, rows = report.student, report.rows
    sentence = report.comparison.sentence if report.comparison else "no comparison: there are no labels"
    parts = [
        f"<h1>{_text(student.name)} from {_text(report.teacher.name)}</h1>",
        f"<p><b>{_text(sentence)}</b></p>",
        f"<p class=quiet>{student.parameters:,} parameters"
        + ("" if student.macs is None else f", {student.macs:,} multiply-adds a row")
        + ("" if student.latency is None else f", {student.latency.ms:.3g} ms {_text(student.latency.how)}")
        + f" · {rows.labelled:,} labelled rows, {rows.unlabelled:,} that only the teacher labels, "
        f"{rows.validation:,} validation, {rows.evaluation:,} evaluation · {report.updates:,} updates a training</p>",
        _plot(report),
        "<table><tr><th>arm<th>mean<th>spread<th>least<th>most",
        *(_spread(name, each) for name, each in (("labels alone", report.labels), ("distilled", report.distilled))),
        "</table><h2>Runs</h2><table><tr><th>arm<th>seed<th>validation<th>evaluation<th>best epoch",
        *(
            f"<tr><td>{run.arm}<td>{run.seed}<td>{run.validation:.4f}<td>{run.evaluation:.4f}<td>{run.best_epoch}"
            for run in report.runs
        ),
        f"</table><p>Kept: {report.kept.arm}, seed {report.kept.seed}: {_text(report.kept.why)}.</p>",
        *(f"<p>Caution: {_text(warning)}</p>" for warning in report.warnings),
        f"<p class=quiet>{_text(report.machine)}, {report.seconds:.0f} s; "
        + _text(", ".join(f"{name} {number}" for name, number in report.packages.items()))
        + "</p>",
    ]
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>distilled: {_text(student.name)}</title><style>{STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )


def _plot(report: DistillingReport) -> str:
    values = [run.evaluation for run in report.runs]
    teacher = report.teacher.evaluation
    low, high = min([*values, teacher or values[0]]), max([*values, teacher or values[0]])
    margin = max(0.005, 0.1 * (high - low))
    low, high = low - margin, high + margin

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - 20) * (value - low) / (high - low)

    arms = list(dict.fromkeys(run.arm for run in report.runs))
    height = ROW * len(arms) + 30
    parts = [f"<svg viewBox='0 0 {WIDTH} {height}' width='{WIDTH}' role=img aria-label='{report.metric} by seed'>"]
    for index, arm in enumerate(arms):
        y, scores = ROW * index + 20, [run.evaluation for run in report.runs if run.arm == arm]
        mean = sum(scores) / len(scores)
        parts.append(f"<text x=0 y={y + 5} font-size=13>{'labels alone' if arm == 'labels' else arm}</text>")
        parts += [f"<circle cx={x(s):.1f} cy={y} r=5 fill='{COLOURS[arm]}' fill-opacity=.6></circle>" for s in scores]
        parts.append(f"<path d='M{x(mean):.1f} {y - 11}v22' stroke='{COLOURS[arm]}' stroke-width=2></path>")
    if teacher is not None:
        parts.append(f"<path d='M{x(teacher):.1f} 4V{height - 22}' stroke='#888' stroke-dasharray='4 3'></path>")
        parts.append(f"<text x={x(teacher) - 50:.1f} y={height - 8} font-size=11>teacher {teacher:.4f}</text>")
    parts += [
        f"<text x={x(value):.1f} y={height - 8} font-size=11 text-anchor={anchor}>{value:.3f}</text>"
        for value, anchor in ((low, "start"), (high, "end"))
    ]
    return "".join(parts) + "</svg>"


def _spread(name: str, spread: Spread | None) -> str:
    if spread is None:
        return ""
    std = "one seed" if spread.std is None else f"{spread.std:.4f}"
    return f"<tr><td>{name}<td>{spread.mean:.4f}<td>{std}<td>{spread.minimum:.4f}<td>{spread.maximum:.4f}"


def _text(value: str) -> str:
    return escape(value, quote=True)
