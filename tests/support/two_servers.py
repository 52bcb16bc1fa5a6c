"""Two processes on one database, which do the same things to it at the same moment, as two servers would.

``python -m tests.support.two_servers`` is one of them. It reads jobs, JSON lines, and answers each with one.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from securesystemslib.signer import Signature
from sqlalchemy import Engine
from tuf.api.metadata import Root, Targets

from edge_runtime.telemetry.histograms import Histograms
from edge_runtime.telemetry.layout import Layout
from edge_runtime.telemetry.wire import PrivacyMode, ReportArm, ReportHeader, encode_report
from edge_runtime.update.plan import Plan
from model_server.access.credentials import CredentialRow
from model_server.audit import log as audit
from model_server.clock import SystemClock
from model_server.db.base import Lock, open_engine, writing
from model_server.db.migrate import upgrade
from model_server.errors import RolloutConflict
from model_server.installation import online_keys, open_publisher, open_repository
from model_server.releases.blobs import Blobs
from model_server.releases.jobs.store import JobStore
from model_server.releases.service import ReleaseService
from model_server.rollouts.guardrails import Limits
from model_server.rollouts.ingest import ingest
from model_server.rollouts.outcomes import Counters, Report
from model_server.rollouts.service import RolloutService, StartRequest
from model_server.settings import load_settings
from model_server.signing.publisher import OnlineSigners, Publisher, open_online_signers
from model_server.telemetry.reports import EPOCH, Mechanisms, admit
from model_server.telemetry.store import add_reports, close_days, erase_deleted
from tests.support import bundles
from tests.support.plans import PLAN

__all__ = ["Pair", "pair", "releases", "report", "start"]

DEVICES = 6
REPORTS = 5
ROUNDS = 5
BATCHES = 12  # of five telemetry reports


class Pair:
    def __init__(self, first: subprocess.Popen[str], second: subprocess.Popen[str]) -> None:
        self._both = (first, second)

    def do(self, *tasks: str, address: str, given: Any = None) -> tuple[Any, Any]:
        """Both do a task at once, the one that is named or each its own. What they answer."""
        for number, process in enumerate(self._both):
            _tell(process, {"task": tasks[number % len(tasks)], "address": address, "number": number, "given": given})
        for process in self._both:
            assert _hear(process) == "ready"
        for process in self._both:
            _tell(process, "go")
        first, second = (_hear(process) for process in self._both)
        return first, second


@contextmanager
def pair() -> Iterator[Pair]:
    command = [sys.executable, "-m", "tests.support.two_servers"]
    both = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) for _ in range(2)
    ]
    try:
        yield Pair(*both)
    finally:
        for process in both:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()  # it ends when there are no more jobs
            process.wait(30)
            process.stdout.close()


def report(device: str, sequence: int, **fields: Any) -> Report:
    """A report on release 2 of ``exercise``, ten requests long."""
    values: dict[str, Any] = {
        "model": "exercise",
        "channel": "stable",
        "attributes": {},
        "running": 2,
        "arm": "candidate",
        "rollout": "exercise-stable-1",
        "attempt": 1,
        "outcomes": (),
        "counters": (
            Counters(
                release=2,
                arm="candidate",
                requests=10,
                errors=1,
                fallbacks=0,
                refused=0,
                latency_device={100: 7, 101: 3},
                latency_cloud={},
            ),
        ),
    }
    return Report(device=device, sequence=sequence, **{**values, **fields})


class NoPublisher:
    """What is published, and by whom, is not the matter here."""

    @property
    def repository(self) -> NoPublisher:
        return self

    def lock(self) -> AbstractContextManager[None]:
        return nullcontext()

    def put_plan(self, plan: Plan) -> bool:
        return True


def rollouts(engine: Engine, publisher: Publisher | NoPublisher | None = None) -> RolloutService:
    return RolloutService(
        engine,
        publisher or NoPublisher(),  # type: ignore[arg-type]
        SystemClock(),
        lambda model, release: None,
        lambda model, release: True,
        lambda: "salt",
    )


def releases(engine: Engine, folder: Path) -> ReleaseService:
    settings, clock = load_settings(folder), SystemClock()
    publisher = open_publisher(settings, clock, engine)
    return ReleaseService(engine, publisher, Blobs(publisher.repository.storage), clock, settings.expiry)


def start(engine: Engine, candidate: int = 2, publisher: Publisher | None = None) -> None:
    """A rollout that nothing stops by itself."""
    rollouts(engine, publisher).start(
        StartRequest(
            model="exercise",
            channel="stable",
            candidate=candidate,
            stages=("all",),
            holdback=0,
            limits=Limits.from_dict({"errors": 1.0, "min_requests": 10**9}),
        ),
        "admin:alice",
    )


# A task: (engine, 0 or 1, what was given, begin) → a JSON answer. It calls ``begin`` once it is prepared, and goes on
# when both are.
Begin = Callable[[], None]


def migrate(engine: Engine, number: int, given: Any, begin: Begin) -> None:
    begin()
    upgrade(engine)


def count_up(engine: Engine, number: int, given: Any, begin: Begin) -> None:
    """Add one to a number, as often as is given, in transactions that name nothing that they rely on."""
    begin()
    for _ in range(given):
        with writing(engine) as session:
            row = session.get(CredentialRow, "counter")
            assert row is not None
            row.name = str(int(row.name) + 1)


def log_entries(engine: Engine, number: int, given: Any, begin: Begin) -> None:
    """Append as many audit entries as are given, in transactions that have nothing else in common."""
    begin()
    for entry in range(given):
        with writing(engine, Lock(f"server {number}")) as session:
            audit.append(session, datetime.now(UTC), actor=f"server {number}", action="tested", subject=str(entry))


def report_outcomes(engine: Engine, number: int, given: Any, begin: Begin) -> int:
    """Reports of devices that each send every report to both servers, and of one device that has this server only.
    How many were counted here."""
    begin()
    counted = 0
    for sequence in range(1, REPORTS + 1):
        for device in [*(f"both-{known}" for known in range(DEVICES)), f"own-{number}"]:
            counted += ingest(engine, SystemClock(), report(device, sequence))
    return counted


def decide(engine: Engine, number: int, given: Any, begin: Begin) -> dict[str, int]:
    """Start rollouts and end them, publishing plans to the repository of a folder if one is given. How often each was
    done here and not refused."""
    publisher = None if given is None else open_publisher(load_settings(Path(given)), SystemClock(), engine)
    service, done = rollouts(engine, publisher), {"start": 0, "halt": 0, "rollback": 0}
    begin()
    for _ in range(ROUNDS):
        for action in done:
            try:
                if action == "start":
                    start(engine, candidate=3, publisher=publisher)
                else:
                    service.act("exercise", "stable", action, f"server-{number}")
            except RolloutConflict:
                continue
            done[action] += 1
        service.evaluate("exercise", "stable")
    return done


def sign(engine: Engine, number: int, given: Any, begin: Begin) -> None:
    """Bring the same signatures to both."""
    service = releases(engine, Path(given["folder"]))
    begin()
    for keyid, signature in given["signatures"]:
        service.add_signature("exercise", given["release"], keyid, signature, f"server-{number}")


def publish(engine: Engine, number: int, given: Any, begin: Begin) -> None:
    service = releases(engine, Path(given["folder"]))
    begin()
    service.publish("exercise", given["release"], f"server-{number}")


def publish_plans(engine: Engine, number: int, given: Any, begin: Begin) -> list[tuple[str, int]]:
    """Publish plans on a channel of one's own and on one that both have, and renew. What was signed here: type and
    version."""
    settings, signed = load_settings(Path(given)), list[tuple[str, int]]()

    def noting(sign: Callable[[bytes], Signature]) -> Callable[[bytes], Signature]:
        def noted(payload: bytes) -> Signature:
            what = json.loads(payload)
            signed.append((what["_type"], what["version"]))
            return sign(payload)

        return noted

    def open_signers(root: Root, targets: Targets) -> OnlineSigners:
        found = open_online_signers(online_keys(settings), root, targets)
        for signer in (found.rollouts, found.snapshot, found.timestamp):
            signer.sign = noting(signer.sign)  # type: ignore[method-assign]
        return found

    publisher = Publisher(open_repository(settings, engine), open_signers, SystemClock(), settings.expiry)
    begin()
    for share in range(ROUNDS * 2):
        for channel in (f"own-{number}", "both"):
            publisher.put_plan(replace(PLAN, channel=channel, share=share * 2 + number))
        publisher.renew()
    return signed


def take_jobs(engine: Engine, number: int, given: Any, begin: Begin) -> list[str]:
    """Run the jobs that are given, whose uploads both have and whose own server is gone. Which were run here."""
    store, mine = JobStore(engine, SystemClock(), f"server {number}", lambda error: {}), list[str]()
    begin()
    while (job := store.take(given)) is not None:
        with writing(engine) as session:
            if store.done(session, job.id):
                mine.append(job.id)
    return mine


def add_telemetry(engine: Engine, number: int, given: Any, begin: Begin) -> int:
    """The same reports to both, in small batches. How many were counted here."""
    mechanisms, day = Mechanisms(lambda model, release: bundles.manifest()), date.fromisoformat(given)
    batch = [admit(data, day, 0, mechanisms) for data in telemetry(day)]
    begin()
    counted = 0
    for first in range(0, len(batch), 5):
        counted += add_reports(engine, batch[first : first + 5], lambda: day).count(None)
    return counted


def close_telemetry(engine: Engine, number: int, given: Any, begin: Begin) -> int:
    """Close the day. How many days were closed here."""
    mechanisms, day = Mechanisms(lambda model, release: bundles.manifest()), date.fromisoformat(given)
    begin()
    closed = close_days(engine, day + timedelta(days=1), mechanisms, random.Random(number), 1.0, 1e-6)
    erase_deleted(engine)
    return len(closed)


def telemetry(day: date) -> list[bytes]:
    """Reports of devices that have counted nothing."""
    layout = Layout.of(bundles.manifest().artifacts[0])
    return [
        encode_report(
            ReportHeader(
                mode=PrivacyMode.CENTRAL,
                arm=ReportArm.NONE,
                release=2,
                day=(day - EPOCH).days,
                daily_id=device.to_bytes(16, "big"),
                model="exercise",
                kind=layout.kind,
            ),
            Histograms(layout),
        )
        for device in range(BATCHES * 5)
    ]


TASKS: dict[str, Callable[[Engine, int, Any, Begin], Any]] = {
    task.__name__: task
    for task in (
        migrate,
        count_up,
        log_entries,
        report_outcomes,
        decide,
        sign,
        publish,
        publish_plans,
        take_jobs,
        add_telemetry,
        close_telemetry,
    )
}


def _tell(process: subprocess.Popen[str], what: Any) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(what) + "\n")


def _hear(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "a server has died"
    return json.loads(line)


def _answer(what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def serve() -> None:
    """Do the jobs that come in, until no more do."""

    def begin() -> None:
        with engine.connect():  # so that it need not connect afterwards
            pass
        _answer("ready")
        sys.stdin.readline()

    for line in sys.stdin:
        job = json.loads(line)
        engine = open_engine(job["address"])
        answer = TASKS[job["task"]](engine, job["number"], job["given"], begin)
        engine.dispose()
        _answer(answer)


if __name__ == "__main__":
    serve()
