"""What the chapters of the story share: where things go, the data, and processes that end with the story."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from examples.smartwatch.building import Splits
from examples.smartwatch.data import Windows
from examples.smartwatch.narrator import Narrator
from examples.smartwatch.service import Process


@dataclass(slots=True)
class Stage:
    """What the chapters share."""

    out: Path
    narrator: Narrator
    windows: Windows
    data_sha256: str
    splits: Splits

    @property
    def run(self) -> Path:
        return self.out / "run"

    @property
    def test(self) -> Windows:
        return self.windows.of("test")

    @property
    def passphrase(self) -> Path:
        return self.run / "passphrase.txt"

    @property
    def server_dir(self) -> Path:
        return self.run / "server"

    @property
    def uploads(self) -> Path:
        return self.run / "uploads.bin"


def start(running: ExitStack, stage: Stage, name: str, line: list[str]) -> Process:
    if line[0].startswith("edgeship-"):
        line = [str(Path(sys.executable).with_name(line[0])), *line[1:]]
    ready = stage.run / f"{name}.url"
    process = Process(
        name, [*line, "--ready-file", str(ready)], ready_file=ready, log=stage.out / "logs" / f"{name}.log"
    )
    running.callback(process.stop)
    return process


def start_proxy(running: ExitStack, stage: Stage, server: Process) -> Process:
    line = [sys.executable, "-m", "examples.smartwatch.proxy", "--upstream", server.url, "--record", str(stage.uploads)]
    return start(running, stage, "proxy", line)
