"""Outcome reports: every count in exactly one acknowledged report, whatever the network and the disk do."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devices.static_server import StaticServer, serve
from edge_runtime.authorization import Bearer
from edge_runtime.device import Device
from edge_runtime.disk import RealDisk, write_sealed
from edge_runtime.errors import Outcome
from edge_runtime.outcome_spool import read_standing
from edge_runtime.outcomes import CounterDelta, Outcomes, Posted
from edge_runtime.update.fetcher import default_client
from edge_runtime.waits import Waits
from tests.support.disks import FullDisk, RecordingDisk
from tests.support.world import NOW, PLAN, ManualClock

DEVICE = Device(id="device-1", attributes={"arch": "arm64", "os": "linux", "ram_bytes": 5, "owner": "alice"})
START = int(NOW.timestamp())
DELTA = CounterDelta(
    release=2, arm="candidate", requests=10, errors=1, fallbacks=1, latency_device={100: 9}, latency_cloud={200: 1}
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StaticServer]:
    with serve(tmp_path) as running:
        yield running


class Spool:
    def __init__(self, folder: Path, server: StaticServer, **options: Any) -> None:
        self.server = server
        self.clock = ManualClock()
        self.folder = folder
        self.open(**options)

    def open(self, **options: Any) -> None:
        disk = options.get("disk") or RealDisk()
        waits = Waits(self.folder, disk, self.clock, lambda least, most: least)
        self.outcomes = Outcomes(
            self.folder, device=DEVICE, model="tiny", channel="stable", clock=self.clock, waits=waits, **options
        )

    def post(self, url: str | None = None) -> Posted:
        with default_client("http://") as client:
            return self.outcomes.post(
                client, url or self.server.url, Bearer("secret"), running=2, plan=PLAN, engine="onnxruntime"
            )

    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.server.posts]


@pytest.fixture
def spool(tmp_path: Path, server: StaticServer) -> Spool:
    return Spool(tmp_path / "state", server)


def test_a_report_says_what_runs_and_what_happened(spool: Spool) -> None:
    spool.outcomes.record(Outcome.INSTALLED, 2, "release 2 is here and on trial")
    spool.outcomes.count(DELTA)
    assert spool.post() is Posted.ACCEPTED
    assert spool.server.paths() == ["/v1/outcomes"]
    assert spool.server.requests[0][2]["authorization"] == "Bearer secret"
    assert spool.bodies() == [
        {
            "format": 1,
            "device": "device-1",
            "model": "tiny",
            "channel": "stable",
            "sequence": START,
            "attributes": {"arch": "arm64", "os": "linux", "engine": "onnxruntime"},
            "running": 2,
            "arm": "candidate",
            "rollout": "r-1",
            "attempt": 1,
            "outcomes": [{"outcome": "Installed", "release": 2, "detail": "release 2 is here and on trial"}],
            "counters": [
                {
                    "release": 2,
                    "arm": "candidate",
                    "requests": 10,
                    "errors": 1,
                    "fallbacks": 1,
                    "refused": 0,
                    "latency_us": {"device": [[100, 9]], "cloud": [[200, 1]]},
                }
            ],
        }
    ]


def test_the_server_takes_what_the_device_sends(spool: Spool) -> None:
    from model_server.rollouts.api import ReportBody

    for release in range(1, 20):
        spool.outcomes.record(Outcome.CANARY_FAILED, release, "x" * 500)
        spool.outcomes.count(dataclasses.replace(DELTA, release=release))
    assert spool.post() is Posted.ACCEPTED
    ReportBody.model_validate_json(spool.server.posts[0][1])


def test_nothing_is_reported_twice(spool: Spool) -> None:
    spool.outcomes.count(DELTA)
    spool.post()
    spool.outcomes.count(dataclasses.replace(DELTA, requests=3))
    spool.post()
    first, second = spool.bodies()
    assert (first["sequence"], second["sequence"]) == (START, START + 1)
    assert first["counters"][0]["requests"] == 10
    assert second["counters"][0]["requests"] == 3
    assert spool.post() is Posted.ACCEPTED
    assert spool.bodies()[2]["counters"] == []


def test_an_unacknowledged_report_is_sent_again_byte_for_byte_before_anything_new(spool: Spool) -> None:
    spool.outcomes.count(DELTA)
    spool.server.answers = [(500, {}, b"")]
    assert spool.post() is Posted.UNREACHABLE
    spool.outcomes.count(DELTA)
    spool.outcomes.record(Outcome.RETURNED, 1)
    spool.open()  # another process
    assert spool.post() is Posted.UNREACHABLE
    spool.server.answers = []
    assert spool.post() is Posted.ACCEPTED
    posts = [body for _, body in spool.server.posts]
    assert posts[0] == posts[1] == posts[2]
    assert json.loads(posts[3])["sequence"] == START + 1
    assert json.loads(posts[3])["outcomes"][0]["outcome"] == "Returned"
    assert json.loads(posts[3])["counters"][0]["requests"] == 10
    assert len(posts) == 4


def test_a_lost_acknowledgement_does_not_count_anything_twice(spool: Spool) -> None:
    """The server that took a sequence number ignores it later, so what it holds must be all of that report."""
    spool.outcomes.count(DELTA)
    spool.server.answers = [(504, {}, b"")]  # taken in, but the answer was lost on the way
    spool.post()
    spool.outcomes.count(DELTA)
    spool.server.answers = [(200, {}, b'{"accepted":true}')]
    assert spool.post() is Posted.ACCEPTED
    by_sequence = {body["sequence"]: body for body in spool.bodies()}
    assert sum(body["counters"][0]["requests"] for body in by_sequence.values()) == 20


def test_no_server_is_not_an_error(spool: Spool) -> None:
    spool.outcomes.count(DELTA)
    assert spool.post("http://127.0.0.1:9") is Posted.UNREACHABLE
    assert spool.post("http://[bad") is Posted.UNREACHABLE
    assert spool.post() is Posted.ACCEPTED
    assert spool.bodies()[0]["counters"][0]["requests"] == 10


@pytest.mark.parametrize(
    ("header", "wait"), [("120", 120), ("Sun, 22 Nov 2026 12:02:00 GMT", 120), ("999999999", 86400)]
)
def test_the_server_may_ask_to_wait(spool: Spool, header: str, wait: float) -> None:
    spool.server.now = spool.clock.wall
    spool.server.answers = [(429, {"Retry-After": header}, b"")]
    assert spool.post() is Posted.UNREACHABLE
    spool.server.clear()
    spool.server.answers = []
    spool.clock.advance(wait - 1)
    assert spool.post() is Posted.WAITING
    assert spool.server.requests == []
    spool.clock.advance(1)
    assert spool.post() is Posted.ACCEPTED


def test_a_server_that_took_a_report_may_ask_for_the_next_one_later(spool: Spool) -> None:
    spool.outcomes.count(DELTA)
    spool.server.answers = [(202, {"Retry-After": "3600"}, b"{}")]
    assert spool.post() is Posted.ACCEPTED
    spool.open()  # a restart does not forget it
    spool.clock.advance(3599)
    assert spool.post() is Posted.WAITING
    spool.clock.advance(1)
    assert spool.post() is Posted.ACCEPTED
    assert len(spool.server.posts) == 2


@pytest.mark.parametrize(
    "header", ["", "soon", "-5", "9" * 400, "Sun, 22 Nov", f"Sun, 22 Nov 2026 12:02:00 +{'9' * 20}"]
)
def test_a_strange_retry_after_is_no_reason_to_wait_for_ever(spool: Spool, header: str) -> None:
    spool.server.answers = [(503, {"Retry-After": header} if header else {}, b"")]
    spool.post()
    spool.server.answers = []
    assert spool.post() is Posted.ACCEPTED


def test_a_report_that_is_refused_for_good_does_not_block_the_next(spool: Spool) -> None:
    spool.outcomes.count(DELTA)
    spool.server.answers = [(422, {}, b"{}"), (202, {}, b"{}")]
    assert spool.post() is Posted.REFUSED
    spool.outcomes.record(Outcome.ROLLED_BACK, 2)
    assert spool.post() is Posted.ACCEPTED
    assert spool.bodies()[1]["counters"] == []
    assert spool.bodies()[1]["outcomes"][0]["outcome"] == "RolledBack"


@pytest.mark.parametrize("status", [401, 403, 404, 500, 302])
def test_a_refusal_that_may_end_keeps_the_report(spool: Spool, status: int) -> None:
    spool.outcomes.count(DELTA)
    spool.server.answers = [(status, {}, b"")]
    assert spool.post() is Posted.UNREACHABLE
    spool.server.answers = []
    assert spool.post() is Posted.ACCEPTED
    assert spool.bodies()[-2]["counters"][0]["requests"] == 10


def test_counters_of_one_release_and_arm_add_up(spool: Spool) -> None:
    spool.outcomes.count(DELTA)
    spool.outcomes.count(dataclasses.replace(DELTA, latency_device={100: 1, 101: 2}))
    spool.outcomes.count(dataclasses.replace(DELTA, arm="holdback"))
    spool.open()
    spool.post()
    counters = spool.bodies()[0]["counters"]
    assert [(entry["arm"], entry["requests"]) for entry in counters] == [("candidate", 20), ("holdback", 10)]
    assert counters[0]["latency_us"] == {"device": [[100, 10], [101, 2]], "cloud": [[200, 2]]}


def test_the_spool_is_bounded_and_the_newest_stay(spool: Spool) -> None:
    for i in range(80):
        spool.outcomes.record(Outcome.CANARY_FAILED, i % 2 + 1 + i, "é" * 500)
        spool.outcomes.count(
            dataclasses.replace(DELTA, release=i + 1, latency_device=dict.fromkeys(range(384), 10**12))
        )
    spool.post()
    assert len(spool.server.posts[0][1]) <= 60_000
    body = spool.bodies()[0]
    assert body["counters"][-1]["release"] == 80
    assert body["outcomes"][-1]["release"] == 81
    assert len(body["outcomes"]) <= 64
    assert all(len(entry["detail"]) <= 200 for entry in body["outcomes"])


def test_unchanged_is_no_news_and_a_repetition_is_one_entry(spool: Spool) -> None:
    spool.outcomes.record(Outcome.UNCHANGED, 2)
    for i in range(5):
        spool.outcomes.record(Outcome.SERVER_UNREACHABLE, None, f"try {i}")
    spool.outcomes.record(Outcome.INSTALLED, 2)
    spool.post()
    assert [(entry["outcome"], entry["detail"]) for entry in spool.bodies()[0]["outcomes"]] == [
        ("ServerUnreachable", "try 4"),
        ("Installed", ""),
    ]


def test_a_damaged_spool_starts_again_above_every_number_used_before(spool: Spool) -> None:
    spool.outcomes.count(DELTA)
    spool.post()
    (spool.folder / "outcomes.json").write_bytes(b"{}")
    spool.clock.advance(3600)
    spool.open()
    spool.post()
    first, second = (body["sequence"] for body in spool.bodies())
    assert second > first


def test_a_full_disk_is_still_reported(tmp_path: Path, server: StaticServer) -> None:
    spool = Spool(tmp_path / "state", server, disk=FullDisk(1))
    spool.outcomes.record(Outcome.DOWNLOAD_NO_SPACE, 3, "no space left")
    spool.outcomes.count(DELTA)
    assert spool.post() is Posted.ACCEPTED
    assert spool.bodies()[0]["outcomes"][0]["outcome"] == "DownloadNoSpace"


def test_without_a_plan_the_arm_is_none(spool: Spool) -> None:
    with default_client("http://") as client:
        spool.outcomes.post(client, spool.server.url + "/", Bearer(None), running=None, plan=None)
    body = spool.bodies()[0]
    assert (body["arm"], body["rollout"], body["attempt"], body["running"]) == ("none", None, None, None)
    assert "authorization" not in spool.server.requests[0][2]


def opened_for(spool: Spool, model: str, channel: str = "stable") -> None:
    spool.outcomes = Outcomes(spool.folder, device=DEVICE, model=model, channel=channel, clock=spool.clock)


@pytest.mark.parametrize(("model", "channel"), [("nomodel", "stable"), ("tiny", "beta")])
def test_a_report_of_another_model_or_channel_is_set_aside(
    spool: Spool, model: str, channel: str, caplog: pytest.LogCaptureFixture
) -> None:
    opened_for(spool, model, channel)
    spool.outcomes.record(Outcome.UNKNOWN_MODEL, None, "never heard of it")
    spool.server.answers = [(404, {}, b"")]
    assert spool.post() is Posted.UNREACHABLE
    spool.outcomes.record(Outcome.UNKNOWN_MODEL, None, "never heard of it")  # waits behind the one that is pending
    spool.server.answers = []
    spool.open()
    spool.outcomes.count(DELTA)
    assert spool.post() is Posted.ACCEPTED
    (_, sent) = spool.bodies()
    assert (sent["model"], sent["channel"], sent["outcomes"]) == ("tiny", "stable", [])
    assert sent["counters"][0]["requests"] == 10
    spool.open()
    assert [record.message for record in caplog.records if "set aside" in record.message] == [
        f"outcome reports of {model} on channel {channel} are set aside: "
        "this folder is now opened for tiny on channel stable"
    ]


def test_a_wrong_model_name_once_costs_the_right_model_nothing(spool: Spool) -> None:
    spool.outcomes.count(DELTA)
    spool.server.answers = [(500, {}, b"")]
    spool.post()
    spool.outcomes.record(Outcome.RETURNED, 1)
    opened_for(spool, "nomodel")
    spool.server.answers = []
    spool.open()
    assert spool.post() is Posted.ACCEPTED
    posts = [body for _, body in spool.server.posts]
    assert posts[0] == posts[1]
    assert json.loads(posts[2])["outcomes"][0]["outcome"] == "Returned"
    assert json.loads(posts[2])["sequence"] == START + 1


def test_a_file_that_names_no_model_is_unblocked_too(spool: Spool) -> None:
    body: dict[str, object] = {"format": 1, "sequence": 7, "outcomes": [["Returned", 1, ""]], "counters": []}
    pending = json.dumps({"model": "nomodel", "channel": "stable"})
    write_sealed(RealDisk(), spool.folder / "outcomes.json", {**body, "pending": pending})
    spool.open()
    assert spool.post() is Posted.ACCEPTED
    (sent,) = spool.bodies()
    assert (sent["sequence"], sent["outcomes"][0]["outcome"]) == (8, "Returned")


# What lasts

WAITS = (Outcome.DEFERRED_METERED, 2, "5 MB")
CLOCK = (Outcome.CLOCK_WRONG, None, "2 days ahead")
AWAY = (Outcome.SERVER_UNREACHABLE, None, "503")
SAME = (Outcome.UNCHANGED, 2, "")
NEXT = (Outcome.DEFERRED_METERED, 3, "5 MB")
NIGHT = (Outcome.DEFERRED_WINDOW, 2, "02:00-05:00")


@pytest.mark.parametrize(
    ("checks", "expected"),
    [
        ([[WAITS], [WAITS], [WAITS]], [WAITS]),
        ([[WAITS], [SAME], [WAITS]], [WAITS, WAITS]),
        ([[WAITS], [NEXT]], [WAITS, NEXT]),
        ([[WAITS], [NIGHT], [WAITS]], [WAITS, NIGHT, WAITS]),
        ([[WAITS], [AWAY], [WAITS]], [WAITS, AWAY]),
        ([[CLOCK, WAITS], [CLOCK, WAITS], [CLOCK, SAME]], [CLOCK, WAITS]),
        ([[CLOCK, WAITS], [WAITS], [CLOCK, WAITS]], [CLOCK, WAITS, CLOCK]),
        ([[CLOCK, AWAY], [AWAY], [CLOCK, AWAY]], [CLOCK, AWAY]),
        ([[AWAY], [AWAY]], [AWAY]),
    ],
)
@pytest.mark.parametrize("reports", [False, True])
def test_what_lasts_is_recorded_when_it_begins(
    spool: Spool, checks: list[list[Any]], expected: list[Any], reports: bool
) -> None:
    for ends in checks:
        spool.outcomes.checked(ends, blind=AWAY in ends)
        if reports:
            spool.post()
        spool.open()  # as another process
    spool.post()
    sent = [(entry["outcome"], entry["release"]) for body in spool.bodies() for entry in body["outcomes"]]
    if reports:  # what does not last is said at every check
        sent, expected = ([end for end in ends if end[0] != AWAY[0]] for ends in (sent, expected))
    else:  # nothing is said twice in a row
        expected = [end for end, _ in itertools.groupby(expected)]
    assert sent == [end[:2] for end in expected]


def test_a_check_that_finds_what_stood_writes_nothing(spool: Spool) -> None:
    disk = RecordingDisk()
    spool.open(disk=disk)
    spool.outcomes.checked([CLOCK, WAITS], blind=False)
    disk.log.clear()
    spool.outcomes.checked([CLOCK, WAITS], blind=False)
    assert disk.log == []


def test_what_stands_is_bounded_and_can_be_shown(spool: Spool) -> None:
    for release in range(1, 40):
        spool.outcomes.checked([(Outcome.DEFERRED_WINDOW, release, "x" * 500)], blind=True)
    standing = read_standing(RealDisk(), spool.folder)
    assert [event.release for event in standing] == list(range(32, 40))
    assert read_standing(RealDisk(), spool.folder / "missing") == ()


def test_a_spool_of_before_anything_stood_is_read(spool: Spool) -> None:
    spool.outcomes.record(Outcome.INSTALLED, 2)
    body = json.loads((spool.folder / "outcomes.json").read_bytes())
    del body["standing"], body["sha256"]
    write_sealed(RealDisk(), spool.folder / "outcomes.json", body)
    spool.open()
    spool.post()
    assert [entry["outcome"] for entry in spool.bodies()[0]["outcomes"]] == ["Installed"]
