"""The chapters: each runs one part of the story with public commands and APIs, and returns what was measured."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from examples.smartwatch import hybrid, training
from examples.smartwatch.building import CLOUD_MODEL, MODEL, Built, build_cloud_model, build_release
from examples.smartwatch.data import AXES, SUBJECTS
from examples.smartwatch.rollouts import Timeline, engines, last_reason, roll_out, write_field
from examples.smartwatch.service import Manager, Process, init_server
from examples.smartwatch.stage import Stage, start, start_proxy
from examples.smartwatch.training import SEEDS, Trained

PEOPLE = ("alice", "bob", "carol")
SIGNERS = ("alice", "bob")
DEMO_CEILING = "0s=100%"  # a real ceiling lets a release reach 1 % on the first day; this fleet has minutes
TURNED_AXIS = "az"
FLEET_SEED = 7


def build(stage: Stage, models: list[Trained]) -> dict[Any, Built]:
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


def open_shop(stage: Stage) -> tuple[Manager, Path]:
    stage.passphrase.write_text("a passphrase for the demo only")
    stage.passphrase.chmod(0o600)
    credentials = init_server(stage.server_dir, stage.run / "people", PEOPLE, stage.passphrase, MODEL)
    settings = stage.server_dir / "settings.toml"
    settings.write_text(settings.read_text().replace("controller_interval_s = 30.0", "controller_interval_s = 1.0"))
    stage.narrator.say(f"{', '.join(PEOPLE)} took their keys away from the server's machine")
    return Manager(stage.run / "people", credentials, stage.passphrase, MODEL), credentials


def cloud_models(stage: Stage, models: list[Trained]) -> None:
    for number, trained in enumerate(models, start=1):
        folder = stage.server_dir / "models" / CLOUD_MODEL / str(number)
        folder.mkdir(parents=True)
        build_cloud_model(trained.teacher, stage.windows.of("val"), 32, folder)
        stage.narrator.progress("cloud models: the teachers, over 8 windows", number, len(models))


def fleet(
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
        enrolment_token=token,
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
                "reason": last_reason(bad),
                "reports_before_halt": bad["reports_before_halt"],
                "devices_at_worst": max(p.releases.get(3, 0) for p in bad_periods),
                "devices_on_it_at_end": bad_periods[-1].releases.get(3, 0),
            },
        },
    }


def serve_unseen(
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


def cloud_down(stage: Stage, built: Built, server: Process, endpoint: hybrid.Endpoint) -> dict[str, Any]:
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


def weeks(stage: Stage, built: Built, credentials: Path, token: str) -> dict[str, Any]:
    from edge_runtime.enrolment.command import enrol
    from edge_runtime.telemetry.layout import Layout
    from examples.smartwatch.calendar_server import EPOCH
    from examples.smartwatch.wearers import Answers, Days, Uplink, Wearers, turn
    from examples.smartwatch.weeks import DEVICES, TURNED_SHARE, Calendar, DriftDesk, live_through

    unseen = stage.windows.where(np.isin(stage.windows.subject, SUBJECTS["val"] + SUBJECTS["test"]))
    manifest = built.packed.manifest
    layout = Layout.of(next(a for a in manifest.artifacts if (a.target, a.precision) == ("onnx", "int8")))
    nowhere = hybrid.Endpoint(url="http://127.0.0.1:9", root=stage.server_dir / "root.json", token=None)
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
        server = start(running, stage, "calendar-server", [*line, "--today-file", str(calendar.file)])
        proxy = start_proxy(running, stage, server)
        sender, root = stage.run / "sender", (stage.server_dir / "root.json").read_bytes()
        enrol(sender, proxy.url, root, token)
        uplink = Uplink(
            server=proxy.url,
            root=root,
            sender=sender,
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
