"""Changes of keys as people type them: files in folders, `edgeship-server keys` in this process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from model_server.cli import main
from model_server.clock import Clock
from model_server.commands.keys import run_keys
from model_server.commands.parser import build_parser
from model_server.settings import Settings
from tests.support.server import PASSPHRASE, key_file


@dataclass
class Ceremony:
    """A server's folder, and a folder for what people hold: new key files, and changes. With a ``clock`` the commands
    go by it, instead of by the machine's."""

    settings: Settings
    folder: Path
    capsys: pytest.CaptureFixture[str]
    clock: Clock | None = None

    def run(self, *args: object, code: int = 0) -> Any:
        """The answer of a command that is to end with ``code``: its JSON, or what it says on standard error."""
        if self.clock is not None and args[0] != "list":
            parsed = build_parser().parse_args(["keys", *map(str, args)])
            return run_keys(parsed, Console(quiet=True), lambda file, **_: PASSPHRASE, lambda text: True, self.clock)
        self.capsys.readouterr()
        assert main(["keys", *map(str, args), "--json"]) == code
        out, err = self.capsys.readouterr()
        return err if code else json.loads(out)

    @property
    def passphrase(self) -> Path:
        path = self.folder / "passphrase"
        if not path.exists():
            path.write_bytes(PASSPHRASE + b"\n")
        return path

    def new(self, person: str, *kinds: str, folder: str | None = None) -> Path:
        """The file of public keys of ``person``, who made them in a folder of their own."""
        place = self.folder / (folder or person)
        roles = [option for kind in kinds for option in ("--role", kind)]
        return Path(self.run("new", person, "--out", place, *roles, "--passphrase-file", self.passphrase)["public"])

    def propose(self, *args: object) -> Path:
        out = self.folder / f"{len(list(self.folder.glob('*.change.json')))}.change.json"
        self.run(*args, "--dir", self.settings.directory, "--out", out)
        return out

    def key(self, kind: str, person: str) -> Path:
        """The key file of ``person``: their own, or the one that `init` made."""
        own = self.folder / person / f"{kind}-{person}.pem"
        return own if own.exists() else key_file(self.settings, kind, person)

    def sign(self, change: Path, *keys: Path, code: int = 0, options: Sequence[object] = ()) -> Any:
        """Sign with ``keys`` on one machine, which trusts the first root."""
        chosen = [option for key in keys for option in ("--key", key)]
        trust = self.folder / f"{keys[0].stem}.trust"
        return self.run(
            "sign",
            change,
            *chosen,
            "--passphrase-file",
            self.passphrase,
            "--root",
            self.settings.directory / "root.json",
            "--trust",
            trust,
            "--yes",
            *options,
            code=code,
        )

    def signed_by(self, change: Path, people: Sequence[str], *kinds: str) -> None:
        """Each of ``people`` signs with their keys of those kinds."""
        for person in people:
            self.sign(change, *(self.key(kind, person) for kind in kinds))

    def publish(self, *changes: Path, code: int = 0) -> Any:
        return self.run("publish", *changes, "--dir", self.settings.directory, code=code)

    def owners(self, role: str) -> list[str]:
        roles = self.run("list", self.settings.directory)["roles"]
        return next([key["owner"] for key in each["keys"]] for each in roles if each["role"] == role)
