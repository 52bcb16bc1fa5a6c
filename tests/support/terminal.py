"""A command at a real terminal: a pseudo-terminal that controls its process, as a shell's does."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Typed", "typing_at"]

PATIENCE_S = 120


class Typed:
    """What the screen shows, and a keyboard."""

    def __init__(self, descriptor: int, process: subprocess.Popen[bytes]) -> None:
        self._descriptor = descriptor
        self._process = process
        self._seen = 0
        self.screen = ""

    def wait_for(self, text: str) -> None:
        """Until ``text`` is shown, after all that was waited for before."""
        deadline = time.monotonic() + PATIENCE_S
        while text not in self.screen[self._seen :]:
            assert time.monotonic() < deadline, f"{text!r} was not shown:\n{self.screen}"
            assert self._read(), f"the command ended before {text!r}:\n{self.screen}"
        self._seen = self.screen.index(text, self._seen) + len(text)

    def answer(self, prompt: str, line: str) -> None:
        self.wait_for(prompt)
        os.write(self._descriptor, f"{line}\n".encode())

    def press(self, key: bytes) -> None:
        os.write(self._descriptor, key)

    def interrupt(self) -> int:
        """Ctrl-C until it ends; the exit status. Python does not see one that comes between its showing of a prompt and
        its reading of the answer: somebody at a keyboard presses it again."""
        deadline = time.monotonic() + PATIENCE_S
        while self._process.poll() is None:
            assert time.monotonic() < deadline, f"Ctrl-C does not end it:\n{self.screen}"
            self.press(b"\x03")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
        return self.end()

    def end(self) -> int:
        """Read to the end; the exit status."""
        deadline = time.monotonic() + PATIENCE_S
        while self._read():
            assert time.monotonic() < deadline, f"it does not end:\n{self.screen}"
        return self._process.wait(PATIENCE_S)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._descriptor], [], [], 1.0)
        if not ready:
            return True
        try:
            data = os.read(self._descriptor, 65_536)
        except OSError:  # Linux says so when the other end is closed
            return False
        self.screen += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)


@contextmanager
def typing_at(command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[Typed]:
    own, theirs = pty.openpty()
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "dumb", "COLUMNS": "200", **(environment or {})},
        start_new_session=True,
        preexec_fn=_control,
    )
    os.close(theirs)
    try:
        yield Typed(own, process)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(own)


def _control() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
