"""How a script of this folder is asked and answers: two JSON files, named on its command line.

``script.py REQUEST REPLY``. The reply is ``{"ok": {…}}``, or ``{"refused": {"kind", "operator", "message"}}`` where the
model is at fault, or ``{"failed": "…"}`` where the tool is. A script that dies before its reply leaves none.
Standard library only: the scripts run in environments that lack this project.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["Refused", "answer"]


class Refused(Exception):
    """The model cannot be used. ``kind``: ``operator``, ``model``, ``unreadable`` or ``pickle``."""

    def __init__(self, kind: str, message: str, *, operator: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.operator = operator


def answer(work: Callable[[dict[str, Any]], dict[str, Any]]) -> NoReturn:
    """Do the work for the request, write the reply and end the process: 0 if there is one that says ``ok``."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    request, reply = (Path(argument) for argument in sys.argv[1:3])
    try:
        result = {"ok": work(json.loads(request.read_text(encoding="utf-8")))}
    except Refused as refused:
        result = {"refused": {"kind": refused.kind, "operator": refused.operator, "message": str(refused)}}
    except Exception as error:  # noqa: BLE001 - the edge of a process: everything becomes a line of the reply
        traceback.print_exc()
        result = {"failed": f"{type(error).__name__}: {error}"}
    partial = reply.with_name(reply.name + ".part")
    partial.write_text(json.dumps(result), encoding="utf-8")
    partial.replace(reply)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0 if "ok" in result else 1)  # some tools crash while their threads are being torn down


def _end_with_parent() -> None:
    """Standard input is a pipe that whoever started us holds open; when it closes, nobody waits for an answer."""
    while os.read(0, 4096):
        pass
    os._exit(1)
