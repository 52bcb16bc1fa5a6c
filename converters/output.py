"""A folder that appears whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import shutil
import tempfile
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from converters.errors import OutputError, OutputExists, OutputFull

__all__ = ["disk_errors", "refuse_to_replace", "written_whole"]


@contextlib.contextmanager
def written_whole(out: Path, *, overwrite: bool = False, ours: Collection[str] = ()) -> Iterator[Path]:
    """A temporary folder beside ``out`` that becomes ``out`` at the end, or vanishes if the block raises.

    ``overwrite`` replaces a folder that holds nothing but files whose names fit ``ours`` (shell patterns): what an
    earlier run wrote, never a user's model or data. Raises `OutputExists` for any other, `OutputFull` when the disk
    fills.
    """
    out = out.resolve()  # the folder beside ``.`` is not inside it
    refuse_to_replace(out, overwrite=overwrite, ours=ours)
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        try:
            folder.chmod(0o755)
            yield folder
            refuse_to_replace(out, overwrite=overwrite, ours=ours)  # another run may have filled it meanwhile
            _put_in_place(folder, out)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def refuse_to_replace(out: Path, *, overwrite: bool, ours: Collection[str] = ()) -> None:
    """What `written_whole` refuses, for a caller with long work before it. Raises `OutputExists`."""
    if out.exists() and not out.is_dir():
        raise OutputExists(f"{out} exists and is not a folder")
    found = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    if found and not overwrite:
        raise OutputExists(f"{out} is not empty; choose another folder, or replace it with --overwrite")
    foreign = [name for name in found if not any(fnmatchcase(name, pattern) for pattern in ours)]
    if foreign:
        raise OutputExists(
            f"{out} holds {', '.join(foreign[:3])}{' and more' if len(foreign) > 3 else ''}, which this command did "
            "not write and would delete; choose another folder"
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
