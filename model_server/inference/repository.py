"""The model repository: a folder ``<model>/<version>/model.onnx``, laid out like Triton's.

A model is loaded when it is first asked for. A file that changed is loaded again, and one that cannot be loaded is
tried again only when it changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.bundle import InvalidName, check_model, check_release
from edge_runtime.errors import ModelRejected
from model_server.errors import ModelUnavailable, NotFound
from model_server.inference.engine import ServedModel

__all__ = ["MODEL_FILE", "Repository"]

MODEL_FILE = "model.onnx"

Load = Callable[[str, str, bytes], ServedModel]
Stamp = tuple[int, int]


@dataclass(slots=True)
class _Slot:
    stamp: Stamp
    loading: asyncio.Future[ServedModel]


class Repository:
    """Belongs to one event loop."""

    def __init__(self, folder: Path, load: Load) -> None:
        """``load`` makes a model of name, version and file contents, in a thread; it may raise `ModelRejected`."""
        self._folder = folder
        self._load = load
        self._slots: dict[tuple[str, str], _Slot] = {}

    def models(self) -> list[str]:
        """The names of all models, sorted."""
        return sorted(entry.name for entry in _folders(self._folder) if _is_model(entry.name) and _versions(entry))

    def versions(self, model: str) -> list[str]:
        """The versions of a model, oldest first. Raises `NotFound`."""
        found = _versions(self._folder / model) if _is_model(model) else []
        if not found:
            raise NotFound(f"this server has no model {ascii(model)[:80]}")
        return found

    async def get(self, model: str, version: str | None = None) -> ServedModel:
        """The loaded model, its newest version if none is named. Raises `NotFound` or `ModelUnavailable`."""
        versions = self.versions(model)
        chosen = versions[-1] if version is None else version
        if chosen not in versions:
            raise NotFound(f"this server has no version {ascii(chosen)[:80]} of {model}")
        path = self._folder / model / chosen / MODEL_FILE
        try:
            stamp = _stamp(path)
        except OSError as error:
            raise NotFound(f"this server has no version {chosen} of {model} any more") from error
        slot = self._slots.get((model, chosen))
        if slot is None or slot.stamp != stamp:
            if slot is not None and slot.loading.done() and slot.loading.exception() is None:
                slot.loading.result().close()
            loop = asyncio.get_running_loop()
            slot = _Slot(stamp, loop.run_in_executor(None, self._read_and_load, path, model, chosen))
            self._slots[model, chosen] = slot
        try:
            return await asyncio.shield(slot.loading)  # one caller that goes away must not stop it for the others
        except ModelRejected as error:
            raise ModelUnavailable(f"{model} {chosen} cannot be served: {str(error)[:300]}") from error
        except OSError as error:
            raise ModelUnavailable(f"{model} {chosen} cannot be read: {error.strerror}") from error

    async def state(self, model: str, version: str) -> str | None:
        """None if the version is ready, else why it is not."""
        try:
            await self.get(model, version)
        except (ModelUnavailable, NotFound) as error:
            return str(error)
        return None

    def close(self) -> None:
        """Stop every model's thread."""
        for slot in self._slots.values():
            if slot.loading.done() and not slot.loading.cancelled() and slot.loading.exception() is None:
                slot.loading.result().close()
        self._slots.clear()

    def _read_and_load(self, path: Path, model: str, version: str) -> ServedModel:
        return self._load(model, version, path.read_bytes())


def _is_model(name: str) -> bool:
    try:
        check_model(name)
    except InvalidName:
        return False
    return True


def _versions(folder: Path) -> list[str]:
    numbers = [
        entry.name
        for entry in _folders(folder)
        if _is_version(entry.name) and (folder / entry.name / MODEL_FILE).is_file()
    ]
    return sorted(numbers, key=int)


def _is_version(name: str) -> bool:
    if not (name.isascii() and name.isdigit() and len(name) <= 10 and name[0] != "0"):
        return False
    try:
        check_release(int(name))
    except InvalidName:
        return False
    return True


def _folders(folder: Path) -> list[Path]:
    return [entry for entry in folder.iterdir() if entry.is_dir()] if folder.is_dir() else []


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return status.st_mtime_ns, status.st_size
