"""``.mlpackage`` folders and the zips they travel in: written so that the same model gives the same bytes, and read
without trusting them.

Nothing is unpacked before the zip's own directory says that it is small and stays inside its folder; what is unpacked
is counted again, since a directory can lie.
"""

from __future__ import annotations

import json
import stat
import uuid
import zipfile
from io import BytesIO
from pathlib import Path, PurePosixPath

from converters.errors import ModelUnreadable

__all__ = ["MAX_PACKAGE_BYTES", "pack_folder", "package_in"]

MAX_PACKAGE_BYTES = 1 << 30
MAX_FILES = 1000
MANIFEST = "Manifest.json"
ZIP_DATE = (1980, 1, 1, 0, 0, 0)
NAMESPACE = uuid.UUID("6f1c9a2e-7f0b-5d5e-9a55-0e6c1f3d2b47")  # so that the same model gives the same bytes


def pack_folder(package: Path) -> bytes:
    """A zip of the folder: stored, sorted, with fixed times and identifiers."""
    manifest = json.loads((package / MANIFEST).read_text())
    # A model whose weights all fit into its program has an empty folder for them, and a zip holds files only.
    entries = {key: entry for key, entry in manifest["itemInfoEntries"].items() if _has_files(package, entry["path"])}
    renamed = {old: str(uuid.uuid5(NAMESPACE, entry["path"])) for old, entry in entries.items()}
    manifest["itemInfoEntries"] = {renamed[old]: entry for old, entry in entries.items()}
    manifest["rootModelIdentifier"] = renamed[manifest["rootModelIdentifier"]]
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(path for path in package.rglob("*") if path.is_file()):
            info = zipfile.ZipInfo(path.relative_to(package.parent).as_posix(), ZIP_DATE)
            info.external_attr = 0o644 << 16
            is_manifest = path == package / MANIFEST
            archive.writestr(info, json.dumps(manifest, indent=1, sort_keys=True) if is_manifest else path.read_bytes())
    return buffer.getvalue()


def _has_files(package: Path, item: str) -> bool:
    path = package / "Data" / item
    return path.is_file() or any(path.rglob("*"))


def package_in(package: Path | bytes, folder: Path) -> Path:
    """The ``.mlpackage`` folder: the given one, or the one in the given zip, unpacked into ``folder``.

    Raises `ModelUnreadable` for anything else: no file, no zip, another number of packages, links, names that leave
    the folder, more than `MAX_PACKAGE_BYTES`, or no manifest.
    """
    if isinstance(package, Path) and package.is_dir():
        found = package
        _check_folder(found)
    else:
        found = _unpacked(package, folder)
    _check_manifest(found)
    return found


def _check_folder(package: Path) -> None:
    total = 0
    for path in package.rglob("*"):
        if path.is_symlink():
            raise ModelUnreadable(f"{package.name}: {path.relative_to(package)} is a link; a package holds files only")
        total += path.stat().st_size if path.is_file() else 0
    if total > MAX_PACKAGE_BYTES:
        raise _too_large(package.name)


def _unpacked(package: Path | bytes, folder: Path) -> Path:
    name = "the package" if isinstance(package, bytes) else package.name
    if isinstance(package, Path) and not package.is_file():
        raise ModelUnreadable(f"{package}: no such file")
    try:
        with zipfile.ZipFile(BytesIO(package) if isinstance(package, bytes) else package) as archive:
            entries = archive.infolist()
            _check_entries(name, entries)
            left = MAX_PACKAGE_BYTES
            for entry in entries:
                left = _extract(name, archive, entry, folder, left)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise ModelUnreadable(f"{name} is not a zipped .mlpackage: {error}") from error
    packages = [path for path in folder.iterdir() if path.suffix == ".mlpackage"]
    if len(packages) != 1:
        raise ModelUnreadable(f"{name} does not hold exactly one .mlpackage folder")
    return packages[0]


def _check_entries(name: str, entries: list[zipfile.ZipInfo]) -> None:
    if len(entries) > MAX_FILES:
        raise ModelUnreadable(f"{name} holds {len(entries)} files; a Core ML package has a handful")
    if sum(entry.file_size for entry in entries) > MAX_PACKAGE_BYTES:
        raise _too_large(name)
    seen = set()
    for entry in entries:
        parts = PurePosixPath(entry.filename).parts
        if not parts or entry.filename.startswith("/") or ".." in parts or "\\" in entry.filename or ":" in parts[0]:
            raise ModelUnreadable(f"{name}: the file name {entry.filename!r} leaves the package")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise ModelUnreadable(f"{name}: {entry.filename} is a link; a package holds files only")
        if parts in seen:
            raise ModelUnreadable(f"{name} holds {entry.filename} twice")
        seen.add(parts)


def _extract(name: str, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path, left: int) -> int:
    path = folder / entry.filename
    if entry.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        return left
    path.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(entry) as source, path.open("wb") as target:
        while block := source.read(1 << 20):
            left -= len(block)
            if left < 0:
                raise _too_large(name)
            target.write(block)
    return left


def _check_manifest(package: Path) -> None:
    """The manifest names its items relative to ``Data``; the root model must be one of them, and inside."""
    try:
        manifest = json.loads((package / MANIFEST).read_text(encoding="utf-8"))
        root = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"]
        items = [entry["path"] for entry in manifest["itemInfoEntries"].values()]
        paths = [PurePosixPath(item) for item in items]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelUnreadable(
            f"{package.name}: its {MANIFEST} is missing or damaged ({type(error).__name__}: {error})"
        ) from error
    for path in paths:
        if path.is_absolute() or ".." in path.parts:
            raise ModelUnreadable(f"{package.name}: its manifest names {str(path)!r}, which leaves the package")
        if not (package / "Data" / path).exists():
            raise ModelUnreadable(f"{package.name}: its manifest names {str(path)!r}, which is not there")
    if not (package / "Data" / root).is_file():
        raise ModelUnreadable(f"{package.name}: its model {root!r} is not a file")


def _too_large(name: str) -> ModelUnreadable:
    return ModelUnreadable(f"{name} unpacks to more than {MAX_PACKAGE_BYTES >> 20} MiB")
