from __future__ import annotations

import re
import subprocess
import sys

import edge_runtime.bundle as bundle
from edge_runtime.bundle import errors

PROBE = """
import sys
before = set(sys.modules)
import edge_runtime.bundle
from edge_runtime.bundle import *
write_bundle, open_bundle, read_manifest
roots = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*sorted(roots - set(sys.stdlib_module_names)))
print(*sorted(name for name in set(sys.modules) - before if name.startswith("edge_runtime.")))
"""


def test_the_bundle_package_loads_nothing_but_the_standard_library_and_itself() -> None:
    result = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    foreign, ours = result.stdout.splitlines()
    assert foreign == "edge_runtime"
    assert all(name.startswith("edge_runtime.bundle") for name in ours.split())


def test_the_exports_exist_once() -> None:
    assert len(bundle.__all__) == len(set(bundle.__all__))
    for name in bundle.__all__:
        assert hasattr(bundle, name)


def test_the_exception_tree_on_show_is_the_tree() -> None:
    assert errors.__doc__ is not None
    drawn = [(len(m[1]), m[2]) for m in re.finditer(r"^([ │├└─]*)([A-Z]\w+) ", errors.__doc__, re.MULTILINE)]
    stack: list[tuple[int, str]] = []
    pairs = []
    for depth, name in drawn[1:] if drawn[0][1] == "Errors" else drawn:
        while stack and stack[-1][0] >= depth:
            stack.pop()
        if stack:
            pairs.append((name, stack[-1][1]))
        stack.append((depth, name))
    assert {name for pair in pairs for name in pair} == set(errors.__all__)
    for name, parent in pairs:
        assert getattr(errors, name).__bases__ == (getattr(errors, parent),)
