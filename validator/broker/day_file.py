"""One SQLite file of a broker: the messages of one UTC day in one shard.

    parts     id, stream id, partition
    messages  part, timestamp, sequence number, publisher, chain id, leaf, identity, canonical bytes, signed bytes,
              arrival; unique by part and sort key, which is the order of every answer

Rows are only ever added, so a row number (in every index entry) grows with arrival, and a count names a state. The
index covers places and leaves: what repair compares never reads a body. Text compares by its UTF-8 bytes, as canonical
order does. Write-ahead logging: readers see a committed state while one writer, in whichever process, adds to it.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from queue import Empty, LifoQueue
from typing import Any, TypeVar

import msgspec

from validator.ports.message_store import NO_ROWS, Columns, SortKey, StoredRow
from validator.protocol.errors import TransientError
from validator.protocol.model import Digest, Record, StreamPart

BUSY_S = 10.0
"""How long a writer waits for another process's."""
CACHE_KIB = 2048
"""Pages in memory, of each connection."""
CHECKPOINT_PAGES = 1000
LOG_BYTES = 64 << 20
"""What is left of a log file that grew beyond it."""
FILE_PAGE_BYTES = 16_384
"""Of files that are made from now on: some 25 messages; a quarter of that takes a sixth longer to write."""
TOGETHER = 32
"""Rows of one statement: the interpreter's lock changes hands with each."""
PAGE_BYTES = 4 << 20
"""Canonical bytes of a page in columns at most; no value that a reader handles is longer."""
POOLED = 4
"""Idle readers kept; more are closed after use."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS parts (
  id INTEGER PRIMARY KEY, stream_id TEXT NOT NULL, partition INTEGER NOT NULL, UNIQUE (stream_id, partition));
CREATE TABLE IF NOT EXISTS messages (
  part INTEGER NOT NULL, timestamp INTEGER NOT NULL, sequence INTEGER NOT NULL, publisher BLOB NOT NULL,
  chain TEXT NOT NULL, leaf BLOB NOT NULL, identity BLOB NOT NULL, canonical BLOB NOT NULL,
  signed_bytes INTEGER NOT NULL, arrived INTEGER NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS places ON messages (part, timestamp, sequence, publisher, chain, leaf);
"""
_MARKS = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_KEY = "timestamp, sequence, publisher, chain, leaf"
_ROW = f"{_KEY}, identity, canonical, signed_bytes, arrived"
_COLUMNS = """cast(group_concat(canonical, '') AS BLOB), group_concat(length(canonical)),
  cast(group_concat(leaf, '') AS BLOB), group_concat(timestamp), sum(signed_bytes)"""
"""Joined by SQLite, in the order of the rows that it is given: the interpreter waits once for a page, not for each row,
and in between other threads would have had their turn."""
_SPAN = "part = ? AND timestamp >= ? AND timestamp < ?"
_BEHIND = f"part = ? AND ({_KEY}) > (?, ?, ?, ?, ?) AND timestamp < ?"
_read_numbers = msgspec.json.Decoder(list[int]).decode
"""A fifth of what ``int`` takes for each."""
Place = tuple[int, int, bytes, str, Digest]
T = TypeVar("T")


class DayFile:
    """Thread-safe. One connection writes, a few read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writing = threading.Lock()
        self._writer: sqlite3.Connection | None = None
        self._readers: LifoQueue[sqlite3.Connection] = LifoQueue(POOLED)
        self._parts: dict[StreamPart, int] = {}
        self._closed = False

    # --- what comes in

    def insert(self, records: Sequence[Record], arrived_ms: int) -> int:
        """How many were new; all are committed. Raises TransientError."""
        with self._writing, _translated(self.path):
            connection = self._connect_writer()
            before = connection.total_changes
            try:
                connection.execute("BEGIN IMMEDIATE")
                numbers = self._number_parts(connection, {record.message.stream_part for record in records})
                made = connection.total_changes - before
                for at in range(0, len(records), TOGETHER):
                    rows = [_values(numbers, record, arrived_ms) for record in records[at : at + TOGETHER]]
                    marks = ", ".join((_MARKS,) * len(rows))
                    connection.execute(
                        f"INSERT OR IGNORE INTO messages (part, {_ROW}) VALUES {marks}", [*chain.from_iterable(rows)]
                    )
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.rollback()
                raise
            self._parts.update(numbers)
            return connection.total_changes - before - made

    def _number_parts(self, connection: sqlite3.Connection, parts: set[StreamPart]) -> dict[StreamPart, int]:
        """Numbers of these partitions, new ones made. They are remembered once committed."""
        numbers = {}
        for part in parts:
            number = self._parts.get(part)
            if number is None:
                connection.execute("INSERT OR IGNORE INTO parts (stream_id, partition) VALUES (?, ?)", part)
                number = _part_number(connection, part)
                assert number is not None
            numbers[part] = number
        return numbers

    def _connect_writer(self) -> sqlite3.Connection:
        if self._closed:
            raise TransientError(f"{self.path.name}: closed", reason="closed")
        if self._writer is None or not self.path.exists():
            _make(self.path)
            self._parts = {}
            connection = _connect(self.path)
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(f"PRAGMA cache_size=-{4 * CACHE_KIB}")
            connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
            connection.execute(f"PRAGMA journal_size_limit={LOG_BYTES}")
            self._writer = connection
        return self._writer

    # --- what goes out

    def scan(
        self,
        part: StreamPart,
        from_ms: int,
        until_ms: int,
        *,
        after: SortKey | None,
        limit: int,
        limit_bytes: int,
    ) -> list[StoredRow]:
        where, bounds = _bounds(from_ms, until_ms, after)
        query = f"SELECT {_ROW} FROM messages WHERE {where} ORDER BY {_KEY} LIMIT ?"
        return self._read(part, [], lambda c, number: _page(c.execute(query, (number, *bounds, limit)), limit_bytes))

    def page(
        self, part: StreamPart, from_ms: int, until_ms: int, *, after: SortKey | None, limit: int
    ) -> Columns | None:
        """The same rows in columns; None where they are more than ``PAGE_BYTES``."""
        where, bounds = _bounds(from_ms, until_ms, after)
        rows = f"SELECT timestamp, leaf, canonical, signed_bytes FROM messages WHERE {where} ORDER BY {_KEY} LIMIT ?"
        query = f"SELECT {_COLUMNS} FROM ({rows})"
        try:
            return self._read(
                part, NO_ROWS, lambda c, number: _columns(c.execute(query, (number, *bounds, limit)).fetchone())
            )
        except sqlite3.DataError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_TOOBIG:
                return None
            raise

    def last(self, part: StreamPart, count: int, limit_bytes: int) -> list[StoredRow]:
        """Newest first."""
        order = ", ".join(f"{name} DESC" for name in _KEY.split(", "))
        query = f"SELECT {_ROW} FROM messages WHERE part = ? ORDER BY {order} LIMIT ?"
        return self._read(part, [], lambda c, number: _page(c.execute(query, (number, count)), limit_bytes))

    def places(self, part: StreamPart, from_ms: int, until_ms: int, *, after: Place | None, limit: int) -> list[Place]:
        """Sort keys from the index alone."""
        where, bounds = _bounds(from_ms, until_ms, after)
        query = f"SELECT {_KEY} FROM messages WHERE {where} ORDER BY {_KEY} LIMIT ?"
        return self._read(part, [], lambda c, number: c.execute(query, (number, *bounds, limit)).fetchall())

    def fetch(self, part: StreamPart, timestamp_ms: int, leaves: Sequence[Digest]) -> list[StoredRow]:
        marks = ", ".join("?" * len(leaves))
        query = f"SELECT {_ROW} FROM messages WHERE part = ? AND timestamp = ? AND leaf IN ({marks}) ORDER BY {_KEY}"
        return self._read(
            part, [], lambda c, number: [_stored(row) for row in c.execute(query, (number, timestamp_ms, *leaves))]
        )

    def state(self, part: StreamPart, from_ms: int, until_ms: int) -> tuple[int, int]:
        """Count, and arrival of the newest row."""

        def look(connection: sqlite3.Connection, number: int) -> tuple[int, int]:
            counted = f"SELECT count(*), max(rowid) FROM messages INDEXED BY places WHERE {_SPAN}"
            count, newest = connection.execute(counted, (number, from_ms, until_ms)).fetchone()
            if not count:
                return 0, 0
            arrived = connection.execute("SELECT arrived FROM messages WHERE rowid = ?", (newest,)).fetchone()
            return count, arrived[0]

        return self._read(part, (0, 0), look)

    def parts(self) -> list[StreamPart]:
        with _translated(self.path), self._reader() as connection:
            return connection.execute("SELECT stream_id, partition FROM parts").fetchall()

    def _read(self, part: StreamPart, nothing: T, look: Callable[[sqlite3.Connection, int], T]) -> T:
        """What ``look`` finds of a partition; ``nothing`` where the file holds none of it."""
        with _translated(self.path), self._reader() as connection:
            number = self._parts.get(part)
            if number is None:
                number = _part_number(connection, part)
                if number is None:
                    return nothing
                self._parts[part] = number
            return look(connection, number)

    @contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = self._readers.get_nowait()
        except Empty:
            connection = _connect(self.path)
            connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
            connection.execute("PRAGMA query_only=ON")
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, PAGE_BYTES)
        try:
            yield connection
        finally:
            if self._closed or self._readers.full():
                connection.close()
            else:
                self._readers.put(connection)

    def close(self) -> None:
        """Readers under way end first; a closed file takes no more records."""
        with self._writing:
            self._closed = True
            if self._writer is not None:
                self._writer.close()
                self._writer = None
        while True:
            try:
                self._readers.get_nowait().close()
            except Empty:
                return

    def delete(self) -> None:
        """Close, and unlink with log and shared memory. Another process's readers keep what they have open."""
        self.close()
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)


def _make(path: Path) -> None:
    """The empty file, unless it is there: whole from its first moment, so that no reader finds one without tables."""
    if path.exists():
        return
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    fresh.unlink(missing_ok=True)
    connection = sqlite3.connect(fresh, isolation_level=None)
    try:
        connection.execute(f"PRAGMA page_size={FILE_PAGE_BYTES}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(_SCHEMA)
    finally:
        connection.close()
    with suppress(FileExistsError):
        os.link(fresh, path)
    fresh.unlink()


def _connect(path: Path) -> sqlite3.Connection:
    """Never makes a file: one that another process has dropped stays dropped."""
    address = f"{path.absolute().as_uri()}?mode=rw"
    return sqlite3.connect(address, BUSY_S, isolation_level=None, check_same_thread=False, uri=True)


def _bounds(from_ms: int, until_ms: int, after: Place | None) -> tuple[str, tuple[Any, ...]]:
    """Condition and its values, behind the partition's number."""
    if after is None or after[0] < from_ms:
        return _SPAN, (from_ms, until_ms)
    return _BEHIND, (*after, until_ms)


def _values(numbers: dict[StreamPart, int], record: Record, arrived_ms: int) -> tuple[Any, ...]:
    m = record.message
    return (
        numbers[m.stream_id, m.partition],
        m.timestamp_ms,
        m.sequence_number,
        m.publisher_id,
        m.msg_chain_id,
        record.leaf,
        record.signed_digest,
        record.canonical,
        record.signed_bytes,
        arrived_ms,
    )


def _part_number(connection: sqlite3.Connection, part: StreamPart) -> int | None:
    found = connection.execute("SELECT id FROM parts WHERE stream_id = ? AND partition = ?", part).fetchone()
    return None if found is None else int(found[0])


def _stored(row: tuple[Any, ...]) -> StoredRow:
    return StoredRow(SortKey(*row[:5]), *row[5:])


def _columns(row: tuple[Any, ...]) -> Columns:
    canonical, sizes, leaves, times, signed_bytes = row
    if canonical is None:
        return NO_ROWS
    return Columns(canonical, _numbers(sizes), leaves, _numbers(times), signed_bytes)


def _numbers(text: str | int) -> list[int]:
    return _read_numbers(f"[{text}]")


def _page(cursor: sqlite3.Cursor, limit_bytes: int) -> list[StoredRow]:
    """Rows until their bytes reach the limit; one at least."""
    rows: list[StoredRow] = []
    size = 0
    for row in cursor:
        rows.append(_stored(row))
        size += len(row[6])
        if size >= limit_bytes:
            break
    cursor.close()
    return rows


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """SQLite's operational errors (disk full, busy, no such file any more) as ours."""
    try:
        yield
    except sqlite3.OperationalError as error:
        code = getattr(error, "sqlite_errorname", "") or "SQLITE_ERROR"
        raise TransientError(f"{path.name}: {error}", reason=code) from error
