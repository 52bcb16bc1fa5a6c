"""Finds a Python of a given version on this machine: for helper environments that this one's Python cannot hold."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from converters.errors import ToolMissing

__all__ = ["Command", "answers", "find_python"]

Command = tuple[str, ...]  # a program and its first arguments: ("py", "-3.12") on Windows
PROBE = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
PROBE_S = 20


def find_python(
    versions: Sequence[str],
    environ: Mapping[str, str],
    *,
    works: Callable[[Command, str], bool] | None = None,
) -> Command:
    """The first Python of ``versions`` (``3.12``), in their order, that runs here and can make environments.

    Looks at the running interpreter, ``PATH``, Windows' launcher, pyenv's folder and uv's. ``works`` decides whether a
    candidate is one of that version; it is asked by running it. Raises `ToolMissing` that says what to install.
    """
    works = works or answers
    for version in versions:
        for command in dict.fromkeys(_candidates(version, environ)):
            if works(command, version):
                return command
    wanted = " or ".join(versions)
    raise ToolMissing(
        f"no Python {wanted} with venv and ensurepip was found; install one (python{versions[0]} and "
        f"python{versions[0]}-venv on Debian and Ubuntu, or: uv python install {versions[0]}) and have it on PATH"
    )


def answers(command: Command, version: str) -> bool:
    """Whether the command starts a Python of that version that can make environments.

    A name on PATH proves little: pyenv puts one there for every version that it knows, installed or not.
    """
    try:
        done = subprocess.run([*command, "-c", PROBE], capture_output=True, text=True, timeout=PROBE_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and done.stdout.strip() == version


def _candidates(version: str, environ: Mapping[str, str]) -> Iterator[Command]:
    if version == "{}.{}".format(*sys.version_info[:2]):
        yield (sys.executable,)
    path = environ.get("PATH", "")
    named = shutil.which(f"python{version}", path=path)
    if named:
        yield (named,)
    launcher = shutil.which("py", path=path) if os.name == "nt" else None
    if launcher:
        yield (launcher, f"-{version}")
    pyenv = Path(environ.get("PYENV_ROOT") or Path(environ.get("HOME", "~")).expanduser() / ".pyenv") / "versions"
    for folder in sorted(pyenv.glob(f"{version}.*"), reverse=True):
        yield (str(folder / "bin" / "python"),)
    uv = shutil.which("uv", path=path)
    if uv:
        found = subprocess.run(
            [uv, "python", "find", "--no-project", "--offline", version], capture_output=True, text=True, check=False
        )
        if found.returncode == 0:
            yield (found.stdout.strip(),)
