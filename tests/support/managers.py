"""What release managers do to a server, and what a stock TUF client then finds."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from tuf.ngclient import Updater

from model_server.client import Client
from model_server.releases.signing import Signed, sign_release
from model_server.settings import Settings
from tests.support.server import PASSPHRASE, Running, credentials, key_file


def api(server: Running, settings: Settings) -> Client:
    return Client(server.url, credentials(settings)["admin_api_key"])


def upload(server: Running, bundle: Path | bytes, ceiling: str = "0s=100%", **options: str) -> httpx.Response:
    """The answer to the upload: the job that stages it, or a problem."""
    content = bundle if isinstance(bundle, bytes) else bundle.read_bytes()
    return server.admin.post("/v1/releases", params={"ceiling": ceiling, **options}, content=content)


def until(server: Running, job: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """A job once it is as the condition says."""
    deadline = time.monotonic() + 60
    while not condition(found := server.admin.get(f"/v1/jobs/{job}").json()):
        assert time.monotonic() < deadline, found
        time.sleep(0.01)
    return dict(found)


def ended(server: Running, job: str) -> dict[str, Any]:
    return until(server, job, lambda found: found["state"] not in ("waiting", "running"))


def stage(server: Running, bundle: Path | bytes, ceiling: str = "0s=100%", **options: str) -> httpx.Response:
    """What came of it: 201 and the release, or the problem of the job, or of the upload."""
    answer = upload(server, bundle, ceiling, **options)
    if answer.status_code != 202:
        return answer
    job = ended(server, answer.json()["id"])
    if job["state"] == "done":
        return httpx.Response(201, json=job["staged"])
    return httpx.Response(job["problem"]["status"], json=job["problem"])


def spool_empties(server: Running) -> None:
    """An upload goes when its job has ended, soon after that is known."""
    deadline = time.monotonic() + 60
    while left := list(server.services.settings.spool_dir.iterdir()):
        assert time.monotonic() < deadline, left
        time.sleep(0.01)


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
