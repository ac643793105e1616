"""A message store in memory: the port's words, and nothing more."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from validator.ports.message_store import Columns, RangeState, SortKey, StoredRow
from validator.protocol.model import Digest, Record, StreamPart

DAY_MS = 86_400_000


class MemoryMessageStore:
    def __init__(self) -> None:
        self._rows: dict[StreamPart, list[StoredRow]] = {}

    def insert(self, records: Sequence[Record], arrived_ms: int) -> int:
        new = 0
        for r in records:
            m = r.message
            key = SortKey(m.timestamp_ms, m.sequence_number, m.publisher_id, m.msg_chain_id, r.leaf)
            rows = self._rows.setdefault(m.stream_part, [])
            at = bisect_left(rows, key, key=lambda row: row.key)
            if at == len(rows) or rows[at].key != key:
                rows.insert(at, StoredRow(key, r.signed_digest, r.canonical, r.signed_bytes, arrived_ms))
                new += 1
        return new

    def scan(
        self, part: StreamPart, from_ms: int, until_ms: int, *, after: SortKey | None = None, limit: int
    ) -> list[StoredRow]:
        return [row for row in self._of(part, from_ms, until_ms) if after is None or row.key > after][:limit]

    def page(
        self, part: StreamPart, from_ms: int, until_ms: int, *, after: SortKey | None = None, limit: int
    ) -> Columns:
        return Columns.of_rows(self.scan(part, from_ms, until_ms, after=after, limit=limit))

    def last(self, part: StreamPart, count: int) -> list[StoredRow]:
        return self._rows.get(part, [])[-count:]

    def keys(self, part: StreamPart, from_ms: int, until_ms: int) -> Iterator[list[tuple[int, Digest]]]:
        if page := [(row.key.timestamp_ms, row.key.leaf) for row in self._of(part, from_ms, until_ms)]:
            yield page

    def fetch(self, part: StreamPart, leaves: Sequence[tuple[int, Digest]]) -> list[StoredRow]:
        found = []
        for timestamp_ms, leaf in set(leaves):
            found += [row for row in self._of(part, timestamp_ms, timestamp_ms + 1) if row.key.leaf == leaf]
        return sorted(found)

    def state(self, part: StreamPart, from_ms: int, until_ms: int) -> RangeState:
        rows = self._of(part, from_ms, until_ms)
        return RangeState(len(rows), max((row.arrived_ms for row in rows), default=0))

    def parts(self) -> list[StreamPart]:
        return sorted(part for part, rows in self._rows.items() if rows)

    def drop_days_before(self, ms: int) -> int:
        end_ms = ms - ms % DAY_MS
        days = {row.key.timestamp_ms // DAY_MS for rows in self._rows.values() for row in rows}
        for rows in self._rows.values():
            rows[:] = [row for row in rows if row.key.timestamp_ms >= end_ms]
        return len([day for day in days if (day + 1) * DAY_MS <= end_ms])

    def remove(self, part: StreamPart, leaf: Digest) -> None:
        """What no store does: for a broker that lies about what it has."""
        rows = self._rows[part]
        rows[:] = [row for row in rows if row.key.leaf != leaf]

    def _of(self, part: StreamPart, from_ms: int, until_ms: int) -> list[StoredRow]:
        rows = self._rows.get(part, [])
        start, end = (bisect_left(rows, ms, key=lambda row: row.key.timestamp_ms) for ms in (from_ms, until_ms))
        return rows[start:end]
