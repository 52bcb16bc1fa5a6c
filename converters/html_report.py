"""report.html: the report for people. One file, no scripts, nothing loaded from elsewhere. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from converters.html_parts import Markup, Wide, listing, number, table, terms, text
from converters.html_plot import drop_plot
from converters.report import Report, Row
from converters.rows import UNTIMED

__all__ = ["HTML_FILE", "html_report"]

HTML_FILE = "report.html"
FEW = 8  # candidates that stand open; more are folded away
STYLE = """
:root{color-scheme:light dark;--page:#fff;--ink:#1c2024;--quiet:#5a6270;--line:#e2e6ea;--ok:#12683b;--refused:#7a5b00;
--bad:#a3200d;--onnx:#1d5fa8;--tflite:#a34a00;--coreml:#6b3fb5}
@media (prefers-color-scheme:dark){:root{--page:#16191d;--ink:#dfe3e8;--quiet:#98a2ad;--line:#30363d;--ok:#5fce8f;
--refused:#e0b84c;--bad:#ff8a75;--onnx:#7db6f5;--tflite:#f0a561;--coreml:#bd9ef0}}
body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:var(--ink);
background:var(--page);overflow-wrap:anywhere}
h1{font-size:1.5rem;margin-bottom:.2rem}h2{font-size:1.15rem;margin-top:2rem}h3{font-size:1rem;margin-top:1.6rem}
.scroll{overflow-x:auto;margin:.6rem 0}
table{border-collapse:collapse;min-width:100%;overflow-wrap:normal}
caption{text-align:left;color:var(--quiet)}
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}
th[scope=row]{font-weight:normal}thead th:first-child,th[scope=row]{position:sticky;left:0;background:var(--page)}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}td.n{white-space:nowrap}thead th{vertical-align:bottom}
td.wide{min-width:11rem}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(17rem,1fr));gap:.2rem 1.2rem;margin:.4rem 0;
color:var(--quiet)}
dt{display:inline;font-weight:600}dt::after{content:": "}dd{display:inline;margin:0}
.ok{color:var(--ok)}.refused{color:var(--refused)}.failed_gate,.error{color:var(--bad)}
.quiet{color:var(--quiet)}code{font-size:.92em}summary{cursor:pointer}
figure{margin:1rem 0;max-width:33rem}figcaption{color:var(--quiet)}
svg{display:block;width:100%}svg text{fill:currentColor}
.axis,.grid,.limit{fill:none;stroke:var(--quiet)}.grid{stroke:var(--line)}
.limit{stroke:var(--bad);stroke-dasharray:5 3}text.limit{stroke:none;fill:var(--bad)!important}
.mark{stroke-width:2}.onnx{fill:var(--onnx);stroke:var(--onnx)}.tflite{fill:var(--tflite);stroke:var(--tflite)}
.coreml{fill:var(--coreml);stroke:var(--coreml)}.out{fill:none}
"""


def html_report(report: Report) -> str:
    """A page with what was asked, what came of it, what each artifact lost over its size, and why each row is as it
    is."""
    source = report.source
    details = [each for row in report.artifacts if (each := _details(row))]
    parts = [
        f"<h1>{text(report.name)}, release {report.release}</h1>",
        f"<p class=quiet>{text(report.created)} · {text(source.kind)} source, {source.parameters:,} parameters · "
        f"{text(report.task)} · at most {report.max_accuracy_drop:g} may be lost"
        f"{f' · for {text(report.profile)}' if report.profile else ''}</p>",
        _verdict(report),
        "<h2>Artifacts</h2>",
        _artifacts(report),
        terms(_meanings(report)),
        drop_plot(report.artifacts, report.max_accuracy_drop),
        listing("Before you trust these numbers", report.warnings),
        listing("What the bundle does not hold", report.absent),
        "<h2>Artifact by artifact</h2>" if details else "",
        *details,
        "<h2>Data</h2>",
        table(
            "Rows by what they were used for",
            ("split", "file", "rows", "labelled", "groups", "sha256"),
            [
                (name, split.name, f"{split.rows:,}", "yes" if split.labelled else "no", split.groups or "",
                 split.sha256[:16])
                for name, split in report.splits.items()
            ],
            numbers=(2,),
        ),
        f"<p class=quiet>Measured on {text(report.machine)}, in {report.seconds:.0f} s. "
        f"{text(', '.join(f'{name} {version}' for name, version in report.packages.items()))}</p>",
    ]  # fmt: skip
    title = f"{text(report.name)} {report.release}"
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>{title}</title><style>{STYLE}</style></head><body><main>{''.join(parts)}</main></body></html>\n"
    )


def _verdict(report: Report) -> str:
    ok = len(report.ok)
    if report.bundle is None:
        return "<p class=error>No artifact is fit to ship; there is no bundle.</p>"
    return (
        f"<p><b>{ok} of {len(report.artifacts)}</b> artifacts are in <code>{text(report.bundle)}</code> "
        f"({report.bundle_bytes or 0:,} bytes, sha256 <code>{report.bundle_sha256}</code>).</p>"
    )


def _artifacts(report: Report) -> str:
    accuracy = "R²" if _is_r2(report) else "accuracy"
    head = ("artifact", "status", "bytes", "of fp32", accuracy, "source", "lost", "agreement", "max error",
            "INT8 weights", "p50 µs", "A/A", "memory, MiB")  # fmt: skip
    return table(
        "What was asked for, and what came of it", head, map(_artifact, report.artifacts), numbers=range(2, len(head))
    )


def _artifact(row: Row) -> tuple[object, ...]:
    asked = "" if row.asked == row.precision else f" (asked: {row.asked})"
    share = None if row.bytes is None or not row.source_bytes else row.bytes / row.source_bytes
    memory = None if row.peak_memory_bytes is None else row.peak_memory_bytes / 2**20
    cost: tuple[object, ...] = (
        number(row.p50_us, ".0f"), number(row.p50_aa_ratio, ".2f"), number(memory, ".1f")
    )  # fmt: skip
    if not any(cost) and row.accuracy is not None:
        cost = (Wide(_why_no_latency(row), len(cost)),)
    return (
        f"{row.target}\N{NO-BREAK SPACE}{row.precision}{asked}",
        Markup(f"<span class={row.status}>{row.status.replace('_', ' ')}</span>"),
        number(row.bytes, ","),
        number(share, ".0%"),
        number(row.accuracy, ".4f"),
        number(row.source_accuracy, ".4f"),
        number(row.drop, ".4f"),
        number(row.decision_agreement, ".4f"),
        number(row.max_abs_error, ".2g"),
        number(row.int8_weight_share, ".0%"),
        *cost,
    )


def _why_no_latency(row: Row) -> str:
    reasons = [note.removeprefix(UNTIMED) for note in row.notes if note.startswith(UNTIMED)]
    return ": ".join(("not measured", *reasons[:1]))


def _is_r2(report: Report) -> bool:
    return any(row.metric == "r2" for row in report.artifacts)


AGREEMENT = {
    "regression": "R² of the first output against the source's: 1 is the same",
    "detection": "share of yes/no decisions that are the source's",
}


def _meanings(report: Report) -> Iterator[tuple[str, str]]:
    """The words of the table of artifacts that need one, of those in use."""
    rows = [row for row in report.artifacts if row.decision_agreement is not None]
    if not rows:
        return
    if _is_r2(report):
        yield "R²", "share of the targets' variance that is explained: 1 is perfect, 0 is no better than the mean"
    yield "source", "the model that was converted, on the same rows"
    yield "lost", f"what the gate compares with the limit of {report.max_accuracy_drop:g}; below 0 is gained"
    yield "agreement", AGREEMENT.get(report.task, "share of rows that are decided as the source decides them")
    yield "max error", "the largest difference of any output value from the source's"
    yield "INT8 weights", "share of the weights of convolutions and matrix products that are stored as INT8"
    if any(row.p50_us is not None for row in rows):
        yield "p50", "median time of one example here, one thread; says nothing about a device"
        yield "A/A", "the same file timed twice, slower over faster: a smaller difference of two p50 is noise"
    if any(row.peak_memory_bytes is not None for row in rows):
        yield "memory", "most that loading and answering take beyond the engine; 1 MiB is 1,048,576 bytes"
    if any(row.target == "coreml" for row in rows):
        yield "Core ML", "answered by a reference evaluator, which shows what a program means and not how fast it is"


def _details(row: Row) -> str:
    """Everything that explains one row: reason, route, what stayed float, candidates, segments."""
    kind = f"{row.target} {row.precision}"
    parts = [f"<h3>{text(kind)}</h3>"]
    if row.reason:
        parts.append(f"<p class={row.status}>{text(row.reason)}</p>")
    made = " → ".join(row.tools) + (f", in the helper environment {row.environment}" if row.environment else "")
    parts += [f"<p class=quiet>{text(each)}</p>" for each in (made, *row.notes) if each]
    if row.float_operators or row.kept_float:
        parts.append(f"<p>In float: {text(', '.join(row.float_operators) or 'nothing')}.</p>")
    if row.kept_float:
        kept = [(each.unit, each.reason) for each in row.kept_float]
        parts.append(table(f"{kind}: units left in float", ("unit left in float", "why"), kept))
    if row.candidates:
        parts.append(_candidates(row))
    if row.confidence is not None:
        chosen = row.confidence
        risk = "" if chosen.target_risk is None else f", of which at most {chosen.target_risk:.1%} are wrong"
        parts.append(
            f"<p>Answers with a confidence below the threshold τ = {chosen.threshold:.3f} are deferred (temperature "
            f"{chosen.temperature:.3f}): {chosen.coverage:.1%} of {chosen.rows:,} rows are trusted{risk}. "
            f"<span class=quiet>{text('; '.join(each for each in (chosen.method, chosen.note) if each))}</span></p>"
        )
    if row.golden_tolerance is not None and row.golden_spread is not None:
        parts.append(
            f"<p>Golden examples: {row.golden_examples}, on which a device may differ by {row.golden_tolerance:g}; "
            f"kernels here differ by {row.golden_spread:.3g}.</p>"
        )
    measured = [(part.name, f"{part.rows:,}", f"{part.accuracy:.4f}") for part in (*row.edge_cases, *row.segments)]
    if measured:
        caption = f"{kind}: {'R²' if row.metric == 'r2' else 'accuracy'} by segment and edge case"
        head = ("segment or edge case", "rows", "R²" if row.metric == "r2" else "accuracy")
        parts.append(table(caption, head, measured, numbers=range(1, 3)))
    return f"<section>{''.join(parts)}</section>" if len(parts) > 1 else ""


def _candidates(row: Row) -> str:
    """What the search tried. Of those that hold the one with the least error is chosen."""
    count = f"{len(row.candidates)} candidate{'s' * (len(row.candidates) > 1)}"
    how = (
        "<p class=quiet>What was lost, and the error (mean squared difference of the first output from the source's), "
        "are of held-out calibration rows; of the recipes that hold, the one with the least error is chosen.</p>"
    )
    made = table(
        f"{row.target} {row.asked}: what was tried",
        ("recipe", "precision", "units in float", "lost", "error", "INT8 weights", "bytes", ""),
        [
            (each.recipe or "none", each.precision, str(len(each.kept)), number(each.drop, ".4f"),
             number(each.error, ".3g"), number(each.weight_share, ".0%"), number(each.bytes, ","),
             Markup("<b>chosen</b>") if each.chosen else each.note)
            for each in row.candidates
        ],
        numbers=range(2, 7),
    )  # fmt: skip
    return f"<details{' open' * (len(row.candidates) <= FEW)}><summary>{count}</summary>{how}{made}</details>"
