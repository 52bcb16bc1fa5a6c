"""Jobs in the database: who may run one, how far it is, how it ended.

A job is run by the server that has its upload, and by one only: a server claims a job in a transaction, and only one
whose file lies in its spool. A server that comes back has its jobs still. One that does not come back leaves its own
behind: whoever uploads that bundle again is not held up by them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine, delete, func, select, update
from sqlalchemy.orm import Session

from model_server.clock import Clock
from model_server.db.base import Lock, reading, writing
from model_server.errors import JobConflict, JobLost, JobQueueFull, UnknownJob
from model_server.releases.jobs.tables import OPEN, JobRow, JobState

__all__ = ["MAX_OPEN", "STALE", "JobInfo", "JobStore", "Options", "Problem", "ProblemOf"]

MAX_OPEN = 8  # of one server: each may be as large as the largest bundle
MAX_STARTS = 5  # a bundle that takes the server down with it must not do so for ever
STALE = timedelta(minutes=2)  # without a word of a server that says one every 10 seconds
KEPT = timedelta(days=30)  # after the end
LISTED = 100
_JOBS = Lock("jobs")

Problem = dict[str, Any]  # an RFC 9457 problem
ProblemOf = Callable[[Exception], Problem]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was asked for with an upload. ``ceiling`` is that of `parse_ceiling`."""

    ceiling: tuple[tuple[int, int], ...]
    allow_interface_change: bool = False

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Options:
        values = json.loads(text)
        return cls(
            ceiling=tuple((age, share) for age, share in values["ceiling"]),
            allow_interface_change=values["allow_interface_change"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class JobInfo:
    """A job as it is now. ``model`` and ``release`` are known once the bundle is checked, ``problem``
    once the job has failed."""

    id: str
    state: JobState
    server: str
    bundle_sha256: str
    bytes: int
    options: Options
    created_by: str
    created: datetime
    heard: datetime
    started: datetime | None
    ended: datetime | None
    starts: int
    stage: str
    step: int
    steps: int
    cancelling: bool
    model: str | None
    release: int | None
    problem: Problem | None


class JobStore:
    """``server`` names this one to the others; ``problem_of`` says how an error is answered."""

    def __init__(self, engine: Engine, clock: Clock, server: str, problem_of: ProblemOf) -> None:
        self._engine = engine
        self._clock = clock
        self._server = server
        self._problem_of = problem_of

    # Looking

    def list(self) -> tuple[JobInfo, ...]:
        """The newest first."""
        with reading(self._engine) as session:
            rows = session.scalars(select(JobRow).order_by(JobRow.created.desc(), JobRow.id).limit(LISTED))
            return tuple(map(_info, rows))

    def get(self, job: str) -> JobInfo:
        """Raises UnknownJob."""
        with reading(self._engine) as session:
            return _info(self._row(session, job))

    def open_here(self) -> tuple[str, ...]:
        """The jobs of this server that have not ended."""
        with reading(self._engine) as session:
            return tuple(session.scalars(select(JobRow.id).where(JobRow.state.in_(OPEN), self._mine())))

    def ended(self, jobs: Collection[str]) -> set[str]:
        """Those of ``jobs`` that have ended, or that nobody knows."""
        with reading(self._engine) as session:
            still = session.scalars(select(JobRow.id).where(JobRow.id.in_(jobs), JobRow.state.in_(OPEN)))
            return set(jobs) - set(still)

    # Changing

    def check_room(self, more: int) -> None:
        """Raises JobQueueFull unless ``more`` jobs can be taken here."""
        with reading(self._engine) as session:
            self._check_room(session, more)

    def add(self, job: str, sha256: str, size: int, options: Options, actor: str) -> JobInfo:
        """A new job; or the open one for the same bundle and options, if a server goes on with it.

        Raises JobQueueFull.
        """
        now = self._clock.now()
        with writing(self._engine, _JOBS) as session:
            session.execute(delete(JobRow).where(JobRow.ended < now - KEPT))
            same = session.scalars(
                select(JobRow)
                .where(JobRow.state.in_(OPEN), JobRow.bundle_sha256 == sha256, JobRow.options == options.to_json())
                .with_for_update()
            ).all()
            for row in same:
                if row.cancelling:
                    continue
                if row.server == self._server or row.heard > now - STALE:
                    return _info(row)
                self._end(row, JobState.FAILED, now, _lost(row))
            self._check_room(session, 1)
            row = JobRow(
                id=job,
                state=JobState.WAITING.value,
                server=self._server,
                bundle_sha256=sha256,
                bytes=size,
                options=options.to_json(),
                created_by=actor,
                created=now,
                heard=now,
                starts=0,
                stage="",
                step=0,
                steps=0,
                cancelling=False,
            )
            session.add(row)
            session.flush()
            return _info(row)

    def take(self, uploads: Collection[str]) -> JobInfo | None:
        """Claim the oldest job whose upload is here: one that waits, or one that nobody runs any more. Only for who
        runs none now: what this server left running it left when it died."""
        now = self._clock.now()
        with writing(self._engine, _JOBS) as session:
            rows = session.scalars(
                select(JobRow)
                .where(JobRow.id.in_(uploads), JobRow.state.in_(OPEN))
                .where(self._mine() | (JobRow.heard < now - STALE))
                .order_by(JobRow.created, JobRow.id)
                .with_for_update()
            )
            for row in rows:
                if row.cancelling:
                    self._end(row, JobState.CANCELLED, now)
                elif row.starts >= MAX_STARTS:
                    lost = JobLost(f"it was begun {row.starts} times and the server ended each time: its log says more")
                    self._end(row, JobState.FAILED, now, lost)
                else:
                    row.state, row.server, row.heard, row.started = JobState.RUNNING.value, self._server, now, now
                    row.starts, row.stage, row.step, row.steps = row.starts + 1, "", 0, 0
                    return _info(row)
        return None

    def sweep(self, uploads: Collection[str]) -> None:
        """End the jobs of this server whose upload is not here and of which nothing was heard for long."""
        now = self._clock.now()
        with writing(self._engine, _JOBS) as session:
            rows = session.scalars(
                select(JobRow)
                .where(JobRow.id.not_in(uploads), JobRow.state.in_(OPEN), self._mine(), JobRow.heard < now - STALE)
                .with_for_update()
            )
            for row in rows:
                self._end(row, JobState.FAILED, now, _lost(row))

    def at(self, job: str, stage: str, step: int, steps: int) -> None:
        """Where the work on a job of this server is."""
        with writing(self._engine, _JOBS, relaxed=True) as session:
            session.execute(self._running(job).values(stage=stage, step=step, steps=steps, heard=self._clock.now()))

    def hear(self, uploads: Collection[str]) -> set[str]:
        """Say that this server is there. Which of its jobs somebody wants cancelled."""
        with writing(self._engine, _JOBS, relaxed=True) as session:
            here = (JobRow.id.in_(uploads), JobRow.state.in_(OPEN), self._mine())
            session.execute(update(JobRow).where(*here).values(heard=self._clock.now()))
            return set(session.scalars(select(JobRow.id).where(*here, JobRow.cancelling)))

    def about(self, job: str, model: str, release: int) -> None:
        with writing(self._engine, _JOBS, relaxed=True) as session:
            session.execute(self._running(job).values(model=model, release=release))

    def done(self, session: Session, job: str) -> bool:
        """In the transaction that stages the release, so that both are known or neither. False if it must not be."""
        changed = session.execute(
            self._running(job)
            .where(JobRow.cancelling.is_(False))
            .values(state=JobState.DONE.value, ended=self._clock.now(), stage="")
            .returning(JobRow.id)
        )
        return changed.first() is not None

    def failed(self, job: str, problem: Problem) -> None:
        values = {"state": JobState.FAILED.value, "ended": self._clock.now(), "problem": json.dumps(problem)}
        with writing(self._engine, _JOBS) as session:
            session.execute(self._running(job).values(**values))

    def stopped(self, job: str) -> None:
        """The work was ended before its end: cancelled if somebody asked for that, else it waits again."""
        with writing(self._engine, _JOBS) as session:
            cancelled = {"state": JobState.CANCELLED.value, "ended": self._clock.now()}
            session.execute(self._running(job).where(JobRow.cancelling).values(**cancelled))
            again = {"state": JobState.WAITING.value, "starts": JobRow.starts - 1}
            session.execute(self._running(job).values(**again))

    def cancel(self, job: str) -> JobInfo:
        """A job that waits, or that nobody runs, is cancelled now; one that runs, as soon as it can stop.

        Raises: UnknownJob; JobConflict if it has ended.
        """
        now = self._clock.now()
        with writing(self._engine, _JOBS) as session:
            row = self._row(session, job, for_update=True)
            if row.state not in OPEN:
                raise JobConflict(f"job {job} is {row.state} already")
            row.cancelling = True
            if row.state == JobState.WAITING or row.heard < now - STALE:
                self._end(row, JobState.CANCELLED, now)
            session.flush()
            return _info(row)

    def _check_room(self, session: Session, more: int) -> None:
        known = session.scalar(select(func.count()).select_from(JobRow).where(JobRow.state.in_(OPEN), self._mine()))
        if (known or 0) + more > MAX_OPEN:
            raise JobQueueFull(f"{MAX_OPEN} uploads are staged or wait for it: send this again when one has ended")

    def _end(self, row: JobRow, state: JobState, now: datetime, error: Exception | None = None) -> None:
        row.state, row.ended = state.value, now
        row.problem = None if error is None else json.dumps(self._problem_of(error))

    def _mine(self) -> Any:
        return JobRow.server == self._server

    def _running(self, job: str) -> Any:
        return update(JobRow).where(JobRow.id == job, JobRow.state == JobState.RUNNING, self._mine())

    def _row(self, session: Session, job: str, *, for_update: bool = False) -> JobRow:
        query = select(JobRow).where(JobRow.id == job)
        row = session.scalars(query.with_for_update() if for_update else query).one_or_none()
        if row is None:
            raise UnknownJob(f"there is no job {job!r}, or it ended more than {KEPT.days} days ago")
        return row


def _lost(row: JobRow) -> JobLost:
    return JobLost(
        f"the upload was on {row.server}, of which nothing was heard since {row.heard:%Y-%m-%d %H:%M}: stage it again"
    )


def _info(row: JobRow) -> JobInfo:
    return JobInfo(
        id=row.id,
        state=JobState(row.state),
        server=row.server,
        bundle_sha256=row.bundle_sha256,
        bytes=row.bytes,
        options=Options.from_json(row.options),
        created_by=row.created_by,
        created=row.created,
        heard=row.heard,
        started=row.started,
        ended=row.ended,
        starts=row.starts,
        stage=row.stage,
        step=row.step,
        steps=row.steps,
        cancelling=row.cancelling,
        model=row.model,
        release=row.release,
        problem=None if row.problem is None else json.loads(row.problem),
    )
