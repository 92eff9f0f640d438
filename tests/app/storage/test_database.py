"""The schema is what the code says, and a database that cannot be used says so."""

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select, text

import app.storage.database as database_module
from app.storage.database import Database, DatabaseUnavailableError, now_s
from app.storage.tables import Batch, File, Table
from benchmarks.postgres_cluster import new_database
from core.errors import ConfigError


def test_migrations_make_exactly_the_tables_of_the_code(database: Database) -> None:
    with database.write() as session:
        context = MigrationContext.configure(session.connection(), opts={"compare_type": True})
        assert compare_metadata(context, Table.metadata) == []


def test_servers_that_start_together_migrate_once(database_url: str) -> None:
    opened = [Database(database_url) for _ in range(4)]
    threads = [threading.Thread(target=one.migrate) for one in opened]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in opened:
        with one.read() as session:
            assert session.scalar(text("SELECT count(*) FROM alembic_version")) == 1
        one.close()


def test_a_newer_database_is_refused(database: Database) -> None:
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999_future'"))
    with pytest.raises(ConfigError, match="9999_future"):
        database.migrate()


def test_the_clock_is_the_databases_and_right(database: Database) -> None:
    import time

    with database.read() as session:
        assert session.scalar(select(now_s())) == pytest.approx(time.time(), abs=2.0)


def test_a_transaction_that_raises_leaves_nothing(database: Database) -> None:
    file = File(
        id="f", owner="o", purpose="batch", filename="f", num_bytes=0, path="f", created_at=0.0
    )
    with pytest.raises(KeyError), database.write() as session:
        session.add(file)
        session.flush()
        raise KeyError("x")
    with database.read() as session:
        assert session.get(File, "f") is None


@pytest.mark.postgres
def test_a_process_that_falls_silent_in_a_transaction_lets_its_locks_go(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "SILENT_TRANSACTION_MS", 300)
    url = new_database(postgres)
    lock = text(f"LOCK TABLE {Batch.__tablename__}")
    with closing(Database(url)) as silent, closing(Database(url)) as other:
        silent.migrate()
        with pytest.raises(DatabaseUnavailableError), silent.write() as session:
            session.execute(lock)
            with other.write() as theirs:
                theirs.execute(lock)  # waits until the silent one is cut off
            session.execute(text("SELECT 1"))


def test_sqlite_keeps_a_log_and_flushes_it(tmp_path: Path) -> None:
    opened = Database(f"sqlite:///{tmp_path / 'x.db'}")
    with opened.read() as session:
        pragmas = {
            name: session.scalar(text(f"PRAGMA {name}"))
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
    opened.close()


def test_a_full_disk_is_told_plainly_and_passes(tmp_path: Path) -> None:
    opened = Database(f"sqlite:///{tmp_path / 'x.db'}")
    opened.migrate()
    with opened.write() as session:
        pages = session.scalar(text("PRAGMA page_count"))
    row = {"owner": "o", "purpose": "b", "num_bytes": 0, "path": "p", "created_at": 0.0}
    with pytest.raises(DatabaseUnavailableError, match="full"), opened.write() as session:
        session.execute(text(f"PRAGMA max_page_count = {pages + 1}"))
        for k in range(50):
            session.add(File(id=str(k), filename="x" * 5000, **row))
            session.flush()
    opened.engine.dispose()
    with opened.write() as session:
        session.add(File(id="later", filename="x", **row))
    with opened.read() as session:
        assert [file.id for file in session.scalars(select(File))] == ["later"]
    opened.close()


@pytest.mark.parametrize("url", ["mysql://x/y", "no url", "sqlite:////proc/nowhere/x.db"])
def test_a_database_that_cannot_be_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        Database(url)


def test_a_server_that_is_away_is_told_plainly() -> None:
    opened = Database("postgresql://fewstroke@127.0.0.1:9/x")
    with pytest.raises(DatabaseUnavailableError):
        opened.migrate()
    opened.close()


def test_this_pythons_sqlite_can_return_rows() -> None:
    assert sqlite3.sqlite_version_info >= (3, 35)
