"""Writes the file of a set: blocks and column pages as they fill, and the index at the end."""

from __future__ import annotations

import hashlib
import itertools
import sys
from array import array
from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import Any, BinaryIO

import zstandard

from validator.protocol.codec import cbor
from validator.protocol.codec.outcome import part_order
from validator.protocol.codec.outcome import set_root as compute_set_root
from validator.protocol.columns import PAGE_ROWS, Name, Page
from validator.protocol.errors import InvariantError
from validator.protocol.merkle import RunningRoot
from validator.protocol.model import PartitionEntry, StreamPart
from validator.store.segment_format import (
    FRAME,
    MAGIC,
    MAX_INDEX_BYTES,
    SKIPPABLE,
    TAIL,
    ColumnPage,
    Part,
    SavedSet,
    SegmentInfo,
)

BLOCK_BYTES = 256 << 10
LEVEL = 1
"""Level 1 costs a fifth of the time of level 3 for about a tenth more bytes."""


class SegmentWriter:
    """Writes blocks and column pages as they fill, and the index at the end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._compressor = zstandard.ZstdCompressor(level=LEVEL, write_content_size=True, write_checksum=True)
        self._blocks: list[tuple[int, int, int]] = []
        self._at = 0
        self._open: list[bytes] = []
        self._filled = 0
        self._parts: list[Part] = []
        self._newest_ms = 0

    def add(self, pages: Iterable[Page]) -> None:
        """Messages in canonical order. Raises InvariantError: their partitions are not."""
        before: tuple[bytes, int] | None = None
        for part, members in itertools.groupby(pages, key=attrgetter("stream_part")):
            order = part_order(part)
            if before is not None and order <= before:
                raise InvariantError(f"{part[0]}#{part[1]} stands behind partitions that come after it")
            before = order
            self._add_part(part, members)

    def end(self) -> SavedSet:
        """Write the last block and the index."""
        self._end_block()
        entries = tuple(part.entry for part in self._parts)
        root = compute_set_root(entries)
        index = cbor.encode_object(
            "set-index/3", root, [list(block) for block in self._blocks], [part_fields(part) for part in self._parts]
        )
        if len(index) > MAX_INDEX_BYTES:
            raise InvariantError(f"index of {len(index)} bytes")
        frame = index + hashlib.sha256(index).digest() + TAIL.pack(len(index), MAGIC)
        self._file.write(FRAME.pack(SKIPPABLE, len(frame)) + frame)
        self._at += FRAME.size + len(frame)
        info = SegmentInfo(
            sum(e.count for e in entries), sum(e.signed_bytes for e in entries), self._newest_ms, self._at
        )
        return SavedSet(root, entries, info)

    def _add_part(self, part: StreamPart, pages: Iterable[Page]) -> None:
        tree = RunningRoot()
        count = signed = canonical_bytes = 0
        columns = _Columns()
        written: list[ColumnPage] = []
        for page in _short(pages):
            if len(columns) + len(page) > PAGE_ROWS:
                written.append(self._end_columns(columns))
                columns = _Columns()
            columns.add(page, [self._place(message) for message in page.canonical()])
            tree.add(page.list_leaves())
            count += len(page)
            signed += sum(page.signed_sizes)
            canonical_bytes += sum(page.sizes)
            self._newest_ms = max(self._newest_ms, page.timestamps_ms[-1])
        if len(columns):
            written.append(self._end_columns(columns))
        entry = PartitionEntry(*part, tree.root(), count, signed, canonical_bytes)
        self._parts.append(Part(entry, written))

    def _place(self, message: bytes) -> int:
        """Put a message into the open block; where it stands."""
        if self._filled >= BLOCK_BYTES:
            self._end_block()
        at = self._filled
        self._open.append(message)
        self._filled = at + len(message)
        return len(self._blocks) << 32 | at

    def _end_block(self) -> None:
        if not self._open:
            return
        plain = b"".join(self._open)
        frame = self._compressor.compress(plain)
        self._blocks.append((self._at, len(frame), len(plain)))
        self._file.write(frame)
        self._at += len(frame)
        self._open = []
        self._filled = 0

    def _end_columns(self, columns: _Columns) -> ColumnPage:
        data = columns.encode()
        self._file.write(FRAME.pack(SKIPPABLE, len(data)) + data)
        at = self._at + FRAME.size
        self._at = at + len(data)
        return (at, len(data), len(columns), hashlib.sha256(data).digest())


class _Columns:
    """The column page that is being filled."""

    def __init__(self) -> None:
        self.numbers: dict[Name, int] = {}
        self.timestamps_ms = array("Q")
        self.sequence_numbers = array("I")
        self.named = array("I")
        self.signed_sizes = array("I")
        self.sizes = array("I")
        self.kinds = bytearray()
        self.leaves = bytearray()
        self.digests = bytearray()
        self.places = array("Q")

    def __len__(self) -> int:
        return len(self.timestamps_ms)

    def add(self, page: Page, places: Iterable[int]) -> None:
        self.timestamps_ms.extend(page.timestamps_ms)
        self.sequence_numbers.extend(page.sequence_numbers)
        numbers = self.numbers
        renumbered = [numbers.setdefault(name, len(numbers)) for name in page.names]
        self.named.extend([renumbered[number] for number in page.named])
        self.signed_sizes.extend(page.signed_sizes)
        self.sizes.extend(page.sizes)
        self.kinds += page.kinds
        self.leaves += page.leaves
        self.digests += page.digests
        self.places.extend(places)

    def encode(self) -> bytes:
        names = cbor.encode_object("names/1", [list(name) for name in self.numbers])
        numbers = (self.timestamps_ms, self.sequence_numbers, self.named, self.signed_sizes, self.sizes)
        plain = b"".join([*map(_little_endian, numbers), self.kinds, self.leaves, self.digests])
        return names + plain + _little_endian(self.places)


def _short(pages: Iterable[Page]) -> Iterator[Page]:
    """Longer ones in pieces."""
    for page in pages:
        for start in range(0, len(page), PAGE_ROWS):
            yield page.cut(start, min(len(page), start + PAGE_ROWS))


def part_fields(part: Part) -> list[Any]:
    """As the index holds it."""
    e = part.entry
    fields = [e.stream_id, e.partition, e.root, e.count, e.signed_bytes, e.canonical_bytes]
    return [*fields, [list(page) for page in part.pages]]


def _little_endian(column: array[int]) -> bytes:
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column.tobytes()
