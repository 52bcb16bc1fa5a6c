"""Uploads on disk, from when they come in until their job has ended."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

__all__ = ["Spool"]

_PART = ".part"
_WHOLE = ".bundle"


class Spool:
    """A folder of uploads, each under its job's id. ``<id>.part`` comes in; ``<id>.bundle`` is whole and survives a
    power cut."""

    def __init__(self, folder: Path) -> None:
        """Makes the folder, and removes what a server that died was receiving."""
        self._folder = folder
        folder.mkdir(exist_ok=True)
        for left_over in folder.glob(f"*{_PART}"):
            left_over.unlink()

    def new(self) -> tuple[str, Path]:
        """An id, and the file to write the upload to."""
        job = secrets.token_hex(8)
        return job, self._folder / f"{job}{_PART}"

    def keep(self, part: Path) -> None:
        """The upload is whole."""
        _sync(part)
        part.rename(part.with_suffix(_WHOLE))
        _sync(self._folder)

    def path(self, job: str) -> Path:
        return self._folder / f"{job}{_WHOLE}"

    def uploads(self) -> set[str]:
        return {path.stem for path in self._folder.glob(f"*{_WHOLE}")}

    def remove(self, job: str) -> None:
        self.path(job).unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
