"""``python -m converters.worker STAGE FOLDER``: one stage in a process of its own.

Reads ``FOLDER/job.json`` and writes ``FOLDER/result.json``. Standard output carries progress, one JSON list a line, and
an error as a JSON object, which a full disk cannot lose; whatever tools print goes to standard error. The process ends
when its standard input is closed, so that no worker outlives the command that started it.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
from pathlib import Path

from converters.crossing import error_to_json, from_json, stage_module, to_json
from converters.errors import ConversionFailed, OutputFull
from edge_runtime.bundle.errors import EdgeshipError

__all__ = ["JOB_FILE", "RESULT_FILE", "main"]

FULL = (errno.ENOSPC, errno.EDQUOT)
JOB_FILE, RESULT_FILE = "job.json", "result.json"


def main(arguments: list[str]) -> int:
    """Run the stage. 0: a result was written; 1: an error was told."""
    stage, folder = arguments[0], Path(arguments[1])
    progress = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def say(text: str, done: int, total: int) -> None:
        print(json.dumps([text, done, total]), file=progress, flush=True)

    def fail(error: EdgeshipError) -> int:
        print(error_to_json(error), file=progress, flush=True)
        return 1

    module = stage_module(stage)
    try:
        job = from_json((folder / JOB_FILE).read_text(encoding="utf-8"), module.Job)
        (folder / RESULT_FILE).write_text(to_json(module.run(job, say)), encoding="utf-8")
    except EdgeshipError as error:
        return fail(error)
    except MemoryError as error:
        return fail(ConversionFailed(stage, f"not enough memory: {error}"))
    except OSError as error:
        if error.errno not in FULL:
            raise
        return fail(OutputFull(f"no space left ({stage}); nothing was written. Free some and run again"))
    return 0


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # TensorFlow's threads sometimes crash while a process is being torn down
