"""Sets of messages: a file each (segments.py), and a row that says which are whole and durable.

Of a set there are three answers. *Held*: its row is there. *Not held*: it is not. *Damaged*: it was held, and whoever
read it found its file gone, cut short or altered; then it is held no more, its file is put aside, and a row in
``damaged_sets`` has it obtained again (steps/mend.py). A disk that does not let us look is none of these: that is a
TransientError, and nothing changes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from sqlalchemy import delete, select, update

from validator.log import get_logger
from validator.ports.clock import Clock
from validator.ports.stored import DamagedSet
from validator.protocol.codec.message import record_from_canonical
from validator.protocol.columns import Page, Read
from validator.protocol.errors import MalformedInput
from validator.protocol.model import Digest, PartitionEntry, Record, Root, StreamPart
from validator.store import schema
from validator.store.database import Database
from validator.store.rows import insert_new
from validator.store.segment_format import DamagedSegment, SegmentInfo
from validator.store.segments import SegmentStore

log = get_logger(__name__)

LOOKED_AT_ROWS = 1_000
"""Files that are glanced at in one go."""


class SetRows:
    """The port ``Sets``. A damaged file is noted and raised as DamagedSegment, so the set is obtained again."""

    def __init__(self, database: Database, segments: SegmentStore, clock: Clock) -> None:
        self._database = database
        self._segments = segments
        self._clock = clock

    def save_set(self, set_root: Root, records: Sequence[Record]) -> None:
        """File first, then the row; saving one that is there changes nothing."""
        if self.has_set(set_root):
            return
        self._note(set_root, self._segments.save(set_root, records))

    def save_ordered(self, pages: Iterable[Page], *, expected: Root | None = None) -> tuple[PartitionEntry, ...]:
        """The same for messages that come in canonical order and need not fit in memory; returns the set's entries.

        Raises Disagreement: they have another root than the expected one.
        """
        saved = self._segments.save_ordered(pages, expected=expected)
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
        t = schema.damaged_sets
        with self._database.write() as connection:
            insert_new(connection, schema.sets, row)
            connection.execute(delete(t).where(t.c.set_root == set_root))

    def has_set(self, set_root: Root) -> bool:
        t = schema.sets
        with self._database.read() as connection:
            return connection.scalar(select(t.c.count).where(t.c.set_root == set_root)) is not None

    def open_set(self, set_root: Root) -> StoredSet:
        """The set as the rules see it. Raises DamagedSegment: not here, or not what was saved."""
        with self._watched(set_root):
            return StoredSet(self, set_root, self._segments.load_entries(set_root))

    def load_pages(self, set_root: Root, part: StreamPart) -> Iterator[Page]:
        """Column pages of one partition. Raises DamagedSegment, as does reading the canonical bytes of a page."""
        with self._watched(set_root):
            for page in self._segments.load_pages(set_root, part):
                yield replace(page, read=partial(self._read, set_root, page.read))

    def _read(self, set_root: Root, read: Read, places: Sequence[int], sizes: Sequence[int]) -> Sequence[bytes]:
        with self._watched(set_root):
            return read(places, sizes)

    def iterate(self, set_root: Root, parts: Collection[StreamPart] | None = None) -> Iterator[Record]:
        """Records in canonical order, of all partitions or of some, one by one: a set need not fit in memory.

        Raises DamagedSegment: not here, or not what was saved; each record has the leaf of its place.
        """
        with self._watched(set_root):
            yield from self._segments.iterate(set_root, parts)

    def load_entries(self, set_root: Root) -> tuple[PartitionEntry, ...] | None:
        """Entries with flags zero; None if the set is not here."""
        if not self.has_set(set_root):
            return None
        with self._watched(set_root):
            return self._segments.load_entries(set_root)

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

    # --- damage ---

    def damaged(self, limit: int) -> list[DamagedSet]:
        """Sets that were held and are to be obtained again; those that waited longest since they were tried first."""
        t = schema.damaged_sets
        query = select(t.c.set_root, t.c.newest_ms).order_by(t.c.tried_ms, t.c.set_root).limit(limit)
        with self._database.read() as connection:
            return [DamagedSet(Root(row.set_root), row.newest_ms) for row in connection.execute(query)]

    def salvage(self, set_root: Root) -> tuple[list[Record], frozenset[Digest] | None]:
        """What can still be read of a damaged set, and the leaves of all its messages if they are known."""
        left = self._segments.salvage(set_root)
        records = []
        for data in left.messages:
            with contextlib.suppress(MalformedInput):
                records.append(record_from_canonical(data))
        return [r for r in records if left.leaves is None or r.leaf in left.leaves], left.leaves

    def note_attempt(self, set_root: Root, *, needed: bool) -> None:
        """A damaged set could not be obtained: others are tried before it; one that nobody needs is forgotten."""
        t = schema.damaged_sets
        with self._database.write() as connection:
            if needed:
                connection.execute(update(t).where(t.c.set_root == set_root).values(tried_ms=self._clock.now_ms()))
            else:
                connection.execute(delete(t).where(t.c.set_root == set_root))

    def glance(self, after: Root | None) -> Root | None:
        """Glance at some of the files, in the order of roots; where to go on, None at the end.

        For the time after a power loss: whoever needs a set may ask only that it is held.
        """
        t = schema.sets
        query = select(t.c.set_root, t.c.size).where(t.c.set_root > (after or b"")).order_by(t.c.set_root)
        with self._database.read() as connection:
            rows = connection.execute(query.limit(LOOKED_AT_ROWS)).all()
        for row in rows:
            with contextlib.suppress(DamagedSegment), self._watched(Root(row.set_root)):
                self._segments.glance(Root(row.set_root), row.size)
        return Root(rows[-1].set_root) if len(rows) == LOOKED_AT_ROWS else None

    def sweep_files(self, before_ms: int, limit: int) -> int:
        """Delete files of damaged sets, and of savings that never ended, last changed before a time."""
        return self._segments.sweep(before_ms / 1000, limit)

    @contextlib.contextmanager
    def _watched(self, set_root: Root) -> Iterator[None]:
        try:
            yield
        except DamagedSegment as error:
            self._note_damage(set_root, str(error))
            raise

    def _note_damage(self, set_root: Root, reason: str) -> None:
        """Row first: a crash behind it leaves a file that the next saving replaces. Said once, by who takes the row."""
        t = schema.sets
        with self._database.write() as connection:
            taken = delete(t).where(t.c.set_root == set_root).returning(t.c.newest_ms)
            newest_ms = connection.scalar(taken)
            if newest_ms is None:
                return  # not held, or noted by another
            times = {"found_ms": self._clock.now_ms(), "tried_ms": 0}
            insert_new(connection, schema.damaged_sets, {"set_root": set_root, "newest_ms": newest_ms} | times)
        log.error("set.damaged", set_root=set_root, reason=reason)
        self._segments.put_aside(set_root)


class StoredSet:
    """The ``MessageSet`` of a file."""

    def __init__(self, rows: SetRows, set_root: Root, entries: tuple[PartitionEntry, ...]) -> None:
        self._rows = rows
        self._set_root = set_root
        self._parts = frozenset(entry.stream_part for entry in entries)
        self.entries = entries

    def pages(self, part: StreamPart) -> Iterator[Page]:
        """Raises DamagedSegment."""
        return self._rows.load_pages(self._set_root, part) if part in self._parts else iter(())
