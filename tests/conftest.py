"""Settings of the whole test suite."""

from __future__ import annotations

import os

from hypothesis import settings

# Continuous integration must not fail on a change that is innocent: there, the examples are the same every time.
# Everywhere else they are new in each run, which is how the suite goes on finding things.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
