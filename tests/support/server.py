"""A real server in a folder, and a real uvicorn on a free port in a thread."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import uvicorn

from edge_runtime.bundle import Golden, golden_file, target_path, write_bundle, write_manifest
from model_server.access.credentials import add_fleet_token
from model_server.app import create_app
from model_server.clock import SystemClock
from model_server.commands.local import CREDENTIALS_FILE, init
from model_server.db.base import writing
from model_server.db.migrate import open_database
from model_server.services import Services
from model_server.settings import SETTINGS_FILE, Settings, load_settings
from tests.support import bundles

PASSPHRASE = b"correct horse"
PEOPLE = ("alice", "bob", "carol")
MODELS = ("exercise", "gesture")


class SteppedClock:
    """Wall-clock time that only a test moves. It starts at the real time, since TUF clients use theirs."""

    def __init__(self) -> None:
        self._now = datetime.now(UTC)

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._now.timestamp()

    def advance(self, **step: float) -> None:
        self._now += timedelta(**step)


@cache
def _template() -> TemporaryDirectory[str]:
    """The folder "server" in a directory that goes away with the test run. It lets a fleet's token in, as installations
    of before enrolment do."""
    holder = TemporaryDirectory(prefix="edgeship-test-")
    folder = Path(holder.name) / "server"
    init(folder, MODELS, PEOPLE, PASSPHRASE, SystemClock())
    let_fleet_in(folder)
    return holder


def let_fleet_in(folder: Path) -> None:
    """Add a fleet's token to the credentials of a folder that `init` made."""
    settings, file = folder / SETTINGS_FILE, folder / CREDENTIALS_FILE
    settings.write_text(settings.read_text().replace("fleet_token = false", "fleet_token = true"))
    engine = open_database(load_settings(folder).database_url)
    with writing(engine) as session:
        token = add_fleet_token(session, "fleet", SystemClock().now())
    engine.dispose()
    file.write_text(json.dumps({**json.loads(file.read_text()), "fleet_token": token}))


def make_folder(path: Path) -> Settings:
    """What `edgeship-server init` makes, for `MODELS` and `PEOPLE`. Keys are the same in every folder of a test run."""
    shutil.copytree(Path(_template().name) / "server", path)
    return replace(load_settings(path), controller_interval_s=60.0)


def repository_dir(settings: Settings) -> Path:
    return settings.directory / "repository"


def key_file(settings: Settings, role: str, person: str) -> Path:
    return settings.keys_dir / f"{role}-{person}.pem"


def make_bundle(path: Path, release: int, *, model: str = "exercise", data: bytes = b"a model") -> Path:
    """A bundle of made-up bytes; ``data`` tells the artifacts of two releases apart."""
    name, golden = "model-fp32.onnx", f"golden of {model} {release}".encode()
    artifact = replace(
        bundles.artifact(data, golden),
        file=name,
        golden=Golden(
            file=golden_file(name), bytes=len(golden), sha256=hashlib.sha256(golden).hexdigest(), tolerance=0.001
        ),
    )
    manifest = replace(
        bundles.manifest(),
        model=model,
        release=release,
        version=f"{release}.0.0",
        artifacts=(artifact,),
        hybrid=None,
    )
    files = {**bundles.FILES, name: data, golden_file(name): golden, "manifest.json": write_manifest(manifest)}
    write_bundle(path, {target_path(model, release, file): content for file, content in files.items()})
    return path


@dataclass
class Running:
    """A server that answers on ``url``."""

    url: str
    services: Services
    admin: httpx.Client
    device: httpx.Client

    def report(self, device: str, sequence: int, **fields: Any) -> httpx.Response:
        body = {
            "format": 1,
            "device": device,
            "model": "exercise",
            "channel": "stable",
            "sequence": sequence,
            "attributes": {"arch": "x86_64", "os": "Linux", "engine": "onnx"},
            "running": None,
            "arm": "none",
            "rollout": None,
            "attempt": None,
            "outcomes": [],
            "counters": [],
            **fields,
        }
        return self.device.post("/v1/outcomes", json=body)


@contextmanager
def running(settings: Settings, clock: SteppedClock | None = None) -> Iterator[Running]:
    app = create_app(settings, clock=clock)
    started = threading.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            started.set()

    server = Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    assert started.wait(30)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        with connected(url, settings, app.state.services) as connection:
            yield connection
    finally:
        server.should_exit = True
        thread.join(30)


@contextmanager
def connected(url: str, settings: Settings, services: Services | None = None) -> Iterator[Running]:
    """A server that runs already; ``services`` are at hand only of one in this process."""
    tokens = credentials(settings)
    with (
        httpx.Client(base_url=url, headers=_bearer(tokens["admin_api_key"]), timeout=30) as admin,
        httpx.Client(base_url=url, headers=_bearer(tokens["fleet_token"]), timeout=30) as device,
    ):
        yield Running(url, services, admin, device)  # type: ignore[arg-type]


def credentials(settings: Settings) -> Mapping[str, str]:

    values = json.loads((settings.directory / "credentials.json").read_text())
    assert isinstance(values, dict)
    return values


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
