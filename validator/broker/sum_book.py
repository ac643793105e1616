"""The sums of one machine, in a small SQLite file beside the day files (``ports.broker_state.SumBook``)."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence

from validator.ports.broker_state import Mark, Node
from validator.protocol.model import Root
from validator.protocol.slices import SLICE_MS, Sum

_SCHEMA = """
create table if not exists sums (length integer, start integer, count integer, root blob, primary key (length, start))
    without rowid;
create table if not exists open (start integer primary key);
create table if not exists meta (name text primary key, value integer);
"""
_LOOKED = "looked_from"


class SqliteSums:
    """Thread-safe; ``:memory:`` is a path too. A slice that is marked may have changed in any partition."""

    keeps_marks = False

    def __init__(self, path: str) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("pragma journal_mode = wal")
        self._db.execute("pragma synchronous = normal")
        self._db.executescript(_SCHEMA)

    def mark(self, starts: Iterable[int]) -> None:
        with self._lock:
            self._db.executemany("insert or ignore into open values (?)", [(start,) for start in starts])

    def marks(self) -> list[Mark]:
        with self._lock:
            return [Mark(start, None, 0) for (start,) in self._db.execute("select start from open").fetchall()]

    def settle(self, node: Sum, marks: Collection[int], stale: Sequence[Node]) -> bool:
        del marks
        with self._lock:
            self._db.execute("begin")
            try:
                self._write(node)
                self._forget(stale)
                self._db.execute("commit")
            except BaseException:
                self._db.rollback()
                raise
        return True

    def unmark(self, start_ms: int) -> None:
        with self._lock:
            self._db.execute("delete from open where start = ?", (start_ms,))

    def load(self, nodes: Sequence[Node]) -> Mapping[Node, Sum]:
        found: dict[Node, Sum] = {}
        query = "select count, root from sums where length = ? and start = ?"
        with self._lock:
            for start, length in nodes:
                if (row := self._db.execute(query, (length, start)).fetchone()) is not None:
                    found[start, length] = Sum(start, length, row[0], Root(row[1]))
        return found

    def filled(self, nodes: Sequence[Node]) -> set[Node]:
        query = "select 1 from sums where length = ? and start >= ? and start < ? limit 1"
        with self._lock:
            return {
                (start, length)
                for start, length in nodes
                if self._db.execute(query, (SLICE_MS, start, start + length)).fetchone() is not None
            }

    def write(self, node: Sum) -> None:
        with self._lock:
            self._write(node)

    def _write(self, node: Sum) -> None:
        key = (node.length_ms, node.start_ms)
        if node.count:
            self._db.execute("insert or replace into sums values (?, ?, ?, ?)", (*key, node.count, node.root))
        else:
            self._forget([(node.start_ms, node.length_ms)])

    def _forget(self, nodes: Sequence[Node]) -> None:
        self._db.executemany(
            "delete from sums where length = ? and start = ?", [(length, start) for start, length in nodes]
        )

    def newest_slice(self) -> int | None:
        with self._lock:
            found = self._db.execute("select max(start) from sums where length = ?", (SLICE_MS,)).fetchone()
        return None if found[0] is None else int(found[0])

    def looked_from(self) -> int | None:
        with self._lock:
            found = self._db.execute("select value from meta where name = ?", (_LOOKED,)).fetchone()
        return None if found is None else int(found[0])

    def note_looked_from(self, ms: int) -> None:
        with self._lock:
            self._db.execute("insert or replace into meta values (?, ?)", (_LOOKED, ms))

    def drop_before(self, ms: int) -> None:
        with self._lock:
            self._db.execute("delete from sums where start < ?", (ms,))
            self._db.execute("delete from open where start < ?", (ms,))

    def close(self) -> None:
        with self._lock:
            self._db.close()
