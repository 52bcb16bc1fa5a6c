"""The Open Inference Protocol endpoint over a real uvicorn."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from edge_runtime.hybrid.oip import decode_answer, encode_binary, encode_json
from model_server.errors import Unauthorized
from model_server.inference.app import create_inference_app
from model_server.inference.protocol import DATATYPES, Limits
from tests.support import served_models
from tests.support.asgi import serve

LENGTH = "Inference-Header-Content-Length"
INFER = "/v2/models/teacher/infer"
CONTEXT = np.random.default_rng(0).normal(size=(8, 10, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    served_models.put(folder, "teacher", 1, served_models.teacher())
    served_models.put(folder, "teacher", 10, served_models.teacher(scale=10))
    served_models.put(folder, "teacher", 2, served_models.teacher(scale=2))
    served_models.put(folder, "two", 1, served_models.two_and_two())
    served_models.put(folder, "picky", 1, served_models.picky())
    served_models.put(folder, "broken", 1, b"not a model")
    for datatype in served_models.DATATYPES:
        served_models.put(folder, f"echo-{datatype.lower()}", 1, served_models.echo(datatype))
    (folder / "Not A Model").mkdir()
    (folder / "empty" / "1").mkdir(parents=True)
    (folder / "teacher" / "draft").mkdir()
    (folder / "notes.txt").write_text("nothing")
    return folder


def authorize(header: str | None) -> str:
    if header != "Bearer fleet":
        raise Unauthorized("who are you?")
    return "fleet"


@pytest.fixture(scope="module")
def http(models: Path) -> Iterator[httpx.Client]:
    app = create_inference_app(models, authorize, Limits(max_body_bytes=2**20, max_json_bytes=2**18))
    headers = {"authorization": "Bearer fleet"}
    with serve(app) as url, httpx.Client(base_url=url, headers=headers, timeout=20) as client:
        yield client
    app.close()


def tensor(name: str, array: np.ndarray, datatype: str = "FP32", **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(array.shape), "data": array.reshape(-1).tolist(), **more}


def ask(http: httpx.Client, message: object, path: str = INFER) -> httpx.Response:
    return http.post(path, json=message)


def split(answer: httpx.Response) -> tuple[dict[str, Any], bytes]:
    length = int(answer.headers[LENGTH])
    return json.loads(answer.content[:length]), answer.content[length:]


class TestAnswers:
    def test_json_in_json_out(self, http: httpx.Client) -> None:
        answer = ask(http, {"id": "42", "inputs": [tensor("context", CONTEXT)]})
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        body = answer.json()
        assert (body["model_name"], body["model_version"], body["id"]) == ("teacher", "10", "42")
        (output,) = body["outputs"]
        assert (output["name"], output["datatype"], output["shape"]) == ("scores", "FP32", [1, 4])
        np.testing.assert_allclose(output["data"], served_models.teacher_answer(CONTEXT, 10)[0], rtol=1e-5)

    def test_nested_json_is_read_like_flat_json(self, http: httpx.Client) -> None:
        nested = {**tensor("context", CONTEXT), "data": CONTEXT.tolist()}
        flat = ask(http, {"inputs": [tensor("context", CONTEXT)]}).json()
        assert ask(http, {"inputs": [nested]}).json() == flat

    def test_the_newest_version_is_ten_and_not_two(self, http: httpx.Client) -> None:
        message = {"inputs": [tensor("context", CONTEXT)]}
        assert ask(http, message).json()["model_version"] == "10"
        answer = ask(http, message, "/v2/models/teacher/versions/2/infer").json()
        assert answer["model_version"] == "2"
        np.testing.assert_allclose(answer["outputs"][0]["data"], served_models.teacher_answer(CONTEXT, 2)[0], rtol=1e-5)

    def test_binary_in_binary_out(self, http: httpx.Client) -> None:
        body, length = encode_binary({"context": CONTEXT})
        answer = http.post(INFER, content=body, headers={LENGTH: str(length)})
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/octet-stream"
        decoded = decode_answer(answer.content, answer.headers[LENGTH])
        assert (decoded.model, decoded.version) == ("teacher", "10")
        np.testing.assert_allclose(decoded.outputs["scores"], served_models.teacher_answer(CONTEXT, 10), rtol=1e-5)

    def test_json_in_binary_out_and_binary_in_json_out(self, http: httpx.Client) -> None:
        wanted = [{"name": "scores", "parameters": {"binary_data": True}}]
        header, blob = split(ask(http, {"inputs": [tensor("context", CONTEXT)], "outputs": wanted}))
        assert header["outputs"][0]["parameters"] == {"binary_data_size": 16}
        binary = np.frombuffer(blob, "<f4")
        message = {"inputs": [{"name": "context", "datatype": "FP32", "shape": [8, 10, 3]}]}
        message["inputs"][0]["parameters"] = {"binary_data_size": CONTEXT.nbytes}
        head = json.dumps(message).encode()
        answer = http.post(INFER, content=head + CONTEXT.tobytes(), headers={LENGTH: str(len(head))})
        assert answer.headers["content-type"] == "application/json"
        np.testing.assert_allclose(answer.json()["outputs"][0]["data"], binary, rtol=1e-6)

    def test_outputs_are_chosen_and_each_goes_back_as_asked(self, http: httpx.Client) -> None:
        a, b = np.array([1, 4, 9], np.float32), np.array([1, 2, 3])
        inputs = [tensor("b", b, "INT64"), tensor("a", a)]
        only = ask(http, {"inputs": inputs, "outputs": [{"name": "root"}]}, "/v2/models/two/infer").json()
        assert [(one["name"], one["data"]) for one in only["outputs"]] == [("root", [1, 2, 3])]
        mixed = [{"name": "root", "parameters": {"binary_data": False}}, {"name": "plus"}]
        message = {"inputs": inputs, "outputs": mixed, "parameters": {"binary_data_output": True}}
        header, blob = split(ask(http, message, "/v2/models/two/infer"))
        root, plus = header["outputs"]
        assert root["data"] == [1, 2, 3]
        assert plus["parameters"]["binary_data_size"] == len(blob) == 12
        assert np.frombuffer(blob, "<f4").tolist() == [2, 6, 12]

    def test_two_binary_inputs_are_taken_in_order(self, http: httpx.Client) -> None:
        a, b = np.array([1, 4], np.float32), np.array([10, 20])
        body, length = encode_binary({"b": b, "a": a})
        answer = http.post("/v2/models/two/infer", content=body, headers={LENGTH: str(length)})
        assert decode_answer(answer.content, answer.headers[LENGTH]).outputs["plus"].tolist() == [11, 24]

    @pytest.mark.parametrize("datatype", sorted(DATATYPES))
    def test_every_datatype_travels_both_ways(self, http: httpx.Client, datatype: str) -> None:
        dtype = DATATYPES[datatype]
        if dtype.kind == "b":
            values = np.array([[True, False]])
        elif dtype.kind == "f":
            values = np.array([[-1.5, 2.25]], dtype)
        else:
            values = np.array([[np.iinfo(dtype).min, np.iinfo(dtype).max]], dtype)
        path = f"/v2/models/echo-{datatype.lower()}/infer"
        answer = ask(http, {"inputs": [tensor("x", values, datatype)]}, path).json()["outputs"][0]
        assert (answer["datatype"], answer["data"]) == (datatype, values.reshape(-1).tolist())
        body, length = encode_binary({"x": values})
        found = http.post(path, content=body, headers={LENGTH: str(length)})
        np.testing.assert_array_equal(decode_answer(found.content, found.headers[LENGTH]).outputs["y"], values)

    def test_the_devices_json_is_understood(self, http: httpx.Client) -> None:
        answer = http.post(INFER, content=encode_json({"context": CONTEXT}))
        assert decode_answer(answer.content, None).outputs["scores"].shape == (1, 4)

    def test_requests_are_never_mixed(self, http: httpx.Client) -> None:
        contexts = [np.full((n % 5 + 1, 10, 3), n, np.float32) for n in range(60)]

        async def send() -> list[httpx.Response]:
            async with httpx.AsyncClient(base_url=str(http.base_url), headers=http.headers, timeout=20) as client:
                calls = []
                for one in contexts:
                    body, length = encode_binary({"context": one})
                    calls.append(client.post(INFER, content=body, headers={LENGTH: str(length)}))
                return await asyncio.gather(*calls)

        for context, answer in zip(contexts, asyncio.run(send()), strict=True):
            scores = decode_answer(answer.content, answer.headers[LENGTH]).outputs["scores"]
            np.testing.assert_allclose(scores, served_models.teacher_answer(context, 10), rtol=1e-5)


class TestMetadata:
    def test_the_server_says_what_it_is(self, http: httpx.Client) -> None:
        body = http.get("/v2").json()
        assert body["name"] == "edgeship"
        assert "binary_tensor_data" in body["extensions"]
        assert http.get("/v2/").json() == body

    def test_health_needs_no_token_and_the_rest_does(self, http: httpx.Client) -> None:
        url = str(http.base_url)
        assert httpx.get(f"{url}/v2/health/live").json() == {"live": True}
        assert httpx.get(f"{url}/v2/health/ready").json() == {"ready": True}
        for path in ("/v2", "/v2/models/teacher", "/v2/models/teacher/ready", "/v2/nothing"):
            answer = httpx.get(url + path)
            assert answer.status_code == 401
            assert answer.json() == {"error": "who are you?"}
            assert answer.headers["www-authenticate"] == "Bearer"
        assert httpx.post(url + INFER, content=b"{}").status_code == 401

    def test_an_authorizer_may_also_answer_none(self, models: Path) -> None:
        with serve(create_inference_app(models, lambda header: None)) as url:
            assert httpx.get(f"{url}/v2").status_code == 401

    def test_a_model_tells_its_tensors_and_versions(self, http: httpx.Client) -> None:
        assert http.get("/v2/models/teacher").json() == {
            "name": "teacher",
            "versions": ["1", "2", "10"],
            "platform": "onnxruntime_onnx",
            "inputs": [{"name": "context", "datatype": "FP32", "shape": [-1, 10, 3]}],
            "outputs": [{"name": "scores", "datatype": "FP32", "shape": [1, 4]}],
        }
        assert http.get("/v2/models/teacher/versions/1").json()["name"] == "teacher"

    def test_ready_is_told_for_models_that_load_and_only_for_them(self, http: httpx.Client) -> None:
        assert http.get("/v2/models/teacher/ready").json()["ready"] is True
        assert http.get("/v2/models/teacher/versions/2/ready").status_code == 200
        assert http.get("/v2/models/broken/ready").status_code == 503
        assert http.get("/v2/models/empty/ready").status_code == 404

    @pytest.mark.parametrize("body", [b"", b"{}", b'{"ready": false}'])
    def test_the_repository_index_lists_everything_also_for_an_empty_body(
        self, http: httpx.Client, body: bytes
    ) -> None:
        index = http.post("/v2/repository/index", content=body).json()
        states = {(one["name"], one["version"]): one["state"] for one in index}
        assert states["teacher", "10"] == states["two", "1"] == "READY"
        assert states["broken", "1"] == "UNAVAILABLE"
        assert not {"empty", "Not A Model"} & {name for name, _ in states}

    def test_the_index_of_ready_models_leaves_the_broken_out(self, http: httpx.Client) -> None:
        index = http.post("/v2/repository/index", json={"ready": True}).json()
        assert {one["state"] for one in index} == {"READY"}

    @pytest.mark.parametrize("body", [b"[", b"[]", b'{"ready": 1}', b"[" * 5000])
    def test_an_index_request_that_is_none_is_refused(self, http: httpx.Client, body: bytes) -> None:
        assert http.post("/v2/repository/index", content=body).status_code == 400


class TestRefusals:
    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", "/v2/models/unknown", 404),
            ("POST", "/v2/models/unknown/infer", 404),
            ("POST", "/v2/models/teacher/versions/3/infer", 404),
            ("POST", "/v2/models/teacher/versions/01/infer", 404),
            ("POST", "/v2/models/teacher/versions/draft/infer", 404),
            ("GET", "/v2/models/teacher/versions/99999999999999999999", 404),
            ("GET", "/v2/models/..%2f..%2fetc", 404),
            ("GET", "/v2/models/%00", 404),
            ("GET", "/v2/models/", 404),
            ("GET", "/v2/models", 404),
            ("GET", "/v2/models/empty", 404),
            ("POST", "/v2/models/broken/infer", 503),
            ("GET", INFER, 405),
            ("DELETE", "/v2/models/teacher", 405),
            ("POST", "/v2", 405),
            ("POST", "/v2/repository/models/teacher/load", 404),
            ("GET", "/v2x", 404),
        ],
    )
    def test_addresses(self, http: httpx.Client, method: str, path: str, status: int) -> None:
        answer = http.request(method, path)
        assert answer.status_code == status
        assert set(answer.json()) == {"error"}

    def test_a_method_that_is_refused_names_the_right_one(self, http: httpx.Client) -> None:
        assert http.get(INFER).headers["allow"] == "POST"

    good = tensor("context", CONTEXT[:1])

    @pytest.mark.parametrize(
        "message",
        [
            None,
            [],
            "text",
            {},
            {"inputs": None},
            {"inputs": {}},
            {"inputs": []},
            {"inputs": [1]},
            {"inputs": [{}]},
            {"inputs": [good, good]},
            {"inputs": [good] * 65},
            {"inputs": [good], "id": 7},
            {"inputs": [good], "id": "x" * 257},
            {"inputs": [good], "parameters": []},
            {"inputs": [good], "parameters": {"binary_data_output": "yes"}},
            {"inputs": [good], "outputs": {}},
            {"inputs": [good], "outputs": [{"name": "nothing"}]},
            {"inputs": [good], "outputs": [{"name": "scores"}, {"name": "scores"}]},
            {"inputs": [good], "outputs": [{"name": "scores", "parameters": {"classification": 3}}]},
            {"inputs": [good], "outputs": [{"name": "scores", "parameters": {"binary_data": 1}}]},
            {"inputs": [good, {**good, "name": "more"}]},
            {"inputs": [{**good, "name": "other"}]},
            {"inputs": [{**good, "name": 5}]},
            {"inputs": [{**good, "datatype": "FP64"}]},
            {"inputs": [{**good, "datatype": "BYTES"}]},
            {"inputs": [{**good, "datatype": "BF16"}]},
            {"inputs": [{**good, "datatype": None}]},
            {"inputs": [{**good, "shape": [10, 3]}]},
            {"inputs": [{**good, "shape": [1, 10, 4]}]},
            {"inputs": [{**good, "shape": [2, 10, 3]}]},
            {"inputs": [{**good, "shape": [-1, 10, 3]}]},
            {"inputs": [{**good, "shape": [1.0, 10, 3]}]},
            {"inputs": [{**good, "shape": [True, 10, 3]}]},
            {"inputs": [{**good, "shape": [2**40, 10, 3]}]},
            {"inputs": [{**good, "shape": [2**31 - 1] * 16}]},
            {"inputs": [{**good, "shape": [1] * 17}]},
            {"inputs": [{**good, "shape": "1,10,3"}]},
            {"inputs": [{**good, "data": None}]},
            {"inputs": [{**good, "data": "abc"}]},
            {"inputs": [{**good, "data": ["1"] * 30}]},
            {"inputs": [{**good, "data": [None] * 30}]},
            {"inputs": [{**good, "data": [{}] * 30}]},
            {"inputs": [{**good, "data": [1, [2]]}]},
            {"inputs": [{**good, "data": [[1.0] * 30]}]},
            {"inputs": [{**good, "data": [1e39] * 30}]},
            {"inputs": [{**good, "data": [10**400] * 30}]},
            {"inputs": [{**good, "data": [True] * 30}]},
            {"inputs": [{**good, "parameters": {"binary_data_size": 120}}]},
            {"inputs": [{**good, "parameters": {"shared_memory_region": "x"}}]},
            {"inputs": [{key: value for key, value in good.items() if key != "data"}]},
        ],
    )
    def test_messages(self, http: httpx.Client, message: object) -> None:
        answer = ask(http, message)
        assert answer.status_code == 400
        assert set(answer.json()) == {"error"}

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"\xff\xfe",
            b'{"inputs": [{"data": [NaN]}]}',
            b'{"inputs": [{"data": [Infinity]}]}',
            b"[" * 100_000,
            b'{"a":' * 20_000,
            b"1" * 5_000,
            b'{"inputs": [{"name": "context", "datatype": "FP32", "shape": [1, 10, 3], "data": ['
            + b",".join([b"1e999"] * 30)
            + b"]}]}",
        ],
    )
    def test_bodies(self, http: httpx.Client, body: bytes) -> None:
        assert http.post(INFER, content=body).status_code == 400

    @pytest.mark.parametrize("length", ["-1", "0", "x", "1e3", "999999", "99999999999999", "10.5", "10"])
    def test_header_lengths(self, http: httpx.Client, length: str) -> None:
        body, _ = encode_binary({"context": CONTEXT})
        answer = http.post(INFER, content=body, headers={LENGTH: length.encode()})  # type: ignore[dict-item]
        # The first ten bytes of our header are no JSON.
        assert answer.status_code == 400

    @pytest.mark.parametrize("change", [-4, 4, 1])
    def test_binary_data_that_is_too_short_or_too_long(self, http: httpx.Client, change: int) -> None:
        body, length = encode_binary({"context": CONTEXT})
        body = body[:change] if change < 0 else body + bytes(change)
        assert http.post(INFER, content=body, headers={LENGTH: str(length)}).status_code == 400

    @pytest.mark.parametrize("size", [0, 4, -960, 961, 10**30, 960.0, "960", True, None])
    def test_binary_sizes_that_do_not_match_the_shape(self, http: httpx.Client, size: object) -> None:
        message = {"inputs": [{"name": "context", "datatype": "FP32", "shape": [8, 10, 3]}]}
        message["inputs"][0]["parameters"] = {"binary_data_size": size}  # type: ignore[assignment]
        head = json.dumps(message).encode()
        answer = http.post(INFER, content=head + CONTEXT.tobytes(), headers={LENGTH: str(len(head))})
        assert answer.status_code == 400

    def test_integers_out_of_range(self, http: httpx.Client) -> None:
        for datatype, value in (("UINT8", 256), ("INT8", -129), ("UINT64", -1), ("INT64", 2**63), ("INT32", 2**40)):
            message = {"inputs": [{"name": "x", "datatype": datatype, "shape": [1, 2], "data": [0, value]}]}
            assert ask(http, message, f"/v2/models/echo-{datatype.lower()}/infer").status_code == 400

    def test_floats_for_integers_and_numbers_for_booleans(self, http: httpx.Client) -> None:
        for datatype, data in (("INT32", [0.5, 1]), ("BOOL", [0, 1]), ("INT64", [True, False])):
            message = {"inputs": [{"name": "x", "datatype": datatype, "shape": [1, 2], "data": data}]}
            assert ask(http, message, f"/v2/models/echo-{datatype.lower()}/infer").status_code == 400

    def test_inputs_that_only_the_inside_of_the_graph_refuses(self, http: httpx.Client) -> None:
        path = "/v2/models/picky/infer"
        assert ask(http, {"inputs": [tensor("x", np.ones(12, np.float32))]}, path).status_code == 200
        answer = ask(http, {"inputs": [tensor("x", np.ones(7, np.float32))]}, path)
        assert answer.status_code == 400
        assert "picky" in answer.json()["error"]

    def test_an_empty_axis_is_answered_or_refused_and_never_an_error_of_the_server(self, http: httpx.Client) -> None:
        answer = ask(http, {"inputs": [{"name": "context", "datatype": "FP32", "shape": [0, 10, 3], "data": []}]})
        assert answer.status_code in (200, 400)

    def test_values_that_json_cannot_hold_are_refused_as_json_and_sent_as_bytes(self, http: httpx.Client) -> None:
        inputs = [tensor("a", np.array([-1.0], np.float32)), tensor("b", np.array([1]), "INT64")]
        answer = ask(http, {"inputs": inputs}, "/v2/models/two/infer")
        assert answer.status_code == 400
        assert "binary" in answer.json()["error"]
        message = {"inputs": inputs, "parameters": {"binary_data_output": True}}
        _, blob = split(ask(http, message, "/v2/models/two/infer"))
        assert np.isnan(np.frombuffer(blob[4:], "<f4")).all()

    def test_compressed_requests(self, http: httpx.Client) -> None:
        answer = http.post(INFER, content=b"x", headers={"content-encoding": "gzip"})
        assert answer.status_code == 400

    def test_bodies_above_the_caps(self, http: httpx.Client) -> None:
        assert http.post(INFER, content=bytes(2**20 + 1)).status_code == 413
        json_only = b'{"inputs": [' + b" " * 2**18 + b"]}"
        assert http.post(INFER, content=json_only).status_code == 413
        assert http.post("/v2/repository/index", content=b" " * 70_000).status_code == 413

    def test_a_body_without_end_is_cut_off(self, http: httpx.Client) -> None:
        sent = 0

        def long() -> Iterator[bytes]:
            nonlocal sent
            for _ in range(100_000):
                sent += 1
                yield bytes(4096)

        for path in (INFER, "/v2/models/unknown/infer"):
            sent = 0
            try:
                status = http.post(path, content=long()).status_code
            except httpx.TransportError:  # the server closed the connection while we were still writing
                status = 413
            assert status in (404, 413)
            assert sent < 20_000

    def test_bytes_changed_at_random_never_break_the_server(self, http: httpx.Client) -> None:
        rng = np.random.default_rng(1)
        body, length = encode_binary({"context": CONTEXT[:1]})
        for _ in range(300):
            broken = bytearray(body)
            for at in rng.integers(0, len(body), rng.integers(1, 6)):
                broken[at] = rng.integers(0, 256)
            answer = http.post(INFER, content=bytes(broken), headers={LENGTH: str(length)})
            assert answer.status_code in (200, 400), broken
        assert http.get("/v2/health/live").status_code == 200


class TestOverload:
    def test_a_full_queue_is_told_to_come_back_and_the_others_are_answered(self, tmp_path: Path) -> None:
        served_models.put(tmp_path, "slow", 1, served_models.slow())
        served_models.put(tmp_path, "teacher", 1, served_models.teacher())
        app = create_inference_app(tmp_path, lambda header: "anybody", Limits(queue=4))
        message = {"inputs": [tensor("x", np.ones(1, np.float32))]}

        async def storm(url: str) -> tuple[list[httpx.Response], httpx.Response]:
            async with httpx.AsyncClient(base_url=url, timeout=60) as client:
                await client.post("/v2/models/slow/infer", json=message)
                calls = [asyncio.ensure_future(client.post("/v2/models/slow/infer", json=message)) for _ in range(24)]
                await asyncio.sleep(0.05)
                # Another model has a thread and a queue of its own.
                other = await client.post(INFER, json={"inputs": [tensor("context", CONTEXT)]})
                return await asyncio.gather(*calls), other

        with serve(app) as url:
            answers, other = asyncio.run(storm(url))
        app.close()
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) == {200, 429}
        assert statuses.count(200) >= 4
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert set(refused.json()) == {"error"}
        assert other.status_code == 200


class TestRepository:
    def test_models_may_come_change_and_go_while_the_server_runs(self, tmp_path: Path) -> None:
        message = {"inputs": [tensor("context", CONTEXT)]}
        app = create_inference_app(tmp_path / "later", lambda header: "anybody")
        with serve(app) as url, httpx.Client(base_url=url, timeout=20) as client:
            assert client.post("/v2/repository/index").json() == []
            assert ask(client, message).status_code == 404
            path = served_models.put(tmp_path / "later", "teacher", 1, b"half a file")
            assert ask(client, message).status_code == 503
            assert ask(client, message).status_code == 503
            path.write_bytes(served_models.teacher())
            assert ask(client, message).status_code == 200
            path.unlink()
            assert ask(client, message).status_code == 404
        app.close()

    def test_a_model_with_weights_in_another_file_is_not_served(self, tmp_path: Path) -> None:
        import onnx
        from onnx.external_data_helper import convert_model_to_external_data

        model = onnx.load_from_string(served_models.slow(rounds=1))
        convert_model_to_external_data(model, location="weights.bin", size_threshold=0)
        folder = served_models.put(tmp_path, "outside", 1, b"").parent
        onnx.save(model, folder / "model.onnx")
        app = create_inference_app(tmp_path, lambda header: "anybody")
        with serve(app) as url:
            answer = httpx.get(f"{url}/v2/models/outside/ready")
        app.close()
        assert answer.status_code == 503
        assert "external" in answer.json()["error"]

    def test_a_model_that_is_replaced_while_a_request_arrives_still_answers_it(self, tmp_path: Path) -> None:
        path = served_models.put(tmp_path, "teacher", 1, served_models.teacher())
        body = json.dumps({"inputs": [tensor("context", CONTEXT)]}).encode()
        app = create_inference_app(tmp_path, lambda header: "anybody")
        with serve(app) as url, httpx.Client(base_url=url, timeout=20) as client:

            def slowly() -> Iterator[bytes]:
                yield body[:100]
                assert client.get("/v2/models/teacher").status_code == 200
                path.write_bytes(served_models.teacher(scale=2))
                assert client.get("/v2/models/teacher").status_code == 200
                yield body[100:]

            answer = httpx.post(f"{url}{INFER}", content=slowly(), timeout=20)
        app.close()
        assert answer.status_code == 200
        np.testing.assert_allclose(
            answer.json()["outputs"][0]["data"], served_models.teacher_answer(CONTEXT, 2)[0], rtol=1e-5
        )
