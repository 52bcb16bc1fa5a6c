from __future__ import annotations

import dataclasses
import json
from datetime import date
from pathlib import Path

import pytest

from devices.__main__ import main
from devices.fleet import Fleet, FleetOptions
from devices.profiles import (
    Sourced,
    budgets,
    estimated_latency,
    load_profile,
    matches,
    profile_names,
)
from edge_runtime.bundle import Requirements
from edge_runtime.errors import ConfigurationError

GOOD = """
name = "mine"
title = "A board"
kind = "board"

[facts]
ram_bytes = { value = 1_000_000_000, source = "sheet", note = "of 1 GB" }
arch = { value = "aarch64", source = ["sheet", "seen-it"] }
targets = { value = ["tflite"], source = "sheet" }

[[references]]
model = "MobileNet"
engine = "TensorFlow Lite"
on = "cpu"
precision = "int8"
latency_ms = 20.0
source = "sheet"
macs = 300_000_000
macs_source = "sheet"

[sources.sheet]
title = "Data sheet"
publisher = "Its maker"
url = "https://example.com/sheet.pdf"
seen = 2026-11-25

[sources.seen-it]
title = "Output of uname -m"
publisher = "A user"
url = "https://example.com/uname"
seen = 2026-11-25
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def test_at_least_ten_real_devices_ship_and_some_are_too_small() -> None:
    profiles = [load_profile(name) for name in profile_names()]
    assert len(profiles) >= 10
    assert {"board", "phone", "computer", "microcontroller"} == {profile.kind for profile in profiles}
    assert {profile.name for profile in profiles if profile.too_small} >= {"esp32-s3-devkitc-1-n8", "nrf52840-dk"}


@pytest.mark.parametrize("name", profile_names())
def test_every_number_that_ships_has_a_source_with_an_address_and_a_date(name: str) -> None:
    profile = load_profile(name)
    facts = [getattr(profile, field.name) for field in dataclasses.fields(profile)]
    cited = [source for fact in facts if isinstance(fact, Sourced) for source in fact.sources]
    cited += [reference.source for reference in profile.references]
    assert cited
    for source in cited:
        assert source.url.startswith("https://")
        assert date(2026, 1, 1) <= source.seen


def test_a_profile_of_your_own_is_read_from_its_path(tmp_path: Path) -> None:
    profile = load_profile(written(tmp_path, GOOD))
    assert profile.ram_bytes is not None
    assert (profile.ram_bytes.value, profile.ram_bytes.note) == (1_000_000_000, "of 1 GB")
    assert profile.arch is not None
    assert [source.key for source in profile.arch.sources] == ["sheet", "seen-it"]
    assert profile.cores is None
    assert profile.attributes() == {"profile": "mine", "arch": "aarch64", "ram_bytes": 1_000_000_000}


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('name = "mine"', 'name = "other"', "name must be the name of the file, mine"),
        ('kind = "board"', 'kind = "toaster"', "kind must be one of board"),
        ('source = "sheet", note = "of 1 GB"', 'note = "of 1 GB"', r"facts\.ram_bytes\.source is missing"),
        ('source = "sheet", note', 'source = "rumour", note', r"facts\.ram_bytes\.source names 'rumour'"),
        ("value = 1_000_000_000", 'value = "1 GB"', r"facts\.ram_bytes\.value must be a number above 0"),
        ("value = 1_000_000_000", "value = 1.5", r"facts\.ram_bytes\.value"),
        ("value = 1_000_000_000", "value = true", r"facts\.ram_bytes\.value"),
        ('["tflite"]', '["openvino"]', r"facts\.targets\.value must be a list of onnx"),
        ("ram_bytes =", "ram =", r"facts\.ram is not a key"),
        ("seen = 2026-11-25", 'seen = "lately"', r"sources\.sheet\.seen must be the date"),
        ("latency_ms = 20.0", "latency_ms = -1", r"references\[0\]\.latency_ms"),
        ('on = "cpu"', 'on = "abacus"', r"references\[0\]\.on must be one of cpu"),
        ("macs = 300_000_000\n", "", r"references\[0\]\.macs_source and macs go together"),
        ('["sheet", "seen-it"]', '"sheet"', r"sources\.seen-it is cited by nothing"),
        ("[facts]", "[facts", "not a readable device profile"),
    ],
)
def test_a_wrong_profile_is_refused_by_file_and_key(tmp_path: Path, old: str, new: str, key: str) -> None:
    assert old in GOOD
    path = written(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(ConfigurationError, match=key) as caught:
        load_profile(path)
    assert str(path) in str(caught.value)


def test_an_unknown_name_lists_those_that_exist() -> None:
    with pytest.raises(ConfigurationError, match="raspberry-pi-5-8gb"):
        load_profile("raspberry-pi-9")


def test_budgets_are_shares_of_what_the_device_has(tmp_path: Path) -> None:
    limits = budgets(load_profile(written(tmp_path, GOOD)))
    assert (limits.ram_bytes, limits.artifact_bytes, limits.targets) == (250_000_000, 125_000_000, ("tflite",))
    small = GOOD.replace("[[references]]", 'storage_bytes = { value = 1_000_000, source = "sheet" }\n[[references]]', 1)
    assert budgets(load_profile(written(tmp_path, small))).artifact_bytes == 100_000


def test_an_estimate_is_the_published_rate_and_says_that_it_is_one(tmp_path: Path) -> None:
    profile = load_profile(written(tmp_path, GOOD))
    estimate = estimated_latency(profile, 15_000_000, "int8")
    assert estimate is not None
    assert estimate.latency_ms == pytest.approx(1.0)
    assert estimate.method.startswith("estimated: 15,000,000 multiply-adds")
    assert "not measured" in estimate.method
    assert estimated_latency(profile, 15_000_000, "fp32") is None, "another precision was not published"


def test_an_estimate_takes_the_slowest_published_rate_of_the_processor() -> None:
    pi = load_profile("raspberry-pi-4b-4gb")
    estimate = estimated_latency(pi, 300_000_000, "int8")
    assert estimate is not None
    assert estimate.latency_ms == pytest.approx(26.4)
    coral = load_profile("coral-dev-board")
    assert coral.references
    assert estimated_latency(coral, 300_000_000, "int8") is None, "an accelerator's latency says nothing of the CPU"


def test_what_does_not_fit_is_said_with_every_reason(tmp_path: Path) -> None:
    profile = load_profile(written(tmp_path, GOOD))
    assert matches(profile, Requirements(), target="tflite", artifact_bytes=1000, peak_memory_bytes=1000) == ()
    reasons = matches(
        profile,
        Requirements(arch=("x86_64",), os=("linux",), ram_bytes=2_000_000_000),
        target="onnx",
        artifact_bytes=200_000_000,
        peak_memory_bytes=300_000_000,
    )
    assert [reason.split(",")[0] for reason in reasons] == [
        "no engine for onnx there",
        "needs arch x86_64",
        "needs 2",
        "the file has 200",
        "takes 300",
    ], "the os is not known, so it rules nothing out"


def test_a_microcontroller_is_too_small_for_anything() -> None:
    reasons = matches(load_profile("esp32-s3-devkitc-1-n8"), Requirements(), target="tflite", artifact_bytes=10)
    assert len(reasons) == 1
    assert "too small" in reasons[0]


def test_the_command_lists_devices_and_shows_where_a_number_is_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(profile_names())
    assert max(map(len, lines)) <= 100
    assert any(line.startswith("stm32h743") and line.endswith("too small") for line in lines)
    assert main(["profiles", "pixel-6"]) == 0
    assert "ram_bytes: 8589934592  [LineageOS wiki: Pixel 6" in capsys.readouterr().out
    assert main(["profiles", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["name"] for row in rows} == set(profile_names())
    assert rows[0]["ram_bytes"]["sources"][0]["seen"] == "2026-11-25"
    assert main(["profiles", "toaster"]) == 1
    assert "no device profile 'toaster'" in capsys.readouterr().err


def fleet(tmp_path: Path, profile: str) -> Fleet:
    nothing = tmp_path / "nothing"
    return Fleet(
        FleetOptions(
            server="http://127.0.0.1:9",
            root=nothing,
            model="tiny",
            state=tmp_path,
            factory=nothing,
            factory_sha256="0" * 64,
            examples=nothing,
            token="t",
            profile=profile,
        )
    )


def test_a_simulated_device_says_what_its_profile_says() -> None:
    claimed = fleet(Path(), "raspberry-pi-4b-4gb").claimed()
    assert claimed == {"profile": "raspberry-pi-4b-4gb", "arch": "aarch64", "os": "linux", "ram_bytes": 4 << 30}


def test_a_fleet_of_devices_that_are_too_small_is_refused_before_it_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no engine for onnx, tflite"):
        fleet(tmp_path, "nrf52840-dk").claimed()


def test_the_profile_in_the_docs_is_one(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "devices.md").read_text()
    path = tmp_path / "kiosk.toml"
    path.write_text(text.split("```toml\n")[1].split("```")[0])
    profile = load_profile(path)
    assert profile.attributes() == {"profile": "kiosk", "arch": "aarch64", "os": "linux", "ram_bytes": 1 << 31}
    facts = {field.name for field in dataclasses.fields(profile)} - {"name", "title", "kind", "references"}
    assert [fact for fact in sorted(facts) if f"`{fact}`" not in text] == []
