"""What became of this device's enrolment, kept beside its key: for which server and device, and how it ended."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from edge_runtime.bundle.errors import ManifestError
from edge_runtime.bundle.strict_json import MAX_INTEGER, Node
from edge_runtime.disk import Disk, read_sealed, write_sealed

__all__ = ["FILE", "Record", "State", "load_record", "save_record"]

FILE = "enrolment.json"
MAX_DETAIL = 200
State = Literal["waiting", "enrolled", "refused"]
_STATES: tuple[State, ...] = ("waiting", "enrolled", "refused")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """``repository`` is the audience of what the device signs now, ``token`` the start of the digest of the enrolment
    token that was refused, ``refusals`` how often it was."""

    device: str
    server: str
    repository: str
    state: State = "waiting"
    detail: str = ""
    token: str = ""
    refusals: int = 0


def load_record(disk: Disk, folder: Path) -> Record | None:
    """None where there is none, or a damaged one: then the device asks again, which costs nothing. Raises
    `StoreError`."""
    body = read_sealed(disk, folder / FILE)
    if body is None:
        return None
    node = Node(body)
    try:
        node.get("format").integer(1, 1)
        state = node.get("state").choice(_STATES)
        return Record(
            device=node.get("device").text(1, 128),
            server=node.get("server").text(1, 4096),
            repository=node.get("repository").text(1, 128),
            state=next(known for known in _STATES if known == state),
            detail=str(node.get("detail").value)[:MAX_DETAIL],
            token=str(node.get("token").value),
            refusals=node.get("refusals").integer(0, MAX_INTEGER),
        )
    except ManifestError:
        return None


def save_record(disk: Disk, folder: Path, record: Record) -> None:
    """Raises `StoreError`."""
    write_sealed(disk, folder / FILE, {"format": 1, **asdict(record)})
