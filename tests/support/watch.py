"""A device that follows a server: a real updater over HTTP with a store, and a canary that every release passes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge_runtime.device import Device
from edge_runtime.store import Store
from edge_runtime.update.updater import Updater
from model_server.settings import Settings
from tests.support.server import Running
from tests.support.world import Canary

__all__ = ["watch"]


@contextmanager
def watch(server: Running, settings: Settings, folder: Path, **options: Any) -> Iterator[tuple[Store, Updater]]:
    """Trusts the root that the server was made with. ``options`` are those of `Updater`."""
    store = Store(folder)
    updater = Updater(
        store=store,
        device=Device(id="watch-1", attributes={"arch": "x86_64", "os": "linux"}),
        model="exercise",
        channel="stable",
        root=(settings.directory / "root.json").read_bytes(),
        server=server.url,
        engines=("onnx",),
        try_out=Canary(),
        **options,
    )
    try:
        yield store, updater
    finally:
        updater.close()
        store.close()
