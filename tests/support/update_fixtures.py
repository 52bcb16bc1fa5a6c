"""Pytest fixtures for tests of updates: import them in a conftest.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from devices.static_server import StaticServer, serve
from tests.support.world import World

__all__ = ["server", "world"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StaticServer]:
    folder = tmp_path / "server"
    folder.mkdir()
    with serve(folder) as running:
        yield running


@pytest.fixture
def world(tmp_path: Path, server: StaticServer) -> Iterator[World]:
    made = World(tmp_path / "devices", server)
    yield made
    made.close()
