"""The lake: entries read out of bundles on Arweave, row group by row group, as far as a question reaches.

Bytes come in chunks that are proven by the signed data root (``net.arweave.ranges``), so a Parquet library sees only
what the committee has read whole; what it makes of them must give the entry's leaves again. In memory are the footers
of a few bundles and the rows of a few row groups, whatever is asked; chunks of files lie in a bounded folder.

pyarrow is imported when a row group is read, and not before: a broker that holds what it is asked for never needs it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter

from validator.broker.entry_tree import Remembered
from validator.net.arweave.ranges import ProvenRanges
from validator.ports.message_store import SortKey, StoredRow
from validator.protocol.codec.bundle_front import read_tail
from validator.protocol.codec.bundle_groups import choose_groups, group_bytes
from validator.protocol.codec.parquet_footer import Footer
from validator.protocol.model import InstanceId, InstanceKind, Record, StorageId, StreamPart

_KEY = attrgetter("key")
FOOTERS = 8
GROUPS = 2
"""Row groups whose rows are in memory: at most 8 192 rows or 4 MiB each."""


@dataclass(frozen=True, slots=True)
class _Front:
    size: int
    tail: bytes
    footer: Footer


class Lake:
    """Files of bundles. Thread-safe."""

    def __init__(self, ranges: ProvenRanges) -> None:
        self._ranges = ranges
        self._fronts: Remembered[StorageId, _Front] = Remembered(FOOTERS)
        self._groups: Remembered[tuple[StorageId, int], Sequence[tuple[bool, Record]]] = Remembered(GROUPS)

    def entry(
        self, storage_id: StorageId, instance: InstanceId, part: StreamPart, from_ms: int, until_ms: int
    ) -> LakeEntry:
        """The rows of one entry; the span is that of its window, or as far as its late set may reach."""
        return LakeEntry(self, storage_id, instance, part, from_ms, until_ms)

    def choose(self, storage_id: StorageId, part: StreamPart, from_ms: int, until_ms: int) -> list[int]:
        """Numbers of the row groups in which a partition's rows of a span can be. Raises as ``group``."""
        return choose_groups(self._front(storage_id).footer, part, from_ms, until_ms)

    def group(self, storage_id: StorageId, number: int) -> Sequence[tuple[bool, Record]]:
        """The rows of a row group, each with whether it is of the late set.

        Raises:
            TransientError: no gateway has its bytes now.
            RemoteFault: no gateway gave what was signed, or it is no file of a bundle.
        """
        known = self._groups.find((storage_id, number))
        if known is None:
            from validator.protocol.codec.bundle_file import read_group

            front = self._front(storage_id)
            data = self._ranges.read(storage_id, *group_bytes(front.footer.groups[number]))
            rows = list(read_group(front.size, front.tail, front.footer, number, data))
            known = self._groups.add((storage_id, number), rows)
        return known

    def _front(self, storage_id: StorageId) -> _Front:
        known = self._fronts.find(storage_id)
        if known is None:
            size, tail = self._ranges.read_footer(storage_id)
            known = self._fronts.add(storage_id, _Front(size, tail, read_tail(size, tail)[0]))
        return known


class LakeEntry:
    """``EntryRows`` of a bundle's file. Nothing is compared with a root here: ``entry_tree`` does."""

    def __init__(
        self, lake: Lake, storage_id: StorageId, instance: InstanceId, part: StreamPart, from_ms: int, until_ms: int
    ) -> None:
        self._lake = lake
        self._storage_id = storage_id
        self._is_late = instance.kind is InstanceKind.LATE
        self._part = part
        self._span = (from_ms, until_ms)
        self._rows: Remembered[int, list[StoredRow]] = Remembered(GROUPS)

    def records(self, from_ms: int, until_ms: int) -> Iterator[list[Record]]:
        """The entry's records of [from_ms, until_ms), in order, a row group at a time."""
        from_ms, until_ms = max(from_ms, self._span[0]), min(until_ms, self._span[1])
        for number in self._lake.choose(self._storage_id, self._part, from_ms, until_ms):
            found = [r for r in self._own(number) if from_ms <= r.message.timestamp_ms < until_ms]
            if found:
                yield found

    def _own(self, number: int) -> Iterator[Record]:
        """The entry's records of a row group."""
        for late, record in self._lake.group(self._storage_id, number):
            if (
                late is self._is_late
                and self._span[0] <= record.message.timestamp_ms < self._span[1]
                and record.message.stream_part == self._part
            ):
                yield record

    def pages(self) -> Iterator[Sequence[StoredRow]]:
        for records in self.records(*self._span):
            yield [row_of(record) for record in records]

    def between(self, low: SortKey, high: SortKey | None) -> list[StoredRow]:
        until_ms = self._span[1] if high is None else high.timestamp_ms + 1
        found: list[StoredRow] = []
        for number in self._lake.choose(self._storage_id, self._part, low.timestamp_ms, until_ms):
            rows = self._rows.find(number)
            if rows is None:
                rows = self._rows.add(number, [row_of(record) for record in self._own(number)])
            end = len(rows) if high is None else bisect_left(rows, high, key=_KEY)
            found += rows[bisect_left(rows, low, key=_KEY) : end]
        return found


def row_of(record: Record) -> StoredRow:
    """A record as a store gives it; the lake does not know when it arrived."""
    return StoredRow(key_of(record), record.signed_digest, record.canonical, record.signed_bytes, 0)


def key_of(record: Record) -> SortKey:
    m = record.message
    return SortKey(m.timestamp_ms, m.sequence_number, m.publisher_id, m.msg_chain_id, record.leaf)
