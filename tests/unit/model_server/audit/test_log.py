from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from model_server.audit import log as audit
from model_server.audit.tables import AuditRow
from model_server.db.base import open_engine, reading, writing
from model_server.errors import AuditBroken

NOW = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    engine = open_engine(database)
    yield engine
    engine.dispose()


def add(engine: Engine, count: int) -> list[str]:
    heads = []
    for number in range(count):
        with writing(engine) as session:
            heads.append(
                audit.append(
                    session,
                    NOW + timedelta(microseconds=number),
                    actor="admin:alice",
                    action="release.staged",
                    subject=f"exercise/{number}",
                    detail={"n": number, "é": None},
                )
            )
    return heads


def tamper(engine: Engine, statement: str) -> None:
    """What somebody who owns the database can do."""
    triggers = {
        "sqlite": ("DROP TRIGGER audit_refuses_update", "DROP TRIGGER audit_refuses_delete"),
        "postgresql": ("DROP TRIGGER audit_refuses_change ON audit",),
    }
    with writing(engine) as session:
        for guard in triggers[engine.dialect.name]:
            session.execute(text(guard))
        session.execute(text(statement))


def test_a_log_that_nobody_touched_verifies_and_its_head_is_the_last_digest(engine: Engine) -> None:
    with reading(engine) as session:
        assert audit.head(session) is None
        assert audit.verify(session) == 0
    heads = add(engine, 5)
    with reading(engine) as session:
        assert audit.verify(session) == 5
        assert audit.head(session) == heads[-1]
    assert len(set(heads)) == 5


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET actor = 'admin:bob' WHERE sequence = 3",
        "UPDATE audit SET detail = '{}' WHERE sequence = 3",
        "UPDATE audit SET time = '2020-01-01 00:00:00.000000' WHERE sequence = 3",
        "DELETE FROM audit WHERE sequence = 3",
        "DELETE FROM audit WHERE sequence = 1",
        "UPDATE audit SET digest = previous WHERE sequence = 5",
    ],
)
def test_any_change_is_found(engine: Engine, statement: str) -> None:
    add(engine, 5)
    tamper(engine, statement)
    with reading(engine) as session, pytest.raises(AuditBroken):
        audit.verify(session)


def test_an_entry_stands_exactly_if_its_transaction_does(engine: Engine) -> None:
    def fail() -> None:
        with writing(engine) as session:
            audit.append(session, NOW, actor="a", action="b", subject="c")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with reading(engine) as session:
        assert audit.verify(session) == 0


def test_the_log_outgrows_what_32_bits_can_count(engine: Engine) -> None:
    with writing(engine) as session:
        session.add(
            AuditRow(
                sequence=2**31 - 1, time=NOW, actor="a", action="b", subject="c", detail="{}", previous="", digest="d"
            )
        )
    add(engine, 2)
    with reading(engine) as session:
        assert session.query(AuditRow.sequence).order_by(AuditRow.sequence.desc()).first() == (2**31 + 1,)
