"""Requests that no server should spend more on than on reading them."""

from __future__ import annotations

import json

import pytest

from model_server.errors import MalformedRequest
from model_server.inference.protocol import Limits, decode_request

LONG = 2**31 - 1


@pytest.mark.parametrize(
    "data",
    [
        ["x" * 100_000, *[""] * 100_000],  # 40 GB as a NumPy array of strings
        [["x" * 100_000], *[[""]] * 100_000],
        [1.0, None],
        [1.0, {}],
    ],
)
@pytest.mark.parametrize("datatype", ["FP32", "INT8", "UINT64", "BOOL"])
def test_data_of_anything_but_numbers_is_refused_before_an_array_is_made_of_it(
    data: list[object], datatype: str
) -> None:
    tensor = {"name": "x", "datatype": datatype, "shape": [len(data)], "data": data}
    with pytest.raises(MalformedRequest):
        decode_request(json.dumps({"inputs": [tensor]}).encode(), None, Limits())


def test_an_empty_tensor_with_axes_that_no_array_can_have_is_refused() -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [0, LONG, LONG, LONG]}
    with pytest.raises(MalformedRequest, match="too large"):
        decode_request(json.dumps({"inputs": [{**tensor, "data": []}]}).encode(), None, Limits())
    header = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": 0}}]}).encode()
    with pytest.raises(MalformedRequest, match="too large"):
        decode_request(header, str(len(header)), Limits())
