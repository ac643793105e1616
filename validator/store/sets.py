"""Sets of messages: a file each (segments.py), and a row that says which are whole and durable."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from sqlalchemy import delete, select

from validator.codec.message import record_from_canonical
from validator.errors import MalformedInput
from validator.model import Digest, PartitionEntry, Record, Root, StreamPart
from validator.ports import Clock, SetPage
from validator.store import schema
from validator.store.database import Database
from validator.store.rows import insert_new
from validator.store.segments import DamagedSegment, SegmentInfo, SegmentStore


class SetRows:
    """The port ``Sets``. A damaged file is forgotten and raised as DamagedSegment, so the set can be obtained again."""

    def __init__(self, database: Database, segments: SegmentStore, clock: Clock) -> None:
        self._database = database
        self._segments = segments
        self._clock = clock

    def save_set(self, set_root: Root, records: Sequence[Record]) -> None:
        """File first, then the row; saving one that is there changes nothing."""
        if self.has_set(set_root):
            return
        self._note(set_root, self._segments.save(set_root, records))

    def save_ordered(self, pages: Iterable[SetPage]) -> tuple[PartitionEntry, ...]:
        """The same for messages that come in canonical order and need not fit in memory; returns the set's entries."""
        saved = self._segments.save_ordered(pages)
        self._note(saved.set_root, saved.info)
        return saved.entries

    def _note(self, set_root: Root, info: SegmentInfo) -> None:
        row = {
            "set_root": set_root,
            "count": info.count,
            "signed_bytes": info.signed_bytes,
            "size": info.size,
            "newest_ms": info.newest_ms,
            "saved_ms": self._clock.now_ms(),
        }
        with self._database.write() as connection:
            insert_new(connection, schema.sets, row)

    def has_set(self, set_root: Root) -> bool:
        t = schema.sets
        with self._database.read() as connection:
            return connection.scalar(select(t.c.count).where(t.c.set_root == set_root)) is not None

    def load_records(self, set_root: Root) -> list[Record]:
        """All records in canonical order. Raises DamagedSegment: not here, or not what was saved."""
        return list(self.iterate(set_root))

    def iterate(self, set_root: Root) -> Iterator[Record]:
        """The same one by one, for sets that need not fit in memory; each record's leaf is that of the index."""
        with self._watched(set_root):
            leaves = {leaf for ids in self._segments.load_index(set_root).values() for _, leaf in ids}
            for data in self._segments.load_set(set_root):
                try:
                    record = record_from_canonical(data)
                except MalformedInput as error:
                    raise DamagedSegment(f"set {set_root.hex()}: {error}", set_root=set_root.hex()) from error
                if record.leaf not in leaves:
                    raise DamagedSegment(f"set {set_root.hex()}: a message was altered", set_root=set_root.hex())
                yield record

    def load_entries(self, set_root: Root) -> tuple[PartitionEntry, ...] | None:
        """Entries with flags zero; None if the set is not here."""
        if not self.has_set(set_root):
            return None
        with self._watched(set_root):
            return self._segments.load_entries(set_root)

    def load_index(self, set_root: Root) -> Mapping[StreamPart, Sequence[tuple[int, Digest]]] | None:
        """(timestamp_ms, leaf) of every record by partition, sorted; None if the set is not here."""
        if not self.has_set(set_root):
            return None
        with self._watched(set_root):
            return self._segments.load_index(set_root)

    def load_messages(self, set_root: Root, leaves: Sequence[Digest]) -> list[bytes] | None:
        """Canonical messages in the order asked for; None if the set is not here."""
        if not self.has_set(set_root):
            return None
        with self._watched(set_root):
            return self._segments.load_messages(set_root, leaves)

    def old_sets(self, before_ms: int, limit: int) -> list[Root]:
        """Sets whose newest message and whose saving both lie before a time, oldest first; never the empty set."""
        t = schema.sets
        query = select(t.c.set_root).where(t.c.newest_ms < before_ms, t.c.saved_ms < before_ms, t.c.count > 0)
        with self._database.read() as connection:
            return [Root(root) for root in connection.scalars(query.order_by(t.c.newest_ms).limit(limit))]

    def delete_set(self, set_root: Root) -> None:
        """Row first, then the file: a crash in between leaves a file that the next saving replaces."""
        with self._database.write() as connection:
            connection.execute(delete(schema.sets).where(schema.sets.c.set_root == set_root))
        self._segments.delete(set_root)

    @contextlib.contextmanager
    def _watched(self, set_root: Root) -> Iterator[None]:
        try:
            yield
        except DamagedSegment:
            self.delete_set(set_root)
            raise
