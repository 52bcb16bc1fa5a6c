"""Run a conversion tool without its noise: what it prints goes to a file, and is shown only if it fails.

TensorFlow, LiteRT and coremltools write from C++ too, so the process's file descriptors 1 and 2 are redirected, not
only `sys.stdout` and `sys.stderr`. Anything another thread prints meanwhile is captured with it.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import os
import sys
import tempfile
import warnings
from types import ModuleType, TracebackType
from typing import TextIO

from converters.errors import ConversionFailed, ToolMissing
from edge_runtime.bundle.errors import EdgeshipError

__all__ = ["load_tool", "quiet"]

FULL = (errno.ENOSPC, errno.EDQUOT)
TAIL = 2000  # characters of a tool's output that an error carries
INSTALL = "install the extra: pip install 'edgeship[convert]'"


class quiet:  # noqa: N801 - used like a function, as contextlib's are
    """Hide what the block prints. If it raises, `ConversionFailed` carries the stage and the end of that output.

    Tools raise types of their own that derive from `Exception` directly, so every one is translated, with the original
    as its cause; our own errors pass unchanged.
    """

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        with contextlib.ExitStack() as stack:
            self._sink = stack.enter_context(tempfile.TemporaryFile())
            for descriptor in (1, 2):
                stack.callback(_restore, descriptor, os.dup(descriptor))
                os.dup2(self._sink.fileno(), descriptor)
            text = io.TextIOWrapper(io.FileIO(os.dup(self._sink.fileno()), "w"), errors="replace", write_through=True)
            stack.callback(text.close)
            stack.enter_context(contextlib.redirect_stdout(_Diverted(stack, text, sys.stdout)))
            stack.enter_context(contextlib.redirect_stderr(_Diverted(stack, text, sys.stderr)))
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            self._stack = stack.pop_all()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if isinstance(error, OSError) and error.errno in FULL:
                return  # no tool's failure; who opened the output says it
            if isinstance(error, Exception) and not isinstance(error, EdgeshipError):
                raise ConversionFailed(
                    self._stage, f"{type(error).__name__}: {error}", tool_output=self._tail()
                ) from error

    def _tail(self) -> str:
        size = self._sink.seek(0, os.SEEK_END)
        self._sink.seek(max(0, size - TAIL))
        return self._sink.read().decode(errors="replace").strip()


class _Diverted(io.TextIOBase):
    """A stream that goes to ``now`` inside the block, and to ``then`` after it: a log handler that a package makes
    meanwhile keeps the stream for good."""

    def __init__(self, stack: contextlib.ExitStack, now: TextIO, then: TextIO) -> None:
        self._target = now
        stack.callback(self._back_to, then)

    def _back_to(self, then: TextIO) -> None:
        self._target = then

    def write(self, text: str) -> int:
        return self._target.write(text)

    def flush(self) -> None:
        if not self._target.closed:  # called once more when the stream is collected, whatever became of the target
            self._target.flush()


def _restore(descriptor: int, saved: int) -> None:
    os.dup2(saved, descriptor)
    os.close(saved)


def load_tool(name: str) -> ModuleType:
    """Import a heavy package without its banner. Raises `ToolMissing` naming the extra that installs it."""
    if name in sys.modules:
        return sys.modules[name]
    if name.split(".")[0] in ("tensorflow", "keras"):
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read once, when TensorFlow's library is loaded
    with quiet(f"importing {name}"):
        try:
            return importlib.import_module(name)
        except ImportError as error:
            raise ToolMissing(f"{name} cannot be imported ({error}); {INSTALL}") from error
