"""Helper environments: for tools that cannot live beside the others, made on demand, pinned, and said.

A helper environment is a folder with a Python of its own. It is made once for each list of pins, in
``$EDGESHIP_HOME/environments`` or, without that variable, in the user's cache folder, and is used by starting its
Python on one of our scripts. ``python -m converters.environments NAME...`` makes them in advance.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from converters.errors import OutputFull, ToolMissing
from converters.interpreters import Command, find_python
from converters.locks import try_lock

__all__ = ["ENVIRONMENTS", "ONNX2TF", "READY", "TORCH", "HelperEnvironment", "ensure", "folder_of", "is_ready", "main"]

Say = Callable[[str], None]
PINS = Path(__file__).resolve().parent / "foreign" / "pins"
READY = "edgeship-environment.json"  # written last, so a folder without it is one that was not finished
HOME = "EDGESHIP_HOME"
PIP_ARGS = "EDGESHIP_PIP_ARGS"
TAIL = 12  # lines of pip's output that an error carries
SAID_EVERY_S = 10.0  # while an installer runs, whatever it prints
FOUND = re.compile(r"Collecting ([A-Za-z0-9][A-Za-z0-9._-]*)")  # a line of pip's for each package
INSTALLING = "Installing collected packages"
LOCK_POLL_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class HelperEnvironment:
    """``requirements`` are what its scripts import, ``constraints`` the versions of all that these bring along.

    ``pythons`` are the versions that it is tested with, the preferred one first; ``disk_bytes`` is what it occupies.
    """

    name: str
    purpose: str
    pythons: tuple[str, ...]
    requirements: tuple[str, ...]
    constraints: tuple[str, ...]
    disk_bytes: int

    @property
    def digest(self) -> str:
        """Names the pins: another list is another environment."""
        text = "\n".join((*self.pythons, *self.requirements, *self.constraints))
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _pins(name: str) -> tuple[str, ...]:
    return tuple((PINS / f"{name}.txt").read_text(encoding="utf-8").split())


TORCH = HelperEnvironment(
    name="torch",
    purpose="reads PyTorch ExportedPrograms and converts them",
    pythons=("3.11", "3.12", "3.13"),
    requirements=(
        "torch==2.13.0",
        "litert-torch==0.10.0",
        "litert-converter==0.5.0",
        "onnxscript==0.7.2",
        "onnx==1.23.2",
        "coremltools==9.0",
        "numpy==2.4.6",
    ),
    constraints=_pins("torch"),
    disk_bytes=2_500_000_000,
)
ONNX2TF = HelperEnvironment(
    name="onnx2tf",
    purpose="converts ONNX to TFLite",
    pythons=("3.12", "3.13"),
    requirements=("onnx2tf==2.6.9",),
    constraints=_pins("onnx2tf"),
    disk_bytes=800_000_000,
)
ENVIRONMENTS: Mapping[str, HelperEnvironment] = {each.name: each for each in (TORCH, ONNX2TF)}


def ensure(environment: HelperEnvironment, say: Say, *, environ: Mapping[str, str] | None = None) -> Path:
    """The Python of the environment, which is made first if it is not there yet.

    ``say`` hears what happens; ``environ`` is the process's environment if not given. Where this interpreter has the
    required packages in the required versions, it is this one. Another process that is making the same environment is
    waited for. Raises `ToolMissing` if no fitting Python is found or a package cannot be installed, `OutputFull` if
    there is too little space; a later call goes on where that one stopped.
    """
    environ = os.environ if environ is None else environ
    if _installed_here(environment):
        return Path(sys.executable)
    folder = folder_of(environment, environ)
    if is_ready(folder):
        return _python_in(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    waiting = f"waiting for another process, which is installing the environment {environment.name}"
    with _lock(folder.with_name(folder.name + ".lock"), lambda: say(waiting)) as lock:
        if not is_ready(folder):
            _Maker(environment, folder, say, environ, lock).make()
    return _python_in(folder)


def folder_of(environment: HelperEnvironment, environ: Mapping[str, str]) -> Path:
    """Where the environment is or will be: its name and the digest of its pins, in the folder for all of them."""
    home = environ.get(HOME)
    cache = environ.get("XDG_CACHE_HOME") or (environ.get("LOCALAPPDATA") if os.name == "nt" else None)
    base = Path(home) if home else Path(cache or "~/.cache").expanduser() / "edgeship"
    return base.absolute() / "environments" / f"{environment.name}-{environment.digest}"


def is_ready(folder: Path) -> bool:
    """Whether the environment was finished and the Python that it was made with is still there."""
    return (folder / READY).is_file() and _python_in(folder).exists()


def _installed_here(environment: HelperEnvironment) -> bool:
    """Whether this interpreter has every requirement; a local build (``2.13.0+cpu``) counts as its version."""
    if "{}.{}".format(*sys.version_info[:2]) not in environment.pythons or not environment.requirements:
        return False
    for requirement in environment.requirements:
        name, version = requirement.split("==")
        try:
            if metadata.version(name).split("+")[0] != version:
                return False
        except metadata.PackageNotFoundError:
            return False
    return True


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes one environment. ``lock`` is the locked file, which the installer inherits: should this process be killed,
    nobody else starts while its installer is still writing."""

    environment: HelperEnvironment
    folder: Path
    say: Say
    environ: Mapping[str, str]
    lock: int

    def make(self) -> None:
        """Go on where an earlier attempt stopped: pip leaves alone what is installed already."""
        environment, folder = self.environment, self.folder
        python = find_python(environment.pythons, self.environ)
        self._check_space()
        size = f"{environment.disk_bytes / 1e9:.1f} GB"
        self.say(
            f"installing the environment {environment.name} ({environment.purpose}): {size} into {folder}; "
            "once, some minutes"
        )
        (folder / READY).unlink(missing_ok=True)  # there if its Python is gone
        pip = (str(_python_in(folder)), "-m", "pip")
        if not self._works((*pip, "--version")):
            self._run((*python, "-m", "venv", "--clear", str(folder)))
        if environment.requirements:
            constraints = folder / "constraints.txt"
            constraints.write_text("\n".join(environment.constraints) + "\n", encoding="utf-8")
            options = ("--disable-pip-version-check", "--no-input", "--progress-bar", "off", "-c", str(constraints))
            extra = shlex.split(self.environ.get(PIP_ARGS, ""))
            self._run((*pip, "install", *options, *extra, *environment.requirements))
        partial = folder / f"{READY}.part"
        partial.write_text(json.dumps({"name": environment.name, "pins": environment.digest}), encoding="utf-8")
        partial.replace(folder / READY)
        self.say(f"the environment {environment.name} is ready")

    def _check_space(self) -> None:
        free = shutil.disk_usage(self.folder.parent).free
        if free < self.environment.disk_bytes:
            raise OutputFull(
                f"the environment {self.environment.name} needs {self.environment.disk_bytes / 1e9:.1f} GB in "
                f"{self.folder.parent}, where {free / 1e9:.1f} GB are free; make room, or name another folder in "
                f"{HOME}"
            )

    def _works(self, command: Command) -> bool:
        try:
            return subprocess.run(command, capture_output=True, check=False, env=_clean(self.environ)).returncode == 0
        except OSError:
            return False

    def _run(self, command: Command) -> None:
        """Run it, say how far it is, and raise `ToolMissing` with its last lines if it fails."""
        lines: deque[str] = deque(maxlen=TAIL)
        progress, began, ended = _Progress(len(self.environment.constraints)), time.monotonic(), threading.Event()

        def tick() -> None:
            while not ended.wait(SAID_EVERY_S):
                self.say(f"{self.environment.name}: {progress.text(time.monotonic() - began)}")

        ticking = threading.Thread(target=tick, daemon=True)
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=_clean(self.environ),
            pass_fds=() if os.name == "nt" else (self.lock,),
        )
        ticking.start()
        try:
            for line in process.stdout or ():
                lines.append(line.rstrip())
                progress.heard(line.strip())
            code = process.wait()
        finally:
            ended.set()
            ticking.join()
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        if code != 0:
            again = shlex.join((sys.executable, "-m", "converters.environments", self.environment.name))
            raise ToolMissing(
                f"the environment {self.environment.name}, which {self.environment.purpose}, could not be installed. "
                f"With a network, run\n  {again}\nwhich goes on where this stopped. Options for pip, such as another "
                f"index of packages, go into {PIP_ARGS}.\n--- the installer's last output ---\n" + "\n".join(lines)
            )


class _Progress:
    """What the installer is at, from the lines that it prints; ``packages`` is how many there are about."""

    def __init__(self, packages: int) -> None:
        self._packages, self._found, self._doing = packages, 0, "making the folder"

    def heard(self, line: str) -> None:
        package = FOUND.match(line)
        if package is not None:
            self._found += 1
            self._doing = f"fetching {package[1]}, package {self._found} of about {max(self._found, self._packages)}"
        elif line.startswith(INSTALLING):
            self._doing = f"unpacking {len(line.split(','))} packages"

    def text(self, seconds: float) -> str:
        return f"{self._doing}, {seconds:.0f} s"


def _clean(environ: Mapping[str, str]) -> dict[str, str]:
    """Without what would make the other interpreter use this one's packages."""
    dropped = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
    return {name: value for name, value in environ.items() if name not in dropped}


def _python_in(folder: Path) -> Path:
    return folder / "Scripts" / "python.exe" if os.name == "nt" else folder / "bin" / "python"


@contextlib.contextmanager
def _lock(path: Path, waiting: Callable[[], None]) -> Iterator[int]:
    """One process at a time; the system lets go of it when its holder ends, however that ends."""
    with path.open("a+b") as file:
        said = False
        while not try_lock(file.fileno()):
            if not said:
                waiting()
            said = True
            time.sleep(LOCK_POLL_S)
        yield file.fileno()


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the named environments, or all; their Pythons are printed. 0: all are ready; 1: one could not be made."""
    parser = argparse.ArgumentParser(
        prog="python -m converters.environments", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ENVIRONMENTS)}; all if none is given")
    parser.add_argument("--python", action="store_true", help="print the path of the environment's Python alone")
    parsed = parser.parse_args(arguments)
    names = parsed.names or list(ENVIRONMENTS)
    unknown = [name for name in names if name not in ENVIRONMENTS]
    if unknown:
        parser.error(f"there is no environment {unknown[0]}; the names are {', '.join(ENVIRONMENTS)}")
    for name in names:
        try:
            python = ensure(ENVIRONMENTS[name], _tell)
        except (ToolMissing, OutputFull) as error:
            print(error, file=sys.stderr)  # noqa: T201 - a command
            return 1
        print(python if parsed.python else f"{name}: {python}")  # noqa: T201 - a command
    return 0


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - a command


if __name__ == "__main__":
    sys.exit(main())
