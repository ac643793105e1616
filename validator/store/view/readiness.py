"""Whether a validator can work, condition by condition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.exc import DBAPIError

from validator.ports.clock import Clock
from validator.protocol.errors import ConfigError, ValidatorError
from validator.store import schema
from validator.store.database import Database, head_revision, is_newer, load_revision
from validator.store.disk import measure_disk
from validator.store.due import LOOKED
from validator.store.meta import load_meta
from validator.store.rows import insert_or_replace
from validator.store.view.status import Check, HeadView

HEAD_AGE_MS = 60_000
"""A head watcher that has been silent for longer makes the validator not ready."""
LOOK_AGE_MS = 180_000
"""Three times the longest tick."""


class Readiness:
    """The conditions: database, schema, votes, disk, chain, beat and worker."""

    def __init__(self, database: Database, clock: Clock, data_dir: Path, disk_floor: str) -> None:
        self._database = database
        self._clock = clock
        self._data_dir = data_dir
        self._disk_floor = disk_floor

    def check(self) -> list[Check]:
        """All of them. Never raises."""
        return [
            self._ask("database", self._write_once),
            self._ask("migrations", self._compare_revision),
            self._ask("votes", self._look_at_meta),
            self._ask("disk", self._measure_disk),
            self._ask("chain", self._measure_head),
            self._ask("beat", self._measure_look),
        ]

    def _ask(self, name: str, ask: Any) -> Check:
        try:
            return Check(name, True, ask())
        except ValidatorError as error:
            return Check(name, False, error.message)
        except DBAPIError as error:  # such as a table that is not there
            return Check(name, False, str(error.orig).partition("\n")[0])

    def _write_once(self) -> str:
        now_ms = self._clock.now_ms()
        with self._database.write() as connection:
            insert_or_replace(connection, schema.cursors, {"name": "ready", "value": now_ms, "changed_ms": now_ms})
        return "writable"

    def _compare_revision(self) -> str:
        with self._database.read() as connection:
            current = load_revision(connection)
        if is_newer(current):
            return f"schema is at {current}, by a newer release; this one works on until it is replaced"
        if current != head_revision():
            raise ConfigError(f"schema is at {current}, this release needs {head_revision()}")
        return str(current)

    def _look_at_meta(self) -> str:
        """A database whose votes were exported never votes again: whatever runs on it takes no part."""
        with self._database.read() as connection:
            meta = load_meta(connection)
        if meta is not None and meta.retired_ms is not None:
            raise ConfigError("this database is retired, its votes were exported: stop these processes")
        return "not exported"

    def _measure_disk(self) -> str:
        disk = measure_disk(self._data_dir, self._disk_floor)
        text = f"{disk.free >> 20} MiB free, floor {disk.floor >> 20} MiB"
        if disk.is_full:
            raise ConfigError(text)
        return text

    def _measure_head(self) -> str:
        with self._database.read() as connection:
            head = load_heads(connection).get("head")
        if head is None:
            raise ConfigError("no block seen yet")
        age_ms = self._clock.now_ms() - head.seen_ms
        text = f"block {head.number}, seen {age_ms // 1000} s ago"
        if age_ms > HEAD_AGE_MS:
            raise ConfigError(text)
        return text

    def _measure_look(self) -> str:
        """Beat queues a look, a worker of queue ``round`` makes it: if either has ended, nothing is due any more."""
        with self._database.read() as connection:
            looked_ms = connection.scalar(select(schema.cursors.c.value).where(schema.cursors.c.name == LOOKED))
        if looked_ms is None:
            raise ConfigError("never looked for what is due; beat and a worker on queue round must run")
        age_ms = self._clock.now_ms() - looked_ms
        text = f"looked for what is due {max(age_ms, 0) // 1000} s ago"
        if age_ms > LOOK_AGE_MS:
            raise ConfigError(f"{text}; beat and a worker on queue round must run")
        return text


def load_heads(connection: Connection) -> dict[str, HeadView]:
    rows = connection.execute(select(schema.chain_heads))
    return {row.name: HeadView(row.number, row.timestamp_s, row.seen_ms) for row in rows}
