"""Making patches: the old and the new file aligned, words typed, streams compressed. docs/spec/delta.md is normative.

`edge_runtime.update.delta` applies them. Making one takes seconds, and some ten times the files in memory: on the
server, once.
"""

from model_server.releases.delta.making import make_delta

__all__ = ["make_delta"]
