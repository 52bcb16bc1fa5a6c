"""Runs a script of another environment: request and reply are files, and a crash is an error that names the stage."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from converters.errors import ConversionFailed, ModelUnreadable, PickleRefused, UnsupportedModel, UnsupportedOperator

__all__ = ["SCRIPTS", "run_script"]

SCRIPTS = Path(__file__).resolve().parent / "foreign" / "scripts"
TAIL = 2000  # characters of a script's output that an error carries
TIMEOUT_S = 1800.0
# What would make the other interpreter look for packages outside its own environment, or print more than it must.
FOREIGN = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV")


def run_script(
    python: Path,
    script: Path,
    request: Mapping[str, Any],
    *,
    stage: str,
    subject: str,
    around: Callable[[str], str] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> dict[str, Any]:
    """What the script replied to the request. ``stage`` and ``subject`` (the model) name it in errors.

    ``around`` gives the way around an operator by its name.

    The script runs in an empty folder and ends when this process does. Raises `UnsupportedOperator`,
    `UnsupportedModel`, `ModelUnreadable` or `PickleRefused` where the script says that the model is at fault, and
    `ConversionFailed` with the end of its output where it fails, crashes or takes longer than ``timeout_s`` seconds.
    """
    with tempfile.TemporaryDirectory(prefix="edgeship-foreign-") as folder:
        asked, replied, log = (Path(folder) / name for name in ("request.json", "reply.json", "log.txt"))
        asked.write_text(json.dumps(dict(request)), encoding="utf-8")
        (Path(folder) / "work").mkdir()
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [str(python), str(script), str(asked), str(replied)],
                cwd=Path(folder) / "work",
                stdin=subprocess.PIPE,  # held open: when it closes, the script ends
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=_environment(),
            )
            try:
                code = process.wait(timeout_s)
            except subprocess.TimeoutExpired as error:
                raise ConversionFailed(stage, f"took more than {timeout_s:g} s", tool_output=_tail(log)) from error
            finally:
                process.kill()
                process.wait()
                if process.stdin is not None:
                    process.stdin.close()
        reply = json.loads(replied.read_text(encoding="utf-8")) if replied.is_file() else {}
        if "ok" in reply:
            return dict(reply["ok"])
        if "refused" in reply:
            _refuse(reply["refused"], subject, around)
        why = str(reply["failed"]) if "failed" in reply else f"its process {_ending(code)}"
        raise ConversionFailed(stage, f"{subject}: {why}", tool_output=_tail(log))


def _refuse(refused: Mapping[str, str], subject: str, around: Callable[[str], str] | None) -> NoReturn:
    kind, message = refused["kind"], refused["message"]
    if kind == "operator":
        operator = refused["operator"]
        way = f"; {around(operator)}" if around else ""
        raise UnsupportedOperator(operator, f"{subject}: {message}{way}")
    if kind == "unreadable":
        raise ModelUnreadable(f"{subject} cannot be read: {message}")
    if kind == "pickle":
        raise PickleRefused(
            f"{subject} holds pickled objects, which can run code when they are read ({message}); if you trust whoever "
            "made it, allow that with --trust-pickle"
        )
    raise UnsupportedModel(f"{subject}: {message}")


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    return {**kept, "PYTHONNOUSERSITE": "1", "PYTHONDONTWRITEBYTECODE": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}


def _ending(code: int) -> str:
    if code == -getattr(signal, "SIGKILL", 9):
        return "was killed; most often the machine ran out of memory"
    if code < 0:
        try:
            return f"crashed with {signal.Signals(-code).name}"
        except ValueError:
            return f"crashed with signal {-code}"
    return f"ended with exit code {code} and no reply"


def _tail(log: Path) -> str:
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL))
        return file.read().decode(errors="replace").strip()
