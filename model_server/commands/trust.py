"""The root that a manager pins."""

from __future__ import annotations

import argparse
from pathlib import Path

from model_server.errors import SettingsError

__all__ = ["read_root"]


def read_root(args: argparse.Namespace) -> bytes:
    """``--root``, else ``root.json`` beside the key. Raises SettingsError."""
    root_file: Path = args.root or args.key.parent / "root.json"
    try:
        return root_file.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"the root that you trust, {root_file}, cannot be read ({error.strerror}): give it with --root"
        ) from error
