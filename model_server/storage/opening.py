"""The storage that settings name."""

from __future__ import annotations

from pathlib import Path

from model_server.errors import SettingsError
from model_server.storage.folder import FolderStorage
from model_server.storage.protocol import Storage

__all__ = ["open_storage"]


def open_storage(directory: Path, objects: str, options: dict[str, str]) -> Storage:
    """``objects`` is a folder, relative to ``directory``, or a URL such as ``s3://bucket/prefix``.

    Raises: SettingsError, StorageUnavailable.
    """
    if "://" not in objects:
        return FolderStorage(directory / objects)
    try:
        from model_server.storage.objects import open_objects
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"the storage {objects} needs the package {error.name}: pip install 'edgeship[server,s3]'"
        ) from error
    return open_objects(objects, options)
