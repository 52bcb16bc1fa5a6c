"""Deltas between two releases of real artifacts beside bsdiff, HDiffPatch and zstd's patch-from.

For each real model and each change of its weights, our converter makes the artifact before and after; every tool makes
a patch of them in a process of its own and applies it in another. Every patch is verified to make the new file. Sizes
are of the patch as it is downloaded. Apply times are of files read and written, by turns, medians; memory is what a
fresh process takes at most while it applies. The peers apply in memory, since their packages work on bytes; we in
pieces. Nobody checks a digest within the time. Nothing is kept from one run to the next.

``apply_ms_5mb`` is of efficientnet-lite0 in INT8, 5.0 MB: the slowest of its changes.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.peers_delta.files import CASES, QUICK, pairs
from bench.peers_delta.measuring import measure
from bench.peers_delta.scoring import MB, DeltaRow, Measured, metrics, ratio_to_best_peer
from bench.peers_delta.tools import OURS, PEERS, ToolFailed, install
from bench.real_models.folder import read_info

Samples = dict[str, list[float]]


def run(quick: bool) -> tuple[dict[str, Any], list[dict[str, Any]], Samples]:
    cases, rounds = (QUICK, 3) if quick else (CASES, 9)
    say = partial(_say, time.perf_counter())
    for case in cases:
        read_info(case.model)  # says at once what is not there
    pythons, missing = {OURS: Path(sys.executable)}, {}
    for peer in PEERS:
        try:
            pythons[peer.name] = install(peer)
        except ToolFailed as error:
            missing[peer.name] = str(error)
            say(f"{peer.name} {error}")
    rows: list[DeltaRow] = []
    samples: Samples = {}
    for case in cases:
        with tempfile.TemporaryDirectory(prefix="edgeship-bench-") as scratch:
            folder = Path(scratch)
            for pair in pairs(case, folder, say):
                row, times = measure(pair, pythons, missing, folder, rounds, say)
                rows.append(row)
                name = f"{row.model}/{row.target}/{row.precision}/{row.change}"
                samples |= {f"{name}/{tool}": values for tool, values in times.items()}
        _show([row for row in rows if row.model == case.model])
    return metrics(rows), [row.flat() for row in rows], samples


def _say(started: float, text: str) -> None:
    print(f"    {time.perf_counter() - started:5.0f} s  {text}", file=sys.stderr, flush=True)


def _show(rows: Sequence[DeltaRow]) -> None:
    """Four tables: sizes, then what they cost."""
    names = list(rows[0].peers)
    _table(
        f"{rows[0].model}: patch, of the file",
        ("", "bytes", "zstd -19", "ours", *names, "ratio"),
        [
            (
                _name(row),
                f"{row.new_bytes:,}",
                _share(row.zstd_bytes, row),
                *(_share(tool.patch_bytes, row) for tool in (row.ours, *row.peers.values())),
                _number(ratio_to_best_peer(row), ".3f"),
            )
            for row in rows
        ],
    )
    costs: tuple[tuple[str, Callable[[Measured], str], str, Callable[[DeltaRow], str]], ...] = (
        ("seconds to make", lambda tool: _number(tool.make_s, ".1f"), "", lambda row: ""),
        ("ms to apply", lambda tool: _number(tool.apply_ms, ".1f"), "A/A", lambda row: _number(row.aa_ratio, ".3f")),
        (
            "MB of memory to apply",
            lambda tool: _number(None if tool.peak_bytes is None else tool.peak_bytes / MB, ".1f"),
            "ours, beyond both files",
            lambda row: _number(row.extra_mb, ".1f"),
        ),
    )
    for what, form, last, end in costs:
        _table(
            f"{rows[0].model}: {what}",
            ("", "ours", *names, last),
            [(_name(row), *(form(tool) for tool in (row.ours, *row.peers.values())), end(row)) for row in rows],
        )
    for row in rows:
        for name, peer in row.peers.items():
            if peer.reason:
                print(f"{_name(row)}: {name} {peer.reason}", flush=True)


def _name(row: DeltaRow) -> str:
    return f"{row.target} {row.precision}, {row.change}"


def _table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for number, heading in enumerate(headings):
        table.add_column(heading, no_wrap=True, justify="right" if number else "left")
    for each in rows:
        table.add_row(*each)
    console = Console()
    # A file or a pipe says 80 columns, which would cut the numbers off.
    console = console if console.is_terminal else Console(width=120)
    console.print(table)


def _share(size: int | None, row: DeltaRow) -> str:
    return _number(None if size is None else size / row.new_bytes, ".1%")


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
