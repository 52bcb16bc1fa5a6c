"""What a ``.dvc`` file beside the data says of it, for the lineage. Pure but for reading that file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from converters.errors import DataUnreadable
from converters.quiet import load_tool

__all__ = ["dvc_of"]

MAX_BYTES = 1 << 20


def dvc_of(paths: Sequence[Path]) -> str | None:
    """``<hash kind>:<hash> <path>`` of every ``<file>.dvc`` that lies beside one of the files; None without one.

    Raises `DataUnreadable` for a ``.dvc`` file that cannot be read: lineage that is silently missing is worse.
    """
    found = [text for path in paths if (text := _of_file(path.with_name(f"{path.name}.dvc"))) is not None]
    return "; ".join(found) or None


def _of_file(path: Path) -> str | None:
    if not path.is_file():
        return None
    yaml = load_tool("yaml")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataUnreadable(f"{path} is larger than any .dvc file")
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        outs = values["outs"]
        return "; ".join(f"{_hash(out)} {out['path']}" for out in outs)[:512]
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise DataUnreadable(f"{path} is no readable .dvc file: {error!r}") from error


def _hash(out: dict[str, str]) -> str:
    for kind in (out.get("hash"), "md5", "etag", "checksum"):
        if kind and out.get(kind):
            return f"{kind}:{out[kind]}"
    raise ValueError("an output without a hash; commit it with dvc first")
