"""Reads the file of a set, and believes nothing of it: what was altered or cut short raises ``DamagedSegment``.

The index is hashed when it is opened, its entries must give the set's root, each column page is hashed and each block
carries a checksum. Blocks are decompressed to the size the index names and no further, with a zstd window of at most
8 MiB. Whoever reads a message compares its leaf with that of its columns.
"""

from __future__ import annotations

import hashlib
import io
import struct
import sys
from array import array
from collections.abc import Callable, Sequence
from typing import BinaryIO

import zstandard

from validator.protocol.codec import cbor
from validator.protocol.codec.outcome import set_root as compute_set_root
from validator.protocol.columns import Page
from validator.protocol.errors import InvariantError, MalformedInput
from validator.protocol.model import PartitionEntry, Root, StreamPart
from validator.store.segment_format import (
    COLUMN_WIDTHS,
    MAGIC,
    MAX_INDEX_BYTES,
    TAIL,
    ColumnPage,
    DamagedSegment,
    Index,
    Part,
)

MAX_BLOCK_BYTES = 8 << 20
"""No block is larger: one message is at most about 1 MiB."""


def read_index(file: BinaryIO, set_root: Root) -> Index:
    """Blocks, partitions and column pages of this set. Raises DamagedSegment."""
    try:
        end = file.seek(0, io.SEEK_END)
        file.seek(max(0, end - TAIL.size))
        length, magic = TAIL.unpack(file.read(TAIL.size))
        start = end - TAIL.size - 32 - length
        if magic != MAGIC or length > MAX_INDEX_BYTES or start < 0:
            raise MalformedInput("index", "no index of this release at the end")
        file.seek(start)
        data = file.read(length)
        if hashlib.sha256(data).digest() != file.read(32):
            raise MalformedInput("index", "altered")
        root, blocks, parts = cbor.decode_object(data, "set-index/3", 3, max_bytes=MAX_INDEX_BYTES)
        if root != set_root:
            raise MalformedInput("index", "of another set")
        index = Index(
            [(offset, size, plain) for offset, size, plain in blocks],
            [Part(PartitionEntry(*fields[:6]), [(a, b, c, d) for a, b, c, d in fields[6]]) for fields in parts],
        )
        if any(part.entry.count != sum(page[2] for page in part.pages) for part in index.parts):
            raise MalformedInput("index", "column pages do not give the count")
        if compute_set_root(tuple(part.entry for part in index.parts)) != set_root:
            raise MalformedInput("index", "entries do not give the root")
    except (MalformedInput, struct.error, TypeError, ValueError) as error:
        raise DamagedSegment(f"set 0x{set_root.hex()}: {error}", set_root=set_root.hex()) from error
    return index


def read_columns(
    file: BinaryIO, part: StreamPart, page: ColumnPage, read: Callable[[Sequence[int], Sequence[int]], list[bytes]]
) -> Page:
    """One column page, as it was written. Raises DamagedSegment."""
    offset, size, count, digest = page
    file.seek(offset)
    data = file.read(size)
    if hashlib.sha256(data).digest() != digest:
        raise DamagedSegment(f"columns of {part[0]}#{part[1]} at {offset}: altered")
    at = size - count * sum(COLUMN_WIDTHS)
    (names,) = cbor.decode_object(data[:at], "names/1", 1, max_bytes=MAX_INDEX_BYTES)

    columns = []
    for width in COLUMN_WIDTHS:
        columns.append(data[at : at + width * count])
        at += width * count
    timestamps, sequences, named, signed, sizes, kinds, leaves, digests, places = columns
    return Page(
        part,
        timestamps_ms=_from_little_endian("Q", timestamps),
        sequence_numbers=_from_little_endian("I", sequences),
        names=[(publisher, chain) for publisher, chain in names],
        named=_from_little_endian("I", named),
        leaves=leaves,
        digests=digests,
        signed_sizes=_from_little_endian("I", signed),
        sizes=_from_little_endian("I", sizes),
        kinds=kinds,
        places=_from_little_endian("Q", places),
        read=read,
    )


def read_block(file: BinaryIO, index: Index, number: int) -> bytes:
    """Decompress one block to exactly the size that the index names. Raises DamagedSegment."""
    try:
        offset, size, plain_size = index.blocks[number]
        if plain_size > MAX_BLOCK_BYTES:
            raise MalformedInput("block", f"{plain_size} bytes")
        file.seek(offset)
        reader = zstandard.ZstdDecompressor(max_window_size=8 << 20).stream_reader(file.read(size))
        plain = reader.read(plain_size + 1)
        if len(plain) != plain_size:
            raise MalformedInput("block", "not the size that the index names")
    except (MalformedInput, zstandard.ZstdError, IndexError) as error:
        raise DamagedSegment(f"block {number}: {error}") from error
    return bytes(plain)


def unread(_places: Sequence[int], _sizes: Sequence[int]) -> list[bytes]:
    """For pages that are read for their columns alone."""
    raise InvariantError("canonical bytes of a page that was read for its columns alone")


def _from_little_endian(code: str, data: bytes) -> array[int]:
    column = array(code, data)
    if sys.byteorder == "big":
        column.byteswap()
    return column
