"""What is loaded when: the package alone loads nothing heavy, the first prediction NumPy and its engine only."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import edge_runtime
from devices.static_server import serve
from edge_runtime.errors import Outcome
from tests.support import tiny
from tests.support.world import NOW, World

HEAVY = ("numpy", "onnxruntime", "ai_edge_litert", "tuf", "securesystemslib", "httpx", "pydantic", "asyncio", "sqlite3")


def loaded_after(code: str) -> set[str]:
    program = f"import json, sys\n{code}\nprint(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_after("import edge_runtime") == set()


def test_its_names_load_nothing_heavy_before_they_are_used() -> None:
    assert loaded_after("from edge_runtime import EdgeRuntime, Factory, RoutingPolicy, Prediction, NoAnswer") == set()


@pytest.mark.parametrize(("target", "engine"), [("onnx", "onnxruntime"), ("tflite", "ai_edge_litert")])
def test_the_first_prediction_loads_numpy_and_its_engine_only(tmp_path: Path, target: str, engine: str) -> None:
    factory = tiny.release(tflite_data=tiny.tflite_bytes()).factory(tmp_path)
    code = f"""
from edge_runtime import EdgeRuntime, Factory
runtime = EdgeRuntime.open({str(tmp_path / "state")!r}, model="tiny", engines=({target!r},), background=False,
                           factory=Factory({str(factory.path)!r}, sha256={factory.sha256!r}),
                           server="http://127.0.0.1:9", root=b"{{}}")
import numpy
runtime.predict({{"window": numpy.zeros((20, 3), numpy.float32)}})
"""
    assert loaded_after(code) == {"numpy", engine}


def test_a_check_that_finds_nothing_new_loads_no_tuf(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    with serve(tmp_path / "server") as server:
        world = World(tmp_path / "devices", server)
        world.plan(share=0)
        device = world.device(engines=("onnx",))
        assert device.check().outcome is Outcome.UNCHANGED
        device.close()
        root = tmp_path / "root.json"
        root.write_bytes(world.root)
        code = f"""
from datetime import datetime
from pathlib import Path
from edge_runtime.device import Device
from edge_runtime.store import Store
from edge_runtime.update.updater import Updater
class Clock:
    wall = staticmethod(lambda: datetime.fromisoformat({NOW.isoformat()!r}))
    boot = staticmethod(lambda: 2000.0)
updater = Updater(store=Store(Path({str(device.folder)!r})), device=Device(id="device-1", attributes={{}}),
                  model="tiny", channel="stable", root=Path({str(root)!r}).read_bytes(), server={server.url!r},
                  engines=("onnx",), clock=Clock)
result = updater.check()
assert (result.outcome.value, result.requests) == ({Outcome.UNCHANGED.value!r}, 1), result
"""
        assert loaded_after(code) == {"httpx"}


def test_every_public_name_is_there_and_has_a_home() -> None:
    assert sorted(edge_runtime.__all__) == edge_runtime.__all__
    for name in edge_runtime.__all__:
        assert getattr(edge_runtime, name) is not None
        assert name in dir(edge_runtime)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = edge_runtime.nonsense


def test_every_error_is_a_public_error_of_one_tree() -> None:
    from edge_runtime import errors

    for name in errors.__all__:
        kind = getattr(errors, name)
        assert name == "Outcome" or issubclass(kind, errors.EdgeshipError)
        assert name == "Outcome" or name in (errors.__doc__ or "") or kind.__module__ == "edge_runtime.bundle.errors"
