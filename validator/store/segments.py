"""Files of sets: the canonical messages behind a root, in canonical order, compressed, with an index.

    file    = block… index-frame
    block   = zstd frame of about 256 KiB of a CBOR sequence (RFC 8742)
    index-frame = zstd skippable frame: magic 0x184D2A50, u32 size, index, u64 length of index, "LSINDEX1"
    index   = ["set-index/1", set_root, [[offset, size, plain size]…], [[entry fields without flags,
              timestamps (u64 each), leaves (32 bytes each), positions (u32 block, u32 offset, u32 length each)]…]]

Integers are big-endian. A reader that knows nothing of the index (``zstd -dc``) gets the CBOR sequence. A file is
written under a temporary name, synced, and renamed, so it is there whole or not at all; equal sets written at once
by two workers replace each other. Blocks are decompressed to the size the index names and no further, with a zstd
window of at most 8 MiB.
"""

from __future__ import annotations

import io
import itertools
import os
import struct
import threading
import uuid
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import fsspec
import zstandard
from fsspec.implementations.local import LocalFileSystem

from validator.codec import cbor
from validator.codec.outcome import set_root as compute_set_root
from validator.errors import InvariantError, MalformedInput, TransientError
from validator.merkle import compute_root
from validator.model import Digest, PartitionEntry, Record, Root, StreamPart

BLOCK_BYTES = 256 << 10
MAX_BLOCK_BYTES = 8 << 20
"""No block is larger: one message is at most about 1 MiB."""
MAX_INDEX_BYTES = 1 << 30
LEVEL = 1
"""Level 1 costs a fifth of the time of level 3 for about a tenth more bytes."""
CACHED_RECORDS = 500_000
"""Records whose index is kept in memory, over all sets."""

_SKIPPABLE = 0x184D2A50
_TAIL = struct.Struct(">Q8s")
_MAGIC = b"LSINDEX1"
_POSITION = struct.Struct(">III")


class DamagedSegment(TransientError):
    """A file is gone, cut short or altered: drop it and obtain the set again."""


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """Totals of a saved set; ``size`` is the file's."""

    count: int
    signed_bytes: int
    newest_ms: int
    size: int


@dataclass(slots=True)
class _Part:
    entry: PartitionEntry
    timestamps: bytes
    leaves: bytes
    positions: bytes


@dataclass(slots=True)
class _Index:
    blocks: list[tuple[int, int, int]]
    parts: list[_Part]
    places: dict[bytes, tuple[int, int, int]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return sum(part.entry.count for part in self.parts)

    def find(self, leaf: bytes) -> tuple[int, int, int] | None:
        """(block, offset, length) of the message with this leaf."""
        if not self.places:
            for part in self.parts:
                leaves = (part.leaves[at : at + 32] for at in range(0, len(part.leaves), 32))
                self.places.update(zip(leaves, _POSITION.iter_unpack(part.positions), strict=True))
        return self.places.get(leaf)


class SegmentStore:
    """Sets as files below an fsspec URL or a local folder. Thread-safe."""

    def __init__(self, url: str) -> None:
        self._fs, self._base = fsspec.core.url_to_fs(url)
        self._local = isinstance(self._fs, LocalFileSystem)
        self._cache: OrderedDict[Root, _Index] = OrderedDict()
        self._cache_lock = threading.Lock()

    def path(self, set_root: Root) -> str:
        return f"{self._base}/{set_root.hex()[:2]}/{set_root.hex()}.zst"

    def save(self, set_root: Root, records: Sequence[Record]) -> SegmentInfo:
        """Write a set; durable when it returns.

        Raises:
            InvariantError: the root is not that of these records.
            TransientError: the disk is full or refuses.
        """
        ordered = sorted(records, key=lambda record: record.order)
        parts, messages = _lay_out(ordered)
        if compute_set_root([part.entry for part in parts]) != set_root:
            raise InvariantError(f"set {set_root.hex()} does not have this root")
        target = self.path(set_root)
        temporary = f"{target}.{uuid.uuid4().hex}.tmp"
        try:
            self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            try:
                size = self._write(temporary, set_root, parts, messages)
                self._fs.mv(temporary, target)
                self._sync_folder(target)
            except BaseException:
                if self._fs.exists(temporary):
                    self._fs.rm(temporary)
                raise
        except OSError as error:
            raise TransientError(f"set {set_root.hex()}: cannot write: {error.strerror or error}") from error
        newest = max((record.message.timestamp_ms for record in ordered), default=0)
        return SegmentInfo(len(ordered), sum(r.signed_bytes for r in ordered), newest, size)

    def exists(self, set_root: Root) -> bool:
        return bool(self._fs.exists(self.path(set_root)))

    def delete(self, set_root: Root) -> None:
        """Remove the file; one that is gone already is fine."""
        with self._cache_lock:
            self._cache.pop(set_root, None)
        try:
            self._fs.rm(self.path(set_root))
        except FileNotFoundError:
            return
        except OSError as error:
            raise TransientError(f"set {set_root.hex()}: cannot delete: {error.strerror or error}") from error

    def load_entries(self, set_root: Root) -> tuple[PartitionEntry, ...]:
        """Entries of the set, flags zero. Raises DamagedSegment."""
        return tuple(part.entry for part in self._index(set_root).parts)

    def load_index(self, set_root: Root) -> Mapping[StreamPart, Sequence[tuple[int, Digest]]]:
        """(timestamp_ms, leaf) of every record by partition, sorted. Raises DamagedSegment."""
        return {part.entry.stream_part: sorted(_ids(part)) for part in self._index(set_root).parts}

    def load_set(self, set_root: Root) -> Iterator[bytes]:
        """Canonical messages in canonical order, block by block. Raises DamagedSegment."""
        index = self._index(set_root)
        with self._open(set_root) as file:
            held, plain = -1, b""
            for part in index.parts:
                for block, offset, length in _POSITION.iter_unpack(part.positions):
                    if block != held:
                        held, plain = block, _read_block(file, index, block)
                    yield plain[offset : offset + length]

    def load_messages(self, set_root: Root, leaves: Sequence[Digest]) -> list[bytes]:
        """Canonical messages by leaf, in the order asked for; leaves that the set does not hold are left out.

        Only the blocks that hold them are read. Raises DamagedSegment.
        """
        index = self._index(set_root)
        places = [place for leaf in leaves if (place := index.find(leaf)) is not None]
        found: dict[tuple[int, int, int], bytes] = {}
        with self._open(set_root) as file:
            for block, wanted in itertools.groupby(sorted(set(places)), key=lambda place: place[0]):
                plain = _read_block(file, index, block)
                found.update((place, plain[place[1] : place[1] + place[2]]) for place in wanted)
        return [found[place] for place in places]

    def _write(self, path: str, set_root: Root, parts: list[_Part], messages: list[list[bytes]]) -> int:
        blocks: list[tuple[int, int, int]] = []
        compressor = zstandard.ZstdCompressor(level=LEVEL, write_content_size=True, write_checksum=True)
        with self._fs.open(path, "wb") as file:
            at = 0
            for block in messages:
                plain = b"".join(block)
                frame = compressor.compress(plain)
                blocks.append((at, len(frame), len(plain)))
                file.write(frame)
                at += len(frame)
            index = cbor.encode_object(
                "set-index/1", set_root, [list(b) for b in blocks], [_part_fields(part) for part in parts]
            )
            if len(index) > MAX_INDEX_BYTES:
                raise InvariantError(f"index of {len(index)} bytes")
            tail = index + _TAIL.pack(len(index), _MAGIC)
            file.write(struct.pack("<II", _SKIPPABLE, len(tail)) + tail)
            if self._local:
                file.flush()
                os.fsync(file.fileno())
        return at + 8 + len(tail)

    def _sync_folder(self, path: str) -> None:
        """Make the rename durable: the folder's own entry, on file systems that have one."""
        if not self._local:
            return
        folder = os.open(path.rpartition("/")[0], os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _open(self, set_root: Root) -> BinaryIO:
        try:
            file: BinaryIO = self._fs.open(self.path(set_root), "rb")
        except FileNotFoundError as error:
            raise DamagedSegment(f"set {set_root.hex()}: the file is gone", set_root=set_root.hex()) from error
        except OSError as error:
            raise TransientError(f"set {set_root.hex()}: cannot read: {error.strerror or error}") from error
        return file

    def _index(self, set_root: Root) -> _Index:
        with self._cache_lock:
            held = self._cache.get(set_root)
            if held is not None:
                self._cache.move_to_end(set_root)
                return held
        with self._open(set_root) as file:
            index = _read_index(file, set_root)
        with self._cache_lock:
            self._cache[set_root] = index
            while len(self._cache) > 1 and sum(i.count for i in self._cache.values()) > CACHED_RECORDS:
                self._cache.popitem(last=False)
        return index


def _lay_out(ordered: Sequence[Record]) -> tuple[list[_Part], list[list[bytes]]]:
    """Cut records into blocks and describe each partition."""
    parts = []
    blocks: list[list[bytes]] = []
    filled = BLOCK_BYTES
    for (stream_id, partition), group in itertools.groupby(ordered, key=lambda record: record.message.stream_part):
        records = list(group)
        positions = bytearray()
        for record in records:
            if filled >= BLOCK_BYTES:
                blocks.append([])
                filled = 0
            positions += _POSITION.pack(len(blocks) - 1, filled, len(record.canonical))
            blocks[-1].append(record.canonical)
            filled += len(record.canonical)
        entry = PartitionEntry(
            stream_id,
            partition,
            compute_root([record.leaf for record in records]),
            len(records),
            sum(record.signed_bytes for record in records),
            sum(len(record.canonical) for record in records),
        )
        timestamps = b"".join(record.message.timestamp_ms.to_bytes(8, "big") for record in records)
        leaves = b"".join(record.leaf for record in records)
        parts.append(_Part(entry, timestamps, leaves, bytes(positions)))
    return parts, blocks


def _part_fields(part: _Part) -> list[Any]:
    e = part.entry
    fields = [e.stream_id, e.partition, e.root, e.count, e.signed_bytes, e.canonical_bytes]
    return [*fields, part.timestamps, part.leaves, part.positions]


def _ids(part: _Part) -> Iterator[tuple[int, Digest]]:
    timestamps = struct.unpack(f">{part.entry.count}Q", part.timestamps)
    for number, timestamp_ms in enumerate(timestamps):
        yield timestamp_ms, Digest(part.leaves[32 * number : 32 * number + 32])


def _read_index(file: BinaryIO, set_root: Root) -> _Index:
    try:
        end = file.seek(0, io.SEEK_END)
        file.seek(max(0, end - _TAIL.size))
        length, magic = _TAIL.unpack(file.read(_TAIL.size))
        if magic != _MAGIC or length > min(MAX_INDEX_BYTES, end):
            raise MalformedInput("index", "no index at the end")
        file.seek(end - _TAIL.size - length)
        root, blocks, parts = cbor.decode_object(file.read(length), "set-index/1", 3, max_bytes=MAX_INDEX_BYTES)
        if root != set_root:
            raise MalformedInput("index", "of another set")
        index = _Index(
            [(offset, size, plain) for offset, size, plain in blocks],
            [_Part(PartitionEntry(*fields[:6]), *fields[6:]) for fields in parts],
        )
        for part in index.parts:
            count = part.entry.count
            sizes = (len(part.timestamps), len(part.leaves), len(part.positions))
            if sizes != (8 * count, 32 * count, _POSITION.size * count):
                raise MalformedInput("index", "lists of different lengths")
    except (MalformedInput, struct.error, TypeError, ValueError) as error:
        raise DamagedSegment(f"set {set_root.hex()}: {error}", set_root=set_root.hex()) from error
    return index


def _read_block(file: BinaryIO, index: _Index, number: int) -> bytes:
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
