"""Windows: where each stands, what brokers answered unchanged, and what was refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, select, update

from validator.ports.clock import Clock
from validator.ports.states import WindowState
from validator.ports.stored import StoredWindow
from validator.protocol.errors import InvariantError
from validator.protocol.model import Address, Digest, StreamPart, Window
from validator.store import schema
from validator.store.bodies import save_body
from validator.store.database import Database
from validator.store.rows import insert_new, insert_or_replace, states_below

MAX_REJECTIONS = 10_000
"""Rows kept per source and window; what comes after is only counted."""
MAX_DETAIL = 300
"""Characters kept of a refusal's detail."""

Rejection = tuple[bytes, str, Address, str]
"""(SHA-256 of the record, reason, broker or peer, detail)."""


class WindowRows:
    """The port ``Windows``."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def open_window(self, window: Window, epoch: int) -> bool:
        """False if it is there already."""
        row = {
            "start_ms": window.start_ms,
            "end_ms": window.end_ms,
            "epoch": epoch,
            "state": WindowState.OPEN,
            "opened_ms": self._clock.now_ms(),
        }
        with self._database.write() as connection:
            return insert_new(connection, schema.windows, row)

    def load_window(self, start_ms: int) -> StoredWindow | None:
        with self._database.read() as connection:
            row = connection.execute(_ONE_WINDOW, {"at_start": start_ms}).one_or_none()
        return None if row is None else _window(row)

    def last_opened(self) -> int | None:
        """Start of the newest window in the database."""
        with self._database.read() as connection:
            newest: int | None = connection.scalar(_NEWEST_START)
        return newest

    def load_windows(self, first_ms: int, until_ms: int) -> list[StoredWindow]:
        """Windows with first_ms <= start < until_ms, in order."""
        t = schema.windows
        query = _WINDOW.where(t.c.start_ms >= first_ms, t.c.start_ms < until_ms).order_by(t.c.start_ms)
        with self._database.read() as connection:
            return [_window(row) for row in connection.execute(query)]

    def load_undecided(self, until_ms: int, limit: int) -> list[int]:
        """Starts of windows that ended by ``until_ms`` and are not agreed here, oldest first."""
        with self._database.read() as connection:
            return list(connection.scalars(_UNDECIDED, {"at_ms": until_ms, "at_most": limit}))

    def save_collected(
        self, start_ms: int, observation: bytes, record_shas: Collection[Rejection], serve_counts: bytes = b""
    ) -> None:
        """The own observation's body, how often each record was seen, and what was refused, once.

        A frozen observation never changes, and neither does what it rests on.
        """
        t = schema.windows
        now_ms = self._clock.now_ms()
        with self._database.write() as connection:
            held = select(t.c.observation).where(t.c.start_ms == start_ms).with_for_update()
            if connection.scalar(held) is not None:
                return
            _raise_state(connection, start_ms, WindowState.COLLECTED)
            digest = save_body(connection, observation, now_ms)
            change = update(t).where(t.c.start_ms == start_ms)
            connection.execute(change.values(observation=digest, collected_ms=now_ms))
            insert_new(connection, schema.sightings, {"window_start": start_ms, "bytes": serve_counts})
            save_rejections(connection, start_ms, record_shas, now_ms)

    def load_serve_counts(self, start_ms: int) -> bytes | None:
        """What was saved with the observation; None before the cut-off."""
        t = schema.sightings
        with self._database.read() as connection:
            data: bytes | None = connection.scalar(select(t.c.bytes).where(t.c.window_start == start_ms))
        return data

    def save_late_observation(self, number: int, observation: bytes) -> None:
        """The own observation of a bundle's late set, once. Raises InvariantError: no such bundle."""
        t = schema.bundles
        now_ms = self._clock.now_ms()
        with self._database.write() as connection:
            held = connection.execute(select(t.c.late_observation).where(t.c.number == number).with_for_update())
            row = held.one_or_none()
            if row is None:
                raise InvariantError(f"bundle {number} was never opened")
            if row.late_observation is None:
                digest = save_body(connection, observation, now_ms)
                connection.execute(update(t).where(t.c.number == number).values(late_observation=digest))

    def load_late_observation(self, number: int) -> Digest | None:
        """Digest of the own observation of a bundle's late set."""
        t = schema.bundles
        with self._database.read() as connection:
            digest: Digest | None = connection.scalar(select(t.c.late_observation).where(t.c.number == number))
        return digest

    def save_state(self, start_ms: int, state: WindowState) -> None:
        """Climb the ladder open, collected, agreed, held; a window that stands there or higher stays where it is."""
        with self._database.write() as connection:
            _raise_state(connection, start_ms, state)

    def load_etags(self, start_ms: int) -> Mapping[tuple[Address, StreamPart], str]:
        """Etags of complete answers: sent again, an unchanged answer costs a 304."""
        t = schema.etags
        query = select(t.c.broker, t.c.stream_id, t.c.partition, t.c.etag).where(t.c.window_start == start_ms)
        with self._database.read() as connection:
            return {(Address(b), (s, p)): etag for b, s, p, etag in connection.execute(query)}

    def save_etags(self, start_ms: int, etags: Mapping[tuple[Address, StreamPart], str]) -> None:
        """Keep the newest etag per broker and partition."""
        with self._database.write() as connection:
            for (broker, (stream_id, partition)), etag in etags.items():
                row = {"window_start": start_ms, "broker": broker, "stream_id": stream_id, "partition": partition}
                insert_or_replace(connection, schema.etags, {**row, "etag": etag})

    def forget_etags(self, start_ms: int) -> None:
        """The next pull asks for the whole window, whatever was there before."""
        t = schema.etags
        with self._database.write() as connection:
            connection.execute(delete(t).where(t.c.window_start == start_ms))

    def save_rejections(self, start_ms: int, rejections: Collection[Rejection]) -> None:
        """Distinct records are counted once per reason."""
        if not rejections:
            return
        with self._database.write() as connection:
            save_rejections(connection, start_ms, rejections, self._clock.now_ms())


_WINDOW = select(
    *(schema.windows.c[name] for name in ("start_ms", "end_ms", "epoch", "state", "observation", "bundle"))
)
_ONE_WINDOW = _WINDOW.where(schema.windows.c.start_ms == bindparam("at_start"))
_NEWEST_START = select(func.max(schema.windows.c.start_ms))
_UNDECIDED = (
    select(schema.windows.c.start_ms)
    .where(
        schema.windows.c.state.in_((WindowState.OPEN, WindowState.COLLECTED)),
        schema.windows.c.end_ms <= bindparam("at_ms"),
    )
    .order_by(schema.windows.c.start_ms)
    .limit(bindparam("at_most"))
)


def _window(row: Any) -> StoredWindow:
    window, state = Window(row.start_ms, row.end_ms), WindowState(row.state)
    return StoredWindow(window, row.epoch, state, row.observation, row.bundle)


def _raise_state(connection: Connection, start_ms: int, state: WindowState) -> None:
    t = schema.windows
    change = update(t).where(t.c.start_ms == start_ms, t.c.state.in_(states_below(state)))
    if connection.execute(change.values(state=state)).rowcount != 1:
        known = connection.scalar(select(t.c.state).where(t.c.start_ms == start_ms))
        if known is None:
            raise InvariantError(f"window {start_ms} was never opened")


def save_rejections(connection: Connection, start_ms: int, rejections: Iterable[Rejection], now_ms: int) -> None:
    """Keep each distinct (record, reason) once; beyond ``MAX_REJECTIONS`` per source and window, count only."""
    t = schema.rejections
    held: dict[Address, int] = {}
    beyond: Counter[tuple[Address, str]] = Counter()
    for sha, reason, source, detail in rejections:
        if source not in held:
            query = select(func.count()).where(t.c.source == source, t.c.window_start == start_ms)
            held[source] = connection.execute(query).scalar_one()
        if held[source] >= MAX_REJECTIONS:
            beyond[source, reason] += 1
            continue
        row = {
            "record_sha256": sha,
            "reason": reason,
            "source": source,
            "window_start": start_ms,
            "first_ms": now_ms,
            "detail": detail[:MAX_DETAIL],
        }
        held[source] += insert_new(connection, t, row)
    for (source, reason), count in beyond.items():
        _count_overflow(connection, source, start_ms, reason, count)


def _count_overflow(connection: Connection, source: Address, start_ms: int, reason: str, count: int) -> None:
    t = schema.rejection_overflows
    place = {"source": source, "window_start": start_ms, "reason": reason}
    if not insert_new(connection, t, {**place, "count": count}):
        condition = (t.c[name] == value for name, value in place.items())
        connection.execute(update(t).where(*condition).values(count=t.c.count + count))
