"""`python -m devices faults`: a device that is cut off at any point starts again, and one that is careless is found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(900)

CARELESS = """
import edge_runtime.store as store
from edge_runtime.disk import sealed

def careless(self, slots):
    self.disk.write(self.root / "state.json", sealed(slots.to_body()))
    self._slots = slots

store.Store._write = careless
"""


def faults(*arguments: str, patch: Path | None = None) -> tuple[int, dict[str, Any], str]:
    """Exit status, the last line of standard output, and standard error."""
    environment = dict(os.environ)
    if patch is not None:
        environment["PYTHONPATH"] = os.pathsep.join([str(patch), *filter(None, [environment.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "devices", "faults", "--json", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    lines = done.stdout.splitlines()
    return done.returncode, json.loads(lines[-1]) if lines else {}, done.stderr


def test_a_device_that_is_cut_off_here_and_there_comes_back_by_itself() -> None:
    status, summary, errors = faults("--trials", "6")
    assert status == 0, errors
    assert (summary["points"], summary["kills"], summary["power_cuts"], summary["trials"]) == (6, 6, 18, 24)
    assert (summary["lost"], summary["unbootable"], summary["unverified_served"], summary["not_reached"]) == (
        0,
        0,
        0,
        0,
    )


@pytest.mark.long
def test_a_device_that_is_cut_off_anywhere_comes_back_by_itself() -> None:
    status, summary, errors = faults("--trials", "all")
    assert status == 0, errors
    assert summary["points"] >= 20
    assert (summary["lost"], summary["unbootable"], summary["unverified_served"]) == (0, 0, 0)


@pytest.mark.long
def test_a_device_that_writes_its_state_in_place_is_found(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(CARELESS, encoding="utf-8")
    status, summary, _ = faults("--trials", "all", patch=tmp_path)
    assert status == 1
    assert summary["lost"] + summary["unbootable"] > 0
