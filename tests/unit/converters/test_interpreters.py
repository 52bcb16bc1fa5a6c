from __future__ import annotations

import sys
from pathlib import Path

import pytest

from converters.errors import ToolMissing
from converters.interpreters import answers, find_python

THIS = "{}.{}".format(*sys.version_info[:2])


def put_python(path: Path, *, says: str | None) -> None:
    """A program that answers like a Python of that version, or fails as pyenv's stand-ins do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho {says}\n" if says else "#!/bin/sh\necho not installed >&2\nexit 127\n")
    path.chmod(0o755)


def test_the_running_interpreter_is_the_first_of_its_version(tmp_path: Path) -> None:
    put_python(tmp_path / "bin" / f"python{THIS}", says=THIS)
    assert find_python((THIS,), {"PATH": str(tmp_path / "bin")}) == (sys.executable,)


def test_versions_are_tried_in_their_order(tmp_path: Path) -> None:
    put_python(tmp_path / "bin" / "python3.98", says="3.98")
    put_python(tmp_path / "bin" / "python3.99", says="3.99")
    found = find_python(("3.99", "3.98", THIS), {"PATH": str(tmp_path / "bin")})
    assert found == (str(tmp_path / "bin" / "python3.99"),)


def test_a_stand_in_that_fails_is_passed_over_for_the_newest_in_pyenvs_folder(tmp_path: Path) -> None:
    put_python(tmp_path / "bin" / "python3.99", says=None)
    put_python(tmp_path / "pyenv" / "versions" / "3.99.1" / "bin" / "python", says="3.99")
    put_python(tmp_path / "pyenv" / "versions" / "3.99.4" / "bin" / "python", says="3.99")
    found = find_python(("3.99",), {"PATH": str(tmp_path / "bin"), "PYENV_ROOT": str(tmp_path / "pyenv")})
    assert found == (str(tmp_path / "pyenv" / "versions" / "3.99.4" / "bin" / "python"),)


def test_a_python_that_says_another_version_is_not_taken(tmp_path: Path) -> None:
    put_python(tmp_path / "bin" / "python3.99", says="3.12")
    with pytest.raises(ToolMissing, match=r"no Python 3\.99"):
        find_python(("3.99",), {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path)})


def test_uv_is_asked_where_it_is_there(tmp_path: Path) -> None:
    put_python(tmp_path / "managed" / "python", says="3.99")
    put_python(tmp_path / "bin" / "uv", says=str(tmp_path / "managed" / "python"))
    found = find_python(("3.99",), {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path)})
    assert found == (str(tmp_path / "managed" / "python"),)


def test_this_interpreter_answers_for_its_own_version_only(tmp_path: Path) -> None:
    assert answers((sys.executable,), THIS)
    assert not answers((sys.executable,), "3.99")
    assert not answers((str(tmp_path / "nothing"),), THIS)
