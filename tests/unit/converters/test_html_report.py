"""The page for people, from a report that is written here: no conversion is needed to see how it reads."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from converters.html_report import html_report
from converters.quantize.found import Tried
from converters.report import Report, Row
from converters.rows import cost_notes
from converters.stages.choosing import Chosen
from converters.stages.sources import SourceInfo
from edge_runtime.bundle import KeptFloat

FLOAT = Row(
    target="onnx", asked="fp32", precision="fp32", status="ok", bytes=80_000, source_bytes=80_000, accuracy=0.9,
    source_accuracy=0.9, metric="accuracy", rows=1000, drop=0.0, decision_agreement=1.0, max_abs_error=1e-6,
    int8_weight_share=0.0, p50_us=56.0, p50_aa_ratio=1.05, peak_memory_bytes=11 << 20, golden_examples=16,
    golden_tolerance=0.001, golden_spread=0.0002,
    confidence=Chosen(
        score="msp", temperature=1.2, threshold=0.7, target_risk=0.05, delta=0.1, coverage=0.8, method="by risk",
        rows=50, sha256="0" * 64, note="few rows",
    ),
)  # fmt: skip
INT8 = replace(
    FLOAT,
    asked="int8",
    precision="int8",
    bytes=24_000,
    accuracy=0.895,
    drop=0.005,
    decision_agreement=0.99,
    int8_weight_share=0.95,
    float_operators=("Sub",),
    kept_float=(KeptFloat(unit="a <head>", reason="12.0 dB when quantized alone"),),
    candidates=tuple(
        Tried(
            precision="int8", recipe=recipe, kept=(), drop=0.005, error=error, weight_share=0.95, bytes=24_000,
            outcome="holds", chosen=chosen,
        )
        for recipe, error, chosen in (("first", 0.031, False), ("second", 0.017, True))
    ),
)  # fmt: skip
UNTIMED = replace(INT8, target="coreml", p50_us=None, p50_aa_ratio=None, peak_memory_bytes=None, candidates=())
COREML = replace(UNTIMED, notes=cost_notes(UNTIMED, ()))
LOST = replace(INT8, target="tflite", status="failed_gate", drop=0.2, accuracy=0.7, reason="loses", candidates=())
REFUSED = Row(target="tflite", asked="fp32", precision="fp32", status="refused", reason="UnsupportedOperator: If")
REPORT = Report(
    name="waves", release=3, created="2026-11-22T23:00:00Z",
    source=SourceInfo(kind="keras", name="waves", inputs=(), outputs=(), parameters=1234, activation=None),
    task="classification", max_accuracy_drop=0.01, profile=None, splits={},
    artifacts=(FLOAT, INT8, COREML, LOST, REFUSED), absent=(), warnings=(), packages={"onnx": "1.23"},
    machine="Linux", seconds=3.0, exit_code=3, bundle="waves-3.bundle", bundle_sha256="0" * 64, bundle_bytes=99_000,
)  # fmt: skip


class Page(HTMLParser):
    """Every element with its attributes and the elements that it lies in; text by the element around it."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None], tuple[str, ...]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(markup)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), tuple(self.open)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), tuple(self.open)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes, _ in self.found if name == tag]

    def text_of(self, tag: str) -> list[str]:
        return [data for name, data in self.texts if name == tag]


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(html_report(REPORT))


def test_nothing_on_the_page_is_wider_than_a_phone_but_what_scrolls_by_itself(page: Page) -> None:
    assert page.open == []
    for tag, attributes, around in page.found:
        assert tag != "table" or around[-1] == "div"
        assert "width" not in attributes or tag == "rect", "a width in pixels does not fit every screen"
    boxes = [attributes for attributes in page.all("div") if attributes.get("class") == "scroll"]
    assert len(boxes) == len(page.all("table"))
    assert all(box["tabindex"] == "0" and box["aria-label"] for box in boxes), "keyboards can scroll it too"


def test_tables_say_what_they_are_and_which_cells_are_headings(page: Page) -> None:
    assert len(page.all("caption")) == len(page.all("table"))
    assert {heading.get("scope") for heading in page.all("th")} == {"col", "row"}
    assert len([each for each in page.all("th") if each.get("scope") == "row"]) == len(page.all("tr")) - len(
        page.all("thead")
    )


def test_the_plot_has_a_mark_for_every_measured_artifact_and_the_limit(page: Page) -> None:
    marks = [str(attributes["class"]) for attributes in page.all("g")]
    assert marks == ["mark onnx", "mark onnx", "mark coreml", "mark tflite out"]
    assert "onnx int8: 24,000 bytes, lost +0.0050" in page.text_of("title")
    drawn = [data for tag, data in page.texts if tag == "text"]
    for label in ("onnx fp32", "onnx int8", "coreml int8", "tflite int8", "limit 0.01", "size, kB", "lost"):
        assert label in drawn
    places = [
        float(match[1])
        for attributes in page.all("g")
        if (match := re.search(r" ([\d.]+)\)", str(attributes["transform"])))
    ]
    assert places[0] > places[1] == places[2] > places[3], "what lost more is higher"


def test_labels_of_artifacts_that_lie_together_do_not_lie_on_each_other() -> None:
    same = tuple(replace(FLOAT, target=target, bytes=80_000 + 500 * index) for index, target in enumerate(
        ("onnx", "tflite", "coreml", "onnx", "tflite", "coreml")
    ))  # fmt: skip
    made = html_report(replace(REPORT, artifacts=same))
    places = re.findall(r"<text x=([\d.]+) y=([\d.]+)>\w+ fp32", made)
    assert len(places) == 6
    for index, (x, y) in enumerate(places):
        for other_x, other_y in places[:index]:
            assert abs(float(y) - float(other_y)) > 10 or abs(float(x) - float(other_x)) > 50


def test_a_report_in_which_nothing_was_measured_has_no_plot_and_no_terms() -> None:
    made = Page(html_report(replace(REPORT, artifacts=(REFUSED,), bundle=None)))
    assert not made.all("svg")
    assert not made.all("dl")
    assert any("there is no bundle" in text for text in made.text_of("p"))


def test_words_that_need_it_are_explained_where_they_stand(page: Page) -> None:
    assert page.text_of("dt") == [
        "source", "lost", "agreement", "max error", "INT8 weights", "p50", "A/A", "memory", "Core ML"
    ]  # fmt: skip
    assert "by risk; few rows" in page.text_of("span")
    assert any("below the threshold τ = 0.700 are deferred" in text for text in page.text_of("p"))
    plain = Page(html_report(replace(REPORT, task="regression", artifacts=(replace(COREML, metric="r2"),))))
    assert plain.text_of("dt")[0] == "R²"
    assert "A/A" not in plain.text_of("dt"), "nothing was timed"
    assert any("R² of the first output" in text for text in plain.text_of("dd"))


def test_a_latency_that_is_missing_has_its_reason_in_its_place(page: Page) -> None:
    wide = [data for tag, data in page.texts if tag == "td" and data.startswith("not measured")]
    assert wide == ["not measured: no Core ML engine is used here, but a reference evaluator"]


def test_the_candidate_that_was_chosen_is_marked_and_what_decided_is_beside_it(page: Page) -> None:
    cells = page.text_of("td")
    assert "0.031" in cells
    assert "0.017" in cells
    assert page.text_of("b").count("chosen") == 1
    assert [each for each in page.all("details") if "open" in each]
    many = replace(INT8, candidates=INT8.candidates * 10)
    folded = Page(html_report(replace(REPORT, artifacts=(many,))))
    assert folded.all("details") == [{}]
    assert "20 candidates" in folded.text_of("summary")


def test_names_out_of_a_model_are_text_and_never_markup() -> None:
    made = html_report(replace(REPORT, warnings=("<script>alert(1)</script>",)))
    assert "<script" not in made
    assert "a &lt;head&gt;" in made
