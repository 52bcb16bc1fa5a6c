"""From what the chapters measured to summary.json and the page. Nothing is decided or run here but the search of what
went over the wire."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from examples.smartwatch.chapters import TURNED_AXIS
from examples.smartwatch.data import AXES, EXERCISES, SUBJECTS, Windows
from examples.smartwatch.rollouts import Timeline
from examples.smartwatch.stage import Stage
from examples.smartwatch.training import SEEDS


def dataset(windows: Windows) -> dict[str, Any]:
    subjects = {name: ", ".join(map(str, numbers)) for name, numbers in SUBJECTS.items()}
    return {
        "name": "seglearn watch_dataset",
        "windows": {name: len(windows.of(name)) for name in ("train", "val", "test")},
        "split": f"by subject: train {subjects['train']}; validate {subjects['val']}; test {subjects['test']}",
        "classes": list(EXERCISES),
    }


def networks(networks: list[Any], test: Windows) -> dict[str, Any]:
    """Parameters, and accuracy on one window at a time; the top-level value is the mean over seeds."""
    found = []
    for seed, network in zip(SEEDS, networks, strict=True):
        logits = network.predict(test.x, batch_size=512, verbose=0)
        found.append({"seed": seed, "test_accuracy": float(np.mean(np.argmax(logits, axis=-1) == test.y))})
    return {
        "parameters": int(networks[0].count_params()),
        "test_accuracy": float(np.mean([one["test_accuracy"] for one in found])),
        "seeds": found,
    }


def artifact(a: Any) -> dict[str, Any]:
    return {
        "target": a.target,
        "precision": a.precision,
        "file": a.file,
        "bytes": a.bytes,
        "test_accuracy": a.accuracy,
        "max_abs_error_vs_source": a.max_abs_error,
        "agreement": a.decision_agreement,
        "p50_us": a.p50_us,
        "evaluated_with": a.evaluated_with,
        "float_operators": list(a.float_operators),
        "threshold": a.confidence.threshold,
        "temperature": a.confidence.temperature,
    }


def telemetry(stage: Stage, drift: dict[str, Any]) -> dict[str, Any]:
    """Counted on the wire: what the recording proxy kept."""
    from examples.smartwatch.proxy import read_record
    from examples.smartwatch.wearers import turn
    from examples.smartwatch.wire import SampleFinder

    turned = turn(stage.windows, AXES.index(TURNED_AXIS))
    finder = SampleFinder(np.concatenate([stage.windows.x, turned.x]))
    uploads: list[bytes] = []
    reports = body = heads = inference = inference_with = outcomes = 0
    for request in read_record(stage.uploads):
        if request.path == "/v1/telemetry":
            reports += 1
            body += len(request.body)
            heads += request.head_bytes
            uploads.append(request.body)
        elif request.path == "/v1/outcomes":
            outcomes += 1
            uploads.append(request.body)
        elif request.path.startswith("/v2/") and request.body:
            inference += 1
            inference_with += finder.found_in([request.body])
    found = finder.found_in(uploads)
    stage.narrator.say(
        f"{len(uploads):,} uploads searched for raw samples: {found} hold one; "
        f"{inference_with} of {inference} cloud requests do, as they must"
    )
    return {
        "mode": drift["after"]["mode"],
        "epsilon": drift["after"]["epsilon"],
        "delta": drift["after"]["delta"],
        "reports": reports,
        "bytes_per_device_day": (body + heads) / reports,
        "body_bytes_per_device_day": body / reports,
        "raw_inputs_uploaded": found,
        "uploads_searched": len(uploads),
        "outcome_reports": outcomes,
        "cloud_requests": inference,
        "raw_inputs_in_cloud_requests": inference_with,
    }


def drift(drift: dict[str, Any]) -> dict[str, Any]:
    before, after = drift["before"], drift["after"]
    return {
        "devices": None if not drift["watched"] else drift["watched"][-1]["devices"],
        "turned_axis": TURNED_AXIS,
        "before": {"days": len(before["days"]), "alarm": before["alarm"], "features": before["features"]},
        "after": {
            "days": len(after["days"]) - len(before["days"]),
            "alarm": after["alarm"],
            "features": after["features"],
            "days_to_alarm": drift["days_to_alarm"],
        },
        "threshold": after["threshold"],
        "tolerance": after["tolerance"],
        "cannot_see": after["cannot_see"],
    }


def details(
    timeline: Timeline, curves: list[dict[str, Any]], served: dict[str, Any], drift: dict[str, Any]
) -> dict[str, Any]:
    points = [
        {"label": str(s["seed"]), "share": s["cloud"] / s["requests"], "accuracy": s["accuracy_hybrid"]}
        for s in served["seeds"]
    ]
    return {
        "intro": "Recordings of a real smartwatch, a teacher and a distilled student, releases signed by two people, a "
        "simulated fleet of real runtimes on one machine. Every number was measured in the run that wrote this page.",
        "rollout": asdict(timeline),
        "hybrid": {"curves": curves, "points": points},
        "drift": {
            "days": drift["watched"],
            "tolerance": drift["after"]["tolerance"],
            "turned_on": drift["turned_on"],
            "approved_on": drift["watched"][0]["day"],
        },
        "notes": [
            "Accuracy is on two subjects that training and thresholds never saw. Top-level values are means over the "
            "training seeds; artifacts and the fleet are the first seed's.",
            "Core ML does not run on this machine: its artifacts are evaluated by the reference evaluator, and have no "
            "latency.",
            "The fleet's devices are real runtimes and updaters that share this machine; their latency says nothing "
            "about a watch.",
            "Drift needs a cohort: the server adds noise before anything is kept, so 2,000 devices resample windows "
            "whose answers were computed once. " + str(drift["after"]["cannot_see"]),
        ],
    }
