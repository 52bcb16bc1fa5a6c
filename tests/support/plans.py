"""A plan, and how a stock TUF client sees the one that lies in a server's folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater

from edge_runtime.update.plan import Plan, State
from model_server.settings import Settings
from tests.support.server import repository_dir

PLAN = Plan(
    model="exercise",
    channel="stable",
    rollout="r1",
    salt="s",
    candidate=1,
    baseline=None,
    share=10,
    holdback=0,
    predicate=None,
    state=State.RUNNING,
    attempt=1,
)


class Files(FetcherInterface):
    """Fetches from the repository's folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = self.root / url.removeprefix("file:///")
        if not path.exists():
            raise DownloadHTTPError("not found", 404)
        return iter([path.read_bytes()])


def client(settings: Settings, folder: Path) -> Updater:
    (folder / "targets").mkdir(parents=True, exist_ok=True)
    return Updater(
        str(folder),
        "file:///metadata/",
        str(folder / "targets"),
        "file:///targets/",
        Files(repository_dir(settings)),
        bootstrap=(settings.directory / "root.json").read_bytes(),
    )


def seen_plan(settings: Settings, folder: Path, path: str = "rollouts/stable/exercise.json") -> Plan:
    updater = client(settings, folder)
    target = updater.get_targetinfo(path)
    assert target is not None
    return Plan.from_json(Path(updater.download_target(target)).read_bytes())
