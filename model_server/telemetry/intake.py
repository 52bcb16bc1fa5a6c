"""Many reports at once, few transactions: whatever waits is stored in one, as soon as the writer is free."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from model_server.errors import IngestBusy, ServerError
from model_server.telemetry.reports import Submission

__all__ = ["Intake"]

_BATCH = 512


class Intake:
    """Group commit without a timer. A report is answered after the transaction that holds it."""

    def __init__(self, store: Callable[[Sequence[Submission]], list[ServerError | None]], queue: int) -> None:
        """``store`` runs on one thread, one call at a time; ``queue`` reports may wait."""
        self._store = store
        self._limit = queue
        self._waiting: list[tuple[Submission, asyncio.Future[None]]] = []
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="telemetry")
        self._task: asyncio.Task[None] | None = None

    async def submit(self, report: Submission) -> None:
        """Return when the report is counted and committed. Raises what `store` answers, or `IngestBusy`."""
        if len(self._waiting) >= self._limit:
            raise IngestBusy("too many reports wait to be stored; send this one again in a few seconds")
        loop = asyncio.get_running_loop()
        counted: asyncio.Future[None] = loop.create_future()
        self._waiting.append((report, counted))
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._drain())
        await counted

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
            stored = loop.run_in_executor(self._writer, self._store, [report for report, _ in batch])
            await asyncio.wait([stored])
            failure = stored.exception()
            answers = [failure] * len(batch) if failure is not None else stored.result()
            for (_, counted), answer in zip(batch, answers, strict=True):
                if counted.done():  # its caller has gone
                    continue
                if answer is None:
                    counted.set_result(None)
                else:
                    counted.set_exception(answer)

    def close(self) -> None:
        """Wait for the transaction that runs, and take no more."""
        self._writer.shutdown()
