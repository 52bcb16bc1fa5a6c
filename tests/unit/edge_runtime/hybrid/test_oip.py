"""Messages of the Open Inference Protocol survive the way there and back, and a broken one is refused by name."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import CloudUnreachable
from edge_runtime.hybrid.oip import decode_answer, encode_binary, encode_json


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint8", "int32", "int64", "bool"])
def test_every_dtype_travels_as_bytes(dtype: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    body, header = encode_binary({"x": array})
    message = json.loads(body[:header])
    answer = json.dumps({"outputs": message["inputs"]}).encode()
    decoded = decode_answer(answer + body[header:], str(len(answer)))
    np.testing.assert_array_equal(decoded.outputs["x"], array)
    assert decoded.outputs["x"].dtype == array.dtype


def test_arrays_that_are_not_contiguous_travel_in_row_order() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    body, header = encode_binary({"x": array})
    np.testing.assert_array_equal(np.frombuffer(body[header:], "<f4").reshape(3, 2), array)
    assert json.loads(encode_json({"x": array}))["inputs"][0]["data"] == [0, 3, 1, 4, 2, 5]


def answer(**tensor: object) -> bytes:
    return json.dumps(
        {"outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]} | tensor]}
    ).encode()


@pytest.mark.parametrize(
    ("body", "length"),
    [
        (b"", None),
        (b"[]", None),
        (b'{"outputs": []}', None),
        (b'{"outputs": {}}', None),
        (answer(datatype="FP8"), None),
        (answer(shape=[1, 3]), None),
        (answer(shape=[1, -2]), None),
        (answer(shape=[True, 2]), None),
        (answer(shape="12"), None),
        (answer(data=["a", "b"]), None),
        (answer(data=7), None),
        (answer(name=None), None),
        (answer(parameters={"binary_data_size": 8}), None),
        (answer(parameters={"binary_data_size": 4}) + bytes(4), str(len(answer(parameters={"binary_data_size": 4})))),
        (answer(parameters=[1]), None),
        (answer() + b"more", str(len(answer()))),
        (answer(), "-1"),
        (answer(), "99999"),
        (answer(), "x"),
        (answer(data=[1, float("nan")]), None),
        (b"[" * 100_000, None),
        (b'{"outputs": [' + answer()[12:-2] + b"," + answer()[12:-2] + b"]}", None),
    ],
)
def test_an_answer_that_breaks_the_protocol_is_refused_by_name(body: bytes, length: str | None) -> None:
    with pytest.raises(CloudUnreachable):
        decode_answer(body, length)


@given(st.binary(max_size=200), st.one_of(st.none(), st.integers(-5, 300).map(str)))
def test_any_bytes_decode_or_are_refused_by_name(body: bytes, length: str | None) -> None:
    with pytest.raises(CloudUnreachable):
        decode_answer(body, length)
