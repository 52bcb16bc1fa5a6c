"""Run a conversion tool without its noise: what it prints goes to a file, and is shown only if it fails.

TensorFlow, LiteRT and coremltools write from C++ too, so the process's file descriptors 1 and 2 are redirected, not
only `sys.stdout` and `sys.stderr`. Anything another thread prints meanwhile is captured with it.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
import tempfile
import warnings
from types import ModuleType, TracebackType

from converters.errors import ConversionFailed, ToolMissing
from edge_runtime.bundle.errors import EdgeshipError

__all__ = ["load_tool", "quiet"]

TAIL = 2000  # characters of a tool's output that an error carries
INSTALL = "install the extra: pip install 'edgeship[convert]'"


class quiet:  # noqa: N801 - used like a function, as contextlib's are
    """Hide what the block prints. If it raises, `ConversionFailed` carries the stage and the end of that output.

    Tools raise types of their own that derive from `Exception` directly, so every one is translated, with the original
    as its cause; our own errors pass unchanged. Without ``streams`` only the file descriptors are redirected.
    """

    def __init__(self, stage: str, *, streams: bool = True) -> None:
        self._stage = stage
        self._streams = streams
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        with contextlib.ExitStack() as stack:
            self._sink = stack.enter_context(tempfile.TemporaryFile())
            for descriptor in (1, 2):
                stack.callback(_restore, descriptor, os.dup(descriptor))
                os.dup2(self._sink.fileno(), descriptor)
            if self._streams:
                self._redirect_streams(stack)
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            self._stack = stack.pop_all()

    def _redirect_streams(self, stack: contextlib.ExitStack) -> None:
        text = io.TextIOWrapper(io.FileIO(os.dup(self._sink.fileno()), "w"), errors="replace", write_through=True)
        stack.callback(text.close)
        stack.enter_context(contextlib.redirect_stdout(text))
        stack.enter_context(contextlib.redirect_stderr(text))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if isinstance(error, Exception) and not isinstance(error, EdgeshipError):
                raise ConversionFailed(
                    self._stage, f"{type(error).__name__}: {error}", tool_output=self._tail()
                ) from error

    def _tail(self) -> str:
        size = self._sink.seek(0, os.SEEK_END)
        self._sink.seek(max(0, size - TAIL))
        return self._sink.read().decode(errors="replace").strip()


def _restore(descriptor: int, saved: int) -> None:
    os.dup2(saved, descriptor)
    os.close(saved)


def load_tool(name: str) -> ModuleType:
    """Import a heavy package without its banner. Raises `ToolMissing` naming the extra that installs it."""
    if name in sys.modules:
        return sys.modules[name]
    if name.split(".")[0] in ("tensorflow", "keras"):
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read once, when TensorFlow's library is loaded
    # A package that makes a log handler while it is imported keeps `sys.stderr` of that moment, so that one stays.
    with quiet(f"importing {name}", streams=False):
        try:
            return importlib.import_module(name)
        except ImportError as error:
            raise ToolMissing(f"{name} cannot be imported ({error}); {INSTALL}") from error
