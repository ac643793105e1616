"""The format of the files of sets: canonical messages in canonical order, compressed, and their columns beside them.

    file    = (block | column page)… index-frame
    block   = zstd frame of about 256 KiB of a CBOR sequence (RFC 8742)
    column page = zstd skippable frame: magic 0x184D2A50, u32 size, names, columns of at most 4096 messages of one
                  partition: timestamp (u64), sequence number, position of the name, signed size, canonical size
                  (u32 each), signature type (u8), leaf, signed digest (32 bytes each), place (u32 block, u32 offset)
    index-frame = zstd skippable frame: magic, u32 size, index, SHA-256 of the index, u64 length of index, "LSINDEX3"
    index   = ["set-index/3", set_root, [[offset, size, plain size]…], [[entry fields without flags,
              [[offset, size, messages, SHA-256]… column pages]]…]]
    names   = ["names/1", [[publisher id, message chain id]…]]

Integers of the frames' ends are big-endian, those of columns little-endian. A reader that knows nothing of columns and
index (``zstd -dc``) gets the CBOR sequence. Columns hold what the rules ask of a message, so that sets are compared,
judged and united without a block being read. segment_writer.py writes a file, segment_reader.py reads it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from validator.protocol.columns import ID_BYTES
from validator.protocol.errors import TransientError
from validator.protocol.model import PartitionEntry, Root, StreamPart

MAX_INDEX_BYTES = 1 << 30

SKIPPABLE = 0x184D2A50
FRAME = struct.Struct("<II")
TAIL = struct.Struct(">Q8s")
MAGIC = b"LSINDEX3"
COLUMN_WIDTHS = (8, 4, 4, 4, 4, 1, ID_BYTES, ID_BYTES, 8)
"""Bytes of each column's value, in the order in which a page holds them."""

ColumnPage = tuple[int, int, int, bytes]
"""(offset in the file, size, messages, SHA-256)."""


class DamagedSegment(TransientError):
    """A file is gone, cut short or altered: the set is not held, and is to be obtained again."""


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """Totals of a saved set; ``size`` is the file's."""

    count: int
    signed_bytes: int
    newest_ms: int
    size: int


@dataclass(frozen=True, slots=True)
class SavedSet:
    """A set that was written: its root, its entries (flags zero), its totals."""

    set_root: Root
    entries: tuple[PartitionEntry, ...]
    info: SegmentInfo


@dataclass(slots=True)
class Part:
    entry: PartitionEntry
    pages: list[ColumnPage]


@dataclass(slots=True)
class Index:
    blocks: list[tuple[int, int, int]]
    parts: list[Part]
    by_part: dict[StreamPart, Part] = field(init=False)

    def __post_init__(self) -> None:
        self.by_part = {part.entry.stream_part: part for part in self.parts}

    @property
    def rows(self) -> int:
        return len(self.blocks) + sum(1 + len(part.pages) for part in self.parts)
