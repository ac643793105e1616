"""Connections to a broker's PostgreSQL: few, bounded in time, and made anew when the server comes back.

Every statement is a transaction of its own (autocommit) unless ``transaction`` says otherwise, and none is open while
an answer is written. What the server or its link does to us is *not yet* (TransientError), whatever class the driver
gives it; a statement of ours that is wrong stays what it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from validator.protocol.errors import ConfigError, TransientError

POOL = 12
"""Connections of one process: four readers, two that read ahead, two of ingest, and the loops."""
ACQUIRE_S = 5.0
"""So long a caller waits for one, while the server is away or all are busy."""
RECONNECT_S = 8.0
"""Pauses between attempts grow up to half of it."""
STATEMENT_S = 60
LOCK_S = 5
_LIVELY = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""A machine that is gone is noticed within half a minute; without these in hours."""
Connection = psycopg.Connection[Any]
Cursor = psycopg.Cursor[Any]


class Database:
    """Thread-safe. Connects when first used."""

    def __init__(self, url: str) -> None:
        """Raises ConfigError: no URL of PostgreSQL."""
        self._link = read_link(url)
        self._pool = ConnectionPool(
            self._link,
            kwargs={"autocommit": True, "application_name": "logstore-broker", **_LIVELY},
            min_size=1,
            max_size=POOL,
            timeout=ACQUIRE_S,
            reconnect_timeout=RECONNECT_S,
            configure=_bound,
            check=ConnectionPool.check_connection,
            open=False,
        )

    def open(self) -> None:
        self._pool.open()

    def close(self) -> None:
        self._pool.close(timeout=2.0)

    def ping(self) -> None:
        """Raises TransientError."""
        with self.use() as cursor:
            cursor.execute("SELECT 1")

    @contextmanager
    def use(self) -> Iterator[Cursor]:
        """For statements that are committed each by itself. Raises TransientError."""
        with translated(), self._pool.connection() as connection, connection.cursor(binary=True) as cursor:
            yield cursor

    @contextmanager
    def transaction(self) -> Iterator[Cursor]:
        """Committed at the end of the block, rolled back if it raises. Raises TransientError."""
        with self.use() as cursor, cursor.connection.transaction():
            yield cursor

    def connect(self) -> Connection:
        """One that is the caller's own, for a lock that lives as long as it does. Raises TransientError."""
        with translated():
            connection = psycopg.connect(self._link, autocommit=True, application_name="logstore-broker", **_LIVELY)  # type: ignore[arg-type]
            _bound(connection)
            return connection


def read_link(url: str) -> str:
    """libpq's form of a URL, which may have SQLAlchemy's driver in it. Raises ConfigError, which never shows it."""
    scheme, found, rest = url.partition("://")
    if not found or scheme.partition("+")[0] not in ("postgresql", "postgres"):
        raise ConfigError(
            "the database's URL: not one of PostgreSQL: postgresql://user@host/name", field="database_url"
        )
    link = f"postgresql://{rest}"
    try:
        psycopg.conninfo.conninfo_to_dict(link)
    except psycopg.ProgrammingError:
        raise ConfigError("the database's URL: cannot be read", field="database_url") from None
    return link


def _bound(connection: Connection) -> None:
    """Limits of every statement; and the planner's way, which is known: it has no statistics of a day that has just
    begun, and would sort a whole day for a page of it. What is switched off counts as dear, for which plans would be
    compiled, at a second each."""
    connection.execute(
        f"SET statement_timeout = '{STATEMENT_S}s'; SET lock_timeout = '{LOCK_S}s'; SET synchronous_commit = on;"
        f"SET idle_in_transaction_session_timeout = '{STATEMENT_S}s';"
        "SET enable_sort = off; SET enable_seqscan = off; SET enable_bitmapscan = off; SET jit = off"
    )


@contextmanager
def translated() -> Iterator[None]:
    try:
        yield
    except (PoolTimeout, PoolClosed, TooManyRequests) as error:
        raise TransientError(f"the database does not answer: {error}", reason="database") from error
    except (psycopg.IntegrityError, psycopg.ProgrammingError, psycopg.DataError, psycopg.NotSupportedError):
        raise
    except psycopg.Error as error:
        raise TransientError(f"the database: {str(error).strip()[:300]}", reason="database") from error
