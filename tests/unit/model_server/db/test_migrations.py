"""A database of an earlier version keeps what it holds."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, text

import model_server.db.migrate
from model_server.db.base import open_engine, reading
from model_server.db.migrate import upgrade
from model_server.releases.tables import ReleaseRow


def at_revision(path: Path, revision: str) -> Engine:
    engine = open_engine(f"sqlite:///{path}")
    config = Config()
    folder = Path(model_server.db.migrate.__file__).parent / "migrations"
    config.set_main_option("script_location", str(folder))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    return engine


def test_releases_of_the_first_schema_keep_their_files_and_signatures(tmp_path: Path) -> None:
    engine = at_revision(tmp_path / "old.db", "0001")
    with engine.begin() as connection:
        for number, state, published in ((1, "published", "2026-11-02 00:00:00"), (2, "staged", None)):
            connection.execute(
                text(
                    "INSERT INTO releases VALUES (:id, 'exercise', :n, :v, :state, 'b', :mv, x'7b7d', 'admin:a', "
                    "'2026-11-01 00:00:00', :published)"
                ),
                {
                    "id": 10 * number,
                    "n": number,
                    "v": f"{number}.0",
                    "state": state,
                    "mv": number + 1,
                    "published": published,
                },
            )
            for name in ("manifest.json", "m.onnx"):
                connection.execute(
                    text("INSERT INTO release_files VALUES (:id, :file, 5, 'd')"), {"id": 10 * number, "file": name}
                )
        connection.execute(
            text("INSERT INTO release_signatures VALUES (10, 'k', 'alice', 'ab', '2026-11-01 12:00:00')")
        )
    upgrade(engine)
    with reading(engine) as session:
        first, second = session.query(ReleaseRow).order_by(ReleaseRow.release).all()
        assert (first.version, first.state, first.proposal.version) == ("1.0", "published", 2)
        assert [file.file for file in first.files] == ["m.onnx", "manifest.json"]
        assert [(known.person, known.signature) for known in first.proposal.signatures] == [("alice", "ab")]
        assert first.proposal.published_at is not None
        assert (first.proposal.role, first.proposal.subject) == ("releases-exercise", "exercise/1")
        assert (second.proposal.pending, second.proposal.published_at) == (b"{}", None)
        assert second.proposal.signatures == []
    engine.dispose()
