"""Where a key is: a file, or elsewhere, by a URI."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["is_uri", "key_place"]

_URI = re.compile(r"[a-z][a-z0-9]+:")


def is_uri(text: str) -> bool:
    """Whether this names a key elsewhere, and not a file."""
    return _URI.match(text) is not None and not Path(text).exists()


def key_place(text: str) -> Path | str:
    """A file's path, or a URI as it is: what a command is given as a key."""
    return text if is_uri(text) else Path(text)
