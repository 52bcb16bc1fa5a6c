"""The commands of docs/releasing.md, typed as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "releasing.md"


@pytest.mark.timeout(400)
def test_the_page_about_releasing_works_as_it_is_written(tmp_path: Path) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), flags=re.M | re.S)
    assert len(blocks) >= 6
    script = "set -euo pipefail\ntrap 'kill $(cat serve.pid) 2>/dev/null || true' EXIT\n" + "\n".join(blocks)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=380,
    )
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    assert "Installed" in done.stdout
    assert "published, signed by alice, bob" in done.stdout


def test_every_file_that_a_page_links_to_exists() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "edge_runtime/bundle/FORMAT.md"]
    missing = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in pages
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", re.sub(r"`[^`\n]*`", "", page.read_text()))
        if not (page.parent / link).exists()
    ]
    assert missing == []


def test_the_readme_names_make_targets_and_commands_that_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"\bmake ([a-z-]+)\b", readme)) - {"sure"}:
        assert re.search(rf"^{target}:", makefile, flags=re.M), target
    for command in sorted(set(re.findall(r"^(edgeship-[a-z]+(?: [a-z]+){1,2})", readme, flags=re.M))):
        name, *words = command.split()
        depth = 1 if name != "edgeship-server" or words[0] in ("init", "serve", "status") else 2
        line = [str(Path(sys.executable).with_name(name)), *words[:depth], "--help"]
        assert subprocess.run(line, capture_output=True, check=False).returncode == 0, command
