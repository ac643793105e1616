"""One database, two engines: a writer whose transactions are serialised, and a reader that cannot write.

SQLite: the driver opens no transaction before the first write and would lose updates without an error, so the
writer begins with BEGIN IMMEDIATE; synchronous=FULL makes a commit durable before a vote is heard. WAL mode and
incremental vacuum are set once, by the migration. PostgreSQL: synchronous_commit=on and a lock timeout for each
transaction, set with SET LOCAL so that a transaction pooler in between does no harm; no prepared statements for the
same reason. Local file systems only for SQLite.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy
from alembic.command import downgrade as alembic_downgrade
from alembic.command import upgrade as alembic_upgrade
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from validator.outages import Outage
from validator.protocol.errors import ConfigError, TransientError

BUSY_TIMEOUT_MS = 5_000
"""How long a writer waits for another one before it gives up and is tried again."""
WAL_LIMIT_BYTES = 64 << 20
MIGRATION_LOCK = 0x6C6F6773
"""Key of the advisory lock under which PostgreSQL is migrated."""


class _Begin(NamedTuple):
    """How a transaction begins."""

    sqlite: str
    postgresql: str


_LIMITS = f"SET LOCAL lock_timeout = {BUSY_TIMEOUT_MS}; SET LOCAL statement_timeout = 60000; "
_BEGIN_WRITE = _Begin("BEGIN IMMEDIATE", _LIMITS + "SET LOCAL synchronous_commit = on")
_AWAY = ("08", "53", "57", "58")
"""Classes of PostgreSQL's states: connection, resources, operator's intervention, system."""
_TOOK_TOO_LONG, _READ_ONLY = "57014", "25006"
_BEGIN_READ = _Begin("BEGIN", _LIMITS + "SET TRANSACTION READ ONLY")


class DatabaseUnavailable(TransientError):
    """It is locked, unreachable or gave up. ``what`` was asked; ``is_away``: it tells of that itself."""


class Database:
    """Writer and reader of one database. Thread-safe; after a fork call ``forget_connections``."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self.writer = _create_engine(url, writes=True)
        self.reader = _create_engine(url, writes=False)
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self._outage = Outage("database")

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One serialised transaction: committed at the end of the block, rolled back if it raises.

        Raises:
            TransientError: the database is locked, unreachable or gave up.
        """
        with self._watched("write"), _translated("write"), self.writer.begin() as connection:
            self._begin(connection, _BEGIN_WRITE)
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A read-only snapshot for milliseconds; a long one keeps SQLite's WAL from shrinking.

        Raises:
            TransientError: the database is unreachable or gave up.
        """
        with self._watched("read"), _translated("read"), self.reader.begin() as connection:
            self._begin(connection, _BEGIN_READ)
            yield connection

    @contextmanager
    def _watched(self, way: str) -> Iterator[None]:
        begun_s = time.monotonic()
        try:
            yield
        except DatabaseUnavailable as error:
            if error.fields["is_away"]:
                self._outage.failed(error.message, way)
            raise
        else:
            self._outage.worked(way, begun_s)

    def _begin(self, connection: Connection, words: _Begin) -> None:
        """Begin the transaction; on SQLite by the driver alone, since this is asked thousands of times a minute.

        It is no listener of SQLAlchemy's: an engine with one takes a third longer for every statement.
        """
        if self.is_sqlite:
            driver = connection.connection.dbapi_connection
            assert driver is not None
            driver.cursor().execute(words.sqlite)
        else:
            connection.exec_driver_sql(words.postgresql)

    def vacuum(self, pages: int) -> None:
        """Give up to so many free pages of SQLite's file back to the file system; nothing on PostgreSQL.

        Raises:
            TransientError: the database is locked.
        """
        if not self.is_sqlite:
            return
        with _translated("vacuum"):
            connection = self.writer.raw_connection()
            try:  # a script runs to its end; a statement without columns would free one page and be left
                connection.cursor().executescript(f"PRAGMA incremental_vacuum({pages})")
            except sqlite3.OperationalError as error:
                raise TransientError(f"database vacuum: {error}", what="vacuum") from error
            finally:
                connection.close()

    def forget_connections(self) -> None:
        """Drop inherited connections without closing them: for the child after a fork."""
        self.writer.dispose(close=False)
        self.reader.dispose(close=False)

    def close(self) -> None:
        self.writer.dispose()
        self.reader.dispose()


def open_database(url: str) -> Database:
    """The database behind a SQLAlchemy URL; connects when first used.

    Raises:
        ConfigError: not a URL of SQLite (a file) or PostgreSQL (psycopg).
    """
    return Database(_parse_url(url))


def migrate(url: str, revision: str = "head") -> None:
    """Bring the schema to ``revision``, from any working directory; safe to run twice and at the same time.

    Raises:
        ConfigError: the URL is wrong or the folder cannot be written.
        TransientError: the database is locked or unreachable.
    """
    with _migration(url) as config:
        alembic_upgrade(config, revision)


def downgrade(url: str, revision: str) -> None:
    """Take migrations back down to ``revision`` ("base" removes every table)."""
    with _migration(url) as config:
        alembic_downgrade(config, revision)


def load_revision(connection: Connection) -> str | None:
    """The revision that the database is at; None before the first migration."""
    return MigrationContext.configure(connection).get_current_revision()


@cache
def head_revision() -> str:
    """The revision that this release needs. Asked by every readiness check; the migrations are read once a process."""
    head = ScriptDirectory.from_config(alembic_config()).get_current_head()
    if head is None:
        raise ConfigError("alembic: no migration found beside this installation", field="alembic")
    return head


def require_head(database: Database, *, has_begun: bool = False) -> None:
    """Refuse to start on another schema than this release's.

    ``has_begun``: this process, or the one it was forked from, has started; a newer release may have migrated since.
    Migrations only add, so whoever works goes on.

    Raises:
        ConfigError: names both revisions and the remedy.
    """
    if database.is_sqlite and not Path(database.url.database or "").exists():
        raise ConfigError(
            f"LOGSTORE_DATABASE_URL: {database.url.database} does not exist; run logstore-validator init",
            field="LOGSTORE_DATABASE_URL",
        )
    with database.read() as connection:
        current = load_revision(connection)
    if has_begun and is_newer(current):
        return
    require_known(current)
    head = head_revision()
    if current != head:
        raise ConfigError(
            f"LOGSTORE_DATABASE_URL: schema is at {current or 'nothing'}, this release needs {head}; "
            "run logstore-validator init",
            field="LOGSTORE_DATABASE_URL",
            current=current,
            head=head,
        )


def is_newer(revision: str | None) -> bool:
    """Whether only a newer release can have made this revision."""
    return revision is not None and revision not in _known_revisions()


@cache
def _known_revisions() -> frozenset[str]:
    return frozenset(script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions())


def require_known(revision: str | None) -> None:
    """Refuse a schema that only a newer release can have made: nothing here can bring it back.

    Raises:
        ConfigError: names the revision and the remedy.
    """
    if is_newer(revision):
        raise ConfigError(
            f"LOGSTORE_DATABASE_URL: schema is at {revision}, made by a newer release; install that release",
            field="LOGSTORE_DATABASE_URL",
            current=revision,
        )


def alembic_config() -> Config:
    """Alembic's settings for the migrations of this installation, wherever it lies."""
    config = Config()
    config.set_main_option("script_location", str(_scripts()).replace("%", "%%"))
    return config


def prepare_sqlite(engine: Engine) -> None:
    """WAL and incremental vacuum: kept in the file, and settable only outside a transaction, before the first table."""
    connection = engine.raw_connection()
    try:
        cursor = connection.cursor()
        cursor.execute("PRAGMA auto_vacuum=INCREMENTAL")
        cursor.execute("PRAGMA journal_mode=WAL")
        row = cursor.fetchone()
        cursor.close()
    finally:
        connection.close()
    if row is None or row[0] != "wal":
        raise ConfigError(
            f"LOGSTORE_DATABASE_URL: SQLite refuses WAL mode here (it says {row}); use a local file system",
            field="LOGSTORE_DATABASE_URL",
        )


@contextmanager
def _migration(url: str) -> Iterator[Config]:
    database = Database(_parse_url(url))
    config = alembic_config()
    try:
        if database.is_sqlite:
            _make_folder(database.url)
            with _translated("migrate"):
                prepare_sqlite(database.writer)
        with database.write() as connection:
            if not database.is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            require_known(load_revision(connection))
            config.attributes["connection"] = connection
            yield config
    finally:
        database.close()


def _scripts() -> Path:
    """Folder of the migrations: inside an installed package, or at the root of a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parents[1] / "alembic"


def _make_folder(url: URL) -> None:
    path = Path(url.database or "")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"LOGSTORE_DATABASE_URL: cannot create {path.parent}: {error.strerror}", field="LOGSTORE_DATABASE_URL"
        ) from error


def _parse_url(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigError("LOGSTORE_DATABASE_URL: not a database URL", field="LOGSTORE_DATABASE_URL") from None
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        if parsed.database in (None, "", ":memory:") or "mode=memory" in url:
            raise ConfigError(
                "LOGSTORE_DATABASE_URL: SQLite must be a file, e.g. sqlite:///data/validator.sqlite",
                field="LOGSTORE_DATABASE_URL",
            )
        return parsed
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    raise ConfigError(
        f"LOGSTORE_DATABASE_URL: {backend} is not supported; use sqlite:///… or postgresql+psycopg://…",
        field="LOGSTORE_DATABASE_URL",
    )


def _create_engine(url: URL, *, writes: bool) -> Engine:
    if url.get_backend_name() == "sqlite":
        engine = sqlalchemy.create_engine(url, pool_size=8, max_overflow=8, pool_timeout=30)

        @event.listens_for(engine, "connect")
        def set_pragmas(connection: Any, _record: Any) -> None:
            connection.isolation_level = None  # the driver must not begin transactions on its own
            cursor = connection.cursor()
            cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
            cursor.execute("PRAGMA foreign_keys=ON")
            cursor.execute("PRAGMA synchronous=FULL")
            cursor.execute(f"PRAGMA journal_size_limit={WAL_LIMIT_BYTES}")
            if not writes:
                cursor.execute("PRAGMA query_only=ON")
            cursor.close()
    else:
        engine = sqlalchemy.create_engine(
            url,
            pool_size=8,
            max_overflow=8,
            pool_timeout=30,
            pool_pre_ping=True,
            connect_args={"prepare_threshold": None, "connect_timeout": 10},
        )
    return engine


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """The rule: what the server or its link does to us is *not yet*, whatever class the driver gives it.

    Read-only after a failover, say, is neither an operational nor an interface error. A statement of ours that is
    wrong, or that a constraint refuses, stays what it is. A damaged file needs its operator.
    """
    try:
        yield
    except PoolTimeout as error:
        raise DatabaseUnavailable(f"database {what}: {error}", what=what, is_away=False) from error
    except (IntegrityError, ProgrammingError, DataError):
        raise
    except (DBAPIError, sqlite3.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        if isinstance(cause, sqlite3.Error) and _errorcode(cause) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise ConfigError(
                f"LOGSTORE_DATABASE_URL: {cause}; move the file away and put a backup there, or begin with an empty "
                "one, then run logstore-validator init --restored",
                field="LOGSTORE_DATABASE_URL",
            ) from error
        raise DatabaseUnavailable(f"database {what}: {cause}", what=what, is_away=_is_away(cause)) from error


def _is_away(cause: BaseException | None) -> bool:
    """Whether the database can do nothing, in contrast to one that another transaction keeps waiting."""
    if isinstance(cause, sqlite3.Error):
        return _errorcode(cause) not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    state = getattr(cause, "sqlstate", None)  # none: the link itself
    return state is None or state == _READ_ONLY or (state[:2] in _AWAY and state != _TOOK_TOO_LONG)


def _errorcode(error: sqlite3.Error) -> int:
    """Primary result code of SQLite; extended ones carry it in their low byte."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
