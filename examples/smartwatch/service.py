"""The server side of the story, driven by the commands that a release manager types, each in its own process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

READY_SECONDS = 60


class CommandFailed(SystemExit):
    """A command of the story failed; the text is the command and what it printed."""


def command(*arguments: str | Path) -> str:
    """Run one of our commands (``edgeship-server`` …) from this environment and return its standard output."""
    name, *rest = (str(a) for a in arguments)
    line = [str(Path(sys.executable).with_name(name)), *rest]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        shown = " ".join([name, *rest])
        raise CommandFailed(f"\n$ {shown}\n{done.stdout}{done.stderr}\nexit status {done.returncode}")
    return done.stdout


def command_json(*arguments: str | Path) -> Any:
    return json.loads(command(*arguments, "--json"))


class Process:
    """A long-running process of the story (server, proxy), known to be up when it has written its ready file."""

    def __init__(self, name: str, line: list[str], *, ready_file: Path, log: Path) -> None:
        self.name = name
        ready_file.unlink(missing_ok=True)
        self._log = log.open("ab")
        self._process = subprocess.Popen(line, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True)
        deadline = time.monotonic() + READY_SECONDS
        while not (ready_file.exists() and ready_file.read_text().strip()):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise CommandFailed(f"{name} did not start; its log is {log}")
            time.sleep(0.05)
        self.url = ready_file.read_text().strip()

    def stop(self) -> None:
        """Ask it to end, and wait; kill it when it does not."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self.kill()
        self._log.close()

    def kill(self) -> None:
        """End it without warning, as a power cut would."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(timeout=15)
