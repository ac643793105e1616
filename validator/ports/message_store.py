"""The messages that a broker holds: what ingest fills, and queries, repair and the lake read.

Everything is synchronous and thread-safe: callers on an event loop use ``asyncio.to_thread``. Spans of time are
half-open and in Unix milliseconds. Within a stream partition rows have one order, canonical order (``SortKey``),
which is that of an entry's leaves, so that a root over a span of a store compares with a root that is agreed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple, Protocol

from validator.protocol.codec.message import decode_message
from validator.protocol.model import Digest, Record, StreamPart

LEAF_BYTES = 32


class SortKey(NamedTuple):
    """Place of a message in its stream partition; compares as canonical order does."""

    timestamp_ms: int
    sequence_number: int
    publisher_id: bytes
    msg_chain_id: str
    leaf: Digest


class StoredRow(NamedTuple):
    """A stored message. ``identity``: what was signed, by its digest; ``arrived_ms``: by this machine's clock."""

    key: SortKey
    identity: Digest
    canonical: bytes
    signed_bytes: int
    arrived_ms: int


@dataclass(frozen=True, slots=True)
class Columns:
    """A page of rows in order, column by column: what an answer needs of them, and no object for each.

    ``canonical`` and ``leaves`` are the rows' bytes one behind the other; ``sizes`` and ``LEAF_BYTES`` cut them.
    """

    canonical: bytes
    sizes: list[int]
    leaves: bytes
    times_ms: list[int]
    signed_bytes: int
    """Of all rows together."""

    @classmethod
    def of_rows(cls, rows: Sequence[StoredRow]) -> Columns:
        return cls(
            b"".join([row.canonical for row in rows]),
            [len(row.canonical) for row in rows],
            b"".join([row.key.leaf for row in rows]),
            [row.key.timestamp_ms for row in rows],
            sum([row.signed_bytes for row in rows]),
        )

    @classmethod
    def join(cls, pages: Sequence[Columns]) -> Columns:
        """Pages one behind the other."""
        if len(pages) == 1:
            return pages[0]
        return cls(
            b"".join([page.canonical for page in pages]),
            [size for page in pages for size in page.sizes],
            b"".join([page.leaves for page in pages]),
            [ms for page in pages for ms in page.times_ms],
            sum([page.signed_bytes for page in pages]),
        )

    def __len__(self) -> int:
        return len(self.sizes)

    def leaf(self, number: int) -> Digest:
        return Digest(self.leaves[number * LEAF_BYTES : (number + 1) * LEAF_BYTES])

    def leaf_list(self) -> list[Digest]:
        return [Digest(self.leaves[at : at + LEAF_BYTES]) for at in range(0, len(self.leaves), LEAF_BYTES)]

    def messages(self) -> list[bytes]:
        """Canonical bytes of each row."""
        data = self.canonical
        ends = accumulate(self.sizes)
        return [data[end - size : end] for end, size in zip(ends, self.sizes, strict=True)]

    def message(self, number: int) -> bytes:
        """Canonical bytes of one; quick at the page's end."""
        end = sum(self.sizes[: number + 1]) if number + 1 < len(self.sizes) else len(self.canonical)
        return self.canonical[end - self.sizes[number] : end]

    def key(self, number: int) -> SortKey:
        """Read out of the message, so not for many rows."""
        m = decode_message(self.message(number))
        return SortKey(m.timestamp_ms, m.sequence_number, m.publisher_id, m.msg_chain_id, self.leaf(number))

    @property
    def last_key(self) -> SortKey:
        return self.key(len(self.sizes) - 1)


NO_ROWS = Columns.join(())


@dataclass(frozen=True, slots=True)
class RangeState:
    """What changes whenever a span's rows do: how many they are, and when the newest of them arrived."""

    count: int
    newest_arrival_ms: int


class MessageStore(Protocol):
    """Rows by stream partition and canonical order. Nothing is ever changed; whole days are dropped.

    Every method may raise TransientError: the disk is full, or the file is busy beyond its time-out.
    """

    def insert(self, records: Sequence[Record], arrived_ms: int) -> int:
        """Keep these records; returns how many were new. They are there when this returns.

        The same record twice is no news. Several records with one message id, or one identity, are all kept.
        """

    def scan(
        self, part: StreamPart, from_ms: int, until_ms: int, *, after: SortKey | None = None, limit: int
    ) -> list[StoredRow]:
        """At most ``limit`` rows of [from_ms, until_ms) behind ``after``, in order.

        Fewer where their bytes are many: only an empty page is the end. Nothing stays open behind it.
        """

    def page(
        self, part: StreamPart, from_ms: int, until_ms: int, *, after: SortKey | None = None, limit: int
    ) -> Columns:
        """The rows that ``scan`` gives, or fewer of them, in columns: several times as quick."""

    def last(self, part: StreamPart, count: int) -> list[StoredRow]:
        """The newest ``count`` rows, in order; fewer where their bytes are many."""

    def keys(self, part: StreamPart, from_ms: int, until_ms: int) -> Iterator[list[tuple[int, Digest]]]:
        """Pages of (timestamp_ms, leaf) in canonical order, from the index alone."""

    def fetch(self, part: StreamPart, leaves: Sequence[tuple[int, Digest]]) -> list[StoredRow]:
        """The rows of these (timestamp_ms, leaf) pairs that are there, in order. The caller bounds their number."""

    def state(self, part: StreamPart, from_ms: int, until_ms: int) -> RangeState: ...

    def parts(self) -> list[StreamPart]:
        """Every stream partition that a row is held of, sorted."""

    def drop_days_before(self, ms: int) -> int:
        """Delete the days that ended at ``ms`` or earlier; returns how many. Readers under way keep what they see."""
