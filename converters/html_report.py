"""report.html: the report for people. One file, no scripts, nothing loaded from elsewhere. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape

from converters.report import Report, Row

__all__ = ["HTML_FILE", "html_report"]

HTML_FILE = "report.html"
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#1c2024}
h1{font-size:1.5rem;margin-bottom:.2rem}h2{font-size:1.15rem;margin-top:2rem}
table{border-collapse:collapse;width:100%;margin:.6rem 0}
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #e2e6ea;vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
.ok{color:#12683b}.refused{color:#7a5b00}.failed_gate,.error{color:#a3200d}
.quiet{color:#667}svg{display:block;margin:.4rem 0}code{font-size:.92em}
@media (prefers-color-scheme:dark){body{background:#16191d;color:#dfe3e8}th,td{border-color:#30363d}
.ok{color:#5fce8f}.refused{color:#e0b84c}.failed_gate,.error{color:#ff8a75}.quiet{color:#98a2ad}}
"""
Shown = Callable[[Row], tuple[float, str]]  # length of a bar (1 = full), and its text
BAR, ROW_HEIGHT, LABEL_WIDTH = 420, 22, 190


def html_report(report: Report) -> str:
    """A page with what was asked, what came of it, sizes and drops as bars, and why each row is as it is."""
    source = report.source
    parts = [
        f"<h1>{_text(report.name)}, release {report.release}</h1>",
        f"<p class=quiet>{_text(report.created)} · {_text(source.kind)} source, {source.parameters:,} parameters · "
        f"{_text(report.task)} · limit {report.max_accuracy_drop:g}"
        f"{f' · for {_text(report.profile)}' if report.profile else ''}</p>",
        _verdict(report),
        "<h2>Artifacts</h2>",
        _artifacts(report.artifacts),
        _bars("Size, beside the same target's fp32 file", [row for row in report.artifacts if row.bytes], _size),
        _bars("Lost on the evaluation rows", [row for row in report.artifacts if row.drop is not None], _drop(report)),
        *(_details(row) for row in report.artifacts),
        _listing("What the bundle does not hold", report.absent),
        _listing("Before you trust these numbers", report.warnings),
        "<h2>Data</h2>",
        _table(
            ("split", "file", "rows", "labelled", "groups", "sha256"),
            [
                (name, split.name, f"{split.rows:,}", "yes" if split.labelled else "no", split.groups or "",
                 split.sha256[:16])
                for name, split in report.splits.items()
            ],
        ),
        f"<p class=quiet>Measured on {_text(report.machine)}, in {report.seconds:.0f} s. Core ML is answered by a "
        "reference evaluator, so it has no latency. "
        f"{_text(', '.join(f'{name} {version}' for name, version in report.packages.items()))}</p>",
    ]  # fmt: skip
    title = f"{_text(report.name)} {report.release}"
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{title}</title><style>{STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )


def _verdict(report: Report) -> str:
    ok = len(report.ok)
    if report.bundle is None:
        return "<p class=error>No artifact is fit to ship; there is no bundle.</p>"
    return (
        f"<p><b>{ok} of {len(report.artifacts)}</b> artifacts are in <code>{_text(report.bundle)}</code> "
        f"({report.bundle_bytes or 0:,} bytes, sha256 <code>{report.bundle_sha256}</code>).</p>"
    )


def _artifacts(rows: Sequence[Row]) -> str:
    head = (
        "artifact",
        "status",
        "bytes",
        "accuracy",
        "source",
        "agreement",
        "max error",
        "INT8",
        "p50 µs",
        "A/A",
        "MiB",
    )
    cells = []
    for row in rows:
        kind = f"{row.target} {row.precision}" + ("" if row.asked == row.precision else f" (asked: {row.asked})")
        cells.append(
            (
                kind,
                _Raw(f"<span class={row.status}>{row.status}</span>"),
                _number(row.bytes, ","),
                _number(row.accuracy, ".4f"),
                _number(row.source_accuracy, ".4f"),
                _number(row.decision_agreement, ".4f"),
                _number(row.max_abs_error, ".2g"),
                _number(row.int8_weight_share, ".0%"),
                _number(row.p50_us, ".0f"),
                _number(row.p50_aa_ratio, ".2f"),
                _number(None if row.peak_memory_bytes is None else row.peak_memory_bytes / 2**20, ".1f"),
            )
        )
    return _table(head, cells, numbers=range(2, len(head)))


def _details(row: Row) -> str:
    """Everything that explains one row: reason, route, what stayed float, candidates, segments."""
    parts = [f"<h2>{_text(row.target)} {_text(row.precision)}</h2>"]
    if row.reason:
        parts.append(f"<p class={row.status}>{_text(row.reason)}</p>")
    made = " → ".join(row.tools) + (f", in the helper environment {row.environment}" if row.environment else "")
    parts += [f"<p class=quiet>{_text(text)}</p>" for text in (made, *row.notes) if text]
    if row.float_operators or row.kept_float:
        parts.append(f"<p>In float: {_text(', '.join(row.float_operators) or 'nothing')}.</p>")
    if row.kept_float:
        parts.append(_table(("unit left in float", "why"), [(each.unit, each.reason) for each in row.kept_float]))
    if row.candidates:
        parts.append(
            _table(
                ("tried", "recipe", "units in float", "lost on held-out rows", "error", "INT8", "bytes", ""),
                [
                    (each.precision, each.recipe or "", str(len(each.kept)), _number(each.drop, ".4f"),
                     _number(each.error, ".3g"), _number(each.weight_share, ".0%"), _number(each.bytes, ","),
                     "chosen" if each.chosen else each.note)
                    for each in row.candidates
                ],
                numbers=range(2, 7),
            )
        )  # fmt: skip
    if row.confidence is not None:
        chosen = row.confidence
        risk = "" if chosen.target_risk is None else f", risk at most {chosen.target_risk:.1%}"
        parts.append(
            f"<p>Temperature {chosen.temperature:.3f}, τ {chosen.threshold:.3f}: {chosen.coverage:.1%} of "
            f"{chosen.rows:,} rows trusted{risk}. <span class=quiet>{_text(chosen.method)} "
            f"{_text(chosen.note)}</span></p>"
        )
    measured = [(part.name, f"{part.rows:,}", f"{part.accuracy:.4f}") for part in (*row.edge_cases, *row.segments)]
    if measured:
        parts.append(_table(("segment or edge case", "rows", "accuracy"), measured, numbers=range(1, 3)))
    return "".join(parts) if len(parts) > 1 else ""


class _Raw(str):
    """Markup that is meant; everything else is escaped."""

    __slots__ = ()


def _size(row: Row) -> tuple[float, str]:
    share = (row.bytes or 0) / max(1, row.source_bytes or row.bytes or 1)
    return share, f"{row.bytes or 0:,} bytes, {share:.0%} of fp32"


def _drop(report: Report) -> Shown:
    def shown(row: Row) -> tuple[float, str]:
        drop = row.drop or 0.0
        return max(0.0, drop) / max(report.max_accuracy_drop, 1e-9) / 2, f"{drop:+.4f} of {report.max_accuracy_drop:g}"

    return shown


def _bars(title: str, rows: Sequence[Row], shown: Shown) -> str:
    """Horizontal bars as SVG; ``shown`` gives a row's length (1 = full) and text."""
    if not rows:
        return ""
    lines = []
    for index, row in enumerate(rows):
        length, text = shown(row)
        y = index * ROW_HEIGHT
        color = {"ok": "#2e7d5b", "failed_gate": "#c4472f"}.get(row.status, "#8a8f98")
        width = max(1.0, min(1.0, length) * BAR)
        lines.append(
            f"<text x=0 y={y + 15} fill=currentColor>{_text(row.target)} {_text(row.precision)}</text>"
            f"<rect x={LABEL_WIDTH} y={y + 4} width={width:.0f} height=14 rx=2 fill='{color}' />"
            f"<text x={LABEL_WIDTH + width + 8:.0f} y={y + 15} fill=currentColor>{_text(text)}</text>"
        )
    size = f"width={LABEL_WIDTH + BAR + 260} height={len(rows) * ROW_HEIGHT}"
    return (
        f"<h2>{_text(title)}</h2><svg {size} font-size=13 role=img aria-label='{_text(title)}'>{''.join(lines)}</svg>"
    )


def _listing(title: str, items: Iterable[str]) -> str:
    lines = [f"<li>{_text(item)}</li>" for item in items]
    return f"<h2>{title}</h2><ul>{''.join(lines)}</ul>" if lines else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[object]], numbers: Iterable[int] = ()) -> str:
    right = set(numbers)

    def cell(tag: str, index: int, value: object) -> str:
        text = value if isinstance(value, _Raw) else _text(value)
        return f"<{tag}{' class=n' if index in right else ''}>{text}</{tag}>"

    lines = ["".join(cell("th", index, name) for index, name in enumerate(head))]
    lines += ["".join(cell("td", index, value) for index, value in enumerate(row)) for row in rows]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _text(value: object) -> str:
    return escape(str(value), quote=True)
