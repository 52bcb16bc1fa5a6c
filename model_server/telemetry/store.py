"""Cohort sums on disk: adding reports exactly once, and closing a day with one noised release.

What is kept, and why not the reports. A batch of reports becomes, in one transaction, the exact sums of their cohorts
(integers, a few KB a cohort) and their daily ids. A report is acknowledged after that transaction, so a crash loses no
acknowledged report, counts none twice, and no report is ever written to disk. The transaction is ``relaxed``: the
operating system's own crash or a power cut can lose the last moments' acknowledged reports, never corrupt the sums.
When a day closes, one transaction writes the noised release and deletes the exact sums and ids, so a crash in between
cannot release a cohort twice; `erase_deleted` then removes them from the files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, timedelta
from typing import cast

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, Table, and_, bindparam, delete, func, insert, select, update

from model_server.db.base import BUSY_TIMEOUT_MS, Lock, writing
from model_server.db.postgres import POSTGRES, rewrite
from model_server.errors import DuplicateReport, MalformedRequest, ReportRefused, ServerError
from model_server.telemetry.privacy import NoiseSource, discrete_gaussian
from model_server.telemetry.reports import CohortKey, Mechanisms, Submission
from model_server.telemetry.tables import DailyIdRow, OpenCohortRow, SumRow

__all__ = ["add_reports", "close_days", "decode_cells", "encode_cells", "erase_deleted"]

_ERASE_WAIT_MS = 200  # reports wait while it is tried
_ID_QUERY = 500  # bound parameters of one query
_OPEN_DAYS = Lock("telemetry's open days")
_IDS = cast(Table, DailyIdRow.__table__)
_OPEN = cast(Table, OpenCohortRow.__table__)

# Statements are built once: a report that comes alone would spend most of its time on building them.
_FIND_IDS = select(_IDS.c.daily_id).where(
    _IDS.c.day == bindparam("on"), _IDS.c.daily_id.in_(bindparam("ids", expanding=True))
)
_ADD_IDS = insert(_IDS)
_LAST_RELEASED = select(func.max(SumRow.day))
_SAME_COHORT = and_(
    _OPEN.c.day == bindparam("on"),
    _OPEN.c.model == bindparam("of"),
    _OPEN.c.release == bindparam("number"),
    _OPEN.c.layout == bindparam("digest"),
    _OPEN.c.arm == bindparam("side"),
)
_READ_SUMS = select(_OPEN.c.sums).where(_SAME_COHORT)
_WRITE_SUMS = update(_OPEN).where(_SAME_COHORT).values(sums=bindparam("total"))
_ADD_COHORT = insert(_OPEN).values(
    day=bindparam("on"),
    model=bindparam("of"),
    release=bindparam("number"),
    layout=bindparam("digest"),
    arm=bindparam("side"),
    sums=bindparam("total"),
)


def encode_cells(cells: NDArray[np.int64]) -> bytes:
    """Little-endian int64, one a cell."""
    return cells.astype("<i8").tobytes()


def decode_cells(data: bytes) -> NDArray[np.int64]:
    """The inverse of `encode_cells`; a fresh, writable array."""
    return np.frombuffer(data, "<i8").astype(np.int64)


def add_reports(
    engine: Engine, batch: Sequence[Submission], open_since: Callable[[], date]
) -> list[ServerError | None]:
    """Count a batch in one transaction. Answers for each report None, or why it was not counted: `MalformedRequest`,
    `DuplicateReport`, or `ReportRefused` if its day was closed since it was admitted."""
    answers: list[ServerError | None] = [None] * len(batch)
    groups: dict[CohortKey, list[int]] = {}
    for index, report in enumerate(batch):
        groups.setdefault(report.key, []).append(index)
    vectors: dict[int, NDArray[np.int64]] = {}
    for members in groups.values():
        mechanism = batch[members[0]].mechanism
        rows = np.frombuffer(b"".join(batch[i].histograms for i in members), np.uint8)
        found = mechanism.contributions(rows.reshape(len(members), mechanism.report_bytes))
        for i, vector, valid in zip(members, found.vectors, found.valid, strict=True):
            if valid:
                vectors[i] = vector
            else:
                answers[i] = MalformedRequest("a histogram's shift is not the smallest that fits its counts")
    with writing(engine, _OPEN_DAYS, relaxed=True) as session:
        connection = session.connection()
        # Asked inside the transaction, which a closing of days cannot overlap. A day that was released stays closed,
        # even if the clock steps back or more late days are allowed: its ids are gone, and a second release of it
        # would spend a second ε.
        oldest = open_since()
        released = connection.execute(_LAST_RELEASED).scalar_one()
        if released is not None:
            oldest = max(oldest, released + timedelta(days=1))
        seen = _known_ids(connection, [batch[i] for i in vectors])
        fresh: list[dict[str, object]] = []
        for i in list(vectors):
            identity = (batch[i].key.day, batch[i].daily_id)
            if identity[0] < oldest:
                answers[i] = ReportRefused(f"{identity[0]} is closed")
                del vectors[i]
                continue
            if identity in seen:
                answers[i] = DuplicateReport("a report with this daily id has been counted")
                del vectors[i]
                continue
            seen.add(identity)
            fresh.append({"day": identity[0], "daily_id": identity[1]})
        if fresh:
            connection.execute(_ADD_IDS, fresh)
        for key, members in groups.items():
            accepted = [vectors[i] for i in members if i in vectors]
            if accepted:
                _add(connection, key, np.sum(accepted, axis=0))
    return answers


def _known_ids(connection: Connection, reports: Sequence[Submission]) -> set[tuple[date, bytes]]:
    known: set[tuple[date, bytes]] = set()
    for day in {report.key.day for report in reports}:
        ids = [report.daily_id for report in reports if report.key.day == day]
        for start in range(0, len(ids), _ID_QUERY):
            found = connection.execute(_FIND_IDS, {"on": day, "ids": ids[start : start + _ID_QUERY]})
            known.update((day, daily_id) for daily_id in found.scalars())
    return known


def _add(connection: Connection, key: CohortKey, vector: NDArray[np.int64]) -> None:
    cohort = {"on": key.day, "of": key.model, "number": key.release, "digest": key.layout, "side": key.arm}
    before = connection.execute(_READ_SUMS, cohort).scalar_one_or_none()
    if before is None:
        connection.execute(_ADD_COHORT, {**cohort, "total": encode_cells(vector)})
    else:
        connection.execute(_WRITE_SUMS, {**cohort, "total": encode_cells(decode_cells(before) + vector)})


def close_days(
    engine: Engine, before: date, mechanisms: Mechanisms, noise: NoiseSource, epsilon: float, delta: float
) -> list[date]:
    """Release every open cohort of a day before ``before``, once, with noise; forget its exact sums and ids.

    Returns the days that were closed. Raises `UnknownRelease` or `UnknownLayout` if a cohort's manifest is gone; then
    nothing is closed.
    """
    with writing(engine, _OPEN_DAYS) as session:
        open_rows = session.execute(select(OpenCohortRow).where(OpenCohortRow.day < before)).scalars().all()
        if not open_rows:
            return []
        days = sorted({row.day for row in open_rows})
        for row in open_rows:
            mechanism = mechanisms.by_digest(row.model, row.release, row.layout)
            variance = mechanism.variance(epsilon, delta)
            draws = np.array(discrete_gaussian(variance, mechanism.dimension, noise), np.int64)
            session.add(
                SumRow(
                    day=row.day,
                    model=row.model,
                    release=row.release,
                    layout=row.layout,
                    arm=row.arm,
                    epsilon=epsilon,
                    delta=delta,
                    variance=variance,
                    cells=encode_cells(decode_cells(row.sums) + draws),
                )
            )
        session.execute(delete(OpenCohortRow).where(OpenCohortRow.day < before))
        session.execute(delete(DailyIdRow).where(DailyIdRow.day < before))
    return days


def erase_deleted(engine: Engine) -> bool:
    """Remove what closing a day deleted from the database's files: out of SQLite's write-ahead log, which is copied
    into the database and emptied, or out of PostgreSQL's tables, whose log is its operator's. False if somebody reads
    or writes meanwhile: then nothing is lost, and it must be tried again."""
    if engine.dialect.name == POSTGRES:
        return rewrite(engine, (_OPEN.name, _IDS.name), _ERASE_WAIT_MS)
    connection = engine.raw_connection()
    try:
        cursor = connection.cursor()
        try:
            cursor.execute(f"PRAGMA busy_timeout={_ERASE_WAIT_MS}")
            return bool(cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0)
        finally:
            cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
            cursor.close()
    finally:
        connection.close()
