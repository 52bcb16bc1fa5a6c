"""What release managers do to a server, and what a stock TUF client then finds."""

from __future__ import annotations

from pathlib import Path

import httpx
from tuf.ngclient import Updater

from model_server.client import Client
from model_server.releases.signing import Signed, sign_release
from model_server.settings import Settings
from tests.support.server import PASSPHRASE, Running, credentials, key_file


def api(server: Running, settings: Settings) -> Client:
    return Client(server.url, credentials(settings)["admin_api_key"])


def stage(server: Running, bundle: Path, ceiling: str = "0s=100%") -> httpx.Response:
    return server.admin.post("/v1/releases", params={"ceiling": ceiling}, content=bundle.read_bytes())


def sign(server: Running, settings: Settings, person: str, bundle: Path, release: int = 1) -> Signed:
    with api(server, settings) as client:
        return sign_release(
            client,
            "exercise",
            release,
            key=key_file(settings, "releases", person),
            passphrase=PASSPHRASE,
            bundle=bundle,
            root=(settings.directory / "root.json").read_bytes(),
            trust=settings.directory.parent / f"trust-{person}",
            confirm=lambda review: True,
        )


def publish(server: Running, settings: Settings, bundle: Path, release: int = 1) -> httpx.Response:
    assert stage(server, bundle).status_code == 201
    for person in ("alice", "bob"):
        sign(server, settings, person, bundle, release)
    return server.admin.post(f"/v1/releases/exercise/{release}/publish")


def download(server: Running, settings: Settings, folder: Path, path: str) -> bytes | None:
    (folder / "targets").mkdir(parents=True, exist_ok=True)
    updater = Updater(
        str(folder),
        f"{server.url}/metadata/",
        str(folder / "targets"),
        f"{server.url}/targets/",
        bootstrap=(settings.directory / "root.json").read_bytes(),
    )
    target = updater.get_targetinfo(path)
    return None if target is None else Path(updater.download_target(target)).read_bytes()
