"""The story in order. Each chapter calls public commands and APIs; this file only hands results on."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from converters.quiet import load_tool
from examples.smartwatch import chapters, hybrid, numbers, report, training
from examples.smartwatch.building import MODEL, Splits
from examples.smartwatch.data import load
from examples.smartwatch.narrator import Narrator
from examples.smartwatch.stage import Stage, start, start_proxy
from examples.smartwatch.training import SEEDS


def tell(out: Path, *, devices: int) -> dict[str, Any]:
    """Run the whole story; writes ``summary.json`` and ``report.html`` under ``out`` and prints the tables."""
    narrator = Narrator()
    with narrator.step("Data: shoulder exercises from a smartwatch, split by subject"):
        windows, digest = load()
        stage = Stage(out=out, narrator=narrator, windows=windows, data_sha256=digest, splits=Splits.of(windows))
        dataset = numbers.dataset(windows)
        narrator.say(f"windows: {dataset['windows']}; {dataset['split']}")
    with narrator.step("Teachers and students, three seeds"):
        load_tool("keras")  # without TensorFlow's banner
        models = [training.train(seed, windows.of("train"), out / "models", narrator.say) for seed in SEEDS]
    with narrator.step("Small artifacts: TFLite, ONNX and Core ML, fp32 and INT8, measured on unseen subjects"):
        built = chapters.build(stage, models)
    with narrator.step("A server; release 1 signed by two people"):
        manager, credentials = chapters.open_shop(stage)
        chapters.cloud_models(stage, models)
    with ExitStack() as running:
        server = start(running, stage, "server", ["edgeship-server", "serve", str(stage.server_dir), "--port", "0"])
        proxy = start_proxy(running, stage, server)
        manager.use(server.url)
        with narrator.step(f"A fleet of {devices} devices, and release 2 in stages"):
            token = json.loads(credentials.read_text())["enrolment_token"]
            signed = manager.publish(1, built[1].packed.path, chapters.DEMO_CEILING, chapters.SIGNERS)
            narrator.say(f"release 1 is signed by {' and '.join(chapters.SIGNERS)} and published")
            fleet_story = chapters.fleet(stage, running, manager, built, proxy.url, token, devices)
        endpoint = hybrid.Endpoint(url=proxy.url, root=stage.server_dir / "root.json", token=token)
        with narrator.step("Unseen subjects through predict(), doubtful windows to the cloud"):
            served, curves = chapters.serve_unseen(stage, built, endpoint)
        with narrator.step("The cloud is killed; the watch keeps answering"):
            down = chapters.cloud_down(stage, built[1], server, endpoint)
        proxy.stop()
    with narrator.step("Weeks of telemetry from 2,000 devices; then the watches are strapped on the other way round"):
        drift = chapters.weeks(stage, built[2], credentials, token)
    with narrator.step("What went over the wire, and the report"):
        summary = {
            "dataset": dataset,
            "teacher": numbers.networks([m.teacher for m in models], windows.of("test")),
            "student": numbers.networks([m.student for m in models], windows.of("test")),
            "artifacts": [numbers.artifact(a) for a in built[1].artifacts],
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
            "telemetry": numbers.telemetry(stage, drift),
            "drift": numbers.drift(drift),
        }
        summary["seconds"] = {"total": round(narrator.elapsed(), 1), **narrator.seconds}
        summary["reused_models"] = [m.seed for m in models if m.reused]
    details = numbers.details(fleet_story["timeline"], curves, served, drift)
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    (out / "report.html").write_text(report.page(summary, details))
    sys.stdout.write("\n" + report.terminal(summary))
    narrator.say(f"{narrator.elapsed():.0f} s in all. Report: {out / 'report.html'}, numbers: {out / 'summary.json'}")
    return summary
