"""FORMAT.md, the schemas and the code say the same thing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.bundle import limits, names
from edge_runtime.bundle.guard_reading import GUARD_REDUCTIONS, GUARD_SCORES
from edge_runtime.bundle.reading import DTYPES, METRICS, PRECISIONS, REDUCTIONS, SCORES, TARGETS, TASKS

ROOT = Path(__file__).parents[4]
FORMAT = (ROOT / "edge_runtime/bundle/FORMAT.md").read_text(encoding="utf-8")
SCHEMAS = {
    name: json.loads((ROOT / f"docs/spec/{name}.schema.json").read_text(encoding="utf-8"))
    for name in ("manifest", "release", "policy")
}
TEXT = r"^[^\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]*$"
LINES = TEXT.replace(r"\u001f", r"\u0009\u000b-\u001f")
PRIMITIVES = ("model", "file", "sha256", "bytes", "release", "critical", "tensor_name")

Rows = list[tuple[str, str]]


def tables() -> dict[str, Rows]:
    """Table name → (key, type) of each row."""
    found: dict[str, Rows] = {}
    for match in re.finditer(r"<!-- table: (\w+) -->\n\n(.*?)\n\n", FORMAT, re.DOTALL):
        rows = [line.split("|") for line in match[2].replace(r"\|", "\0").splitlines()[2:]]
        found[match[1]] = [(row[1].strip().strip("`"), row[2].strip()) for row in rows]
    return found


def caps() -> dict[str, str]:
    section = FORMAT.partition("## 4. Caps")[2]
    return dict(re.findall(r"^\| `(\w+)` \| ([0-9.]+) \|", section, re.MULTILINE))


def expected(kind: str) -> dict[str, Any]:
    """The schema of a type as FORMAT.md writes it."""
    kind = kind.strip("`")
    if kind.endswith("?") and not kind.endswith("/?"):
        return {"anyOf": [expected(kind[:-1]), {"type": "null"}]}
    if match := re.fullmatch(r"(list|set)\((\d+), (\d+)\) of (.*)", kind):
        element = match[4]
        if element.endswith("?"):
            return {"anyOf": [expected(kind[:-1]), {"type": "null"}]}
        unique = {"uniqueItems": True} if match[1] == "set" else {}
        return {
            "type": "array",
            "items": expected(element),
            "minItems": int(match[2]),
            "maxItems": int(match[3]),
            **unique,
        }
    if kind.endswith("/?"):
        return {"anyOf": [expected(kind[:-1]), {"type": "null"}]}
    if match := re.fullmatch(r"map\((\d+)\) of /(.*?)/ to (.*)", kind):
        return {
            "type": "object",
            "maxProperties": int(match[1]),
            "propertyNames": {"pattern": f"^{match[2]}$"},
            "additionalProperties": expected(match[3]),
        }
    if match := re.fullmatch(r"(text|lines)\((\d+), (\d+)\)", kind):
        pattern = TEXT if match[1] == "text" else LINES
        return {"type": "string", "minLength": int(match[2]), "maxLength": int(match[3]), "pattern": pattern}
    if match := re.fullmatch(r"integer\((\d+), (\d+)\)", kind):
        return {"type": "integer", "minimum": int(match[1]), "maximum": int(match[2])}
    if match := re.fullmatch(r"number\((.*), (.*)\)", kind):
        low, high = match[1], match[2]
        number: dict[str, Any] = {"type": "number"}
        if low.startswith("("):
            number["exclusiveMinimum"] = int(low[1:])
        elif low != "*":
            number["minimum"] = int(low)
        return number if high == "*" else {**number, "maximum": int(high)}
    if match := re.fullmatch(r"/(.*)/", kind):
        return {"type": "string", "pattern": f"^{match[1]}$"}
    if kind.startswith("one of "):
        return {"enum": kind.removeprefix("one of ").split()}
    if kind == "axis":
        name = {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]{0,31}$"}
        return {"anyOf": [expected("integer(1, 9007199254740991)"), name]}
    fixed: dict[str, dict[str, Any]] = {
        "1": {"const": 1},
        "boolean": {"type": "boolean"},
        "share": {"type": "number", "minimum": 0, "maximum": 1},
        "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
        "bytes": expected("integer(1, 2147483648)") if kind == "bytes" else {},
        "release": expected("integer(1, 2147483647)") if kind == "release" else {},
    }
    return fixed.get(kind) or {"$ref": f"#/$defs/{kind}"}


def resolved(schema: Any, definitions: dict[str, Any]) -> Any:
    """A schema without remarks, its references to grammars (not to tables) replaced by what they mean."""
    if isinstance(schema, list):
        return [resolved(element, definitions) for element in schema]
    if not isinstance(schema, dict):
        return schema
    name = str(schema.get("$ref", "")).removeprefix("#/$defs/")
    if name in PRIMITIVES and name not in ("model", "file"):
        return resolved(definitions[name], definitions)
    return {key: resolved(value, definitions) for key, value in schema.items() if key not in ("description", "format")}


@pytest.mark.parametrize("table", list(tables()))
def test_a_table_of_format_md_is_the_schema(table: str) -> None:
    rows = tables()[table]
    for name, schema in SCHEMAS.items():
        found = schema if name == table else schema["$defs"].get(table, {})
        if "properties" not in found:
            continue
        assert {key: expected(kind) for key, kind in rows} == {
            key: resolved(value, schema["$defs"]) for key, value in found["properties"].items()
        }
        assert {key for key, kind in rows if not kind.endswith("?`")} == set(found["required"])
        break
    else:
        pytest.fail(f"no schema for the table {table}")


def test_every_object_of_the_schemas_has_a_table() -> None:
    for name, schema in SCHEMAS.items():
        objects = {key for key, value in schema["$defs"].items() if value.get("type") == "object"}
        assert objects | {name} <= tables().keys()


def test_every_cap_is_stated_with_the_number_that_the_code_has() -> None:
    stated = caps()
    assert stated.keys() == set(limits.__all__)
    for name, number in stated.items():
        assert float(number) == getattr(limits, name), name


def test_the_words_state_the_numbers_that_the_code_has() -> None:
    found = re.findall(r"^### 2\.\d (\S+)\n\nAt most (\d+) bytes", FORMAT, re.MULTILINE)
    assert {name: int(number) for name, number in found} == {
        "manifest.json": limits.MAX_MANIFEST_BYTES,
        "release.json": limits.MAX_RELEASE_BYTES,
        "policy.json": limits.MAX_POLICY_BYTES,
    }
    for number in (limits.MAX_INTEGER, limits.MAX_RELEASE, limits.MAX_TENSOR_ELEMENTS, limits.PARTS):
        assert str(number) in FORMAT.partition("## 4. Caps")[0]
    low, high = 1 - limits.SHARE_SUM_TOLERANCE, 1 + limits.SHARE_SUM_TOLERANCE
    assert f"less than {low:.3f} or more than {high:.3f}" in FORMAT


def test_the_grammars_of_names_are_those_of_the_code() -> None:
    assert f"`{names._LABEL.pattern}`" in FORMAT
    assert f"`{names._FILE.pattern}`" in FORMAT
    assert f"`{names._RELEASE.pattern}`" in FORMAT


def test_the_enumerations_are_those_of_the_code() -> None:
    for values in (DTYPES, TARGETS, PRECISIONS, REDUCTIONS, SCORES, METRICS, TASKS, GUARD_REDUCTIONS, GUARD_SCORES):
        assert re.search(rf"one of {' '.join(values)}\??`", FORMAT), values


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_grammars_of_names_in_the_schemas_are_those_of_the_code(name: str) -> None:
    definitions = SCHEMAS[name]["$defs"]
    samples = [
        *(
            "a",
            "a-b",
            "-a",
            "a-",
            "A",
            "x" * 64,
            "x" * 65,
            "con",
            "con.x",
            "CON",
            "cona",
            "com1",
            "com10",
            "nul.",
            "aux.b.c",
        ),
        *(
            "a.b",
            ".a",
            "a.",
            "-a",
            "_a",
            "x" * 128,
            "x" * 129,
            "a/b",
            "a\\b",
            "a b",
            "",
            "é",
            "lpt0",
            "Prn.txt",
            "x." + "y" * 126,
        ),
    ]
    for key, check in (("model", names.check_model), ("file", names.check_file)):
        if key in definitions:
            for sample in samples:
                matches = re.search(definitions[key]["pattern"], sample) is not None
                assert matches == _passes(check, sample), (key, sample)


def _passes(check: Any, sample: str) -> bool:
    try:
        check(sample)
    except names.InvalidName:
        return False
    return True
