"""The server side of the story, driven by the commands that a release manager types, each in its own process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
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


class Manager:
    """The release managers at their own machines: every step is a command of ``edgeship-server``."""

    def __init__(self, people: Path, credentials: Path, passphrase: Path, model: str) -> None:
        self._people = people
        self._passphrase = passphrase
        self._remote: tuple[str | Path, ...] = ("--credentials", credentials)
        self.model = model

    def use(self, server: str) -> None:
        """Where the server is now."""
        credentials = self._remote[:2]
        self._remote = (*credentials, "--server", server)

    def publish(self, release: int, bundle: Path, ceiling: str, signers: Sequence[str]) -> Any:
        """Stage the bundle, let each person review and sign from their own copy, publish. Returns `release show`."""
        command("edgeship-server", "release", "stage", bundle, "--ceiling", ceiling, *self._remote)
        number = str(release)
        for person in signers:
            home = self._people / person
            own = home / bundle.name
            shutil.copyfile(bundle, own)
            command(
                *("edgeship-server", "release", "sign", self.model, number, "--bundle", own, "--yes"),
                *("--key", home / f"releases-{person}.pem", "--passphrase-file", self._passphrase),
                *self._remote,
            )
        command("edgeship-server", "release", "publish", self.model, number, *self._remote)
        return command_json("edgeship-server", "release", "show", self.model, number, *self._remote)

    def published(self) -> list[int]:
        """The releases that devices can be aimed at."""
        releases = command_json("edgeship-server", "release", "list", self.model, *self._remote)["releases"]
        return sorted(one["release"] for one in releases if one["state"] == "published")

    def start_rollout(self, release: int, *options: str) -> Any:
        return command_json("edgeship-server", "rollout", "start", self.model, str(release), *options, *self._remote)

    def rollout(self) -> Any:
        """The server's account of the newest rollout."""
        return command_json("edgeship-server", "rollout", "status", self.model, *self._remote)


def init_server(directory: Path, people_dir: Path, people: Sequence[str], passphrase: Path, model: str) -> Path:
    """`edgeship-server init`; then every person takes their keys away from the server's machine.

    Returns the file with the admin API key and an enrolment token.
    """
    options = [option for person in people for option in ("--person", person)]
    command("edgeship-server", "init", directory, "--model", model, *options, "--passphrase-file", passphrase)
    for person in people:
        home = people_dir / person
        home.mkdir(parents=True)
        for key in sorted((directory / "keys").glob(f"*-{person}.pem")):
            key.rename(home / key.name)
        shutil.copyfile(directory / "root.json", home / "root.json")
    return directory / "credentials.json"


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
