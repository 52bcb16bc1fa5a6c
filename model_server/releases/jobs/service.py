"""Running the jobs: one at a time, in a thread beside those that answer requests.

Two threads. One works: it takes the oldest job whose upload is here and stages it. The other says every few seconds
that this server is there, and hears from the database what somebody wants cancelled, perhaps through another server.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Protocol

from sqlalchemy.orm import Session

from model_server.releases.jobs.spool import Spool
from model_server.releases.jobs.store import JobInfo, JobStore, Options, ProblemOf
from model_server.releases.watch import Watch

__all__ = ["JobService", "Stage"]

HEAR_S = 10.0
LOOK_S = 30.0  # for the jobs of a server that is no more
AWAY_S = 5.0  # before a database that was away is asked again
STOP_S = 30.0

log = logging.getLogger(__name__)


class Stage(Protocol):
    """`ReleaseService.stage`: ``note`` is called in the transaction that stages the release."""

    def __call__(
        self,
        path: Path,
        ceiling: tuple[tuple[int, int], ...],
        actor: str,
        *,
        allow_interface_change: bool,
        watch: Watch,
        note: Callable[[Session], None],
    ) -> object: ...


class JobStopped(Exception):
    """The job that runs must end now. Not an error: nobody is told of it."""


class JobService:
    def __init__(self, store: JobStore, spool: Spool, stage: Stage, problem_of: ProblemOf) -> None:
        self._store = store
        self._spool = spool
        self._stage = stage
        self._problem_of = problem_of
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._keeping = threading.Lock()  # while an upload is on disk and not yet in the database
        self._guard = threading.Lock()
        self._counting = threading.Lock()
        self._receiving = 0
        self._running: tuple[str, threading.Event] | None = None
        self._threads: tuple[threading.Thread, ...] = ()

    def start(self) -> None:
        self._threads = (
            threading.Thread(target=self._work, name="edgeship-jobs", daemon=True),
            threading.Thread(target=self._hear, name="edgeship-jobs-hear", daemon=True),
        )
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """The job that runs is begun again when the server is back."""
        self._stopping.set()
        with self._guard:
            if self._running is not None:
                self._running[1].set()
        self._wake.set()
        for thread in self._threads:
            thread.join(timeout=STOP_S)

    # What the API asks for

    def reserve(self) -> None:
        """Keep room for an upload that comes in, until `release`. Raises JobQueueFull."""
        with self._counting:
            self._store.check_room(self._receiving + 1)
            self._receiving += 1

    def release(self) -> None:
        with self._counting:
            self._receiving -= 1

    def new_upload(self) -> tuple[str, Path]:
        return self._spool.new()

    def submit(self, job: str, part: Path, sha256: str, options: Options, actor: str) -> JobInfo:
        """Take over a whole upload. The job is another one where the same bundle is staged already.

        Raises JobQueueFull.
        """
        size = part.stat().st_size
        with self._keeping:
            self._spool.keep(part)
            try:
                info = self._store.add(job, sha256, size, options, actor)
            except BaseException:
                self._spool.remove(job)
                raise
            if info.id != job:
                self._spool.remove(job)
        self._wake.set()
        return info

    def list(self) -> tuple[JobInfo, ...]:
        return self._store.list()

    def get(self, job: str) -> JobInfo:
        """Raises UnknownJob."""
        return self._store.get(job)

    def cancel(self, job: str) -> JobInfo:
        """As `JobStore.cancel`."""
        info = self._store.cancel(job)
        self._interrupt({job})
        self._wake.set()
        return info

    # The two threads

    def _work(self) -> None:
        while True:
            self._wake.clear()  # before the look at what it may say
            if self._stopping.is_set():
                return
            try:
                worked = self._work_once()
            except Exception:
                # Whatever it was, the next job must not wait for it, nor this thread end.
                log.exception("staging jobs: looking for the next one failed; it is tried again")
                self._stopping.wait(AWAY_S)
                continue
            if not worked:
                self._wake.wait(LOOK_S)

    def _work_once(self) -> bool:
        with self._keeping:
            uploads = self._spool.uploads()
            for job in self._store.ended(uploads):
                self._spool.remove(job)
            uploads = self._spool.uploads()
        info = self._store.take(uploads) if uploads else None
        if info is None:
            if set(self._store.open_here()) - uploads:
                self._store.sweep(uploads)
            return False
        self._run(info)
        return True

    def _run(self, info: JobInfo) -> None:
        stop = threading.Event()
        with self._guard:
            self._running = (info.id, stop)
            if self._stopping.is_set():
                stop.set()

        def note(session: Session) -> None:
            if not self._store.done(session, info.id):
                raise JobStopped

        try:
            watch = _JobWatch(self._store, info.id, stop)
            self._stage(
                self._spool.path(info.id),
                info.options.ceiling,
                info.created_by,
                allow_interface_change=info.options.allow_interface_change,
                watch=watch,
                note=note,
            )
        except JobStopped:
            self._store.stopped(info.id)
        except Exception as error:
            problem = self._problem_of(error)
            if problem["status"] == HTTPStatus.SERVICE_UNAVAILABLE:
                log.warning("job %s waits for the database: %s", info.id, error)
                self._stopping.wait(AWAY_S)
                return
            if problem["status"] >= HTTPStatus.INTERNAL_SERVER_ERROR:
                log.error("job %s failed: %s", info.id, error, exc_info=error)
            self._store.failed(info.id, problem)
        finally:
            with self._guard:
                self._running = None

    def _hear(self) -> None:
        while not self._stopping.wait(HEAR_S):
            try:
                uploads = self._spool.uploads()
                if uploads:
                    self._interrupt(self._store.hear(uploads))
            except Exception:
                # A database that is away for a moment must not make this server look dead for ever.
                log.exception("staging jobs: saying that this server is there failed; it is tried again")

    def _interrupt(self, jobs: set[str]) -> None:
        with self._guard:
            if self._running is not None and self._running[0] in jobs:
                self._running[1].set()


class _JobWatch:
    def __init__(self, store: JobStore, job: str, stop: threading.Event) -> None:
        self._store = store
        self._job = job
        self._stop = stop

    def about(self, model: str, release: int) -> None:
        self._store.about(self._job, model, release)

    def at(self, stage: str, step: int = 0, steps: int = 0) -> None:
        self.check()
        self._store.at(self._job, stage, step, steps)

    def check(self) -> None:
        if self._stop.is_set():
            raise JobStopped
