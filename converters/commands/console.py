"""Progress, tables and warnings on the terminal. Results go to standard output, everything else to standard error."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence

from converters.progress import Say

__all__ = ["number", "progress", "table", "warn"]


@contextlib.contextmanager
def progress(*, quiet: bool = False) -> Iterator[Say]:
    """A bar where standard error is a terminal; else one line for each new step, and none with ``quiet``."""
    if sys.stderr.isatty():
        with _bar() as say:
            yield say
        return
    seen: list[str] = []

    def line(text: str, done: int, total: int) -> None:
        if not quiet and text not in seen[-1:]:
            seen.append(text)
            print(f"[{done + 1}/{total}] {text}", file=sys.stderr, flush=True)

    yield line


@contextlib.contextmanager
def _bar() -> Iterator[Say]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(30), TextColumn("{task.completed:.0f}/{task.total:.0f}"), TimeElapsedColumn(),
               TextColumn("{task.description}"))  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1)

        def say(text: str, done: int, total: int) -> None:
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
