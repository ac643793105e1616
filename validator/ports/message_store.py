"""The messages that a broker holds: what ingest fills, and queries, repair and the lake read.

Everything is synchronous and thread-safe: callers on an event loop use ``asyncio.to_thread``. Spans of time are
half-open and in Unix milliseconds. Within a stream partition rows have one order, canonical order (``SortKey``),
which is that of an entry's leaves, so that a root over a span of a store compares with a root that is agreed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from validator.protocol.model import Digest, Record, StreamPart


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
