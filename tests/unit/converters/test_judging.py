"""What becomes of a row: on a small ONNX model, in this process, so that a whole conversion takes a second."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters import Dataset, Description, Outcome, Request, read_report, run
from converters.errors import InvalidRequest, LabelMismatch, SameRows, StageFailed
from converters.report import Row
from converters.rows import with_cost_notes, with_quantized, without_twins
from converters.runner import InProcess
from converters.stages import quantize, verify
from converters.stages.sources import SourceRef
from converters.task import Task
from edge_runtime.bundle import open_bundle
from edge_runtime.errors import EdgeshipError

CLASSES, COLUMNS = 4, 8
RNG = np.random.default_rng(0)
HIDDEN, OUT = (RNG.normal(size=size).astype(np.float32) for size in ((COLUMNS, 32), (32, CLASSES)))


def answers(x: np.ndarray) -> np.ndarray:
    return np.maximum(x @ HIDDEN, 0) @ OUT


def rows(count: int, seed: int) -> Dataset:
    x = np.random.default_rng(seed).normal(size=(count, COLUMNS)).astype(np.float32)
    return Dataset(name="rows.npz", inputs={"x": x}, labels=answers(x).argmax(axis=1))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "hidden"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("MatMul", ["r", "out"], ["y"]),
        ],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", COLUMNS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(HIDDEN, "hidden"), numpy_helper.from_array(OUT, "out")],
    )
    path: Path = tmp_path_factory.mktemp("small") / "small.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def convert(model: Path, out: Path, *, runner: Any = None, **changes: Any) -> Outcome:
    request = Request(
        **({
            "source": model, "name": "small", "release": 1, "out": out, "evaluation": rows(200, 1),
            "calibration": rows(200, 2), "targets": ("onnx",), "precisions": ("int8",), "peak_memory": False,
        } | changes)
    )  # fmt: skip
    return run(request, runner=runner or InProcess())


def shifted(data: Dataset) -> Dataset:
    assert data.labels is not None
    return replace(data, labels=(data.labels + 1) % CLASSES)


def test_labels_in_another_order_than_the_outputs_are_said_and_let_nothing_pass(model: Path, tmp_path: Path) -> None:
    wrong = {"evaluation": shifted(rows(200, 1)), "calibration": shifted(rows(200, 2))}
    made = convert(model, tmp_path / "o", **wrong, max_accuracy_drop=0.0)
    (row,) = made.report.artifacts
    assert row.source_accuracy == 0.0
    assert row.decision_agreement is not None
    assert row.drop == pytest.approx(1 - row.decision_agreement)
    assert sum("no better here than the same answer" in each for each in made.report.warnings) == 2


def test_vectors_without_labels_are_said_to_be_taken_for_classes(model: Path, tmp_path: Path) -> None:
    unlabelled = replace(rows(200, 1), labels=None)
    made = convert(model, tmp_path / "o", evaluation=unlabelled, precisions=("fp32",), calibration=None)
    assert any("the 4 numbers of y are taken for classes" in each for each in made.report.warnings)


def test_an_edge_case_may_have_any_name_and_needs_labels_before_anything_is_converted(
    model: Path, tmp_path: Path
) -> None:
    edge = {"edge_cases": {"night / rain": rows(20, 3)}, "precisions": ("fp32",)}
    (row,) = convert(model, tmp_path / "o", **edge).report.artifacts
    assert [(part.name, part.rows) for part in row.edge_cases] == [("night / rain", 20)]
    with pytest.raises(LabelMismatch, match="an edge case is judged by its array label, which is missing"):
        convert(model, tmp_path / "p", edge_cases={"rain": replace(rows(20, 3), labels=None)})


def test_arrays_go_by_their_own_name_in_the_report(model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "given.npz", x=rows(200, 2).inputs["x"])
    made = convert(model, tmp_path / "o", precisions=("fp32",), calibration=tmp_path / "given.npz")
    assert {split: each.name for split, each in made.report.splits.items()} == {
        "evaluation": "rows.npz", "calibration": str(tmp_path / "given.npz")
    }  # fmt: skip


class NothingConverted(InProcess):
    """Only the first stage may run."""

    def run(self, stage: str, job: Any, *, what: str, say: Any) -> Any:
        assert stage == "describe"
        return super().run(stage, job, what=what, say=say)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"labels": ("a", "a", "b", "c")}, r"labels\[1\]: 'a' appears twice"),
        ({"edge_cases": {"e" * 300: rows(20, 3)}}, r"edge_cases\[0\]\.name: must have 1 to 128 characters"),
        ({"description": Description(owner="o" * 300)}, "owner: must have 1 to 256"),
        ({"description": Description(ranges={"x": (3.0, -3.0)})}, r"inputs\[0\]\.range"),
        ({"description": Description(units={"z": "g"})}, "units or ranges of z, which is no input"),
    ],
)
def test_what_no_manifest_can_hold_is_refused_before_anything_is_converted(
    given: dict[str, Any], message: str, model: Path, tmp_path: Path
) -> None:
    with pytest.raises(EdgeshipError, match=message):
        convert(model, tmp_path / "o", runner=NothingConverted(), **given)


def test_parts_that_must_share_a_group_are_said_to(model: Path, tmp_path: Path) -> None:
    two = replace(rows(200, 2), groups=np.arange(200) % 2)
    made = convert(model, tmp_path / "o", calibration=two, precisions=("fp32",))
    assert any("too few groups (2) for 3 parts" in each for each in made.report.warnings)


def test_outputs_that_no_decision_is_taken_from_are_measured_too(tmp_path: Path) -> None:
    weights = {"w": OUT[:COLUMNS], "tiny": OUT[:COLUMNS, :1] * np.float32(1e-3)}
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("MatMul", ["x", "tiny"], ["size"])],
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", COLUMNS])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", n]) for name, n in (("y", CLASSES), ("size", 1))],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "two.onnx"
    )
    given = {split: replace(rows(200, seed), labels=None) for seed, split in enumerate(("evaluation", "calibration"))}
    (row,) = convert(tmp_path / "two.onnx", tmp_path / "o", **given).report.artifacts
    (note,) = (each for each in row.notes if each.startswith("output size: R²"))
    assert 0.9 < float(note.split()[3]) <= 1


def test_what_computes_in_float_beside_the_units_left_in_float_is_a_note_of_its_row() -> None:
    made = quantize.Result(
        file="f", bytes=1, sha256="", precision="int8", recipe="r", weight_share=1.0, float_operators=("Conv",),
        operators=("Conv",), minimum_engine_version="1", notes=quantize._spared(("conv1", "conv2")),
    )  # fmt: skip
    row = with_quantized(Row(target="onnx", asked="int8", precision="int8", status="error", notes=("before",)), made)
    assert row.notes[0] == "before"
    assert row.notes[1].startswith("with weights in INT8, but computed in float")
    assert row.notes[1].endswith(": conv1, conv2")


def test_an_output_that_decides_nothing_may_not_be_lost(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Classes by a large column, a size by a small one: one scale for both columns leaves nothing of the size."""
    large, small = np.zeros((2, COLUMNS, CLASSES), np.float32)
    large[0], small = np.arange(CLASSES) - 1.5, np.eye(COLUMNS, 1, -1, np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "large"], ["y"]), helper.make_node("MatMul", ["x", "small"], ["size"])],
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", COLUMNS])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", n]) for name, n in (("y", CLASSES), ("size", 1))],
        [numpy_helper.from_array(large, "large"), numpy_helper.from_array(small, "small")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "two.onnx"
    )
    given = {}
    for seed, split in enumerate(("evaluation", "calibration")):
        data = replace(rows(200, seed), labels=None)
        given[split] = replace(data, inputs={"x": data.inputs["x"] * np.eye(1, COLUMNS, dtype=np.float32) * 1000 +
                                             data.inputs["x"]})  # fmt: skip
    (row,) = convert(tmp_path / "two.onnx", tmp_path / "o", **given).report.artifacts
    assert (row.status, row.precision) == ("ok", "fp16"), "no 8-bit weights are worth their scales here"
    assert any("output size: R² 0.99" in each or "output size: R² 1.0" in each for each in row.notes)
    monkeypatch.setattr(Task, "others", lambda self, expected, actual: {"size": 0.8999})
    (row,) = convert(model, tmp_path / "p", precisions=("fp32",)).report.artifacts
    assert row.status == "failed_gate"
    assert row.reason is not None
    assert row.reason.startswith(
        "output size has R² 0.8999 against the source on 200 evaluation rows, less than the 0.9"
    )


def test_a_column_of_too_many_values_is_said_to_be_no_segmentation(model: Path, tmp_path: Path) -> None:
    devices = replace(rows(200, 1), segments={"device": np.arange(200) // 4})
    made = convert(model, tmp_path / "o", evaluation=devices, precisions=("fp32",))
    assert any("accuracy by device: 50 different values" in each for each in made.report.absent)


def test_more_segments_than_a_bundle_holds_cost_a_column_and_not_the_bundle(model: Path, tmp_path: Path) -> None:
    columns = {f"column-{index}": np.arange(200) % 32 for index in range(9)}
    made = convert(model, tmp_path / "o", evaluation=replace(rows(200, 1), segments=columns), precisions=("fp32",))
    assert made.bundle is not None
    assert len(made.bundle.manifest.segments) == 7 * 32 + CLASSES
    assert sum("a bundle holds 256 segments" in each for each in made.report.absent) == 2


def test_labels_and_targets_in_one_file_are_refused_until_the_task_says_which_are_meant(
    model: Path, tmp_path: Path
) -> None:
    both = replace(rows(200, 1), targets=answers(rows(200, 1).inputs["x"]))
    given = {"evaluation": both, "precisions": ("fp32",), "calibration": None}
    with pytest.raises(LabelMismatch, match=r"holds both label and target, .* say which with --task"):
        convert(model, tmp_path / "o", **given)
    for task, metric in (("classification", "accuracy"), ("regression", "r2")):
        (row,) = convert(model, tmp_path / task, task=task, **given).report.artifacts
        assert (row.metric, row.source_accuracy) == (metric, pytest.approx(1.0))


def test_what_is_known_of_other_rows_must_be_what_the_model_is_measured_by(model: Path, tmp_path: Path) -> None:
    labels, targets = rows(200, 2), replace(rows(200, 2), labels=None, targets=answers(rows(200, 2).inputs["x"]))
    judged_by = {"target": replace(rows(200, 1), labels=None, targets=answers(rows(200, 1).inputs["x"]))}
    judged_by["label"] = rows(200, 1)
    for given, taken, other in (("label", "target", labels), ("target", "label", targets)):
        for split in ("calibration", "confidence"):
            with pytest.raises(LabelMismatch, match=rf"holds {given}, but .* which is measured by {taken}"):
                convert(model, tmp_path / "o", evaluation=judged_by[taken], **{split: other})
    narrow = replace(targets, targets=np.zeros(200))
    with pytest.raises(LabelMismatch, match=r"target has shape \(200,\), which is not the 4 values a row"):
        convert(model, tmp_path / "o", evaluation=judged_by["target"], calibration=narrow)


def test_calibration_on_the_rows_of_the_evaluation_is_refused_in_any_order(model: Path, tmp_path: Path) -> None:
    same = rows(200, 1)
    for calibration in (same, same.at(np.arange(200)[::-1]), replace(same, labels=None)):
        with pytest.raises(SameRows, match=r"the same 200 rows, .* Split them before"):
            convert(model, tmp_path / "o", calibration=calibration)


def test_too_few_rows_for_a_threshold_are_said_in_a_sentence_with_what_to_give(model: Path, tmp_path: Path) -> None:
    made = convert(model, tmp_path / "o", calibration=rows(100, 2), precisions=("fp32",))
    (said,) = (each for each in made.report.absent if each.startswith("temperature and threshold"))
    assert "20 of 25 rows can show how often trusted answers are wrong" in said
    assert "give about 56 rows, or allow a higher risk. Without --confidence these rows are the 25%" in said
    assert "or 4 times as many labelled rows to --calibration" in said


def test_a_quantized_file_has_no_fp32_one_and_does_not_become_another_precision_unasked(
    model: Path, tmp_path: Path
) -> None:
    first = convert(model, tmp_path / "o")
    assert first.bundle is not None
    assert first.report.artifacts[0].precision == "int8"
    finished = tmp_path / "finished.onnx"
    finished.write_bytes(open_bundle(first.bundle.path).read("small-int8.onnx"))
    (row,) = convert(finished, tmp_path / "p").report.artifacts
    assert (row.status, row.precision, row.source_bytes) == ("ok", "int8", None)
    (row,) = convert(finished, tmp_path / "q", precisions=("int8-weights",), fallback=False).report.artifacts
    assert row.status == "refused"
    assert "the source is int8 already" in (row.reason or "")


TIMED = Row(target="onnx", asked="fp32", precision="fp32", status="ok", bytes=5000, source_bytes=5000, p50_us=50.0,
            p50_aa_ratio=1.1)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bytes": 6000}, ["no smaller than fp32 (6,000 bytes beside 5,000)"]),
        ({"bytes": 5000}, ["no smaller than fp32"]),
        ({"p50_us": 56.0}, ["slower here than fp32 (56 µs beside 50, more than the factor of 1.100 that is noise)"]),
        ({"p50_us": 56.0, "p50_aa_ratio": 1.2}, []),
        ({"p50_us": 54.0}, []),
        ({"p50_us": None}, []),
        ({"p50_us": 500.0, "target": "tflite"}, []),
        ({"bytes": 6000, "p50_us": 500.0}, ["no smaller", "slower here"]),
        ({"bytes": 6000, "status": "failed_gate"}, []),
        ({"target": "coreml", "p50_us": None}, ["latency was not measured: no Core ML engine"]),
    ],
)
def test_an_artifact_that_costs_no_less_than_fp32_says_so_and_why_but_for_noise(
    changes: dict[str, Any], said: list[str]
) -> None:
    row = replace(TIMED, **({"asked": "int8", "precision": "int8", "bytes": 4000, "p50_aa_ratio": 1.0} | changes))
    full, made = with_cost_notes([TIMED, row])
    assert full.notes == ()
    assert len(made.notes) == len(said)
    assert all(note.startswith(start) for note, start in zip(made.notes, said, strict=True))


def test_of_two_artifacts_of_one_precision_the_one_that_was_asked_for_stays() -> None:
    fallen = Row(target="onnx", asked="int8", precision="fp32", status="ok", reason="no int8 holds")
    asked = Row(target="onnx", asked="fp32", precision="fp32", status="ok")
    again = Row(target="onnx", asked="int8-weights", precision="fp32", status="ok", reason="no weights")
    lost = Row(target="onnx", asked="fp16", precision="fp32", status="failed_gate", reason="loses")
    assert [row.status for row in without_twins([fallen, asked, again, lost])] == [
        "refused", "ok", "refused", "failed_gate"
    ]  # fmt: skip
    assert [row.status for row in without_twins([fallen, again])] == ["ok", "refused"]


def test_the_report_has_every_candidate_with_what_decided_between_them(model: Path, tmp_path: Path) -> None:
    convert(model, tmp_path / "o")
    candidates = read_report(tmp_path / "o")["artifacts"][0]["candidates"]
    (chosen,) = (each for each in candidates if each["chosen"])
    assert chosen["error"] == min(each["error"] for each in candidates if each["outcome"] == "holds")
    assert len({each["error"] for each in candidates}) > 1


def test_a_recipe_of_another_precision_is_refused_before_any_work(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="static_wi8c_ai8_q99 makes int8, not int8-weights"):
        convert(model, tmp_path / "o", precisions=("int8-weights",), quantization="static_wi8c_ai8_q99")


def test_verify_measures_a_regression_as_the_conversion_did(model: Path, tmp_path: Path) -> None:
    def numbers(seed: int) -> Dataset:
        data = rows(200, seed)
        return replace(data, labels=None, targets=answers(data.inputs["x"]))

    evaluation = numbers(1)
    made = convert(model, tmp_path / "o", evaluation=evaluation, calibration=numbers(2))
    assert made.bundle is not None
    np.savez(tmp_path / "e.npz", x=evaluation.inputs["x"])
    job = verify.Job(bundle=str(made.bundle.path), source=SourceRef(where=str(model)), data=str(tmp_path / "e.npz"))
    (checked,) = verify.run(job, lambda *step: None).artifacts
    assert checked.decision_agreement == pytest.approx(made.report.artifacts[0].decision_agreement)


class Troubled(InProcess):
    """Stages in this process, but that one fails."""

    def run(self, stage: str, job: Any, *, what: str, say: Any) -> Any:
        if stage == "latency":
            raise StageFailed(what, "its process crashed with SIGSEGV")
        return super().run(stage, job, what=what, say=say)


def test_a_crash_while_timing_costs_the_latency_and_not_the_bundle(model: Path, tmp_path: Path) -> None:
    made = convert(model, tmp_path / "o", precisions=("fp32",), runner=Troubled())
    (row,) = made.report.artifacts
    assert (row.status, row.p50_us) == ("ok", None)
    assert any("latency was not measured: measuring latency: its process crashed" in note for note in row.notes)
    assert made.bundle is not None


class Interrupted:
    """A person's Ctrl-C while one target's stage ends and the other's runs on."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended = threading.Event()

    def run(self, stage: str, job: Any, *, what: str, say: Any) -> Any:
        if stage == "describe":
            return InProcess().run(stage, job, what=what, say=say)
        self.begun.append(what)
        if job.target == "onnx":
            raise KeyboardInterrupt
        self.ended.wait(60)
        raise StageFailed(what, "stopped")

    def stop(self) -> None:
        self.ended.set()


def test_an_interrupt_ends_what_runs_and_leaves_nothing(model: Path, tmp_path: Path) -> None:
    runner = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        convert(model, tmp_path / "o", runner=runner, targets=("onnx", "onnx", "tflite"), precisions=("fp32", "int8"))
    assert runner.ended.is_set()
    assert list(tmp_path.iterdir()) == []
