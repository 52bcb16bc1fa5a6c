"""The commands of the pages, typed as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def blocks_of(page: str) -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs" / page).read_text(), flags=re.M | re.S)


def typed(blocks: list[str], folder: Path, *, timeout_s: int) -> str:
    """What the blocks print when they are typed in an empty folder, in order."""
    script = "set -euo pipefail\ntrap 'kill $(cat serve.pid 2>/dev/null) 2>/dev/null || true' EXIT\n" + "\n".join(
        blocks
    )
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.mark.timeout(500)
def test_the_page_about_releasing_works_as_it_is_written(tmp_path: Path) -> None:
    blocks = blocks_of("releasing.md")
    assert len(blocks) >= 6
    shown = typed(blocks, tmp_path, timeout_s=480)
    assert "Installed" in shown
    assert "published, signed by alice, bob" in shown


def test_the_page_about_operating_works_as_it_is_written(tmp_path: Path) -> None:
    shown = typed(blocks_of("operations.md"), tmp_path, timeout_s=280)
    assert "releases-exercise: dave joins" in shown
    assert "alice leaves" in shown
    assert "timestamp: the server gets a new key" in shown
    assert "olga (operator)" in shown
    assert "alice is an admin" in shown


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_the_page_about_converters_works_as_it_is_written(tmp_path: Path) -> None:
    shown = typed(blocks_of("converters.md"), tmp_path, timeout_s=1180)
    kinds = {1: "keras", 4: "savedmodel", 5: "tflite", 6: "coreml", 7: "onnx", 8: "torch"}
    for release, kind in kinds.items():
        assert f"table release {release}: {kind} source" in shown
    assert "forest release 1: sklearn source" in shown
    folders = ["table-out/table-1", *(f"table-{n}/table-{n}" for n in range(2, 9)), "forest-1/forest-1"]
    for bundle in folders:
        assert (tmp_path / f"{bundle}.bundle").is_file()


def test_every_file_that_a_page_links_to_exists() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "edge_runtime/bundle/FORMAT.md"]
    missing = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in pages
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", re.sub(r"`[^`\n]*`", "", page.read_text()))
        if not (page.parent / link).exists()
    ]
    assert missing == []


def test_every_test_that_the_threat_model_names_exists() -> None:
    named = re.findall(r"\[([\w/]+\.py)::(\w+)\]", (ROOT / "docs" / "security.md").read_text())
    assert len(named) > 30
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not re.search(rf"^def {name}\(", (ROOT / "tests" / file).read_text(), flags=re.M)
    ]
    assert missing == []


def test_the_readme_names_make_targets_and_commands_that_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"\bmake ([a-z-]+)\b", readme)) - {"sure"}:
        assert re.search(rf"^{target}:", makefile, flags=re.M), target
    for command in sorted(set(re.findall(r"^(edgeship-[a-z]+(?: [a-z]+){1,2})", readme, flags=re.M))):
        name, *words = command.split()
        depth = (
            1
            if name != "edgeship-server" or words[0] in ("init", "serve", "status", "login", "logout", "whoami")
            else 2
        )
        line = [str(Path(sys.executable).with_name(name)), *words[:depth], "--help"]
        assert subprocess.run(line, capture_output=True, check=False).returncode == 0, command
