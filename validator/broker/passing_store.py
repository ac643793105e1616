"""A message store in front of another: everything goes straight on, and who adds something overrides it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from validator.ports.message_store import Columns, MessageStore, RangeState, SortKey, StoredRow
from validator.protocol.model import Digest, Record, StreamPart


class PassingStore:
    """Fulfils ``ports.MessageStore`` by ``store``."""

    def __init__(self, store: MessageStore) -> None:
        self._store = store

    def insert(self, records: Sequence[Record], arrived_ms: int) -> int:
        return self._store.insert(records, arrived_ms)

    def scan(
        self, part: StreamPart, from_ms: int, until_ms: int, *, after: SortKey | None = None, limit: int
    ) -> list[StoredRow]:
        return self._store.scan(part, from_ms, until_ms, after=after, limit=limit)

    def page(
        self, part: StreamPart, from_ms: int, until_ms: int, *, after: SortKey | None = None, limit: int
    ) -> Columns:
        return self._store.page(part, from_ms, until_ms, after=after, limit=limit)

    def last(self, part: StreamPart, count: int) -> list[StoredRow]:
        return self._store.last(part, count)

    def keys(self, part: StreamPart, from_ms: int, until_ms: int) -> Iterator[list[tuple[int, Digest]]]:
        return self._store.keys(part, from_ms, until_ms)

    def fetch(self, part: StreamPart, leaves: Sequence[tuple[int, Digest]]) -> list[StoredRow]:
        return self._store.fetch(part, leaves)

    def state(self, part: StreamPart, from_ms: int, until_ms: int) -> RangeState:
        return self._store.state(part, from_ms, until_ms)

    def parts(self) -> list[StreamPart]:
        return self._store.parts()

    def drop_days_before(self, ms: int) -> int:
        return self._store.drop_days_before(ms)
