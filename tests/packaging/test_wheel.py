"""The wheel, installed where nothing else is. Run by `make check`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UV = ROOT / ".tools" / "uv" / "bin" / "uv"
BASE = {"numpy", "httpx", "tuf"}

# What `import edge_runtime` must not load: an app that embeds it pays for these when it first uses them.
LAZY = ("numpy", "tuf", "securesystemslib", "httpx", "pydantic", "asyncio", "onnxruntime", "ai_edge_litert", "ssl")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tree / name)
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=tree, check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def clean_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    venv = tmp_path_factory.mktemp("clean") / "venv"
    subprocess.run([UV, "venv", "-q", "--python", sys.executable, venv], check=True)
    python = venv / "bin" / "python"
    constraints = ROOT / "requirements.lock"
    subprocess.run([UV, "pip", "install", "-q", "--python", python, "-c", constraints, wheel], check=True)
    return python


def _run(python: Path, code: str) -> str:
    return subprocess.run(
        [python, "-I", "-c", code], capture_output=True, text=True, check=True, cwd=python.parent
    ).stdout


def test_the_wheel_holds_the_four_packages_and_nothing_that_runs_from_a_checkout(wheel: Path) -> None:
    top = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {t for t in top if not t.endswith(".dist-info")} == {"edge_runtime", "model_server", "converters", "devices"}


def test_the_base_install_is_numpy_httpx_and_tuf(clean_python: Path) -> None:
    code = (
        "import importlib.metadata as m, json, re;"
        "r = [x for x in m.requires('edgeship') if 'extra ==' not in x];"
        "print(json.dumps([re.match(r'[\\w-]+', x)[0] for x in r]))"
    )
    assert set(json.loads(_run(clean_python, code))) == BASE


def test_import_edge_runtime_loads_nothing_heavy(clean_python: Path) -> None:
    loaded = json.loads(_run(clean_python, "import edge_runtime, json, sys; print(json.dumps(sorted(sys.modules)))"))
    assert "edge_runtime" in loaded
    assert [name for name in LAZY if name in loaded] == []


def test_the_device_commands_start_on_the_base_install(clean_python: Path) -> None:
    command = clean_python.with_name("edgeship-device")
    done = subprocess.run([command, "--help"], capture_output=True, text=True, check=True)
    assert "update" in done.stdout


@pytest.mark.parametrize(
    ("line", "extra"),
    [
        (["edgeship-server", "serve", "folder"], "server"),
        (
            [
                *("edgeship-convert", "run", "m.keras", "--name=m", "--release=1", "--precision=fp32"),
                *("--evaluation=e.npz", "--out=o"),
            ],
            "convert",
        ),
    ],
)
def test_a_command_whose_extra_is_missing_says_which(clean_python: Path, line: list[str], extra: str) -> None:
    folder = clean_python.parent
    _run(clean_python, "import numpy; numpy.savez('e.npz', x=numpy.zeros((20, 2), 'f4'))")
    done = subprocess.run(
        [clean_python.with_name(line[0]), *line[1:]], capture_output=True, text=True, check=False, cwd=folder
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert f"edgeship[{extra}]" in done.stderr


def test_the_formats_that_others_implement_travel_with_the_package(wheel: Path) -> None:
    assert "edge_runtime/bundle/FORMAT.md" in zipfile.ZipFile(wheel).namelist()
