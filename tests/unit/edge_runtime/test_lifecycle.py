"""Opening, going back from what is broken, and closing: the state folder is never left half-way."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime import EdgeRuntime, Factory, Reason, RoutingPolicy, Source, slots
from edge_runtime.bundle import write_manifest
from edge_runtime.device import Device
from edge_runtime.errors import (
    ArchiveError,
    ConfigurationError,
    DigestMismatch,
    NoModel,
    ReportError,
    RuntimeClosed,
    StoreLocked,
    UpdateError,
)
from edge_runtime.outcomes import Outcomes
from edge_runtime.store import Store
from tests.support import tiny

WINDOW = {"window": tiny.windows(1)[0]}


def open_(folder: Path, factory: Factory | None = None, **options: Any) -> EdgeRuntime:
    return EdgeRuntime.open(folder / "state", model="tiny", factory=factory, **{"background": False, **options})


def install(folder: Path, release: tiny.TinyRelease, *, attempt: int | None = None) -> None:
    """Put a release into the state folder as an update does: on trial where ``attempt`` is given."""
    store = Store(folder / "state")
    files = {name: release.files[name] for name in (release.artifact.file, release.artifact.golden.file)}
    store.install(write_manifest(release.manifest), release.artifact, files)
    store.apply(slots.adopt if attempt is None else lambda state: slots.activate(state, attempt=attempt))
    store.close()


def outcomes(folder: Path) -> list[tuple[str, int]]:
    spool = Outcomes(folder / "state", device=Device(id="x"), model="tiny", channel="stable")
    return [(event.outcome.value, event.release) for event in spool._spool.outcomes]


def test_the_factory_bundle_answers_and_stays_for_the_next_start(tmp_path: Path) -> None:
    factory = tiny.release().factory(tmp_path)
    with open_(tmp_path, factory) as runtime:
        assert runtime.predict(WINDOW).release == 1
    Path(factory.path).unlink()
    with open_(tmp_path) as runtime:
        assert runtime.predict(WINDOW).release == 1


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda f: replace(f, sha256="0" * 64), DigestMismatch),
        (lambda f: replace(f, path=f"{f.path}.gone"), ArchiveError),
        (lambda f: (Path(f.path).write_bytes(Path(f.path).read_bytes()[:-9]), f)[1], ArchiveError),
    ],
)
def test_a_factory_bundle_that_is_not_the_pinned_one_is_refused(
    tmp_path: Path, change: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        open_(tmp_path, change(tiny.release().factory(tmp_path)))
    with pytest.raises(NoModel):
        open_(tmp_path)


def test_a_factory_bundle_of_another_model_or_for_no_engine_here_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="other"):
        open_(tmp_path, tiny.release(model="other").factory(tmp_path))
    with pytest.raises(UpdateError, match="Incompatible"):
        open_(tmp_path, tiny.release().factory(tmp_path), engines=("tflite",))


def test_the_preferred_engine_is_used(tmp_path: Path) -> None:
    factory = tiny.release(tflite_data=tiny.tflite_bytes()).factory(tmp_path)
    with open_(tmp_path, factory, engines=("tflite", "onnx")) as runtime:
        assert str(runtime.stats()["engine"]).startswith("litert")


@pytest.mark.parametrize(
    "options",
    [
        {"model": "Tiny"},
        {"channel": "../stable"},
        {"engines": ("coreml",)},
        {"engines": "onnx"},
        {"engines": ()},
        {"threads": 0},
        {"commit_after": 0},
        {"update_interval_s": 0.0},
        {"telemetry": "local"},
        {"telemetry": "all"},
        {"server": "https://example.invalid"},
        {"server": "nonsense", "root": b"{}"},
        {"root": "no/such/root.json"},
    ],
)
def test_options_that_cannot_work_are_refused_before_anything_starts(tmp_path: Path, options: dict[str, Any]) -> None:
    factory = tiny.release().factory(tmp_path)
    with pytest.raises(ConfigurationError):
        EdgeRuntime.open(tmp_path / "state", **{"model": "tiny", "factory": factory, "background": False, **options})
    open_(tmp_path, factory).close()


def test_a_digest_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        Factory("x.bundle", sha256="none")


def test_one_folder_serves_one_runtime(tmp_path: Path) -> None:
    with open_(tmp_path, tiny.release().factory(tmp_path)), pytest.raises(StoreLocked):
        open_(tmp_path)


def test_a_damaged_slot_gives_way_to_the_factory_bundle(tmp_path: Path) -> None:
    factory = tiny.release().factory(tmp_path)
    open_(tmp_path, factory).close()
    artifact = tmp_path / "state" / "slots" / "1" / "tiny-fp32.onnx"
    artifact.write_bytes(artifact.read_bytes()[:-1] + b"x")
    with open_(tmp_path, factory) as runtime:
        assert runtime.predict(WINDOW).release == 1
    assert outcomes(tmp_path) == [("RolledBack", 1)]


def test_a_release_that_does_not_load_gives_way_to_the_last_good_one(tmp_path: Path) -> None:
    open_(tmp_path, tiny.release().factory(tmp_path)).close()
    install(tmp_path, tiny.release(2, onnx_data=b"not a model"), attempt=7)
    with open_(tmp_path) as runtime:
        assert runtime.predict(WINDOW).release == 1
    assert outcomes(tmp_path) == [("RolledBack", 2)]
    store = Store(tmp_path / "state")
    assert slots.is_denied(store.slots, 2, 7)
    store.close()


def test_a_release_that_crash_loops_gives_way_and_the_server_will_hear_of_it(tmp_path: Path) -> None:
    open_(tmp_path, tiny.release().factory(tmp_path)).close()
    install(tmp_path, tiny.release(2, seed=2), attempt=1)
    for _ in range(3):
        crashing = open_(tmp_path)
        assert crashing.release == 2
        crashing._upkeep.store.close()  # the process is gone: only its lock goes with it
    with open_(tmp_path) as runtime:
        assert runtime.release == 1
    assert outcomes(tmp_path) == [("RolledBack", 2)]


def test_a_release_on_trial_is_committed_after_enough_good_predictions_over_all_starts(tmp_path: Path) -> None:
    open_(tmp_path, tiny.release().factory(tmp_path)).close()
    install(tmp_path, tiny.release(2, seed=2), attempt=1)
    for start, committed in ((0, False), (1, False), (2, True)):
        with open_(tmp_path, commit_after=10) as runtime:
            for _ in range(4):
                runtime.predict(WINDOW)
        store = Store(tmp_path / "state")
        assert (store.slots.trial is None) is committed, start
        store.close()
    assert outcomes(tmp_path) == [("Committed", 2)]


def test_answers_that_are_not_finite_do_not_commit_a_release(tmp_path: Path) -> None:
    open_(tmp_path, tiny.release().factory(tmp_path)).close()
    install(tmp_path, tiny.release(2, onnx_data=tiny.nan_onnx_bytes()), attempt=1)
    with open_(tmp_path, commit_after=1, policy=RoutingPolicy(static_default={})) as runtime:
        assert runtime.predict(WINDOW).source is Source.DEFAULT
        assert runtime.stats()["trial"] is not None
    assert outcomes(tmp_path) == []


def test_a_folder_of_another_model_is_refused(tmp_path: Path) -> None:
    open_(tmp_path, tiny.release().factory(tmp_path)).close()
    with pytest.raises(ConfigurationError, match="tiny"):
        EdgeRuntime.open(tmp_path / "state", model="other", background=False)


def test_a_revoked_release_never_runs_again_not_even_as_factory(tmp_path: Path) -> None:
    factory = tiny.release().factory(tmp_path)
    open_(tmp_path, factory).close()
    store = Store(tmp_path / "state")
    store.apply(lambda state: slots.restrict(state, min_release=1, revoked=(1,)))
    store.close()
    with pytest.raises(NoModel):
        open_(tmp_path, factory)


def test_a_model_switched_off_by_the_plan_answers_from_the_chain_only(tmp_path: Path) -> None:
    factory = tiny.release().factory(tmp_path)
    open_(tmp_path, factory).close()
    store = Store(tmp_path / "state")
    store.apply(lambda state: slots.disable(state, True))
    store.close()
    with open_(tmp_path, factory, policy=RoutingPolicy(static_default={"logits": [0, 1, 0, 0]})) as runtime:
        p = runtime.predict(WINDOW)
        assert (p.source, p.reason, p.label) == (Source.DEFAULT, Reason.NO_LOCAL_MODEL, "lift")
        assert runtime.release is None


def test_without_a_model_the_app_gets_the_default_or_a_named_error(tmp_path: Path) -> None:
    server = {"server": "http://127.0.0.1:9", "root": b"{}"}
    with open_(tmp_path, **server) as runtime, pytest.raises(NoModel, match="update"):
        runtime.predict(WINDOW)
    with open_(tmp_path, **server, policy=RoutingPolicy(static_default={"logits": [1.0]})) as runtime:
        p = runtime.predict(WINDOW)
        assert (p.source, p.release, p.index, p.degraded) == (Source.DEFAULT, None, None, True)
        assert len(runtime.predict_batch([WINDOW, WINDOW])) == 2


def test_update_report_and_upload_without_a_server_say_so(tmp_path: Path) -> None:
    with open_(tmp_path, tiny.release().factory(tmp_path)) as runtime:
        for call in (runtime.update, runtime.report, runtime.upload_telemetry):
            with pytest.raises(ConfigurationError, match="server"):
                call()
        with pytest.raises(ReportError, match="nothing was counted"):
            runtime.telemetry_report()


def test_a_closed_runtime_says_so(tmp_path: Path) -> None:
    runtime = open_(tmp_path, tiny.release().factory(tmp_path))
    runtime.close()
    runtime.close()
    for call in (lambda: runtime.predict(WINDOW), lambda: runtime.predict_batch([WINDOW]), runtime.update):
        with pytest.raises(RuntimeClosed):
            call()


def test_close_waits_for_predictions_under_way(tmp_path: Path) -> None:
    runtime = open_(tmp_path, tiny.release().factory(tmp_path), interpreters=1)
    answers: list[object] = []
    started = threading.Event()

    class Slow(dict[str, np.ndarray]):
        def get(self, *key: Any) -> Any:
            started.set()
            time.sleep(0.2)
            return super().get(*key)

    thread = threading.Thread(target=lambda: answers.append(runtime.predict(Slow(WINDOW))))
    thread.start()
    started.wait(5)
    runtime.close()
    assert len(answers) == 1
    thread.join()


def test_what_was_counted_before_a_restart_is_reported_after_it(tmp_path: Path) -> None:
    factory = tiny.release().factory(tmp_path)
    for _ in range(2):
        with open_(tmp_path, factory) as runtime:
            for _ in range(3):
                runtime.predict(WINDOW)
    spool = Outcomes(tmp_path / "state", device=Device(id="x"), model="tiny", channel="stable")
    (delta,) = spool._spool.counters
    assert delta.requests == sum(delta.latency_device.values()) == 6
    assert (delta.release, delta.arm) == (1, "none")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"cloud": "localhost:8000"}, "cloud"),
        ({"cloud": "http://127.0.0.1:9", "token": "s\u00e9cret"}, "token"),
        ({"cloud": "http://127.0.0.1:9", "cloud_token": "two\nlines"}, "cloud_token"),
    ],
)
def test_an_address_or_token_that_cannot_be_sent_is_refused_when_opening(
    tmp_path: Path, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigurationError, match=named):
        open_(tmp_path, tiny.release().factory(tmp_path), **options)
    assert not (tmp_path / "state").exists()


def test_another_models_name_is_no_crash_of_the_release_on_trial(tmp_path: Path) -> None:
    install(tmp_path, tiny.release(1))
    install(tmp_path, tiny.release(2), attempt=1)
    for _ in range(5):
        with pytest.raises(ConfigurationError, match="not of other"):
            EdgeRuntime.open(tmp_path / "state", model="other", background=False)
    with open_(tmp_path) as runtime:
        assert runtime.release == 2
