"""The messages of a broker in PostgreSQL (``ports.MessageStore``): one table, partitioned by UTC day.

A day's partition is made when its first message comes and dropped whole, as a day file is. Rows are found by (part,
timestamp, sequence number), which an index has in order; the rest of a sort key, which is too long for an index (the
largest public keys fill one alone), is sorted among the few rows that share a place. Pages are cut by key and by their
bytes, in the server: no cursor is open behind an answer, and neither side holds more than a page.

What comes in is one statement for some thousand rows, with the marks at their slices (``sums``). Rows are sorted, so
that two processes that take in the same messages wait for each other in one order and never in a circle.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from sys import byteorder
from typing import Any

import psycopg

from validator.broker.postgres.database import Cursor, Database
from validator.broker.postgres.schema import MIGRATION_LOCK
from validator.broker.store import DAY_MS, FETCH_LEAVES, KEYS_PAGE, LAST_DAY, PAGE_BYTES, day_of
from validator.ports.message_store import NO_ROWS, Columns, RangeState, SortKey, StoredRow
from validator.protocol.errors import TransientError
from validator.protocol.model import Digest, Record, StreamPart
from validator.protocol.slices import SLICE_MS

TOGETHER = 2048
TOGETHER_BYTES = 8 << 20
"""Rows of one statement at most, and their bytes."""
ATTEMPTS = 3
"""Of a statement that another one stood in the way of, or whose day is new."""

_KEY = "timestamp, sequence, publisher, chain, leaf"
_ROW = f"{_KEY}, identity, canonical, signed_bytes, arrived"
_PARTITION = "messages_day_"
_NEWEST_FIRST = "timestamp DESC, sequence DESC, publisher DESC, chain DESC, leaf DESC"
_SPAN = "part = %s AND timestamp >= %s AND timestamp < %s"
_BEHIND = f"{_SPAN} AND (timestamp, sequence) >= (%s, %s) AND ({_KEY}) > (%s, %s, %s, %s, %s)"
_INSERT = """
WITH made AS (
  INSERT INTO messages (part, sequence, timestamp, signed_bytes, publisher, chain, leaf, identity, canonical, arrived)
  SELECT *, %b::bigint FROM unnest(
    %b::int[], %b::int[], %b::bigint[], %b::int[], %b::bytea[], %b::bytea[], %b::bytea[], %b::bytea[], %b::bytea[])
  ON CONFLICT DO NOTHING RETURNING part, timestamp),
known AS (
  INSERT INTO day_parts SELECT DISTINCT least(timestamp / 86400000, 2900000), part FROM made ORDER BY 1, 2
  ON CONFLICT DO NOTHING),
marks AS (
  INSERT INTO touched (start, part) SELECT DISTINCT timestamp - mod(timestamp, %b::bigint), part FROM made)
SELECT count(*) FROM made
"""
_FETCH = f"""
SELECT found.* FROM unnest(%b::bigint[], %b::bytea[]) AS wanted (timestamp, leaf), LATERAL (
  SELECT {_ROW} FROM messages m WHERE m.part = %b AND m.timestamp = wanted.timestamp AND m.leaf = wanted.leaf
  OFFSET 0) AS found
"""
"""The offset keeps the planner from a join that reads a partition's whole past for a few rows."""
_COLUMNS = """string_agg(canonical, ''), string_agg(int4send(octet_length(canonical)), ''),
  string_agg(leaf, ''), string_agg(int8send(timestamp), ''), sum(signed_bytes)::bigint"""


class PostgresMessageStore:
    """Thread-safe; any number of processes on any number of machines may use one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._numbers: dict[StreamPart, int] = {}
        """Of parts, which keep theirs for ever."""

    # --- what comes in

    def insert(self, records: Sequence[Record], arrived_ms: int) -> int:
        numbers = self._number_parts({record.message.stream_part for record in records})
        rows = sorted([_values(numbers, record) for record in records], key=_place)
        new = 0
        for batch in _batches(rows):
            new += self._insert(batch, arrived_ms)
        return new

    def _insert(self, rows: Sequence[tuple[Any, ...]], arrived_ms: int) -> int:
        columns = [list(column) for column in zip(*rows, strict=True)]
        for attempt in range(ATTEMPTS):
            try:
                with self._database.use() as cursor:
                    return int(_one(cursor.execute(_INSERT, (arrived_ms, *columns, SLICE_MS)))[0])
            except psycopg.errors.CheckViolation:  # no partition for a row
                self._make_days({day_of(timestamp) for timestamp in columns[2]})
            except TransientError as error:
                if attempt + 1 == ATTEMPTS or not isinstance(error.__cause__, psycopg.errors.DeadlockDetected):
                    raise
        raise TransientError("the database: a day that was made is gone again", reason="database")

    def _number_parts(self, parts: set[StreamPart]) -> dict[StreamPart, int]:
        missing = sorted(part for part in parts if part not in self._numbers)
        if missing:
            values = [(stream_id.encode(), partition) for stream_id, partition in missing]
            with self._database.transaction() as cursor:
                cursor.executemany(
                    "INSERT INTO parts (stream_id, partition) VALUES (%s, %s) ON CONFLICT DO NOTHING", values
                )
            for part in missing:
                self._number(part)
        return {part: self._numbers[part] for part in parts}

    def _number(self, part: StreamPart) -> int | None:
        number = self._numbers.get(part)
        if number is None:
            with self._database.use() as cursor:
                found = cursor.execute(
                    "SELECT id FROM parts WHERE stream_id = %s AND partition = %s", (part[0].encode(), part[1])
                ).fetchone()
            if found is not None:
                number = self._numbers[part] = int(found[0])
        return number

    # --- what goes out

    def scan(
        self, part: StreamPart, from_ms: int, until_ms: int, *, after: SortKey | None = None, limit: int
    ) -> list[StoredRow]:
        return [_stored(row) for row in self._read(_ROW, _ROW, part, from_ms, until_ms, after, limit)]

    def page(
        self, part: StreamPart, from_ms: int, until_ms: int, *, after: SortKey | None = None, limit: int
    ) -> Columns:
        found = self._read(_COLUMNS, f"{_KEY}, canonical, signed_bytes", part, from_ms, until_ms, after, limit)
        return _columns(found[0]) if found else NO_ROWS

    def _read(
        self,
        wanted: str,
        columns: str,
        part: StreamPart,
        from_ms: int,
        until_ms: int,
        after: SortKey | None,
        limit: int,
    ) -> list[Any]:
        """``wanted`` of the rows of one page, of each of which it can have ``columns``."""
        number = self._number(part)
        if number is None or until_ms <= from_ms:
            return []
        where, bounds = _bounds(number, from_ms, until_ms, after)
        with self._database.use() as cursor:
            return cursor.execute(_page(wanted, columns, where, _KEY), (*bounds, limit, PAGE_BYTES)).fetchall()

    def last(self, part: StreamPart, count: int) -> list[StoredRow]:
        number = self._number(part)
        if number is None:
            return []
        with self._database.use() as cursor:
            found = cursor.execute(
                _page(_ROW, _ROW, "part = %s", _NEWEST_FIRST), (number, count, PAGE_BYTES)
            ).fetchall()
        return [_stored(row) for row in reversed(found)]

    def keys(self, part: StreamPart, from_ms: int, until_ms: int) -> Iterator[list[tuple[int, Digest]]]:
        number = self._number(part)
        if number is None or until_ms <= from_ms:
            return
        after: SortKey | None = None
        while True:
            where, bounds = _bounds(number, from_ms, until_ms, after)
            query = f"SELECT {_KEY} FROM messages WHERE {where} ORDER BY {_KEY} LIMIT %s"
            with self._database.use() as cursor:
                found = cursor.execute(query, (*bounds, KEYS_PAGE)).fetchall()
            if found:
                yield [(row[0], row[4]) for row in found]
            if len(found) < KEYS_PAGE:
                return
            after = _key(found[-1])

    def fetch(self, part: StreamPart, leaves: Sequence[tuple[int, Digest]]) -> list[StoredRow]:
        number, wanted = self._number(part), sorted(set(leaves))
        if number is None:
            return []
        rows: list[StoredRow] = []
        for at in range(0, len(wanted), FETCH_LEAVES):
            some = wanted[at : at + FETCH_LEAVES]
            with self._database.use() as cursor:
                found = cursor.execute(_FETCH, ([ms for ms, _ in some], [leaf for _, leaf in some], number))
                rows += [_stored(row) for row in found]
        return sorted(rows)

    def state(self, part: StreamPart, from_ms: int, until_ms: int) -> RangeState:
        number = self._number(part)
        if number is None or until_ms <= from_ms:
            return RangeState(0, 0)
        with self._database.use() as cursor:
            found = cursor.execute(
                f"SELECT count(*), coalesce(max(arrived), 0) FROM messages WHERE {_SPAN}", (number, from_ms, until_ms)
            )
            return RangeState(*_one(found))

    def parts(self) -> list[StreamPart]:
        with self._database.use() as cursor:
            found = cursor.execute(
                "SELECT stream_id, partition FROM parts WHERE id IN (SELECT part FROM day_parts)"
            ).fetchall()
        return sorted((stream_id.decode(), partition) for stream_id, partition in found)

    # --- days

    def drop_days_before(self, ms: int) -> int:
        old = [day for day in self.days() if (day + 1) * DAY_MS <= ms]
        for day in old:
            with self._database.transaction() as cursor:
                cursor.execute(f"DROP TABLE IF EXISTS {_partition(day)}")
                cursor.execute("DELETE FROM day_parts WHERE day = %s", (day,))
        return len(old)

    def days(self) -> list[int]:
        """Days since 1970 that have a partition, oldest first."""
        with self._database.use() as cursor:
            found = cursor.execute(
                "SELECT relname::text FROM pg_inherits JOIN pg_class ON oid = inhrelid "
                "WHERE inhparent = 'messages'::regclass"
            ).fetchall()
        return sorted(int(name.removeprefix(_PARTITION)) for (name,) in found)

    def _make_days(self, days: set[int]) -> None:
        """Partitions, unless they are there. Attaching one waits for no reader and no writer of others."""
        for day in sorted(days):
            until = "MAXVALUE" if day == LAST_DAY else str((day + 1) * DAY_MS)
            name = _partition(day)
            with self._database.transaction() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))
                if _one(cursor.execute("SELECT to_regclass(%s) IS NULL", (name,)))[0]:
                    cursor.execute(f"CREATE TABLE {name} (LIKE messages INCLUDING STORAGE)")
                    cursor.execute(
                        f"ALTER TABLE messages ATTACH PARTITION {name} FOR VALUES FROM ({day * DAY_MS}) TO ({until})"
                    )


def _page(wanted: str, columns: str, where: str, order: str) -> str:
    """Rows in order until a limit, or until their bytes reach another; one at least."""
    return f"""
SELECT {wanted} FROM (
  SELECT *, sum(octet_length(canonical)) OVER (ROWS UNBOUNDED PRECEDING) AS reached
  FROM (SELECT {columns} FROM messages WHERE {where} ORDER BY {order} LIMIT %s) AS chosen) AS page
WHERE reached - octet_length(canonical) < %s"""


def _bounds(number: int, from_ms: int, until_ms: int, after: SortKey | None) -> tuple[str, tuple[Any, ...]]:
    """Condition and its values. The index finds the place; the rest of the key is compared in its rows alone."""
    if after is None or after.timestamp_ms < from_ms:
        return _SPAN, (number, from_ms, until_ms)
    key = (after.timestamp_ms, after.sequence_number, after.publisher_id, after.msg_chain_id.encode(), after.leaf)
    return _BEHIND, (number, after.timestamp_ms, until_ms, *key[:2], *key)


def _partition(day: int) -> str:
    return f"{_PARTITION}{day}"


def _values(numbers: dict[StreamPart, int], record: Record) -> tuple[Any, ...]:
    m = record.message
    return (
        numbers[m.stream_part],
        m.sequence_number,
        m.timestamp_ms,
        record.signed_bytes,
        m.publisher_id,
        m.msg_chain_id.encode(),
        record.leaf,
        record.signed_digest,
        record.canonical,
    )


def _place(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The order in which every process inserts."""
    return values[0], values[2], values[1], values[6]


def _batches(rows: Sequence[tuple[Any, ...]]) -> Iterator[Sequence[tuple[Any, ...]]]:
    begin = size = 0
    for number, row in enumerate(rows):
        size += len(row[8])
        if number + 1 - begin == TOGETHER or size >= TOGETHER_BYTES:
            yield rows[begin : number + 1]
            begin, size = number + 1, 0
    if begin < len(rows):
        yield rows[begin:]


def _one(cursor: Cursor) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None = cursor.fetchone()
    assert row is not None
    return row


def _key(row: Sequence[Any]) -> SortKey:
    return SortKey(row[0], row[1], row[2], row[3].decode(), row[4])


def _stored(row: Sequence[Any]) -> StoredRow:
    return StoredRow(_key(row), *row[5:])


def _columns(row: Sequence[Any]) -> Columns:
    canonical, sizes, leaves, times, signed_bytes = row
    if canonical is None:
        return NO_ROWS
    return Columns(canonical, _numbers("i", sizes), leaves, _numbers("q", times), signed_bytes)


def _numbers(code: str, data: bytes) -> list[int]:
    """Of what the server has joined, its high bytes first."""
    numbers = array(code, data)
    if byteorder == "little":
        numbers.byteswap()
    return numbers.tolist()
