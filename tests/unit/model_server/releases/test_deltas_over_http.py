"""Deltas from staging to a device: made by a real server, signed by two people, applied by the device's updater."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.bundle import read_release
from edge_runtime.errors import Outcome
from edge_runtime.update.plan import PARTS, State
from model_server.installation import open_publisher
from model_server.settings import Settings
from tests.support.managers import download, publish, sign, stage
from tests.support.plans import PLAN
from tests.support.server import SteppedClock, make_bundle, make_folder, running
from tests.support.watch import watch

FILE = "model-fp32.onnx"


def weights(moved: float) -> bytes:
    """float32[10,000] of which all moved by about ``moved`` of themselves."""
    random = np.random.default_rng(1)
    values = random.normal(0, 0.05, 10_000)
    return bytes((values * (1 + moved * random.normal(0, 1, 10_000))).astype(np.float32).tobytes())


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return make_folder(tmp_path / "server")


def test_a_release_is_staged_with_deltas_from_the_last_ones_and_devices_use_them(
    settings: Settings, tmp_path: Path
) -> None:
    files = {1: weights(0), 2: weights(0.001), 3: weights(0.002), 4: weights(0.003), 5: weights(0.004)}
    plan = dataclasses.replace(PLAN, candidate=4, share=PARTS, state=State.COMPLETE)
    with running(settings, SteppedClock()) as server:
        for release, data in files.items():
            bundle = make_bundle(tmp_path / f"{release}.bundle", release, data=data)
            assert publish(server, settings, bundle, release).status_code == 200
        document = download(server, settings, tmp_path / "client", "models/exercise/5/release.json")
        assert document is not None
        deltas = read_release(document).deltas
        assert [(delta.from_release, delta.file) for delta in deltas] == [
            (release, f"{FILE}.from-{release}.delta") for release in (4, 3, 2)
        ]
        assert all(delta.bytes < 0.7 * len(files[5]) for delta in deltas)

        publisher = open_publisher(settings, SteppedClock())
        with watch(server, settings, tmp_path / "device") as (store, updater):
            publisher.put_plan(plan)
            assert updater.check().outcome is Outcome.INSTALLED
            store.good(1, commit_after=1)
            publisher.put_plan(dataclasses.replace(plan, candidate=5, rollout="r-2"))
            result = updater.check()
            assert (result.outcome, result.notes) == (Outcome.INSTALLED, ())
            assert store.slot(5).read_artifact() == files[5]
            assert result.bytes < deltas[0].bytes + 15_000, "the file itself did not come"


def test_no_delta_is_offered_where_it_saves_nothing_and_none_where_it_is_switched_off(
    settings: Settings, tmp_path: Path
) -> None:
    other = np.random.default_rng(2).normal(0, 0.05, 10_000).astype(np.float32).tobytes()
    with running(settings, SteppedClock()) as server:
        publish(server, settings, make_bundle(tmp_path / "1.bundle", 1, data=weights(0)), 1)
        bundle = make_bundle(tmp_path / "2.bundle", 2, data=other)
        assert not _deltas(stage(server, bundle).json())
        sign(server, settings, "alice", bundle, 2)
        sign(server, settings, "bob", bundle, 2)
        assert server.admin.post("/v1/releases/exercise/2/publish").status_code == 200
    with running(dataclasses.replace(settings, delta_releases=0), SteppedClock()) as server:
        bundle = make_bundle(tmp_path / "3.bundle", 3, data=weights(0.01))
        assert not _deltas(stage(server, bundle).json())


def _deltas(staged: dict[str, list[dict[str, object]]]) -> list[object]:
    return [ref["file"] for ref in staged["files"] if str(ref["file"]).endswith(".delta")]
