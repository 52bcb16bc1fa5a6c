"""The device's own Ed25519 key: made here, kept in one file that only its owner may read, and sent to nobody."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from edge_runtime.disk import Disk, read_sealed, write_sealed
from edge_runtime.enrolment.protocol import from_base64url, to_base64url
from edge_runtime.errors import ConfigurationError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["DeviceKey", "check_available", "has_key", "load_key", "load_or_make_key"]

FILE = "device-key.json"
LOCK = "device-key.lock"
SECRET_BYTES = 32


class DeviceKey:
    """``public`` is the public key, 32 bytes. The private one is in no representation of this object."""

    __slots__ = ("_private", "public")

    def __init__(self, secret: bytes) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        self._private: Ed25519PrivateKey = Ed25519PrivateKey.from_private_bytes(secret)
        self.public: bytes = self._private.public_key().public_bytes_raw()

    def sign(self, data: bytes) -> bytes:
        return self._private.sign(data)

    def __repr__(self) -> str:
        return f"DeviceKey(public={to_base64url(self.public)!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a device's key stays where it is")


def check_available() -> None:
    """Raises `ConfigurationError` without the package that signs."""
    from importlib.util import find_spec

    if find_spec("cryptography") is None:
        raise ConfigurationError("enrolment signs with the package cryptography: install edgeship[device]")


def has_key(folder: Path) -> bool:
    return (folder / FILE).is_file()


def load_key(folder: Path, disk: Disk) -> DeviceKey | None:
    """The key in ``folder``; None where there is none, or a damaged one. Raises `StoreError`."""
    kept = (read_sealed(disk, folder / FILE) or {}).get("ed25519")
    try:
        return DeviceKey(from_base64url(kept)) if isinstance(kept, str) else None
    except ValueError:
        return None


def load_or_make_key(folder: Path, disk: Disk, random: Callable[[int], bytes] = os.urandom) -> DeviceKey:
    """The key in ``folder``, made if need be: when this returns, it is on the disk for good. Raises `StoreError`; also
    `StoreLocked`, where another process is making it."""
    key = load_key(folder, disk)
    if key is not None:
        return key
    disk.mkdir(folder)
    unlock = disk.lock(folder / LOCK)
    try:
        key = load_key(folder, disk)
        if key is not None:
            return key
        secret = random(SECRET_BYTES)
        write_sealed(disk, folder / FILE, {"format": 1, "ed25519": to_base64url(secret)}, private=True)
        return DeviceKey(secret)
    finally:
        unlock()
