"""What a manager pins and signs with."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from model_server.clock import SystemClock
from model_server.errors import SettingsError
from model_server.releases.signing import Manager

__all__ = ["manager_of", "read_root"]


def manager_of(args: argparse.Namespace, passphrase: Callable[[Path | None], bytes]) -> Manager:
    """Raises: SettingsError, KeyRejected."""
    return Manager(
        key=args.key,
        passphrase=passphrase(args.passphrase_file),
        root=read_root(args),
        trust=args.trust or args.key.with_suffix(".trust"),
        now=SystemClock().now(),
        accept_expired=args.accept_expired,
    )


def read_root(args: argparse.Namespace) -> bytes:
    """``--root``, else ``root.json`` beside the key. Raises SettingsError."""
    root_file: Path = args.root or args.key.parent / "root.json"
    try:
        return root_file.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"the root that you trust, {root_file}, cannot be read ({error.strerror}): give it with --root"
        ) from error
