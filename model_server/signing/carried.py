"""Files that people carry from machine to machine: JSON objects that hold texts. Nothing in them is secret, and nothing
in them is believed; who reads one verifies it from a root of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model_server.errors import ReviewFailed
from model_server.files import write_atomic

__all__ = ["MAX_BYTES", "as_bytes", "as_text", "read_carried", "texts", "write_carried"]

FORMAT = 1
MAX_BYTES = 64 << 20


def read_carried(path: Path, what: str) -> dict[str, Any]:
    """The object in a file; ``what`` it should be, for the errors. Raises: ReviewFailed."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ReviewFailed(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise ReviewFailed(f"{path} has more than {MAX_BYTES} bytes; that is no {what}")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ReviewFailed(f"{path} is no {what}: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ReviewFailed(f"{path} is no {what} in format {FORMAT}")
    return document


def write_carried(path: Path, fields: Mapping[str, object]) -> None:
    """Raises: ReviewFailed if a reader would refuse it for its size."""
    data = json.dumps({"format": FORMAT, **fields}, indent=1).encode() + b"\n"
    if len(data) > MAX_BYTES:
        raise ReviewFailed(f"{path} would have {len(data)} bytes; {MAX_BYTES} at most are read")
    write_atomic(path, data)


def texts(path: Path, document: Mapping[str, Any], key: str) -> dict[str, bytes]:
    """The texts by name under ``key``, as bytes. Raises: ReviewFailed."""
    values = document.get(key)
    if not isinstance(values, dict):
        raise ReviewFailed(f"{path}: {key} must hold texts by name")
    return {name: as_bytes(f"{path}: {key}: {name!a}", value) for name, value in values.items()}


def as_bytes(what: str, value: object) -> bytes:
    """Raises: ReviewFailed for what is no text."""
    if not isinstance(value, str):
        raise ReviewFailed(f"{what} is no text")
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise ReviewFailed(f"{what} is no text: {error.reason}") from error


def as_text(what: str, data: bytes) -> str:
    """Raises: ReviewFailed for what is no text."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ReviewFailed(f"{what} is no text: {error.reason}") from error
