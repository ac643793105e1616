"""Engines, pragmas and migrations."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, inspect, text
from sqlalchemy.exc import DBAPIError

from tests import paths
from validator.protocol.errors import ConfigError, TransientError
from validator.store import schema
from validator.store.database import Database, downgrade, head_revision, migrate, open_database, require_head

ROOT = paths.ROOT


def pragmas(engine: Engine, connections: int) -> list[dict[str, object]]:
    """What so many connections of the pool, open at once, answer."""
    names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "query_only", "auto_vacuum")
    with ExitStack() as stack:
        answers = []
        for _ in range(connections):
            raw = engine.raw_connection()
            stack.callback(raw.close)
            cursor = raw.cursor()
            answer: dict[str, object] = {}
            for name in names:
                cursor.execute(f"PRAGMA {name}")
                row = cursor.fetchone()
                assert row is not None
                answer[name] = row[0]
            answers.append(answer)
        return answers


@pytest.fixture
def sqlite(tmp_path: Path) -> Database:
    url = f"sqlite:///{tmp_path}/deep/er/validator.sqlite"
    migrate(url)
    return open_database(url)


def test_every_pool_connection_of_sqlite_has_its_pragmas(sqlite: Database) -> None:
    wanted = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 5000, "auto_vacuum": 2}
    assert pragmas(sqlite.writer, 12) == [{**wanted, "query_only": 0}] * 12
    assert pragmas(sqlite.reader, 12) == [{**wanted, "query_only": 1}] * 12
    assert pragmas(sqlite.writer, 12) == [{**wanted, "query_only": 0}] * 12  # a pooled one keeps them


def impatient(url: str) -> Database:
    """A second process's database that waits for nobody's lock."""
    database = open_database(url)
    database.writer.dispose()
    with database.writer.connect() as connection:
        raw = connection.connection.driver_connection
        assert raw is not None
        raw.execute("PRAGMA busy_timeout=1")  # stays with the pooled connection
    return database


def test_a_writer_of_sqlite_holds_the_lock_before_it_reads(sqlite: Database) -> None:
    other = impatient(str(sqlite.url))
    with sqlite.write(), sqlite.read() as reader:
        assert reader.execute(text("SELECT count(*) FROM due")).scalar() == 0  # readers do not wait
        with pytest.raises(TransientError, match="locked"), other.write():
            pytest.fail("it may read what the first one is about to change")


def test_a_locked_database_is_for_later(sqlite: Database) -> None:
    blocked = impatient(str(sqlite.url))
    with sqlite.write(), pytest.raises(TransientError, match="locked"), blocked.write():
        pass


@pytest.mark.parametrize("word", ["newer0001", "0" * 12])
def test_a_database_of_a_newer_release_is_refused_by_every_command_and_by_nobody_who_works(url: str, word: str) -> None:
    migrate(url)
    database = open_database(url)
    with database.write() as connection:
        before = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        connection.execute(text("UPDATE alembic_version SET version_num = :word"), {"word": word})
    for refused in (partial(require_head, database), partial(migrate, url)):
        with pytest.raises(ConfigError, match=f"schema is at {word}, made by a newer release; install that"):
            refused()
    require_head(database, has_begun=True)
    with database.write() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == word
        connection.execute(text("UPDATE alembic_version SET version_num = :word"), {"word": before})
    database.close()


@pytest.mark.parametrize("damage", ["another kind of file", "pages overwritten"])
def test_a_damaged_file_is_its_operators_to_replace(sqlite: Database, damage: str) -> None:
    sqlite.close()
    path = Path(sqlite.url.database or "")
    data = path.read_bytes()
    whole = damage == "pages overwritten"
    path.write_bytes(data[:5_000] + b"\xff" * (len(data) - 5_000) if whole else b"not a database, sorry" * 300)
    damaged = open_database(str(sqlite.url))
    for refused in (partial(require_head, damaged), partial(migrate, str(sqlite.url))):
        with pytest.raises(ConfigError, match=r"^LOGSTORE_DATABASE_URL: .*put a backup there"):
            refused()


def test_whatever_a_failed_over_server_refuses_is_for_later(postgres_url: str) -> None:
    migrate(postgres_url)
    database = open_database(postgres_url)
    with pytest.raises(TransientError, match="read-only"), database.write() as connection:
        connection.execute(text("SET TRANSACTION READ ONLY"))
        connection.execute(text("DELETE FROM due"))
    with pytest.raises(TransientError, match="statement timeout"), database.write() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 1"))
        connection.execute(text("SELECT pg_sleep(5)"))
    with pytest.raises(TransientError, match="terminating connection"), database.write() as connection:
        with open_database(postgres_url).write() as other:
            other.execute(text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"))
        connection.execute(text("SELECT 1"))
    database.close()


def test_a_statement_of_ours_that_is_wrong_stays_what_it_is(url: str) -> None:
    migrate(url)
    database = open_database(url)
    with pytest.raises(DBAPIError), database.write() as connection:
        connection.execute(text("INSERT INTO due (task) VALUES (NULL)"))
    database.close()


def test_commits_are_durable_on_postgresql_whatever_the_server_says(postgres_url: str) -> None:
    database = open_database(postgres_url)
    with database.write() as connection:
        assert connection.execute(text("SHOW synchronous_commit")).scalar() == "on"
        assert connection.execute(text("SHOW lock_timeout")).scalar() == "5s"
    with database.writer.connect() as connection:
        connection.rollback()
    database.close()


def test_the_reader_cannot_write(database: Database) -> None:
    with pytest.raises((DBAPIError, TransientError)), database.read() as connection:
        connection.execute(schema.due.insert().values(task="a", key="b", wake_ms=1))
    with database.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM due")).scalar() == 0


def test_what_raises_leaves_nothing(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.write() as connection:
        connection.execute(schema.due.insert().values(task="a", key="b", wake_ms=1))
        _ = 1 // 0
    with database.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM due")).scalar() == 0


def test_amounts_of_256_bits_come_back_exactly(database: Database) -> None:
    for amount in (0, 1, 10**18, 2**200 + 1, 2**256 - 1):
        row = {"hash": amount.to_bytes(32, "big"), "number": 1, "storage_id": bytes(32), "raw": b"", "nonce": 0}
        with database.write() as connection:
            connection.execute(schema.transactions.insert().values(**row, max_fee_per_gas=amount, prepared_ms=0))
            column = schema.transactions.c.max_fee_per_gas
            query = schema.transactions.select().with_only_columns(column)
            assert connection.execute(query.where(schema.transactions.c.hash == row["hash"])).scalar() == amount


# --- migrations -------------------------------------------------------------------------------------


def test_migrations_go_up_down_and_up(empty_url: str) -> None:
    migrate(empty_url)
    migrate(empty_url)  # twice is fine
    database = open_database(empty_url)
    require_head(database)
    tables = set(schema.metadata.tables)
    assert tables <= set(inspect(database.reader).get_table_names())
    downgrade(empty_url, "base")
    assert set(inspect(database.reader).get_table_names()) == {"alembic_version"}
    migrate(empty_url)
    assert tables <= set(inspect(database.reader).get_table_names())
    database.close()


def test_the_migrated_schema_is_that_of_the_code(database: Database) -> None:
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": False})
        assert compare_metadata(context, schema.metadata) == []


def test_other_revisions_are_refused_with_the_remedy(empty_url: str, tmp_path: Path) -> None:
    migrate(empty_url)
    downgrade(empty_url, "base")
    database = open_database(empty_url)
    with pytest.raises(ConfigError, match=rf"schema is at nothing, this release needs {head_revision()}; run .* init"):
        require_head(database)
    database.close()
    missing = open_database(f"sqlite:///{tmp_path}/nowhere.sqlite")
    with pytest.raises(ConfigError, match=r"does not exist; run .* init"):
        require_head(missing)
    assert not (tmp_path / "nowhere.sqlite").exists()


def test_migration_works_from_any_folder_and_several_at_once(empty_url: str, tmp_path: Path) -> None:
    words = [sys.executable, "-c", f"from validator.store.database import migrate; migrate({empty_url!r})"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    children = [subprocess.Popen(words, cwd=tmp_path, env=environment) for _ in range(3)]
    assert [child.wait(timeout=60) for child in children] == [0, 0, 0]
    database = open_database(empty_url)
    require_head(database)
    database.close()


@pytest.mark.parametrize(
    "url", ["", "not a url", "sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true", "mysql://h/d"]
)
def test_urls_that_cannot_work_are_refused_by_name(url: str) -> None:
    with pytest.raises(ConfigError, match="LOGSTORE_DATABASE_URL"):
        open_database(url)


def test_a_plain_postgresql_url_means_psycopg() -> None:
    assert open_database("postgresql://h/d").url.drivername == "postgresql+psycopg"


def test_an_unreachable_database_is_for_later() -> None:
    database = open_database("postgresql+psycopg://nobody@127.0.0.1:1/none?connect_timeout=2")
    with pytest.raises(TransientError), database.read():
        pass
