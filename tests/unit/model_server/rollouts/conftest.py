from pathlib import Path

import pytest

from tests.support.managers import publish
from tests.support.server import SteppedClock, make_bundle, make_folder, running


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A server's folder with releases 1 to 3 of `exercise` published."""
    folder = tmp_path_factory.mktemp("published")
    settings = make_folder(folder / "server")
    with running(settings) as server:
        for release in (1, 2, 3):
            bundle = make_bundle(folder / f"{release}.bundle", release, data=b"model %d" % release)
            assert publish(server, settings, bundle, release).status_code == 200
    return folder / "server"


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()
