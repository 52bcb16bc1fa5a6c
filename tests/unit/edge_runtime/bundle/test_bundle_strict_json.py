from __future__ import annotations

import json
import sys

import pytest

from edge_runtime.bundle import ManifestError
from edge_runtime.bundle.strict_json import MAX_DEPTH, Node, canonical, parse


def read(text: str | bytes, max_bytes: int = 10_000) -> Node:
    return parse(text.encode() if isinstance(text, str) else text, max_bytes=max_bytes, what="the document")


def refusal(text: str | bytes) -> ManifestError:
    with pytest.raises(ManifestError) as caught:
        read(text)
    return caught.value


def test_plain_json_is_read_as_it_is() -> None:
    node = read('{"a": [1, 2.5, "x", true, null, {"b": -0.0}]}')
    assert node.value == json.loads('{"a": [1, 2.5, "x", true, null, {"b": -0.0}]}')
    assert node.get("a").items(0, 10)[5].get("b").path == "a[5].b"


@pytest.mark.parametrize(
    "text", ["", " ", "{", "{}}", "{} {}", "nul", '{"a":}', '{"a":1,}', "{'a':1}", '{"a":01}', "\0"]
)
def test_what_is_not_json_is_refused(text: str) -> None:
    refusal(text)


@pytest.mark.parametrize("text", ["[]", "1", '"x"', "null", "true"])
def test_the_top_level_must_be_an_object(text: str) -> None:
    assert "must be an object" in str(refusal(text))


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xfe{\x00}\x00",  # UTF-16
        b'{"a":"\xff"}',
        b'{"a":"\xc0\xaf"}',  # overlong
        b'{"a":"\xed\xa0\x80"}',  # a surrogate, encoded
        b'{"a":"\xf4\x90\x80\x80"}',  # above U+10FFFF
        b'{"a":"\xe2\x82"}',  # cut off
    ],
)
def test_what_is_not_utf8_is_refused(data: bytes) -> None:
    refusal(data)


def test_a_byte_order_mark_is_refused() -> None:
    refusal(b'\xef\xbb\xbf{"a":1}')


@pytest.mark.parametrize(
    ("text", "key_path"),
    [
        ('{"a":1,"a":1}', ""),
        ('{"x":{"a":1,"b":2,"a":3}}', "x"),
        ('{"x":[{},{"a":1,"\\u0061":2}]}', "x[1]"),
    ],
)
def test_a_key_that_appears_twice_is_refused_wherever_it_is(text: str, key_path: str) -> None:
    error = refusal(text)
    assert "appears twice" in str(error)
    assert error.key_path == key_path


@pytest.mark.parametrize(
    "number",
    [
        "NaN",
        "Infinity",
        "-Infinity",
        "1e309",
        "-1e999",
        "9007199254740992",
        "-9007199254740992",
        "9" * 5000,
        "1" + "0" * 400 + ".5",
    ],
)
def test_numbers_that_readers_disagree_about_are_refused_wherever_they_are(number: str) -> None:
    error = refusal('{"x":{"ignored":[0,' + number + "]}}")
    assert error.key_path == "x.ignored[1]"
    assert len(str(error)) < 200


@pytest.mark.parametrize("number", ["9007199254740991", "-9007199254740991", "1e308", "-0", "5e-324", "1E+2"])
def test_numbers_at_the_bounds_are_read(number: str) -> None:
    read('{"x":' + number + "}")


@pytest.mark.parametrize("text", ['{"a":{"b":"\\ud800"}}', '{"a":{"b":["\\udc00\\ud800"]}}', '{"a":{"\\ud800":1}}'])
def test_lone_surrogates_are_refused_wherever_they_are(text: str) -> None:
    assert "surrogate" in str(refusal(text))


def test_a_surrogate_pair_is_one_character() -> None:
    assert read('{"a":"\\ud83d\\ude00"}').get("a").text(1, 1) == "😀"


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_nesting_is_capped_whatever_the_stack_has_left(opening: str, closing: str) -> None:
    inner = MAX_DEPTH - 1
    read('{"a":' + opening * inner + "1" + closing * inner + "}")
    assert "nested deeper" in str(refusal('{"a":' + opening * (inner + 1) + "1" + closing * (inner + 1) + "}"))
    deep = min(sys.getrecursionlimit() // 2, 1_600)  # libraries raise the limit; the text has to stay below its cap
    assert "nested deeper" in str(refusal('{"a":' + opening * deep))


def test_brackets_inside_strings_do_not_count_as_nesting() -> None:
    assert read(json.dumps({"a": "[{" * 500 + '\\"' + "[" * 500})).get("a").value


def test_the_length_is_capped_in_bytes() -> None:
    data = '{"a":"é"}'.encode()
    parse(data, max_bytes=len(data), what="x")
    with pytest.raises(ManifestError, match="bytes; at most"):
        parse(data, max_bytes=len(data) - 1, what="x")


@pytest.mark.parametrize("value", ["true", "false", '"1"', "null", "[]", "{}", "1.0", "1e0"])
def test_a_whole_number_has_no_fraction_and_no_other_type(value: str) -> None:
    with pytest.raises(ManifestError) as caught:
        read('{"n":' + value + "}").get("n").integer(0, 10)
    assert caught.value.key_path == "n"


@pytest.mark.parametrize("value", ["true", '"1"', "null", "[1]", "{}"])
def test_a_number_has_no_other_type(value: str) -> None:
    with pytest.raises(ManifestError):
        read('{"n":' + value + "}").get("n").number()


def test_bounds_are_inclusive() -> None:
    node = read('{"n":5,"x":0.5,"s":"abc","l":[1,2]}')
    assert node.get("n").integer(5, 5) == 5
    assert node.get("x").number(0.5, 0.5) == 0.5
    assert node.get("s").text(3, 3) == "abc"
    assert len(node.get("l").items(2, 2)) == 2
    for call in (
        lambda: node.get("n").integer(6, 9),
        lambda: node.get("n").integer(0, 4),
        lambda: node.get("x").number(0.6, 1),
        lambda: node.get("s").text(0, 2),
        lambda: node.get("s").text(4, 9),
        lambda: node.get("l").items(3, 9),
        lambda: node.get("l").items(0, 1),
    ):
        with pytest.raises(ManifestError):
            call()


@pytest.mark.parametrize(
    "character", ["\0", "\x1b", "\x7f", "\x85", "\u2028", "\u2029", "\u202e", "\u2066", "\n", "\t"]
)
def test_text_holds_no_control_or_bidirectional_characters(character: str) -> None:
    node = read(json.dumps({"t": f"a{character}b"})).get("t")
    with pytest.raises(ManifestError):
        node.text(0, 10)
    if character == "\n":
        assert node.text(0, 10, newlines=True)
    else:
        with pytest.raises(ManifestError):
            node.text(0, 10, newlines=True)


def test_a_missing_member_says_so_and_reads_as_null_where_that_is_allowed() -> None:
    node = read('{"a":{},"n":null}')
    assert node.get("a").get("b").optional(lambda n: n.integer(0, 1)) is None
    assert node.get("n").optional(lambda n: n.integer(0, 1)) is None
    with pytest.raises(ManifestError, match=r"^a\.b: is missing$"):
        node.get("a").get("b").boolean()
    with pytest.raises(ManifestError, match=r"^n: must be true or false, not null$"):
        node.get("n").boolean()


def test_a_strange_key_is_quoted_in_the_key_path() -> None:
    error = refusal('{"a\\u001b b":{"c":NaN}}')
    assert "\x1b" not in error.key_path
    assert error.key_path.endswith(".c")


def test_the_canonical_form_is_sorted_tight_and_ends_in_one_newline() -> None:
    assert canonical({"b": 1, "a": ["é", 1.5, None], "B": {}}) == '{"B":{},"a":["é",1.5,null],"b":1}\n'.encode()
