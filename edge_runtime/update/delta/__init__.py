"""Deltas: a patch that turns one release's artifact into the next one's. docs/spec/delta.md is normative.

`apply` needs a few MiB whatever the size of the files: it reads the old file and the patch in pieces, and hands out the
new file in pieces. The server makes patches in `model_server.releases.delta`.
"""

from edge_runtime.update.delta.applying import apply
from edge_runtime.update.delta.format import DeltaDamaged

__all__ = ["DeltaDamaged", "apply"]
