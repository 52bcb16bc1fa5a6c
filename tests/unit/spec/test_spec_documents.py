"""The words and schemas of docs/spec against each other and against the code's enumerations."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from edge_runtime.bundle.names import _LABEL, MAX_RELEASE
from edge_runtime.errors import Outcome
from edge_runtime.prediction import REASON_CELLS
from edge_runtime.telemetry.layout import (
    FIXED_HISTOGRAMS,
    LATENCY_BINS,
    LATENCY_CELLS,
    REFUSED_KINDS,
)
from edge_runtime.telemetry.wire import MAX_REPORT_BYTES, MAX_SHIFT, PrivacyMode, ReportArm
from edge_runtime.update.plan import MAX_PLAN_BYTES, PARTS, State
from edge_runtime.update.predicate import MAX_DEPTH

SPEC = Path(__file__).parents[3] / "docs/spec"
WORDS = {path.stem: path.read_text(encoding="utf-8") for path in SPEC.glob("*.md")}
SCHEMAS = {path.name.removesuffix(".schema.json"): json.loads(path.read_text()) for path in SPEC.glob("*.schema.json")}
VECTORS = {path.stem: json.loads(path.read_text()) for path in SPEC.glob("vectors/*.json")}


def valid(schema: str, document: object) -> bool:
    return bool(Draft202012Validator(SCHEMAS[schema]).is_valid(document))


def rows(document: str, heading: str) -> list[list[str]]:
    """The rows of the first table under a heading."""
    section = WORDS[document].partition(f"{heading}\n")[2]
    lines = [line for line in section.partition("\n## ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_schema_is_a_schema(name: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[name])
    assert SCHEMAS[name]["$id"] == f"urn:edgeship:spec:{name}:1"


def test_every_file_is_in_the_index_and_every_link_leads_somewhere() -> None:
    for name, text in WORDS.items():
        for link in re.findall(r"\]\(([^)#]+)\)", text):
            assert (SPEC / link).resolve().is_file(), f"{name}.md links to {link}"
    for path in [*SPEC.glob("*.md"), *SPEC.glob("*.schema.json"), *SPEC.glob("vectors/*.json")]:
        if path.name != "README.md":
            assert str(path.relative_to(SPEC)) in WORDS["README"], path.name


def test_the_plan_schema_agrees_with_the_vectors_where_a_schema_can() -> None:
    beyond = {"a key twice", "not JSON", "NaN", "too long", "a lone surrogate", "baseline = 3", "candidate = 3.0"}
    for vector in VECTORS["plan"]["documents"]:
        if vector["why"] not in beyond:
            assert valid("plan", json.loads(vector["text"])) == (vector["error"] is None), vector["why"]


@pytest.mark.parametrize("name", ["accepted", "refused"])
def test_the_outcomes_schema_agrees_with_the_vectors(name: str) -> None:
    for vector in VECTORS["outcomes"][name]:
        assert valid("outcomes", vector if name == "accepted" else vector["document"]) == (name == "accepted"), vector


def test_the_outcomes_schema_says_where() -> None:
    for vector in VECTORS["outcomes"]["refused"]:
        found = Draft202012Validator(SCHEMAS["outcomes"]).iter_errors(vector["document"])
        paths = [
            "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error.absolute_path)[1:] for error in found
        ]
        assert any(path.startswith(vector["key_path"]) for path in paths), (vector["key_path"], paths)


def test_the_telemetry_schema_takes_the_decoded_vectors_and_no_others() -> None:
    for vector in VECTORS["telemetry"]["reports"]:
        decoded: dict[str, Any] = vector["decoded"]
        assert valid("telemetry", decoded)
        for key in decoded:
            assert not valid("telemetry", {k: v for k, v in decoded.items() if k != key}), key
        for change in (
            {"format": "EST2"},
            {"mode": "none"},
            {"arm": "control"},
            {"release": 0},
            {"day": -1},
            {"daily_id": "0" * 31},
            {"layout": "0" * 15},
            {"model": "A"},
            {"artifact": "onnx/int4"},
            {"histograms": decoded["histograms"][:5]},
            {"histograms": [{**decoded["histograms"][0], "shift": 25}, *decoded["histograms"][1:]]},
            {"histograms": [{**decoded["histograms"][0], "cells": [256] * 19}, *decoded["histograms"][1:]]},
        ):
            assert not valid("telemetry", {**decoded, **change}), change


def test_the_enumerations_of_the_schemas_are_those_of_the_code() -> None:
    assert SCHEMAS["plan"]["properties"]["state"]["enum"] == [state.value for state in State]
    assert SCHEMAS["telemetry"]["properties"]["mode"]["enum"] == [mode.name.lower() for mode in PrivacyMode]
    assert SCHEMAS["telemetry"]["properties"]["arm"]["enum"] == [arm.name.lower() for arm in ReportArm]
    for name in SCHEMAS:
        definitions = SCHEMAS[name]["$defs"]
        assert _LABEL.pattern in definitions["model"]["pattern"]
        assert definitions["release"]["maximum"] == MAX_RELEASE


def test_the_numbers_of_the_schemas_are_those_of_the_code() -> None:
    plan = SCHEMAS["plan"]["properties"]
    assert plan["share"]["maximum"] == plan["holdback"]["maximum"] == PARTS
    assert SCHEMAS["telemetry"]["$defs"]["histogram"]["properties"]["shift"]["maximum"] == MAX_SHIFT
    assert SCHEMAS["outcomes"]["$defs"]["bins"]["maxItems"] == LATENCY_BINS


def test_the_numbers_of_the_words_are_those_of_the_code() -> None:
    assert f"at most {MAX_PLAN_BYTES} bytes" in WORDS["plan"]
    assert f"deeper than {MAX_DEPTH} predicates" in WORDS["plan"]
    assert f"0 to {PARTS} |" in WORDS["plan"]
    assert f"A report of more\nthan {MAX_REPORT_BYTES} bytes" in WORDS["telemetry"]
    assert f"clipped to 0 … {LATENCY_BINS - 1}" in WORDS["histograms"]
    assert f"both clipped to 0 … {LATENCY_CELLS - 1}" in WORDS["histograms"]


def test_the_table_of_outcomes_is_the_enumeration() -> None:
    listed = re.findall(r"^\| `([A-Z]\w+)` \|", WORDS["outcomes"], re.MULTILINE)
    assert listed == [outcome.value for outcome in Outcome]


def test_the_tables_of_cells_are_those_of_the_code() -> None:
    assert rows("histograms", "## Reasons") == [[str(cell), f"`{r.value}`"] for r, cell in REASON_CELLS.items()]
    assert rows("histograms", "## Refused inputs") == [[str(i), f"`{kind}`"] for i, kind in enumerate(REFUSED_KINDS)]
    stated = re.findall(r"^\| `(\w+)` \| (\d+) \|", WORDS["histograms"], re.MULTILINE)
    assert [(name, int(cells)) for name, cells in stated] == list(FIXED_HISTOGRAMS)
