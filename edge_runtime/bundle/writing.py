"""Write a manifest. What is written is read back first, so a writer cannot make what a reader refuses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from edge_runtime.bundle.errors import ManifestError
from edge_runtime.bundle.manifest import Manifest
from edge_runtime.bundle.reading import read_manifest
from edge_runtime.bundle.strict_json import canonical

__all__ = ["document_bytes", "plain", "write_manifest"]


def write_manifest(manifest: Manifest) -> bytes:
    """The canonical JSON of a manifest: sorted keys, no spaces, one newline at the end, the same bytes every time.

    Raises `ManifestError` (or its subclass) if the manifest breaks FORMAT.md.
    """
    data = document_bytes(manifest)
    if read_manifest(data) != manifest:
        raise ManifestError("the manifest does not survive being written and read; use tuples, ints, floats and str")
    return data


def document_bytes(record: object) -> bytes:
    """The canonical JSON of a dataclass of dataclasses, tuples, numbers, strings and None."""
    return canonical(plain(record))


def plain(value: object, path: str = "") -> Any:
    """The JSON form of a record as dicts, lists and scalars. Raises `ManifestError` for what has none."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name), f"{path}.{f.name}" if path else f.name) for f in fields(value)}
    if isinstance(value, tuple | list):
        return [plain(element, f"{path}[{i}]") for i, element in enumerate(value)]
    if isinstance(value, Mapping):
        return {_key(key, path): plain(member, f"{path}.{key}") for key, member in value.items()}
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise ManifestError("a string holds half of a surrogate pair", key_path=path)
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        number = float(value)  # a NumPy float64 too
        if number - number != 0:
            raise ManifestError(f"{number} is not finite", key_path=path)
        return number
    raise ManifestError(f"{type(value).__name__} has no JSON form; convert it to a plain Python value", key_path=path)


def _key(key: object, path: str) -> str:
    if not isinstance(key, str):
        raise ManifestError(f"the key {key!r} is not a string", key_path=path)
    return key
