"""What is to be looked at again, and when. Beat claims what has passed, so what Redis or a worker lost comes again.

Each claim notes when it was made. So a beat that has ended is seen from outside, and a clock that was put back is
noticed: whatever waits for a time that had almost come is due at once. Looking too early costs a "not yet".
"""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, case, delete, select, update

from validator.log import get_logger
from validator.ports.clock import Clock
from validator.store import schema
from validator.store.database import Database
from validator.store.rows import insert_new, insert_or_replace

log = get_logger(__name__)

LOOKED = "looked"
"""Cursor: when beat last looked for what is due."""
NOTED_EVERY_MS = 5_000
PUT_BACK_MS = 10_000
"""A clock that shows so much less than at the last look was put back; machines of one fleet differ by less."""
SOON_MS = 120_000
"""Rows that would have been due so soon after the last look may wait for something shorter than what was put back."""

_D = schema.due
_LOOKED = select(schema.cursors.c.value).where(schema.cursors.c.name == LOOKED)
_ANY_DUE = select(_D.c.key).where(_D.c.wake_ms <= bindparam("at_ms")).limit(1)
_PENDING = select(_D.c.key).where(_D.c.task == bindparam("at_task")).order_by(_D.c.wake_ms, _D.c.key)
_DROP = delete(_D).where(_D.c.task == bindparam("at_task"), _D.c.key == bindparam("at_key"))


class DueRows:
    """The port ``Due``."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def schedule(self, task: str, key: str, wake_ms: int) -> None:
        """Set the wake time; an earlier one already there stands."""
        with self._database.write() as connection:
            schedule(connection, task, key, wake_ms)

    def postpone(self, task: str, key: str, wake_ms: int) -> None:
        """Set the wake time, whatever stands."""
        with self._database.write() as connection:
            postpone(connection, task, key, wake_ms)

    def done(self, task: str, key: str) -> None:
        """Nothing is due any more."""
        with self._database.write() as connection:
            drop(connection, task, key)

    def pending(self, task: str) -> list[str]:
        """Keys of a task that are not done, whenever they are due; the earliest first."""
        with self._database.read() as connection:
            return list(connection.scalars(_PENDING, {"at_task": task}))

    def claim(self, now_ms: int, limit: int, lease_ms: int) -> list[tuple[str, str]]:
        """Rows whose time has passed, oldest first; each comes again after the lease unless its task sets another time.

        Two that claim at the same time share the rows: a row goes to one of them.
        """
        t = schema.due
        with self._database.read() as connection:  # most looks find nothing: they must not wait for writers
            looked_ms = connection.scalar(_LOOKED)
            noted = looked_ms is not None and looked_ms - PUT_BACK_MS <= now_ms < looked_ms + NOTED_EVERY_MS
            if noted and connection.scalar(_ANY_DUE, {"at_ms": now_ms}) is None:
                return []
        with self._database.write() as connection:
            if not noted:
                _note_look(connection, now_ms, looked_ms)
            query = select(t.c.task, t.c.key).where(t.c.wake_ms <= now_ms).order_by(t.c.wake_ms, t.c.task, t.c.key)
            rows = connection.execute(query.limit(limit).with_for_update(skip_locked=True)).all()
            for task, key in rows:
                row = update(t).where(t.c.task == task, t.c.key == key)
                connection.execute(row.values(wake_ms=now_ms + lease_ms))
            return [(row.task, row.key) for row in rows]


def _note_look(connection: Connection, now_ms: int, looked_ms: int | None) -> None:
    """Note this look; where the clock was put back since the last one, what was due soon is due now."""
    t = schema.due
    if looked_ms is not None and now_ms < looked_ms - PUT_BACK_MS:
        log.warning("clock.put_back", by_ms=looked_ms - now_ms)
        soon = update(t).where(t.c.wake_ms > now_ms, t.c.wake_ms <= looked_ms + SOON_MS)
        connection.execute(soon.values(wake_ms=now_ms))
    insert_or_replace(connection, schema.cursors, {"name": LOOKED, "value": now_ms, "changed_ms": now_ms})


def schedule(connection: Connection, task: str, key: str, wake_ms: int) -> None:
    """Set the wake time; an earlier one already there stands."""
    t = schema.due
    if not insert_new(connection, t, {"task": task, "key": key, "wake_ms": wake_ms}):
        earlier = case((t.c.wake_ms < wake_ms, t.c.wake_ms), else_=wake_ms)
        connection.execute(update(t).where(t.c.task == task, t.c.key == key).values(wake_ms=earlier))


def postpone(connection: Connection, task: str, key: str, wake_ms: int) -> None:
    """Set the wake time, whatever stands."""
    insert_or_replace(connection, schema.due, {"task": task, "key": key, "wake_ms": wake_ms})


def drop(connection: Connection, task: str, key: str) -> None:
    connection.execute(_DROP, {"at_task": task, "at_key": key})
