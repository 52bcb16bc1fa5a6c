"""A folder that appears whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import shutil
import tempfile
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path
from typing import IO

from converters.errors import OutputError, OutputExists, OutputFull
from converters.locks import try_lock

__all__ = ["disk_errors", "refuse_to_replace", "written_whole"]

LOCK, NEW, OLD = "lock", "new", "old"  # in the hidden folder of a run: what is being written, and what it replaces


@contextlib.contextmanager
def written_whole(out: Path, *, overwrite: bool = False, ours: Collection[str] = ()) -> Iterator[Path]:
    """A temporary folder beside ``out`` that becomes ``out`` at the end, or vanishes if the block raises.

    ``overwrite`` replaces a folder that holds nothing but files whose names fit ``ours`` (shell patterns): what an
    earlier run wrote, never a user's model or data. Raises `OutputExists` for any other, `OutputFull` when the disk
    fills. What a run that was killed left beside ``out`` is removed.
    """
    out = out.resolve()  # the folder beside ``.`` is not inside it
    _clear_leftovers(out)
    refuse_to_replace(out, overwrite=overwrite, ours=ours)
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with _held_folder(out) as held:
            folder = held / NEW
            folder.mkdir()
            folder.chmod(0o755)
            yield folder
            refuse_to_replace(out, overwrite=overwrite, ours=ours)  # another run may have filled it meanwhile
            _put_in_place(folder, out, held / OLD)


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


def _put_in_place(folder: Path, out: Path, old: Path) -> None:
    if not (out.is_dir() and any(out.iterdir())):
        folder.rename(out)  # an empty folder is replaced; one that was filled this moment is an error, and stays
        return
    try:
        out.rename(old)
        folder.rename(out)
    except BaseException:
        if not out.exists():
            old.rename(out)
        raise


@contextlib.contextmanager
def _held_folder(out: Path) -> Iterator[Path]:
    """A hidden folder beside ``out`` for what is being written. Its lock says that its run is alive."""
    while True:
        held = Path(tempfile.mkdtemp(prefix=_prefix(out), dir=out.parent))
        lock = (held / LOCK).open("wb")
        if _lock(lock) is not False and (held / LOCK).exists():
            break
        lock.close()  # another run took it for a leftover in the moment before it was locked
    try:
        yield held
    finally:
        shutil.rmtree(held / NEW, ignore_errors=True)
        lock.close()
        shutil.rmtree(held, ignore_errors=True)


def _clear_leftovers(out: Path) -> None:
    """Remove what runs left that were killed: the system has let go of their locks. What ``out`` was before such a run
    goes back if nothing has come in its place."""
    for held in out.parent.glob(f"{escape(_prefix(out))}*") if out.parent.is_dir() else ():
        try:
            lock = (held / LOCK).open("r+b")
        except OSError:
            continue  # not a run's, or another user's
        with lock, contextlib.suppress(OSError):
            if held.is_symlink() or not _lock(lock):
                continue
            if (held / OLD).is_dir() and not out.exists():
                (held / OLD).rename(out)
            for each in (NEW, OLD):
                shutil.rmtree(held / each, ignore_errors=True)
            if {path.name for path in held.iterdir()} == {LOCK}:  # else a later run goes on
                shutil.rmtree(held, ignore_errors=True)


def _prefix(out: Path) -> str:
    return f".{out.name}.edgeship-"


def _lock(file: IO[bytes]) -> bool | None:
    """None where this file system has no locks, and so nobody can be told to be dead."""
    try:
        return try_lock(file.fileno())
    except OSError:
        return None
