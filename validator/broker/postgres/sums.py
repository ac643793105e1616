"""The sums of all machines (``ports.broker_state.SumBook``).

Who stores messages marks their slices in the same transaction.
So a mark is there exactly as long as there is something that the sum may not have: whoever sums a slice takes away the
marks it saw before, and never one that came meanwhile, nor one of a process that died. Should two processes sum one
slice (the lead has just passed), the second finds a mark taken away and leaves what the first wrote.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import psycopg

from validator.broker.postgres.database import Cursor, Database
from validator.ports.broker_state import Mark, Node
from validator.protocol.model import Root
from validator.protocol.slices import SLICE_MS, Sum

MARKS = 100_000
"""Read at a time, of the newest slices first; after a time without anybody who sums there are more."""
_NODES = "unnest(%b::bigint[], %b::bigint[]) AS n (start, length)"


class PostgresSums:
    """Thread-safe."""

    keeps_marks = True

    def __init__(self, database: Database) -> None:
        self._database = database

    def mark(self, starts: Iterable[int]) -> None:
        """The message store does."""

    def marks(self) -> list[Mark]:
        query = """SELECT t.start, p.stream_id, p.partition, t.id FROM touched t JOIN parts p ON p.id = t.part
          ORDER BY t.start DESC LIMIT %b"""
        with self._database.use() as cursor:
            found = cursor.execute(query, (MARKS,)).fetchall()
        return [Mark(start, (stream_id.decode(), partition), number) for start, stream_id, partition, number in found]

    def settle(self, node: Sum, marks: Collection[int], stale: Sequence[Node]) -> bool:
        with self._database.transaction() as cursor:
            cursor.execute(
                "DELETE FROM touched WHERE start = %b AND id = ANY(%b::bigint[])", (node.start_ms, sorted(marks))
            )
            if cursor.rowcount != len(marks):
                raise psycopg.Rollback
            _write(cursor, node)
            _forget(cursor, stale)
            return True
        return False

    def unmark(self, start_ms: int) -> None:
        """``settle`` does."""

    def load(self, nodes: Sequence[Node]) -> Mapping[Node, Sum]:
        query = f"""SELECT n.start, n.length, found.count, found.root FROM {_NODES}, LATERAL (
          SELECT count, root FROM sums s WHERE s.length = n.length AND s.start = n.start OFFSET 0) AS found"""
        with self._database.use() as cursor:
            found = cursor.execute(query, _columns(nodes)).fetchall()
        return {(start, length): Sum(start, length, count, Root(root)) for start, length, count, root in found}

    def filled(self, nodes: Sequence[Node]) -> set[Node]:
        query = f"""SELECT n.start, n.length FROM {_NODES} WHERE EXISTS (
          SELECT 1 FROM sums s WHERE s.length = %b AND s.start >= n.start AND s.start < n.start + n.length)"""
        with self._database.use() as cursor:
            return set(cursor.execute(query, (*_columns(nodes), SLICE_MS)).fetchall())

    def write(self, node: Sum) -> None:
        with self._database.use() as cursor:
            _write(cursor, node)

    def newest_slice(self) -> int | None:
        with self._database.use() as cursor:
            found = cursor.execute("SELECT max(start) FROM sums WHERE length = %b", (SLICE_MS,)).fetchone()
        return None if found is None else found[0]

    def looked_from(self) -> int | None:
        with self._database.use() as cursor:
            found = cursor.execute("SELECT looked_from FROM broker_owner").fetchone()
        return None if found is None else found[0]

    def note_looked_from(self, ms: int) -> None:
        with self._database.use() as cursor:
            cursor.execute("UPDATE broker_owner SET looked_from = %b", (ms,))

    def drop_before(self, ms: int) -> None:
        with self._database.use() as cursor:
            cursor.execute("DELETE FROM sums WHERE start < %b", (ms,))
            cursor.execute("DELETE FROM touched WHERE start < %b", (ms,))

    def close(self) -> None:
        """The connections are the database's."""


def _columns(nodes: Sequence[Node]) -> tuple[list[int], list[int]]:
    return [start for start, _ in nodes], [length for _, length in nodes]


def _write(cursor: Cursor, node: Sum) -> None:
    if not node.count:
        _forget(cursor, [(node.start_ms, node.length_ms)])
        return
    cursor.execute(
        "INSERT INTO sums VALUES (%b, %b, %b, %b) "
        "ON CONFLICT (length, start) DO UPDATE SET count = excluded.count, root = excluded.root",
        (node.length_ms, node.start_ms, node.count, node.root),
    )


def _forget(cursor: Cursor, nodes: Sequence[Node]) -> None:
    for start, length in nodes:
        cursor.execute("DELETE FROM sums WHERE length = %b AND start = %b", (length, start))
