"""Windows and their pulls: where each window stands, and what each broker answered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select, update

from validator.errors import AlreadyDone, InvariantError
from validator.model import Address, Digest, Root, StreamPart, Window
from validator.store import schema
from validator.store.rows import as_row, change_row, count_by, from_row, insert_new, insert_or_replace, require_word

STATES = ("open", "collected", "observed", "agreed", "bundled")
PURPOSES = ("cutoff", "bundle", "horizon")


@dataclass(frozen=True, slots=True)
class WindowRow:
    """One window. ``state`` climbs the ladder open, collected, observed, agreed, bundled.

    ``block_*`` is B of the window; ``set_root`` names the observed set; ``*_done_ms`` say when the three pulls ended.
    ``waits_for``: why it does not move, for the operator.
    """

    start_ms: int
    end_ms: int
    epoch: int
    state: str = "open"
    block_number: int | None = None
    block_hash: Digest | None = None
    set_root: Root | None = None
    observation_digest: Digest | None = None
    cutoff_done_ms: int | None = None
    bundle_done_ms: int | None = None
    horizon_done_ms: int | None = None
    wake_ms: int | None = None
    bundle_number: int | None = None
    collected_count: int = 0
    collected_bytes: int = 0
    rejected_count: int = 0
    waits_for: str = ""

    @property
    def window(self) -> Window:
        return Window(self.start_ms, self.end_ms)


@dataclass(frozen=True, slots=True)
class PullRow:
    """The newest answer of one broker for one stream partition of a window."""

    window_start: int
    broker: Address
    stream_id: str
    partition: int
    etag: str | None
    complete: bool
    records: int
    last_ms: int
    error: str = ""


def create_window(connection: Connection, row: WindowRow) -> bool:
    """Add a window; False if it is there already (it stays as it is)."""
    require_word(row.state, STATES, "window.state")
    return insert_new(connection, schema.windows, as_row(row))


def load_window(connection: Connection, start_ms: int, *, lock: bool = False) -> WindowRow | None:
    """``lock``: other writers of this row wait until this transaction ends."""
    query = select(schema.windows).where(schema.windows.c.start_ms == start_ms)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    return None if row is None else from_row(WindowRow, row)


def save_window(connection: Connection, start_ms: int, **changes: Any) -> None:
    """Change named columns; ``state`` has its own function. Raises InvariantError: unknown column or window."""
    if "state" in changes:
        raise InvariantError("a window's state is changed by save_window_state")
    change_row(connection, schema.windows, {"start_ms": start_ms}, changes)


def save_window_state(connection: Connection, start_ms: int, state: str) -> None:
    """Climb the ladder to ``state``; a rung may be left out.

    Raises:
        AlreadyDone: the window stands there or higher.
    """
    require_word(state, STATES, "window.state")
    below = STATES[: STATES.index(state)]
    statement = update(schema.windows).where(schema.windows.c.start_ms == start_ms, schema.windows.c.state.in_(below))
    if connection.execute(statement.values(state=state)).rowcount != 1:
        raise AlreadyDone(f"window {start_ms} is {state} or further already", window=start_ms, state=state)


def reopen_windows(connection: Connection, from_start_ms: int) -> int:
    """After a raised config count: what was agreed from here on is agreed anew; returns how many windows."""
    t = schema.windows
    statement = update(t).where(t.c.start_ms >= from_start_ms, t.c.state.in_(("agreed", "bundled")))
    return connection.execute(statement.values(state="collected", bundle_number=None)).rowcount


def load_windows(connection: Connection, *, states: Sequence[str] | None = None, limit: int = 1000) -> list[WindowRow]:
    """The oldest ``limit`` windows in these states (all if None), in order."""
    query = select(schema.windows).order_by(schema.windows.c.start_ms).limit(limit)
    if states is not None:
        query = query.where(schema.windows.c.state.in_(states))
    return [from_row(WindowRow, row) for row in connection.execute(query)]


def load_window_range(connection: Connection, first_ms: int, last_ms: int) -> list[WindowRow]:
    """Windows with first_ms <= start_ms <= last_ms, in order."""
    t = schema.windows
    query = select(t).where(t.c.start_ms.between(first_ms, last_ms)).order_by(t.c.start_ms)
    return [from_row(WindowRow, row) for row in connection.execute(query)]


def load_newest_window(connection: Connection) -> WindowRow | None:
    query = select(schema.windows).order_by(schema.windows.c.start_ms.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    return None if row is None else from_row(WindowRow, row)


def due_windows(connection: Connection, now_ms: int, limit: int = 100) -> list[WindowRow]:
    """Windows whose wake time has passed, oldest first."""
    t = schema.windows
    query = select(t).where(t.c.wake_ms <= now_ms).order_by(t.c.start_ms).limit(limit)
    return [from_row(WindowRow, row) for row in connection.execute(query)]


def count_windows(connection: Connection) -> dict[str, int]:
    """Windows by state; states without windows are 0."""
    return dict.fromkeys(STATES, 0) | count_by(connection, schema.windows.c.state)


# --- pulls ----------------------------------------------------------------------------------------


def save_pulls(connection: Connection, pulls: Iterable[PullRow]) -> None:
    """Keep the newest answer per broker and partition."""
    for pull in pulls:
        insert_or_replace(connection, schema.pulls, as_row(pull))


def load_pulls(connection: Connection, window_start: int) -> list[PullRow]:
    query = select(schema.pulls).where(schema.pulls.c.window_start == window_start)
    return [from_row(PullRow, row) for row in connection.execute(query)]


def load_etags(connection: Connection, window_start: int) -> Mapping[tuple[Address, StreamPart], str]:
    """Etags of the complete answers of a window: sent again, an unchanged answer costs a 304."""
    return {
        (pull.broker, (pull.stream_id, pull.partition)): pull.etag
        for pull in load_pulls(connection, window_start)
        if pull.complete and pull.etag is not None
    }
