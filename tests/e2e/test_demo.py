"""`make demo`, as the README says it, in a folder of its own; then what it claims is held against what it measured."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.demo, pytest.mark.timeout(2500)]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        ["make", "demo", f"DEMO_OUT={folder}"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=2400
    )
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
    return folder


@pytest.fixture(scope="module")
def summary(out: Path) -> Any:
    return json.loads((out / "summary.json").read_text())


def test_the_data_is_split_by_subject(summary: Any) -> None:
    assert summary["dataset"]["windows"] == {"train": 3193, "val": 482, "test": 1002}
    assert "subject" in summary["dataset"]["split"]


def test_the_student_is_small_and_good_on_unseen_subjects(summary: Any) -> None:
    assert summary["student"]["parameters"] * 10 <= summary["teacher"]["parameters"]
    assert summary["student"]["test_accuracy"] > 0.80
    assert len(summary["student"]["seeds"]) == 3


@pytest.mark.parametrize("target", ["tflite", "onnx", "coreml"])
def test_int8_is_smaller_and_within_a_point_of_the_float_student(summary: Any, target: str) -> None:
    by_kind = {(a["target"], a["precision"]): a for a in summary["artifacts"]}
    small, full = by_kind[target, "int8"], by_kind[target, "fp32"]
    assert small["bytes"] < full["bytes"]
    assert small["test_accuracy"] >= summary["student"]["seeds"][0]["test_accuracy"] - 0.01
    assert full["max_abs_error_vs_source"] < 1e-3


def test_a_release_needs_two_signatures(summary: Any) -> None:
    assert summary["release"]["threshold"] == 2
    assert summary["release"]["signatures"] >= 2


def test_the_rollout_grows_in_stages_to_the_whole_fleet_on_both_engines(summary: Any) -> None:
    rollout = summary["rollout"]
    adopted = [stage["adopted"] for stage in rollout["stages"]]
    assert rollout["devices"] >= 60
    assert adopted == sorted(adopted)
    assert adopted[0] < 0.5
    assert adopted[-1] == 1.0
    assert set(rollout["engines"]) == {"onnx", "tflite"}


def test_the_cloud_is_asked_for_the_doubtful_and_pays(summary: Any) -> None:
    hybrid = summary["hybrid"]
    assert hybrid["accuracy_hybrid"] > hybrid["accuracy_on_device_only"]
    assert 0 < hybrid["cloud"] <= 0.4 * hybrid["requests"]
    assert hybrid["on_device"] + hybrid["cloud"] == hybrid["requests"]
    assert len(hybrid["seeds"]) == 3


def test_every_request_is_answered_while_the_cloud_is_down(summary: Any) -> None:
    down = summary["cloud_down"]
    assert down["requests"] >= 200
    assert down["answered"] == down["requests"]
    assert 0 < down["degraded"] < down["requests"]


def test_the_bad_release_is_rolled_back_and_no_device_keeps_it(summary: Any) -> None:
    bad = summary["bad_release"]
    assert bad["state"] == "rolled_back"
    assert bad["devices_at_worst"] > 0
    assert bad["devices_on_it_at_end"] == 0
    assert bad["reports_before_halt"] > 0


def test_no_upload_holds_a_raw_input_and_the_search_can_find_one(summary: Any) -> None:
    telemetry = summary["telemetry"]
    assert telemetry["mode"] == "central"
    assert telemetry["raw_inputs_uploaded"] == 0
    assert telemetry["uploads_searched"] >= 2000 * 21
    assert telemetry["raw_inputs_in_cloud_requests"] > 0  # the same search, where inputs must be
    assert 0 < telemetry["body_bytes_per_device_day"] <= 1100


def test_drift_is_silent_before_and_names_the_turned_axis_after(summary: Any) -> None:
    drift = summary["drift"]
    assert drift["before"]["days"] >= 7
    assert drift["before"]["alarm"] is False
    assert drift["after"]["alarm"] is True
    assert drift["after"]["days_to_alarm"] <= 14
    assert any(drift["turned_axis"] in feature for feature in drift["after"]["features"])


def test_the_report_needs_no_other_file(out: Path, summary: Any) -> None:
    page = (out / "report.html").read_text()
    assert page.count("<svg") >= 3
    assert not re.search(r"""(src|href)=["'](?!#)""", re.sub(r"<(use|svg)[^>]*>", "", page))
