"""The operator's own command, run over each bundle before anything is proposed.

It is trusted as the server's own code is, and kept from doing harm by mistake: no shell, none of the server's secrets
in its environment, an empty folder, an end. It is no sandbox: it runs as the server's user.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from model_server.errors import ReadinessBroken, ReadinessRefused
from model_server.releases.readiness.report import Check, HookReport
from model_server.releases.watch import Watch

__all__ = ["MAX_OUTPUT_BYTES", "run_hook"]

MAX_OUTPUT_BYTES = 65_536  # of its standard output; of its standard error, that many of the last
MAX_CHECKS = 100
MAX_TEXT = 2000
SHOWN_LINES = 10  # of standard error
LOOK_S = 0.1
_KEPT = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ")  # of the server's environment


def run_hook(
    command: Sequence[str],
    bundle: Path,
    about: Mapping[str, object],
    *,
    timeout_s: float,
    environment: Mapping[str, str],
    watch: Watch,
) -> HookReport:
    """Run ``command`` with the path of ``bundle`` as its last argument and ``about``, JSON, on its standard input.

    Raises: ReadinessRefused unless it exits with 0 in time; ReadinessBroken if it cannot be started; what ``watch``
    raises. Whatever happens, nothing of its process group is left.
    """
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="edgeship-readiness-", ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryFile() as given,
    ):
        given.write(json.dumps(about).encode())
        given.seek(0)
        process = _start(command, bundle, Path(folder), given, environment)
        out, err = _Kept(first=True), _Kept(first=False)
        try:
            ended = _wait(process, out, err, began + timeout_s, watch)
        finally:
            _kill_group(process)
    if not ended:
        raise ReadinessRefused(f"{command[0]} did not end within {timeout_s:g} s and was stopped{_said(err)}")
    if process.returncode != 0:
        raise ReadinessRefused(_refusal(command[0], process.returncode, out, err))
    summary, checks = _read_report(out)
    return HookReport(
        command=command[0], seconds=round(time.monotonic() - began, 1), summary=summary, checks=checks or ()
    )


@dataclass(slots=True)
class _Kept:
    """The first or the last bytes of a stream, no more than are of use."""

    first: bool
    data: bytes = b""
    cut: bool = False

    def add(self, piece: bytes) -> None:
        whole = self.data + piece
        self.cut = self.cut or len(whole) > MAX_OUTPUT_BYTES
        self.data = whole[:MAX_OUTPUT_BYTES] if self.first else whole[-MAX_OUTPUT_BYTES:]


def _start(
    command: Sequence[str], bundle: Path, folder: Path, given: BinaryIO, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    minimal = {name: environment[name] for name in _KEPT if name in environment}
    try:
        return subprocess.Popen(
            [*command, str(bundle)],
            cwd=folder,
            env={**minimal, "HOME": str(folder), "TMPDIR": str(folder)},
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # its own process group, to be killed whole
        )
    except OSError as error:
        raise ReadinessBroken(
            f"the command {command[0]!r} of releases.readiness in settings.toml cannot be started: {error.strerror}. "
            "Nothing was staged"
        ) from error


def _wait(process: subprocess.Popen[bytes], out: _Kept, err: _Kept, deadline: float, watch: Watch) -> bool:
    """Read what it says until it ends; False if it does not in time. What it has started may go on holding its pipes,
    so their end is not waited for."""
    with selectors.DefaultSelector() as selector:
        for pipe, kept in ((process.stdout, out), (process.stderr, err)):
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)
                selector.register(pipe, selectors.EVENT_READ, kept)
        while True:
            ended = _has_ended(process)
            _read(selector, 0 if ended else LOOK_S)
            if ended:
                return True
            if time.monotonic() > deadline:
                return False
            watch.check()


def _read(selector: selectors.BaseSelector, timeout_s: float) -> None:
    """All that is there now, and no more than one flood's worth, so that the clock is looked at in between."""
    if not selector.get_map():
        time.sleep(timeout_s)
        return
    for _ in range(64):
        ready = selector.select(timeout_s)
        if not ready:
            return
        timeout_s = 0
        for key, _mask in ready:
            piece = os.read(key.fd, MAX_OUTPUT_BYTES)
            if piece:
                key.data.add(piece)
            else:
                selector.unregister(key.fileobj)
        if not selector.get_map():
            return


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Without reaping it: until then its number, and so its group's, is nobody else's."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):  # macOS says the latter of a group of zombies
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def _refusal(name: str, status: int, out: _Kept, err: _Kept) -> str:
    how = f"with exit status {status}" if status > 0 else f"by signal {-status}"
    summary, checks = _read_report(out)
    if checks is None:
        return f"{name} ended {how}{_said(err)}"
    failed = [f"{check.name}: {check.detail}" for check in checks if not check.passed]
    return f"{name} ended {how}: {'; '.join([summary, *failed] if summary else failed) or 'no check failed'}"


def _said(err: _Kept) -> str:
    lines = [line for line in map(_plain, err.data.decode(errors="replace").splitlines()) if line]
    return f": {' / '.join(lines[-SHOWN_LINES:])}" if lines else ", and said nothing on its standard error"


def _read_report(out: _Kept) -> tuple[str, tuple[Check, ...] | None]:
    """Its summary and checks; None, and why, if its standard output is no report."""
    if out.cut:
        return f"its output has more than {MAX_OUTPUT_BYTES} bytes and was not kept", None
    if not out.data.strip():
        return "", None
    try:
        document = json.loads(out.data)
        checks = document.get("checks", [])
        if len(checks) > MAX_CHECKS:
            raise ValueError(f"more than {MAX_CHECKS} checks")
        return _text(document.get("summary", "")), tuple(map(_check, checks))
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return "its output is not a report, and was not kept", None


def _check(value: Any) -> Check:
    if type(value["passed"]) is not bool:
        raise TypeError
    return Check(name=_text(value["name"])[:128], passed=value["passed"], detail=_text(value.get("detail", "")))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return _plain(value)[:MAX_TEXT]


def _plain(text: str) -> str:
    """One line, without what moves a cursor or colours a terminal: people will read it before they sign."""
    return "".join(each for each in " ".join(text.split()) if each.isprintable())
