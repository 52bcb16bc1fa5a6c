"""Runs `token_tests` in a process of its own: in one that has loaded TensorFlow, SoftHSM crashes over making a key."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def test_keys_on_tokens_and_behind_other_uris() -> None:
    tests = Path(__file__).with_name("token_tests.py")
    environment = {name: text for name, text in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(tests)],
        cwd=tests.parents[4],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    if "SKIPPED" in done.stdout:
        pytest.skip(done.stdout[-500:])
