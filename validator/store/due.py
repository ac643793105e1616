"""What is to be looked at again, and when. Beat claims what has passed, so what Redis or a worker lost comes again."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, case, delete, select, update

from validator.ports import Clock
from validator.store import schema
from validator.store.database import Database
from validator.store.rows import insert_new, insert_or_replace

_D = schema.due
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
            if connection.scalar(_ANY_DUE, {"at_ms": now_ms}) is None:
                return []
        with self._database.write() as connection:
            query = select(t.c.task, t.c.key).where(t.c.wake_ms <= now_ms).order_by(t.c.wake_ms, t.c.task, t.c.key)
            rows = connection.execute(query.limit(limit).with_for_update(skip_locked=True)).all()
            for task, key in rows:
                row = update(t).where(t.c.task == task, t.c.key == key)
                connection.execute(row.values(wake_ms=now_ms + lease_ms))
            return [(row.task, row.key) for row in rows]


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
