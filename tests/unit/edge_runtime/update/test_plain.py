"""`edgeship-device tuf`: the plain TUF client over a real server. The public conformance suite is run by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from tuf.api.metadata import TargetFile

from devices.repository import signer
from devices.static_server import Fault
from edge_runtime.cli import main
from edge_runtime.disk import RealDisk
from edge_runtime.update import plain
from tests.support.world import RELEASES, World

FILE = "models/tiny/2/tiny-fp32.onnx"


@pytest.fixture
def trusted(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A metadata folder that trusts the repository's root, on a day when nothing has expired."""
    monkeypatch.setattr(plain, "SystemClock", lambda: world.clock)
    root = tmp_path / "root.json"
    root.write_bytes(world.root)
    folder = tmp_path / "metadata"
    assert main(["tuf", "--metadata-dir", str(folder), "init", str(root)]) == 0
    return folder


def refresh(world: World, folder: Path) -> int:
    return main(["tuf", "--metadata-dir", str(folder), "--metadata-url", f"{world.server.url}/metadata", "refresh"])


def download(world: World, folder: Path, destination: Path, *names: str) -> int:
    wanted = [word for name in names for word in ("--target-name", name)]
    places = ["--target-base-url", f"{world.server.url}/targets", "--target-dir", str(destination)]
    metadata = ["--metadata-dir", str(folder), "--metadata-url", f"{world.server.url}/metadata"]
    return main(["tuf", *metadata, *wanted, *places, "download"])


def test_refresh_keeps_the_verified_metadata_under_plain_names(world: World, trusted: Path) -> None:
    assert refresh(world, trusted) == 0
    assert {file.name for file in trusted.glob("*.json")} == {
        "root.json",
        "timestamp.json",
        "snapshot.json",
        "targets.json",
    }
    assert not (trusted / "root.json").is_symlink()


@pytest.mark.parametrize(
    "name", ["../../x", "/etc/x", "..", ".", "a\\..\\b", "C:\\x", "x" * 300, "nul", "a b\u202e", "%2e%2e"]
)
def test_whatever_a_target_is_called_nothing_is_written_beside_the_folder(
    world: World, trusted: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """No house rule stands between this client and a name: a role that may list everything lists it."""
    data = b"a target"
    target = TargetFile.from_data(name, data, ["sha256"])
    world.repository.delegate("all", [signer()], 1, ["*", "*/*", "*/*/*", "*/*/*/*"])
    world.repository.roles["all"].targets[name] = target
    world.repository.publish()
    place = tmp_path / "there"
    place.mkdir()
    before = {path for path in tmp_path.rglob("*") if place not in path.parents and trusted not in path.parents}
    world.server.faults = Everywhere(data)
    assert download(world, trusted, place / "to", name) in (0, 1)
    assert "Traceback" not in capsys.readouterr().err
    after = {path for path in tmp_path.rglob("*") if place not in path.parents and trusted not in path.parents}
    assert after == before
    assert {path.name for path in place.iterdir()} == {"to"}
    assert all(path.read_bytes() == data for path in (place / "to").iterdir())


class Everywhere(dict[str, Fault]):
    """The same bytes at every address but those of metadata."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def get(self, path: str, default: object = None) -> Fault | None:  # type: ignore[override]
        return None if path.startswith("/metadata/") else lambda handler: handler.send(200, self.data)


def test_targets_are_downloaded_once_under_their_quoted_names(world: World, trusted: Path, tmp_path: Path) -> None:
    assert download(world, trusted, tmp_path / "to", FILE, "models/tiny/2/manifest.json") == 0
    made = tmp_path / "to" / "models%2Ftiny%2F2%2Ftiny-fp32.onnx"
    assert made.read_bytes() == RELEASES[2].files["tiny-fp32.onnx"]
    assert len(list((tmp_path / "to").iterdir())) == 2, "nothing half-made is left"
    world.server.clear()
    assert download(world, trusted, tmp_path / "to", FILE) == 0
    assert not any("onnx" in path for path in world.server.paths())
    made.write_bytes(b"damaged")
    assert download(world, trusted, tmp_path / "to", FILE) == 0
    assert made.read_bytes() == RELEASES[2].files["tiny-fp32.onnx"]


def test_what_nobody_signed_or_is_not_what_was_signed_is_not_kept(
    world: World, trusted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert download(world, trusted, tmp_path / "to", "models/tiny/9/manifest.json") == 1
    assert "no role that may lists" in capsys.readouterr().err
    world.tampered(FILE, lambda data: b"x" * len(data))
    assert download(world, trusted, tmp_path / "to", FILE) == 1
    assert list((tmp_path / "to").iterdir()) == []


def test_the_house_rules_are_left_out(world: World, trusted: Path, tmp_path: Path) -> None:
    world.repository.add_target("targets", "models/tiny/9/listed-by-targets.txt", b"")
    world.repository.publish()
    assert download(world, trusted, tmp_path / "to", "models/tiny/9/listed-by-targets.txt") == 0
    assert next((tmp_path / "to").iterdir()).read_bytes() == b""


def test_a_folder_that_trusts_nothing_and_one_in_use_are_refused(
    world: World, trusted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert refresh(world, tmp_path / "empty") == 1
    assert "trusts no root yet" in capsys.readouterr().err
    unlock = RealDisk().lock(trusted / ".lock")
    assert refresh(world, trusted) == 1
    assert "in use" in capsys.readouterr().err
    unlock()
    assert refresh(world, trusted) == 0
