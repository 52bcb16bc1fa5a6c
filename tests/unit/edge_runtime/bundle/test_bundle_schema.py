"""What a published schema refuses, the reader refuses; and what both allow at a cap, the reader reads."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from edge_runtime.bundle import (
    ManifestError,
    PolicyDocument,
    read_manifest,
    read_policy,
    read_release,
    write_manifest,
    write_policy,
    write_release,
)
from tests.support import bundles

SPEC = Path(__file__).parents[4] / "docs/spec"
Read = Callable[[bytes], object]

CASES: dict[str, tuple[Read, bytes]] = {
    "manifest": (read_manifest, write_manifest(bundles.manifest())),
    "release": (read_release, write_release(bundles.release_document())),
    "policy": (read_policy, write_policy(PolicyDocument(model="m", min_release=2, revoked=(3, 4)))),
}


def schema(name: str) -> dict[str, Any]:
    value = json.loads((SPEC / f"{name}.schema.json").read_text(encoding="utf-8"))
    assert isinstance(value, dict)
    return value


def is_read(read: Read, document: object) -> bool:
    try:
        read(json.dumps(document).encode())
    except ManifestError:
        return False
    return True


def places(
    value: Any, rule: dict[str, Any], definitions: dict[str, Any], path: str = ""
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every value of a document with the schema that governs it."""
    while "$ref" in rule or "anyOf" in rule:
        if "$ref" in rule:
            rule = definitions[rule["$ref"].removeprefix("#/$defs/")]
        else:
            rule = next(r for r in rule["anyOf"] if Draft202012Validator({**r, "$defs": definitions}).is_valid(value))
    if path:
        yield path, rule
    if isinstance(value, dict):
        for key, member in value.items():
            inner = rule["properties"][key] if key in rule.get("properties", {}) else rule["additionalProperties"]
            yield from places(member, inner, definitions, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for i, element in enumerate(value):
            yield from places(element, rule["items"], definitions, f"{path}[{i}]")


def violations(value: Any, rule: dict[str, Any]) -> Iterator[object]:
    """Values just outside a schema."""
    yield from (None, {"x": 1}, [[[]]], True, "\0", 0.5, -1, 2**60)
    if "maximum" in rule:
        yield rule["maximum"] + 1
    if "minimum" in rule:
        yield rule["minimum"] - 1
    if "exclusiveMinimum" in rule:
        yield rule["exclusiveMinimum"]
    if "maxLength" in rule:
        yield "x" * (rule["maxLength"] + 1)
    if rule.get("minLength"):
        yield ""
    if "maxItems" in rule:
        yield (value * (rule["maxItems"] + 1))[: rule["maxItems"] + 1]
    if rule.get("minItems"):
        yield value[: rule["minItems"] - 1]
    if rule.get("uniqueItems") and value:
        yield [*value, value[0]]
    if "pattern" in rule and isinstance(value, str):
        yield from (value + "\u202e", value + "/../x", "x" * 500, value + " ")


@pytest.mark.parametrize("name", CASES)
def test_the_schema_is_a_schema_and_takes_what_we_write(name: str) -> None:
    Draft202012Validator.check_schema(schema(name))
    Draft202012Validator(schema(name)).validate(json.loads(CASES[name][1]))


@pytest.mark.parametrize("name", CASES)
def test_what_the_schema_refuses_the_reader_refuses_too(name: str) -> None:
    read, data = CASES[name]
    document = json.loads(data)
    rules = schema(name)
    validator = Draft202012Validator(rules)
    tried = 0
    for path, rule in list(places(document, rules, rules["$defs"])):
        parent, key = bundles._find(document, path)
        original = parent[key]
        changed = copy.deepcopy(document)
        if isinstance(key, str):
            bundles.remove(changed, path)
            assert validator.is_valid(changed) or not is_read(read, changed), f"{path} removed"
        for wrong in violations(original, rule):
            parent[key] = wrong
            if not validator.is_valid(document):
                tried += 1
                assert not is_read(read, document), f"{path} = {wrong!r}"
        parent[key] = original
    assert is_read(read, document)
    assert tried > 20


@pytest.mark.parametrize("name", CASES)
def test_the_longest_and_shortest_text_that_the_schema_allows_is_read(name: str) -> None:
    read, data = CASES[name]
    document = json.loads(data)
    rules = schema(name)
    for path, rule in list(places(document, rules, rules["$defs"])):
        if "maxLength" in rule:
            parent, key = bundles._find(document, path)
            original = parent[key]
            for length in (rule["minLength"], rule["maxLength"]):
                parent[key] = "é" * length
                assert is_read(read, document), f"{path}: {length} characters"
            parent[key] = original


# Bounds that another rule than the value's own narrows: the path, and why the reader refuses the bound.
NARROWED = {
    ("manifest", "inputs[0].shape[1]"): "elements of a tensor, and the same shape in hybrid",
    ("manifest", "inputs[0].shape[2]"): "as above",
    ("manifest", "outputs[0].shape[1]"): "one logit a label",
    ("manifest", "hybrid.inputs[0].shape[1]"): "elements of a tensor",
    ("manifest", "hybrid.inputs[0].shape[2]"): "elements of a tensor",
    ("manifest", "hybrid.inputs[1].shape[1]"): "the same shape as the model's own input",
    ("manifest", "hybrid.inputs[1].shape[2]"): "as above",
    ("manifest", "artifacts[0].reference.features[0].index"): "size of the last axis",
    ("manifest", "guard.parts[0].axis"): "axes of the input",
    ("release", "release"): "a delta comes from an earlier release",
    ("release", "ceiling[0].age_s"): "the first age is 0",
    ("release", "ceiling[0].share"): "shares never fall",
    ("release", "ceiling[1].age_s"): "ages ascend",
    ("release", "ceiling[1].share"): "shares never fall",
    ("release", "deltas[0].from_release"): "named in the delta's file",
    ("policy", "revoked[0]"): "ascending",
    ("policy", "revoked[1]"): "ascending",
}


@pytest.mark.parametrize("name", CASES)
def test_the_largest_and_smallest_number_that_the_schema_allows_is_read(name: str) -> None:
    read, data = CASES[name]
    document = json.loads(data)
    rules = schema(name)
    for path, rule in list(places(document, rules, rules["$defs"])):
        if (name, path) in NARROWED or ".shares[" in path or ".classes[" in path or ".confidence[" in path:
            continue
        parent, key = bundles._find(document, path)
        original = parent[key]
        for bound in ("minimum", "maximum"):
            if bound in rule:
                parent[key] = rule[bound]
                assert is_read(read, document), f"{path} = {rule[bound]}"
        parent[key] = original
