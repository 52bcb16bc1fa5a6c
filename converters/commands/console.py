"""Progress, tables and warnings on the terminal. Results go to standard output, everything else to standard error."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence

from converters.progress import Say, unheard

__all__ = ["log_lines", "number", "progress", "table", "warn"]

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")  # a control sequence of a terminal


@contextlib.contextmanager
def progress(*, quiet: bool = False) -> Iterator[Say]:
    """A bar where standard error is a terminal; else a line for each step begun, and none with ``quiet``."""
    if sys.stderr.isatty():
        with _bar() as say:
            yield say
    else:
        yield unheard if quiet else log_lines(lambda line: print(line, file=sys.stderr, flush=True))


def log_lines(write: Callable[[str], None]) -> Say:
    """Progress for a log: one line for each step, in order, and one for what is said beside the steps.

    Steps of several targets run at once, and each tells its parts: what belongs to a step that was counted already is
    not said again. Work of several parts counts each anew, from 0.
    """
    latest, steps, last = -1, 0, ""

    def say(text: str, done: int, total: int) -> None:
        nonlocal latest, steps, last
        text = _one_line(text)
        if total == 0:
            if text != last:
                last = text
                write(f"  {text}")
        elif done > latest or total != steps or done == 0 < latest:
            latest, steps = done, total
            write(f"[{done + 1}/{total}] {text}")

    return say


def _one_line(text: str) -> str:
    """Without what moves a cursor or colours a terminal: tools' texts go into files."""
    return "".join(each for each in " ".join(ESCAPE.sub("", text).split()) if each.isprintable())


@contextlib.contextmanager
def _bar() -> Iterator[Say]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(30), TextColumn("{task.completed:.0f}/{task.total:.0f}"), TimeElapsedColumn(),
               TextColumn("{task.description}"))  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1)

        def say(text: str, done: int, total: int) -> None:
            text = escape(_one_line(text))
            if total == 0:
                bar.update(task, description=text)
            else:
                bar.update(task, description=text, completed=done, total=total)

        yield say


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table as wide as the terminal allows; where it allows too little, the last column is folded."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    made = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in headings:
        made.add_column(heading, no_wrap=heading != headings[-1], overflow="fold", min_width=6)
    for row in rows:
        made.add_row(*row)
    Console().print(made)


def warn(text: str) -> None:
    """One line on standard error."""
    print(f"warning: {text}", file=sys.stderr)


def number(value: float | None, form: str) -> str:
    """Formatted, or nothing for None."""
    return "" if value is None else format(value, form)
