"""The story in order. Each chapter calls public commands and APIs; this file only hands results on."""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from converters.quiet import load_tool
from examples.smartwatch import hybrid, report, training
from examples.smartwatch.building import CLOUD_MODEL, MODEL, Built, Splits, build_cloud_model, build_release
from examples.smartwatch.data import AXES, EXERCISES, SUBJECTS, Windows, load
from examples.smartwatch.narrator import Narrator
from examples.smartwatch.rollouts import Timeline, engines, roll_out, write_field
from examples.smartwatch.service import Manager, Process, init_server
from examples.smartwatch.training import SEEDS, Trained

PEOPLE = ("alice", "bob", "carol")
SIGNERS = ("alice", "bob")
DEMO_CEILING = "0s=100%"  # a real ceiling lets a release reach 1 % on the first day; this fleet has minutes
TURNED_AXIS = "az"
FLEET_SEED = 7


@dataclass(slots=True)
class Stage:
    """What the chapters share."""

    out: Path
    narrator: Narrator
    windows: Windows
    data_sha256: str
    splits: Splits

    @property
    def run(self) -> Path:
        return self.out / "run"

    @property
    def test(self) -> Windows:
        return self.windows.of("test")

    @property
    def passphrase(self) -> Path:
        return self.run / "passphrase.txt"

    @property
    def server_dir(self) -> Path:
        return self.run / "server"

    @property
    def uploads(self) -> Path:
        return self.run / "uploads.bin"


def tell(out: Path, *, devices: int) -> dict[str, Any]:
    """Run the whole story; writes ``summary.json`` and ``report.html`` under ``out`` and prints the tables."""
    narrator = Narrator()
    with narrator.step("Data: shoulder exercises from a smartwatch, split by subject"):
        windows, digest = load()
        stage = Stage(out=out, narrator=narrator, windows=windows, data_sha256=digest, splits=Splits.of(windows))
        dataset = _dataset(windows)
        narrator.say(f"windows: {dataset['windows']}; {dataset['split']}")
    with narrator.step("Teachers and students, three seeds"):
        load_tool("keras")  # without TensorFlow's banner
        models = [training.train(seed, windows.of("train"), out / "models", narrator.say) for seed in SEEDS]
    with narrator.step("Small artifacts: TFLite, ONNX and Core ML, fp32 and INT8, measured on unseen subjects"):
        built = _build(stage, models)
    with narrator.step("A server; release 1 signed by two people"):
        manager, credentials = _open_shop(stage)
        _cloud_models(stage, models)
    with ExitStack() as running:
        server = _start(running, stage, "server", ["edgeship-server", "serve", str(stage.server_dir), "--port", "0"])
        proxy = _start_proxy(running, stage, server)
        manager.use(server.url)
        with narrator.step(f"A fleet of {devices} devices, and release 2 in stages"):
            token = json.loads(credentials.read_text())["fleet_token"]
            signed = manager.publish(1, built[1].packed.path, DEMO_CEILING, SIGNERS)
            narrator.say(f"release 1 is signed by {' and '.join(SIGNERS)} and published")
            fleet_story = _fleet(stage, running, manager, built, proxy.url, token, devices)
        with narrator.step("Unseen subjects through predict(), doubtful windows to the cloud"):
            served, curves = _serve_unseen(stage, built, hybrid.Endpoint(url=proxy.url, token=token))
        with narrator.step("The cloud is killed; the watch keeps answering"):
            down = _cloud_down(stage, built[1], server, hybrid.Endpoint(url=proxy.url, token=token))
        proxy.stop()
    with narrator.step("Weeks of telemetry from 2,000 devices; then the watches are strapped on the other way round"):
        drift = _weeks(stage, built[2], credentials, token)
    with narrator.step("What went over the wire, and the report"):
        summary = {
            "dataset": dataset,
            "teacher": _networks([m.teacher for m in models], windows.of("test")),
            "student": _networks([m.student for m in models], windows.of("test")),
            "artifacts": [_artifact(a) for a in built[1].artifacts],
            "release": {
                "model": MODEL,
                "releases": fleet_story["published"],
                "signatures": len(signed["signatures"]),
                "threshold": signed["threshold"],
                "people": [one["person"] for one in signed["signatures"]],
            },
            **fleet_story["summary"],
            "hybrid": served,
            "cloud_down": down,
            "telemetry": _telemetry(stage, drift),
            "drift": _drift(drift),
        }
        summary["seconds"] = {"total": round(narrator.elapsed(), 1), **narrator.seconds}
        summary["reused_models"] = [m.seed for m in models if m.reused]
    details = _details(fleet_story["timeline"], curves, served, drift)
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    (out / "report.html").write_text(report.page(summary, details))
    sys.stdout.write("\n" + report.terminal(summary))
    narrator.say(f"{narrator.elapsed():.0f} s in all. Report: {out / 'report.html'}, numbers: {out / 'summary.json'}")
    return summary


def _dataset(windows: Windows) -> dict[str, Any]:
    subjects = {name: ", ".join(map(str, numbers)) for name, numbers in SUBJECTS.items()}
    return {
        "name": "seglearn watch_dataset",
        "windows": {name: len(windows.of(name)) for name in ("train", "val", "test")},
        "split": f"by subject: train {subjects['train']}; validate {subjects['val']}; test {subjects['test']}",
        "classes": list(EXERCISES),
    }


def _networks(networks: list[Any], test: Windows) -> dict[str, Any]:
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


def _build(stage: Stage, models: list[Trained]) -> dict[Any, Built]:
    """Releases 1, 2 and 3 of the first seed's student by number; the other seeds' release 1 by ``seed N``."""
    from examples.smartwatch.models import with_signal_gain

    shipped = models[0]
    everywhere, fleet = ("onnx", "tflite", "coreml"), ("onnx", "tflite")

    def build(student: Any, release: int, version: str, changes: str, seed: int, targets: tuple[str, ...]) -> Built:
        return build_release(
            student,
            stage.splits,
            stage.narrator,
            stage.run / "bundles" / f"seed-{seed}",
            release=release,
            version=version,
            changes=changes,
            seed=seed,
            cloud_release=1 + SEEDS.index(seed),
            data_sha256=stage.data_sha256,
            targets=targets,
        )

    improved = training.improve(shipped, stage.windows.of("train"), stage.out / "models", stage.narrator.say)
    built: dict[Any, Built] = {
        1: build(shipped.student, 1, "1.0.0", "The first release.", shipped.seed, everywhere),
        2: build(improved, 2, "1.1.0", "Trained on with varied gain and timing.", shipped.seed, fleet),
        3: build(
            with_signal_gain(improved), 3, "1.2.0", "Logits scaled by how lively the signal is.", shipped.seed, fleet
        ),
    }
    for other in models[1:]:
        built[f"seed {other.seed}"] = build(
            other.student, 1, "1.0.0", "The first release, from another seed.", other.seed, ("onnx",)
        )
    return built


def _artifact(a: Any) -> dict[str, Any]:
    return {
        "target": a.target,
        "precision": a.precision,
        "file": a.path.name,
        "bytes": a.bytes,
        "test_accuracy": a.accuracy,
        "max_abs_error_vs_source": a.max_abs_error,
        "agreement": a.agreement,
        "p50_us": a.p50_us,
        "evaluated_with": a.evaluated_with,
        "float_operators": list(a.float_operators),
        "threshold": a.threshold,
        "temperature": a.temperature,
    }


def _open_shop(stage: Stage) -> tuple[Manager, Path]:
    stage.passphrase.write_text("a passphrase for the demo only")
    stage.passphrase.chmod(0o600)
    credentials = init_server(stage.server_dir, stage.run / "people", PEOPLE, stage.passphrase, MODEL)
    settings = stage.server_dir / "settings.toml"
    settings.write_text(settings.read_text().replace("controller_interval_s = 30.0", "controller_interval_s = 1.0"))
    stage.narrator.say(f"{', '.join(PEOPLE)} took their keys away from the server's machine")
    return Manager(stage.run / "people", credentials, stage.passphrase, MODEL), credentials


def _cloud_models(stage: Stage, models: list[Trained]) -> None:
    for number, trained in enumerate(models, start=1):
        folder = stage.server_dir / "models" / CLOUD_MODEL / str(number)
        folder.mkdir(parents=True)
        build_cloud_model(trained.teacher, stage.windows.of("val"), 32, folder)
        stage.narrator.progress("cloud models: the teachers, over 8 windows", number, len(models))


def _start(running: ExitStack, stage: Stage, name: str, line: list[str]) -> Process:
    if line[0].startswith("edgeship-"):
        line = [str(Path(sys.executable).with_name(line[0])), *line[1:]]
    ready = stage.run / f"{name}.url"
    process = Process(
        name, [*line, "--ready-file", str(ready)], ready_file=ready, log=stage.out / "logs" / f"{name}.log"
    )
    running.callback(process.stop)
    return process


def _start_proxy(running: ExitStack, stage: Stage, server: Process) -> Process:
    line = [sys.executable, "-m", "examples.smartwatch.proxy", "--upstream", server.url, "--record", str(stage.uploads)]
    return _start(running, stage, "proxy", line)


def _fleet(
    stage: Stage, running: ExitStack, manager: Manager, built: dict[Any, Built], url: str, token: str, devices: int
) -> dict[str, Any]:
    from devices.fleet import Fleet, FleetOptions

    narrator = stage.narrator
    field = stage.run / "field.npz"
    write_field(stage.test, field, seed=FLEET_SEED)
    options = FleetOptions(
        server=url,
        root=stage.server_dir / "root.json",
        model=MODEL,
        state=stage.run / "fleet",
        factory=built[1].packed.path,
        factory_sha256=built[1].packed.sha256,
        examples=field,
        token=token,
        devices=devices,
        workers=2,
        seed=FLEET_SEED,
        static_default={},
    )
    timeline = Timeline()
    with Fleet(options) as fleet:
        first = fleet.period(lambda done, n: narrator.progress("first start, on the bundle the app ships", done, n))
        timeline.sample(first)
        manager.publish(2, built[2].packed.path, DEMO_CEILING, SIGNERS)
        good, periods = roll_out(fleet, manager, timeline, narrator, 2, until="complete")
        narrator.say("release 3: logits scaled by how lively the signal is; every offline check passes")
        manager.publish(3, built[3].packed.path, DEMO_CEILING, SIGNERS)
        bad, bad_periods = roll_out(fleet, manager, timeline, narrator, 3, until="rolled_back")
    return {
        "timeline": timeline,
        "published": manager.published(),
        "summary": {
            "rollout": {
                "devices": devices,
                "engines": engines(periods),
                "candidate": 2,
                "differs": "the student of release 1, distilled 8 epochs more on windows with varied gain and timing",
                "stages": [
                    {"stage": s["stage"], "share": s["share"], "adopted": s["adopted"] / s["devices_known"]}
                    for s in good["stages"]
                ],
            },
            "bad_release": {
                "release": 3,
                "fault": "logits scaled by log(standard deviation): not finite when a sensor drops out",
                "state": bad["state"],
                "reason": next(
                    (e["reason"] for e in bad["events"] if "breach" in e["event"]), bad["events"][-1]["reason"]
                ),
                "reports_before_halt": bad["reports_before_halt"],
                "devices_at_worst": max(p.releases.get(3, 0) for p in bad_periods),
                "devices_on_it_at_end": bad_periods[-1].releases.get(3, 0),
            },
        },
    }


def _serve_unseen(
    stage: Stage, built: dict[Any, Built], endpoint: hybrid.Endpoint
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Every seed's release 1 with its own teacher in the cloud; top-level values are means over seeds."""
    test, seeds, curves = stage.test, [], []
    for seed in SEEDS:
        bundle = built[1 if seed == SEEDS[0] else f"seed {seed}"].packed
        served = {}
        for mode in ("only_on_device", "prefer_on_device", "only_in_cloud"):
            state = stage.run / "hybrid" / f"{seed}-{mode}"
            with hybrid.open_runtime(bundle.path, bundle.sha256, state, endpoint, mode) as runtime:
                label = f"seed {seed}, {mode}"
                served[mode] = hybrid.serve(
                    runtime, test, lambda done, n, at=label: stage.narrator.progress(at, done, n)
                )
        device, both, cloud = served["only_on_device"], served["prefer_on_device"], served["only_in_cloud"]
        seeds.append(
            {
                "seed": seed,
                "requests": len(test),
                "on_device": both.count("device"),
                "cloud": both.count("cloud"),
                "accuracy_on_device_only": device.accuracy,
                "accuracy_hybrid": both.accuracy,
                "accuracy_cloud_only": cloud.accuracy,
            }
        )
        curves.append({"label": f"seed {seed}", **hybrid.curve(device, cloud)})
        stage.narrator.say(
            f"seed {seed}: device {device.accuracy:.3f}, hybrid {both.accuracy:.3f} with "
            f"{both.count('cloud')} of {len(test)} in the cloud, cloud {cloud.accuracy:.3f}"
        )
    counts = {key: sum(one[key] for one in seeds) for key in ("requests", "on_device", "cloud")}
    names = ("accuracy_on_device_only", "accuracy_hybrid", "accuracy_cloud_only")
    return {**counts, **{key: float(np.mean([one[key] for one in seeds])) for key in names}, "seeds": seeds}, curves


def _cloud_down(stage: Stage, built: Built, server: Process, endpoint: hybrid.Endpoint) -> dict[str, Any]:
    test = stage.test
    rows = range(0, len(test), 2)
    bundle, state = built.packed, stage.run / "hybrid" / "cloud-down"
    with hybrid.open_runtime(bundle.path, bundle.sha256, state, endpoint, "prefer_on_device") as runtime:
        before = hybrid.serve(runtime, test, rows=range(1, len(test), 10))
        server.kill()
        began = time.monotonic()
        down = hybrid.serve(runtime, test, partial(stage.narrator.progress, "requests without a cloud"), rows)
        seconds = time.monotonic() - began
    result = {
        "requests": len(rows),
        "answered": len(down.source),
        "degraded": sum(down.degraded),
        "from_cloud_before": before.count("cloud"),
        "from_cloud": down.count("cloud"),
        "accuracy": down.accuracy,
        "seconds": round(seconds, 2),
    }
    stage.narrator.say(f"{result['answered']} of {result['requests']} answered, {result['degraded']} as degraded")
    return result


def _weeks(stage: Stage, built: Built, credentials: Path, token: str) -> dict[str, Any]:
    from edge_runtime.telemetry.layout import Layout
    from examples.smartwatch.calendar_server import EPOCH
    from examples.smartwatch.wearers import Answers, Days, Uplink, Wearers, turn
    from examples.smartwatch.weeks import DEVICES, TURNED_SHARE, Calendar, DriftDesk, live_through

    unseen = stage.windows.where(np.isin(stage.windows.subject, SUBJECTS["val"] + SUBJECTS["test"]))
    manifest = built.packed.manifest
    layout = Layout.of(next(a for a in manifest.artifacts if (a.target, a.precision) == ("onnx", "int8")))
    nowhere = hybrid.Endpoint(url="http://127.0.0.1:9", token="")
    state = stage.run / "wearer"
    with hybrid.open_runtime(built.packed.path, built.packed.sha256, state, nowhere, "only_on_device") as runtime:
        normal = Answers.of(runtime, layout, unseen.x)
        turned = Answers.of(runtime, layout, turn(unseen, AXES.index(TURNED_AXIS)).x)
    stage.narrator.say(f"each of {2 * len(unseen):,} windows answered once, as worn and turned")
    with ExitStack() as running:
        today = (np.datetime64("today") - np.datetime64(EPOCH)).astype(int)
        calendar = Calendar(file=stage.run / "day.txt", start=int(today))
        calendar.turn_to(0)
        line = [sys.executable, "-m", "examples.smartwatch.calendar_server", str(stage.server_dir)]
        server = _start(running, stage, "calendar-server", [*line, "--today-file", str(calendar.file)])
        proxy = _start_proxy(running, stage, server)
        uplink = Uplink(
            server=proxy.url,
            token=token,
            model=MODEL,
            release=manifest.release,
            layout=layout,
            wearers=Wearers.make(unseen, devices=DEVICES, wrong_share=TURNED_SHARE, seed=FLEET_SEED),
            normal=normal,
            turned=turned,
            seed=FLEET_SEED,
        )
        with Days(uplink) as days:
            return live_through(days, DriftDesk(server.url, credentials, MODEL), calendar, stage.narrator)


def _telemetry(stage: Stage, drift: dict[str, Any]) -> dict[str, Any]:
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


def _drift(drift: dict[str, Any]) -> dict[str, Any]:
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


def _details(
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
