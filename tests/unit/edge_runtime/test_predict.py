"""What `predict` answers, who answers, why, and what is counted: every mode, gate, failure and fallback."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from edge_runtime import EdgeRuntime, Reason, RoutingPolicy, Source
from edge_runtime.errors import (
    ConfigurationError,
    InputError,
    InputOutOfRange,
    NoAnswer,
    NonFiniteInput,
    WrongDtype,
    WrongInputs,
)
from edge_runtime.hybrid.breaker import BreakerPolicy
from edge_runtime.loaded import score_array
from tests.support import tiny
from tests.support.oip_server import OipServer

WINDOW = tiny.windows(1)[0]
CONTEXT = tiny.windows(3, 5)
FULL = {"window": WINDOW, "context": CONTEXT}
QUICK = {"cloud_timeout_s": 1.0, "connect_timeout_s": 0.5}


@pytest.fixture
def server() -> Iterator[OipServer]:
    with OipServer() as running:
        yield running


class Opened:
    """Opens runtimes of one folder and closes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runtimes: list[EdgeRuntime] = []

    def __call__(self, release: tiny.TinyRelease | None = None, cloud: str | None = None, **policy: Any) -> EdgeRuntime:
        folder = self.folder / str(len(self.runtimes))
        folder.mkdir()
        runtime = EdgeRuntime.open(
            folder / "state",
            model="tiny",
            factory=(release or tiny.release(hybrid=True)).factory(folder),
            policy=RoutingPolicy(**(QUICK | policy)),
            cloud=cloud,
            token="secret",
            background=False,
        )
        self.runtimes.append(runtime)
        return runtime


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    opened = Opened(tmp_path)
    yield opened
    for runtime in opened.runtimes:
        runtime.close()


def counters(runtime: EdgeRuntime) -> dict[str, Any]:
    (only,) = runtime.stats()["counters"]
    return only


UNSURE = tiny.release(hybrid=True, threshold=1.0)  # never sure enough


def test_a_confident_answer_of_the_device_is_complete(opened: Opened) -> None:
    runtime = opened()
    p = runtime.predict({"window": WINDOW})

    logits = tiny.expected(WINDOW[np.newaxis])[0]
    softmax = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(p.output["logits"], logits, atol=1e-5)
    assert p.index == int(logits.argmax())
    assert p.label == tiny.LABELS[int(logits.argmax())]
    assert p.confidence == pytest.approx(float(softmax.max()), rel=1e-5)
    assert (p.source, p.reason, p.release, p.cloud, p.degraded) == (Source.DEVICE, Reason.CONFIDENT, 1, None, False)
    assert p.latency_us > 0


def test_the_manifests_temperature_softens_the_confidence(opened: Opened) -> None:
    plain = opened().predict({"window": WINDOW})
    soft = opened(tiny.release(temperature=5.0)).predict({"window": WINDOW})
    assert plain.index == soft.index
    assert plain.confidence is not None
    assert soft.confidence is not None
    assert soft.confidence < plain.confidence


def test_a_model_that_ends_in_a_softmax_is_as_sure_as_its_logits_say(opened: Opened) -> None:
    softmax = [helper.make_node("Softmax", ["product"], ["logits"], axis=1)]
    examples = tiny.windows(4, 7)
    logits = tiny.expected(examples)
    release = tiny.release(
        onnx_data=tiny.onnx_bytes(operators=softmax),
        golden_outputs=(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32),
        score="probability",
        temperature=1.7,
    )
    probable, plain = opened(release), opened(tiny.release(temperature=1.7))
    for one, same in zip(
        probable.predict_batch([{"window": x} for x in examples]),
        plain.predict_batch([{"window": x} for x in examples]),
        strict=True,
    ):
        assert (one.index, one.reason) == (same.index, Reason.CONFIDENT)
        assert one.confidence == pytest.approx(same.confidence, abs=1e-5)


def test_a_model_without_a_confidence_rule_is_trusted_and_says_so(opened: Opened) -> None:
    p = opened(tiny.release(confidence=False)).predict({"window": WINDOW})
    assert (p.reason, p.confidence, p.degraded) == (Reason.UNSCORED, None, False)
    assert p.label is not None


def test_a_policys_threshold_overrides_the_manifests(opened: Opened) -> None:
    assert opened(threshold=1.0).predict({"window": WINDOW}).degraded
    assert not opened(UNSURE, threshold=0.0).predict({"window": WINDOW}).degraded
    p = opened(tiny.release(confidence=False), threshold=1.0).predict({"window": WINDOW})
    assert p.reason is Reason.LOW_CONFIDENCE_KEPT


def test_an_unsure_answer_goes_to_the_cloud(opened: Opened, server: OipServer) -> None:
    runtime = opened(UNSURE, server.url)
    p = runtime.predict(FULL)
    assert (p.source, p.reason, p.cloud, p.degraded) == (Source.CLOUD, Reason.DEFERRED, "tiny-teacher/1", False)
    assert (p.index, p.label, p.release) == (2, "turn", 1)
    assert p.output["logits"].shape == (4,)
    assert counters(runtime)["latency_us"]["cloud"]["p50"] is not None
    assert counters(runtime)["latency_us"]["device"]["p50"] is not None
    assert server.requests[0]["headers"]["Authorization"] == "Bearer secret"


@pytest.mark.parametrize(
    ("inputs", "policy", "configured"),
    [
        ({"window": WINDOW}, {}, True),
        (FULL, {}, False),
        (FULL, {"mode": "only_on_device"}, True),
        (FULL, {"use_cloud_when_deferred": False}, True),
    ],
)
def test_an_unsure_answer_is_kept_as_degraded_where_there_is_no_cloud_to_ask(
    opened: Opened, server: OipServer, inputs: dict[str, Any], policy: dict[str, Any], configured: bool
) -> None:
    p = opened(UNSURE, server.url if configured else None, **policy).predict(inputs)
    assert (p.source, p.reason, p.degraded) == (Source.DEVICE, Reason.LOW_CONFIDENCE_KEPT, True)
    assert server.requests == []


def test_a_model_that_names_no_cloud_model_never_asks(opened: Opened, server: OipServer) -> None:
    runtime = opened(tiny.release(threshold=1.0), server.url)
    assert runtime.predict({"window": WINDOW}).source is Source.DEVICE
    with pytest.raises(WrongInputs):
        runtime.predict(FULL)
    assert server.requests == []


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("hang", Reason.CLOUD_UNREACHABLE),
        ("cut", Reason.CLOUD_UNREACHABLE),
        ("nan", Reason.CLOUD_UNREACHABLE),
        ("status:503", Reason.CLOUD_REFUSED),
        ("status:403", Reason.CLOUD_REFUSED),
    ],
)
def test_an_unsure_answer_is_kept_when_the_cloud_fails(
    opened: Opened, server: OipServer, fault: str, reason: Reason
) -> None:
    server.fault = fault
    runtime = opened(UNSURE, server.url, cloud_timeout_s=0.2)
    p = runtime.predict(FULL)
    assert (p.source, p.reason, p.degraded) == (Source.DEVICE, reason, True)
    assert counters(runtime)["fallbacks"] == 0
    assert runtime.stats()["last_error"]


def test_a_request_seen_before_is_answered_from_the_cache_when_the_cloud_is_gone(opened: Opened) -> None:
    with OipServer() as server:
        runtime = opened(UNSURE, server.url)
        before = runtime.predict(FULL)
    again = runtime.predict(FULL)
    other = runtime.predict({"window": WINDOW, "context": tiny.windows(2, 9)})
    assert (again.source, again.reason, again.degraded) == (Source.CACHE, Reason.CLOUD_UNREACHABLE, False)
    assert (again.index, again.cloud) == (before.index, "tiny-teacher/1")
    np.testing.assert_array_equal(again.output["logits"], before.output["logits"])
    assert other.source is Source.DEVICE


def test_a_cloud_that_keeps_failing_is_not_asked_any_more(opened: Opened, server: OipServer) -> None:
    server.fault = "status:500"
    runtime = opened(UNSURE, server.url, breaker=BreakerPolicy(minimum_calls=3, open_s=60.0))
    reasons = [runtime.predict(FULL).reason for _ in range(6)]
    assert reasons == [Reason.CLOUD_REFUSED] * 3 + [Reason.BREAKER_OPEN] * 3
    assert len(server.requests) == 3
    assert runtime.stats()["breaker"] == "open"


def test_prefer_in_cloud_asks_first_and_falls_back_to_the_device(opened: Opened) -> None:
    with OipServer() as server:
        runtime = opened(cloud=server.url, mode="prefer_in_cloud", cache_bytes=0)
        p = runtime.predict(FULL)
        without = runtime.predict({"window": WINDOW})
    gone = runtime.predict(FULL)
    assert (p.source, p.reason) == (Source.CLOUD, Reason.PREFERRED_CLOUD)
    assert (without.source, without.reason, without.degraded) == (Source.DEVICE, Reason.NO_CLOUD, True)
    assert (gone.source, gone.reason, gone.degraded) == (Source.DEVICE, Reason.CLOUD_UNREACHABLE, True)


def test_only_in_cloud_never_runs_the_device_model(opened: Opened) -> None:
    with OipServer() as server:
        runtime = opened(cloud=server.url, mode="only_in_cloud", cache_bytes=0)
        assert runtime.predict({"context": CONTEXT}).source is Source.CLOUD
    with pytest.raises(NoAnswer, match="mode only_in_cloud forbids the local model"):
        runtime.predict(FULL)
    assert counters(runtime)["latency_us"]["device"]["p50"] is None
    assert counters(runtime)["unanswered"] == 1


def test_a_cloud_mode_without_a_cloud_is_a_configuration_error(opened: Opened) -> None:
    with pytest.raises(ConfigurationError, match="cloud"):
        opened(mode="only_in_cloud")


def test_large_inputs_go_to_the_cloud(opened: Opened, server: OipServer) -> None:
    runtime = opened(cloud=server.url, largest_local_bytes=100)
    assert runtime.predict(FULL).reason is Reason.GATE_SIZE
    alone = runtime.predict({"window": WINDOW})
    assert (alone.source, alone.reason, alone.degraded) == (Source.DEVICE, Reason.GATE_SIZE, True)


FAR = WINDOW + np.float32(100)


def test_values_outside_what_training_saw_are_refused_by_default(opened: Opened) -> None:
    runtime = opened()
    with pytest.raises(InputOutOfRange, match="window"):
        runtime.predict({"window": FAR})
    assert counters(runtime)["refused"] == 1


def test_values_outside_what_training_saw_are_routed_where_the_policy_says_so(
    opened: Opened, server: OipServer
) -> None:
    runtime = opened(cloud=server.url, out_of_range="route")
    assert runtime.predict({"window": FAR, "context": CONTEXT}).reason is Reason.GATE_RANGE
    alone = runtime.predict({"window": FAR})
    assert (alone.source, alone.reason, alone.degraded) == (Source.DEVICE, Reason.GATE_RANGE, True)
    assert counters(runtime)["refused"] == 0


def test_values_outside_what_training_saw_are_accepted_and_counted(opened: Opened) -> None:
    runtime = opened(out_of_range="accept")
    assert runtime.predict({"window": FAR}).reason is Reason.CONFIDENT
    assert counters(runtime)["accepted_out_of_range"] == 1


@pytest.mark.parametrize(
    ("inputs", "error"),
    [
        ({}, WrongInputs),
        ({"window": WINDOW.tolist()}, WrongDtype),
        ({"window": WINDOW * np.float32(np.nan)}, NonFiniteInput),
        ({"window": WINDOW, "context": CONTEXT.astype(np.float64)}, WrongDtype),
    ],
)
def test_wrong_inputs_are_refused_and_counted_whatever_the_policy(
    opened: Opened, server: OipServer, inputs: dict[str, Any], error: type[InputError]
) -> None:
    runtime = opened(cloud=server.url, static_default={"logits": [1, 0, 0, 0]}, out_of_range="route")
    with pytest.raises(error):
        runtime.predict(inputs)
    assert counters(runtime)["refused"] == counters(runtime)["requests"] == 1


FAULTY = {
    Reason.ENGINE_FAILED: tiny.release(hybrid=True, onnx_data=tiny.failing_onnx_bytes()),
    Reason.NON_FINITE_OUTPUT: tiny.release(hybrid=True, onnx_data=tiny.nan_onnx_bytes()),
}


@pytest.mark.parametrize("reason", FAULTY)
def test_a_model_that_fails_is_never_answered_with(opened: Opened, server: OipServer, reason: Reason) -> None:
    runtime = opened(FAULTY[reason], server.url)
    p = runtime.predict(FULL)
    assert (p.source, p.reason, p.degraded) == (Source.CLOUD, reason, False)
    with pytest.raises(NoAnswer):
        runtime.predict({"window": WINDOW})
    found = counters(runtime)
    assert (found["requests"], found["errors"], found["fallbacks"], found["unanswered"]) == (2, 2, 1, 1)


@pytest.mark.parametrize("reason", FAULTY)
@pytest.mark.parametrize("mode", ["prefer_on_device", "only_on_device"])
def test_the_static_default_is_the_last_link(opened: Opened, reason: Reason, mode: str) -> None:
    runtime = opened(FAULTY[reason], mode=mode, static_default={"logits": [0, 0, 1, 0]})
    p = runtime.predict({"window": WINDOW})
    assert (p.source, p.reason, p.degraded) == (Source.DEFAULT, reason, True)
    assert (p.index, p.label, p.confidence) == (2, "turn", None)
    assert p.output["logits"].dtype == np.float32
    p.output["logits"][:] = 9
    assert runtime.predict({"window": WINDOW}).output["logits"].tolist() == [0, 0, 1, 0]
    assert counters(runtime)["fallbacks"] == 2


def test_a_failing_model_and_a_failing_cloud_are_both_named(opened: Opened, server: OipServer) -> None:
    server.fault = "status:500"
    runtime = opened(FAULTY[Reason.NON_FINITE_OUTPUT], server.url)
    with pytest.raises(NoAnswer, match=r"status 500.*no answer is kept.*NaN.*policy has none"):
        runtime.predict(FULL)


def test_a_failing_model_under_prefer_in_cloud_is_counted_once(opened: Opened, server: OipServer) -> None:
    server.fault = "status:500"
    runtime = opened(FAULTY[Reason.NON_FINITE_OUTPUT], server.url, mode="prefer_in_cloud", static_default={})
    p = runtime.predict(FULL)
    assert (p.source, p.output, p.index) == (Source.DEFAULT, {}, None)
    assert counters(runtime)["errors"] == 1


def test_apredict_answers_in_an_event_loop(opened: Opened) -> None:
    runtime = opened()

    async def together() -> list[Any]:
        return await asyncio.gather(*(runtime.apredict({"window": w}) for w in tiny.windows(5)))

    answers = asyncio.run(together())
    assert [a.index for a in answers] == tiny.expected(tiny.windows(5)).argmax(axis=1).tolist()


@pytest.mark.parametrize("target", ["onnx", "tflite"])
def test_a_batch_is_answered_as_its_examples_one_by_one(tmp_path: Path, target: str) -> None:
    release = tiny.release(tflite_data=tiny.tflite_bytes(), threshold=0.6)
    with EdgeRuntime.open(
        tmp_path / "state", model="tiny", factory=release.factory(tmp_path), engines=(target,), background=False
    ) as runtime:
        windows = tiny.windows(9)
        batch = runtime.predict_batch([{"window": w} for w in windows])
        alone = [runtime.predict({"window": w}) for w in windows]
        assert runtime.predict_batch([]) == []
    for one, other in zip(batch, alone, strict=True):
        np.testing.assert_allclose(one.output["logits"], other.output["logits"], atol=1e-5)
        assert (one.index, one.label, one.source, one.reason) == (other.index, other.label, other.source, other.reason)
    assert len({p.reason for p in batch}) == 2


def test_one_refused_example_refuses_its_batch(opened: Opened) -> None:
    runtime = opened()
    with pytest.raises(InputOutOfRange, match="example 1, counted from 0: input 'window'"):
        runtime.predict_batch([{"window": WINDOW}, {"window": FAR}])
    assert counters(runtime)["sources"] == {}


def test_one_mapping_is_no_batch(opened: Opened) -> None:
    with pytest.raises(WrongInputs, match="a list of mappings"):
        opened().predict_batch({"window": WINDOW})  # type: ignore[arg-type]


def test_a_faulty_row_of_a_batch_does_not_spoil_the_others(opened: Opened) -> None:
    runtime = opened(FAULTY[Reason.NON_FINITE_OUTPUT], static_default={})
    windows = tiny.windows(40)
    fine = (tiny.expected(windows) >= 0).all(axis=1)
    assert 0 < fine.sum() < 40
    answers = runtime.predict_batch([{"window": w} for w in windows])
    assert [p.source is Source.DEVICE for p in answers] == fine.tolist()


def test_what_is_counted_can_be_written_as_json(opened: Opened) -> None:
    runtime = opened()
    runtime.predict({"window": WINDOW})
    assert json.loads(json.dumps(runtime.stats()))["counters"][0]["sources"] == {"device": 1}


@pytest.mark.parametrize("classes", [1, 2, 64, 65, 1000])
def test_few_and_many_classes_score_alike(classes: int) -> None:
    logits = np.random.default_rng(classes).normal(0, 4, classes).astype(np.float32)
    scaled = logits.astype(np.float64) / 2.5
    softmax = np.exp(scaled - scaled.max())
    scored = score_array(logits, 2.5)
    assert scored is not None
    assert scored[0] == int(logits.argmax())
    assert scored[1] == pytest.approx(float(softmax.max() / softmax.sum()), rel=1e-9)
    for bad in (np.nan, np.inf, -np.inf):
        logits[classes // 2] = bad
        assert score_array(logits, 2.5) is None
        assert score_array(logits, 2.5, "probability") is None


@pytest.mark.parametrize("classes", [1, 2, 64, 65, 1000])
def test_probabilities_score_as_their_logarithms_for_few_and_many_classes(classes: int) -> None:
    logits = np.random.default_rng(classes).normal(0, 4, classes)
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    scored, same = score_array(probabilities, 2.5, "probability"), score_array(logits, 2.5)
    assert scored is not None
    assert same is not None
    assert scored == (same[0], pytest.approx(same[1], rel=1e-9))
    assert score_array(np.zeros(classes), 2.5, "probability") == (0, 0.0)
    probabilities[probabilities.argmax()] = -0.0
    probabilities[0] = -1.0  # what is below 0 counts as 0
    kept = np.maximum(probabilities, 0)
    assert score_array(probabilities, 1.0, "probability") == score_array(kept, 1.0, "probability") or not kept.any()


@pytest.mark.parametrize("axis", [0, 1])
def test_an_answer_without_one_score_a_label_is_a_failure(opened: Opened, axis: int) -> None:
    """A model may answer with another shape for some inputs only, which no golden example sees."""
    shape = helper.make_tensor("shape", TensorProto.INT64, [1], [-1])
    positive = [
        helper.make_node("Constant", [], ["shape"], value=shape),
        helper.make_node("Constant", [], ["zero"], value=helper.make_tensor("z", TensorProto.FLOAT, [], [0.0])),
        helper.make_node("ReduceMax" if axis == 0 else "Identity", ["product"], ["kept"]),
        helper.make_node("Greater", ["kept", "zero"], ["above"]),
        helper.make_node("Reshape", ["above", "shape"], ["condition"]),
        helper.make_node("Compress", ["product", "condition"], ["logits"], axis=axis),
    ]
    window = np.zeros((20, 3), np.float32)
    bias = np.array([-1.0, -2.0, -3.0, -4.0])
    runtime = opened(tiny.release(onnx_data=tiny.onnx_bytes(operators=positive, bias=bias)), static_default={})
    answer = runtime.predict({"window": window})
    assert (answer.source, answer.reason) == (Source.DEFAULT, Reason.ENGINE_FAILED)
    assert "scores" in runtime.stats()["last_error"] or "row" in runtime.stats()["last_error"]


@pytest.mark.parametrize("default", [{"logits": [[1, 2], [3]]}, {"logits": None}, [1.0]])
def test_a_static_default_that_is_no_array_is_refused_when_opening(opened: Opened, default: Any) -> None:
    with pytest.raises(ConfigurationError, match="static_default"):
        opened(static_default=default)


def test_a_static_default_that_the_model_cannot_hold_is_no_answer(opened: Opened) -> None:
    runtime = opened(cloud="http://127.0.0.1:9", mode="only_in_cloud", static_default={"logits": ["a", "b", "c", "d"]})
    with pytest.raises(NoAnswer, match="dtype"):
        runtime.predict(FULL)
