"""Tables of what others chose."""

from __future__ import annotations

import io

from rich.console import Console

from model_server.commands.show import show_release, show_releases


def test_brackets_in_a_version_label_are_text_and_no_markup() -> None:
    release = {
        "model": "exercise",
        "release": 1,
        "version": "2.1.0[/red] [bold]",
        "state": "staged",
        "threshold": 2,
        "signatures": [],
        "staged_at": "2026-03-02T00:00:00",
        "published_at": None,
    }
    out = io.StringIO()
    console = Console(file=out, width=160)
    show_release(console, release)
    show_releases(console, [release])
    assert out.getvalue().count("2.1.0[/red] [bold]") == 2
