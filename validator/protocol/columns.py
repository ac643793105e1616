"""Messages in columns: what the rules ask of each, page by page, without an object for each.

A window has millions of messages, and of nearly all of them nothing is asked but their leaf, their time and their size.
So sets travel as pages: some thousand messages of one stream partition in canonical order, each field a column, joined
or packed. A ``Row`` is one message of a page, made where a rule asks about that one. Canonical bytes stay where they
are until somebody reads them; ``places`` say where, in words of whoever made the page.
"""

from __future__ import annotations

import struct
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress, groupby
from typing import Any, NamedTuple, Protocol

from validator.protocol.merkle import compute_root
from validator.protocol.model import Digest, Flag, Identity, PartitionEntry, Record, SignatureType, StreamPart

ID_BYTES = 32
PAGE_ROWS = 4096
"""Rows of a page, at most, where pages are cut from something longer."""

ERC_1271 = int(SignatureType.ERC_1271)

Name = tuple[bytes, bytes]
"""Who published, and in which chain: publisher id, message chain id in UTF-8."""
Read = Callable[[Sequence[Any], Sequence[int]], Sequence[bytes]]
"""(places, sizes in bytes) -> canonical bytes."""


class Row(NamedTuple):
    """One message as the rules see it. The first seven fields are its canonical order, the first six its message id."""

    stream: bytes
    """Stream id in UTF-8."""
    partition: int
    timestamp_ms: int
    sequence_number: int
    publisher_id: bytes
    chain: bytes
    """Message chain id in UTF-8."""
    leaf: Digest
    signed_digest: Digest
    signed_bytes: int
    kind: int
    """Signature type."""

    @property
    def order(self) -> tuple[Any, ...]:
        return self[:7]

    @property
    def message_id(self) -> tuple[Any, ...]:
        return self[:6]

    @property
    def stream_part(self) -> StreamPart:
        return (self.stream.decode(), self.partition)

    @property
    def identity(self) -> Identity:
        return (self.stream.decode(), self.partition, self.timestamp_ms, self.signed_digest)


def row_of(record: Record) -> Row:
    """A record as the rules see it."""
    m = record.message
    return Row(
        m.stream_id.encode(),
        m.partition,
        m.timestamp_ms,
        m.sequence_number,
        m.publisher_id,
        m.msg_chain_id.encode(),
        record.leaf,
        record.signed_digest,
        record.signed_bytes,
        int(m.signature_type),
    )


@dataclass(frozen=True, slots=True)
class Page:
    """Messages of one stream partition that follow each other in canonical order, at least one, column by column."""

    stream_part: StreamPart
    timestamps_ms: Sequence[int]
    sequence_numbers: Sequence[int]
    names: Sequence[Name]
    """Publishers and chains of the page, each once; it may hold some that no row has any more."""
    named: Sequence[int]
    """For each message the position of its name."""
    leaves: bytes
    """32 bytes each."""
    digests: bytes
    """Signed digests, 32 bytes each."""
    signed_sizes: Sequence[int]
    sizes: Sequence[int]
    """Canonical bytes of each."""
    kinds: bytes
    """Signature types, a byte each."""
    places: Sequence[Any]
    read: Read

    def __len__(self) -> int:
        return len(self.timestamps_ms)

    def list_leaves(self) -> list[Digest]:
        return split_ids(self.leaves)

    def list_digests(self) -> list[Digest]:
        return split_ids(self.digests)

    def row(self, at: int) -> Row:
        start, end = at * ID_BYTES, (at + 1) * ID_BYTES
        publisher_id, chain = self.names[self.named[at]]
        return Row(
            self.stream_part[0].encode(),
            self.stream_part[1],
            self.timestamps_ms[at],
            self.sequence_numbers[at],
            publisher_id,
            chain,
            Digest(self.leaves[start:end]),
            Digest(self.digests[start:end]),
            self.signed_sizes[at],
            self.kinds[at],
        )

    def rows(self) -> Iterator[Row]:
        return map(self.row, range(len(self)))

    def publishers(self) -> set[bytes]:
        """Of the messages that are there."""
        return {self.names[number][0] for number in set(self.named)}

    def canonical(self) -> Sequence[bytes]:
        """Canonical bytes of all, read now."""
        return self.read(self.places, self.sizes)

    def cut(self, start: int, stop: int) -> Page:
        """The rows from ``start`` until before ``stop``."""
        if start == 0 and stop == len(self):
            return self
        return Page(
            self.stream_part,
            self.timestamps_ms[start:stop],
            self.sequence_numbers[start:stop],
            self.names,
            self.named[start:stop],
            self.leaves[start * ID_BYTES : stop * ID_BYTES],
            self.digests[start * ID_BYTES : stop * ID_BYTES],
            self.signed_sizes[start:stop],
            self.sizes[start:stop],
            self.kinds[start:stop],
            self.places[start:stop],
            self.read,
        )

    def keep(self, kept: Sequence[bool]) -> Page | None:
        """The rows that are true in ``kept``; None if there are none."""
        count = sum(kept)
        if count == len(self):
            return self
        if count == 0:
            return None
        return pick([(self, at) for at in compress(range(len(self)), kept)])


def pick(picks: Sequence[tuple[Page, int]]) -> Page:
    """A page of rows of other pages of one partition, in the order given."""
    numbers: dict[Name, int] = {}
    named = array("I", [numbers.setdefault(page.names[page.named[at]], len(numbers)) for page, at in picks])
    return Page(
        picks[0][0].stream_part,
        array("Q", [page.timestamps_ms[at] for page, at in picks]),
        array("I", [page.sequence_numbers[at] for page, at in picks]),
        tuple(numbers),
        named,
        b"".join([page.leaves[at * ID_BYTES : (at + 1) * ID_BYTES] for page, at in picks]),
        b"".join([page.digests[at * ID_BYTES : (at + 1) * ID_BYTES] for page, at in picks]),
        array("I", [page.signed_sizes[at] for page, at in picks]),
        array("I", [page.sizes[at] for page, at in picks]),
        bytes([page.kinds[at] for page, at in picks]),
        picks,
        _read_picked,
    )


def _read_picked(picks: Sequence[tuple[Page, int]], _sizes: Sequence[int]) -> Sequence[bytes]:
    """Canonical bytes of rows of other pages, each page read once."""
    found: list[bytes] = [b""] * len(picks)
    wanted: dict[int, list[tuple[int, Page, int]]] = defaultdict(list)
    for position, (page, at) in enumerate(picks):
        wanted[id(page)].append((position, page, at))
    for members in wanted.values():
        page = members[0][1]
        places, sizes = [page.places[at] for _, _, at in members], [page.sizes[at] for _, _, at in members]
        for (position, _, _), data in zip(members, page.read(places, sizes), strict=True):
            found[position] = data
    return found


def split_ids(joined: bytes) -> list[Digest]:
    """Digests that stand one after the other."""
    return list(struct.unpack(f"{ID_BYTES}s" * (len(joined) // ID_BYTES), joined))  # the quickest way by far


class MessageSet(Protocol):
    """A set of messages as the rules see it. Pages may be read as often as asked for."""

    @property
    def entries(self) -> Sequence[PartitionEntry]:
        """One for each partition that has messages, flags zero; they follow from the pages."""

    def pages(self, part: StreamPart) -> Iterator[Page]:
        """Messages of a partition in canonical order; none where the set has none there."""


class RecordSet:
    """Records in memory as a set. Their ``places`` are the records themselves."""

    def __init__(self, records: Iterable[Record]) -> None:
        ordered = sorted(records, key=lambda r: r.order)
        parts = groupby(ordered, key=lambda r: r.message.stream_part)
        self._parts = {part: list(members) for part, members in parts}
        self.entries = tuple(make_entry(part, members) for part, members in self._parts.items())

    def pages(self, part: StreamPart) -> Iterator[Page]:
        members = self._parts.get(part, [])
        for start in range(0, len(members), PAGE_ROWS):
            yield page_of(members[start : start + PAGE_ROWS])


def page_of(records: Sequence[Record]) -> Page:
    """Records of one partition in canonical order as a page; its places are the records."""
    numbers: dict[Name, int] = {}
    messages = [record.message for record in records]
    names = [(m.publisher_id, m.msg_chain_id.encode()) for m in messages]
    named = array("I", [numbers.setdefault(name, len(numbers)) for name in names])
    return Page(
        messages[0].stream_part,
        array("Q", [m.timestamp_ms for m in messages]),
        array("I", [m.sequence_number for m in messages]),
        tuple(numbers),
        named,
        b"".join([record.leaf for record in records]),
        b"".join([record.signed_digest for record in records]),
        array("I", [record.signed_bytes for record in records]),
        array("I", [len(record.canonical) for record in records]),
        bytes([m.signature_type for m in messages]),
        records,
        _read_records,
    )


def _read_records(records: Sequence[Record], _sizes: Sequence[int]) -> Sequence[bytes]:
    return [record.canonical for record in records]


def make_entry(part: StreamPart, records: Sequence[Record], flags: Flag = Flag(0)) -> PartitionEntry:
    """Entry of one partition from its records in canonical order."""
    return PartitionEntry(
        stream_id=part[0],
        partition=part[1],
        root=compute_root([r.leaf for r in records]),
        count=len(records),
        signed_bytes=sum(r.signed_bytes for r in records),
        canonical_bytes=sum(len(r.canonical) for r in records),
        flags=flags,
    )


def all_pages(messages: MessageSet) -> Iterator[Page]:
    """Pages of all partitions, in canonical order."""
    for entry in messages.entries:
        yield from messages.pages(entry.stream_part)


def contract_signed_rows(page: Page) -> list[int]:
    """Positions of messages signed by contracts."""
    if ERC_1271 not in page.kinds:
        return []
    return [at for at, kind in enumerate(page.kinds) if kind == ERC_1271]
