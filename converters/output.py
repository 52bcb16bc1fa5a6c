"""A folder that appears whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from converters.errors import OutputError, OutputExists, OutputFull

__all__ = ["disk_errors", "refuse_to_replace", "written_whole"]


@contextlib.contextmanager
def written_whole(out: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder beside ``out`` that becomes ``out`` at the end, or vanishes if the block raises.

    Raises `OutputExists` if ``out`` holds anything and ``overwrite`` is off, `OutputFull` when the disk fills.
    """
    out = out.resolve()  # the folder beside ``.`` is not inside it
    refuse_to_replace(out, overwrite=overwrite)
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        try:
            folder.chmod(0o755)
            yield folder
            refuse_to_replace(out, overwrite=overwrite)  # another run may have filled it meanwhile
            _put_in_place(folder, out)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def refuse_to_replace(out: Path, *, overwrite: bool) -> None:
    """What `written_whole` refuses, for a caller with long work before it. Raises `OutputExists`."""
    if out.exists() and not out.is_dir():
        raise OutputExists(f"{out} exists and is not a folder")
    if not overwrite and out.is_dir() and any(out.iterdir()):
        raise OutputExists(
            f"{out} is not empty; choose another folder, or replace it with --overwrite (overwrite=True)"
        )


@contextlib.contextmanager
def disk_errors(out: Path) -> Iterator[None]:
    """Translate what the disk says while ``out`` is being written: `OutputFull` or `OutputError`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputFull(f"no space left for {out}; nothing was written. Free some and run again") from error
        raise OutputError(f"{out} cannot be written: {error}") from error


def _put_in_place(folder: Path, out: Path) -> None:
    if not (out.is_dir() and any(out.iterdir())):
        folder.rename(out)  # an empty folder is replaced; one that was filled this moment is an error, and stays
        return
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}.old.", dir=out.parent))
    out.rename(old / "was")
    try:
        folder.rename(out)
    except OSError:
        (old / "was").rename(out)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
