"""Who leads: the session that has an advisory lock (``ports.broker_state.Lead``).

The server lets the lock go when the session ends: at once where the process is killed, and within a quarter of a minute
where its machine is gone, since the server is told to probe this session. Whoever lost the lock and does not know it
yet cannot do harm: everything that only one may do goes through the database first (a heartbeat is stored before it is
sent), and a new holder waits a moment before it speaks. A process that is stopped and not dead keeps the lock: whoever
watches its listener has to end it.
"""

from __future__ import annotations

import threading
from contextlib import suppress

import psycopg

from validator.broker.postgres.database import Connection, Database, translated
from validator.protocol.errors import TransientError

LEAD_LOCK = 0x6C6F67_4C
"""Of the advisory lock, in the broker's own database."""
_PROBED = "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 3; SET tcp_keepalives_count = 3"
"""By the server; a Unix socket knows of none, and needs none."""


class PostgresLead:
    """Thread-safe."""

    is_shared = True

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._session: Connection | None = None

    def acquire(self) -> bool:
        with self._lock:
            if self._session is None:
                session = self._database.connect()
                with translated():
                    session.execute(_PROBED)
                self._session = session
            try:
                with translated():
                    found = self._session.execute("SELECT pg_try_advisory_lock(%s)", (LEAD_LOCK,)).fetchone()
            except TransientError:
                self._drop()
                raise
            return found is not None and bool(found[0])

    def holds(self) -> bool:
        """The session is there still, and with it the lock."""
        with self._lock:
            if self._session is None:
                return False
            try:
                self._session.execute("SELECT 1")
            except psycopg.Error:
                self._drop()
                return False
            return True

    def release(self) -> None:
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            with suppress(psycopg.Error):
                session.close()
