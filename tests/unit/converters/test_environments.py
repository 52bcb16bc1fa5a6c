"""Helper environments, with tiny ones that install nothing, or one wheel made here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from converters import environments
from converters.environments import ENVIRONMENTS, READY, HelperEnvironment, ensure, folder_of, is_ready, main
from converters.errors import OutputFull, ToolMissing

THIS = "{}.{}".format(*sys.version_info[:2])
EMPTY = HelperEnvironment(
    name="empty", purpose="does nothing", pythons=(THIS,), requirements=(), constraints=(), disk_bytes=1
)
TINY = replace(EMPTY, name="tiny", purpose="says seven", requirements=("tinytool==1.0",))


def environ(home: Path, pip: str = "--no-index") -> dict[str, str]:
    return {**os.environ, "EDGESHIP_HOME": str(home), "EDGESHIP_PIP_ARGS": pip}


def put_wheel(folder: Path, version: str) -> None:
    """A wheel of ``tinytool``, which holds one module."""
    info = f"tinytool-{version}.dist-info"
    with zipfile.ZipFile(folder / f"tinytool-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tinytool.py", f"SEVEN = 7\nVERSION = {version!r}\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tinytool\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("wheels")


@pytest.fixture(scope="module")
def failure(home: Path, wheels: Path) -> ToolMissing:
    """What is raised where the packages cannot be had: the environment's folder is half made then."""
    with pytest.raises(ToolMissing) as raised:
        ensure(TINY, lambda text: None, environ=environ(home, f"--no-index --find-links {wheels}"))
    return raised.value


@pytest.fixture(scope="module")
def said_by_two(failure: ToolMissing, home: Path, wheels: Path) -> list[str]:
    """What two that want the environment at the same time heard, now that the packages are there."""
    put_wheel(wheels, "1.0")
    put_wheel(wheels, "1.1")
    said: list[str] = []
    given = {"environ": environ(home, f"--no-index --find-links {wheels}")}
    workers = [threading.Thread(target=ensure, args=(TINY, said.append), kwargs=given) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return said


def test_an_install_that_fails_names_environment_command_and_the_last_words(failure: ToolMissing) -> None:
    for part in ("tiny", "says seven", "-m converters.environments tiny", "EDGESHIP_PIP_ARGS", "No matching dist"):
        assert part in str(failure)


def test_the_next_attempt_goes_on_in_the_same_folder_with_the_pinned_version(
    failure: ToolMissing, home: Path, request: pytest.FixtureRequest
) -> None:
    folder = folder_of(TINY, environ(home))
    assert not is_ready(folder)
    stamp = (folder / "pyvenv.cfg").stat().st_mtime_ns
    request.getfixturevalue("said_by_two")
    assert is_ready(folder)
    assert (folder / "pyvenv.cfg").stat().st_mtime_ns == stamp
    python = ensure(TINY, pytest.fail, environ=environ(home))  # silently, since it is there
    assert python.is_relative_to(folder)
    done = subprocess.run([python, "-c", "import tinytool; print(tinytool.VERSION)"], capture_output=True, text=True)
    assert done.stdout.strip() == "1.0"


def test_two_at_once_make_one_environment_and_hear_what_happens(said_by_two: list[str], home: Path) -> None:
    (installing,) = [text for text in said_by_two if text.startswith("installing")]
    assert "tiny (says seven)" in installing
    assert str(folder_of(TINY, environ(home))) in installing
    assert len([text for text in said_by_two if text.startswith("waiting for another process")]) == 1


def test_an_environment_whose_python_is_gone_is_not_ready(tmp_path: Path) -> None:
    folder = folder_of(EMPTY, environ(tmp_path))
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    python.parent.mkdir(parents=True)
    (folder / READY).write_text("{}")
    assert not is_ready(folder)
    python.symlink_to(tmp_path / "uninstalled")
    assert not is_ready(folder)
    python.unlink()
    python.symlink_to(sys.executable)
    assert is_ready(folder)


def test_other_pins_are_another_environment(home: Path) -> None:
    newer = replace(TINY, requirements=("tinytool==1.1",))
    assert folder_of(newer, environ(home)) != folder_of(TINY, environ(home))
    assert folder_of(replace(TINY, constraints=("six==1.17.0",)), environ(home)) != folder_of(TINY, environ(home))
    assert folder_of(replace(TINY, purpose="in other words"), environ(home)) == folder_of(TINY, environ(home))


def test_too_little_space_is_said_before_anything_is_made(tmp_path: Path) -> None:
    huge = replace(EMPTY, disk_bytes=10**18)
    with pytest.raises(OutputFull, match=r"empty needs 1000000000\.0 GB .* EDGESHIP_HOME"):
        ensure(huge, lambda text: None, environ=environ(tmp_path))
    assert not folder_of(huge, environ(tmp_path)).exists()


def test_without_a_fitting_python_it_says_which_to_install(tmp_path: Path) -> None:
    with pytest.raises(ToolMissing, match=r"no Python 3\.99 .* install one \(python3\.99"):
        ensure(replace(EMPTY, pythons=("3.99",)), lambda text: None, environ=environ(tmp_path))


def test_packages_that_are_here_in_the_right_versions_need_no_environment(tmp_path: Path) -> None:
    from importlib.metadata import version

    here = replace(EMPTY, requirements=(f"numpy=={version('numpy')}",))
    assert ensure(here, pytest.fail, environ=environ(tmp_path)) == Path(sys.executable)
    other = replace(EMPTY, requirements=("numpy==1.0",), disk_bytes=10**18)
    with pytest.raises(OutputFull):
        ensure(other, lambda text: None, environ=environ(tmp_path))


def test_the_folder_is_edgeship_home_or_the_users_cache() -> None:
    name = f"empty-{EMPTY.digest}"
    assert folder_of(EMPTY, {"EDGESHIP_HOME": "/data/edgeship"}) == Path("/data/edgeship/environments") / name
    assert folder_of(EMPTY, {"XDG_CACHE_HOME": "/cache"}) == Path("/cache/edgeship/environments") / name
    assert folder_of(EMPTY, {}) == Path.home() / ".cache" / "edgeship" / "environments" / name


@pytest.mark.parametrize("name", sorted(ENVIRONMENTS))
def test_every_package_of_an_environment_is_pinned_once(name: str) -> None:
    environment = ENVIRONMENTS[name]
    pins = [line.split("==") for line in environment.constraints]
    assert all(len(pin) == 2 and pin[1] for pin in pins)
    pinned = {package.lower().replace("_", "-"): version for package, version in pins}
    assert len(pinned) == len(pins)
    for requirement in environment.requirements:
        package, version = requirement.split("==")
        assert pinned.get(package, version) == version


def test_lines_of_the_installer_become_packages_and_time() -> None:
    progress = environments._Progress(packages=3)
    assert progress.text(1.2) == "making the folder, 1 s"
    for line in (
        "Collecting numpy==2.0 (from -r x)",
        "  Downloading numpy-2.0.whl (18 MB)",
        "Collecting six>=1 (from y)",
    ):
        progress.heard(line)
    assert progress.text(31) == "fetching six, package 2 of about 3, 31 s"
    progress.heard("Installing collected packages: numpy, six")
    assert progress.text(40) == "unpacking 2 packages, 40 s"


def test_while_an_installer_runs_it_is_said_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "SAID_EVERY_S", 0.05)
    said: list[str] = []
    ensure(EMPTY, said.append, environ=environ(tmp_path))
    assert any(re.fullmatch(r"empty: making the folder, \d+ s", text) for text in said)


def test_the_path_of_a_python_can_be_had_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environments, "ENVIRONMENTS", {"empty": EMPTY})
    monkeypatch.setenv("EDGESHIP_HOME", str(tmp_path))
    assert main(["empty", "--python"]) == 0
    out, err = capsys.readouterr()
    assert Path(out.removesuffix("\n")).is_file()
    assert "installing the environment empty" in err
    assert main(["empty"]) == 0
    assert capsys.readouterr() == (f"empty: {out}", "")


def test_the_command_refuses_a_name_that_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["nonsense"])
    assert raised.value.code == 2
    assert "no environment nonsense; the names are torch, onnx2tf" in capsys.readouterr().err
