"""What release managers do to a server, and what a stock TUF client then finds."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from tuf.ngclient import Updater

from model_server.client import Client
from model_server.releases.carrying import fetch_proposal, submit
from model_server.releases.policy_request import PolicyReview
from model_server.releases.signing import Approval, Manager, sign_policy, sign_release
from model_server.releases.signing_request import Review
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


def manager(settings: Settings, person: str, role: str = "releases") -> Manager:
    """``person`` at their own machine, with the root that the server was made with."""
    return Manager(
        key=key_file(settings, role, person),
        passphrase=PASSPHRASE,
        root=(settings.directory / "root.json").read_bytes(),
        trust=settings.directory.parent / f"trust-{person}",
        now=datetime.now(UTC),
    )


def sign(
    server: Running,
    settings: Settings,
    person: str,
    bundle: Path,
    release: int = 1,
    *,
    by: Manager | None = None,
    confirm: Callable[[Review], bool] = lambda review: True,
) -> tuple[Approval[Review], dict[str, Any]]:
    """What was signed, and what the server says of the release then."""
    with api(server, settings) as client:
        proposal = fetch_proposal(client, "exercise", release)
        who = by or manager(settings, person)
        approval = sign_release(proposal, who, bundle=bundle, confirm=confirm, fresh=True)
        return approval, submit(client, proposal)


def sign_the_policy(
    server: Running, settings: Settings, person: str, *, by: Manager | None = None
) -> tuple[Approval[PolicyReview], dict[str, Any]]:
    """As `sign`, for the change of the policy that waits."""
    with api(server, settings) as client:
        proposal = fetch_proposal(client, "exercise", None)
        approval = sign_policy(proposal, by or manager(settings, person), confirm=lambda review: True, fresh=True)
        return approval, submit(client, proposal)


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
