"""Tables of what others chose."""

from __future__ import annotations

import io
from datetime import UTC, datetime

from rich.console import Console

from edge_runtime.bundle import FileRef
from model_server.commands.show import show_release, show_releases, show_review, show_rollout
from model_server.releases.signing_request import Review


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


def test_a_review_lists_artifacts_first_and_one_line_a_file() -> None:
    names = ("LICENSE", "manifest.json", "model-fp32.onnx", "model-fp32.onnx.golden.npz", "release.json")
    review = Review(
        model="exercise",
        release=1,
        metadata_version=2,
        expires=datetime(2026, 3, 2, tzinfo=UTC),
        files=tuple(FileRef(file=name, bytes=1_234_567, sha256="0123456789abcdef" * 4) for name in names),
        kept=0,
        ceiling=(),
        deltas=(),
        audit_head=None,
    )
    out = io.StringIO()
    show_review(Console(file=out, width=80), review)
    lines = [line for line in out.getvalue().splitlines() if "1,234,567" in line]
    assert [next(name for name in reversed(names) if name in line) for line in lines] == [
        "model-fp32.onnx", "LICENSE", "manifest.json", "release.json", "model-fp32.onnx.golden.npz"
    ]  # fmt: skip
    assert all("0123456789abcdef " in line for line in lines)


def test_a_stage_that_started_with_nobody_known_shows_a_dash_for_selected() -> None:
    stage = {"stage": "all", "share": 1.0, "selected": 0, "adopted": 1, "devices_known": 1, "started": "", "ended": ""}
    rollout = {
        "rollout": "exercise-stable-1",
        "state": "running",
        "baseline": None,
        "candidate": 1,
        "devices": {"on_candidate": 1, "known": 1},
        "reports": 1,
        "stages": [stage],
        "arms": {},
        "events": [],
        "waiting_for": [],
    }
    out = io.StringIO()
    show_rollout(Console(file=out, width=160), rollout)
    [row] = [line for line in out.getvalue().splitlines() if "100.0000%" in line]
    assert [cell.strip() for cell in row.split("│")[3:5]] == ["–", "1"]
