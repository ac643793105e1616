"""Files of sets: the canonical messages behind a root, in canonical order, compressed, with an index.

    file    = block… index-frame
    block   = zstd frame of about 256 KiB of a CBOR sequence (RFC 8742)
    index-frame = zstd skippable frame: magic 0x184D2A50, u32 size, index, SHA-256 of the index,
                  u64 length of index, "LSINDEX2" (files of earlier releases end in "LSINDEX1" and have no SHA-256)
    index   = ["set-index/1", set_root, [[offset, size, plain size]…], [[entry fields without flags,
              timestamps (u64 each), leaves (32 bytes each), positions (u32 block, u32 offset, u32 length each)]…]]

Integers are big-endian. A reader that knows nothing of the index (``zstd -dc``) gets the CBOR sequence. A file is
written under a temporary name, synced, and renamed, so it is there whole or not at all; equal sets written at once
by two workers replace each other. Blocks are decompressed to the size the index names and no further, with a zstd
window of at most 8 MiB.

What is read was written here, or it is damaged: the index is hashed when it is opened, its entries must give the set's
root, and each block carries a checksum. A file that is gone, cut short or altered raises ``DamagedSegment``. Where a
disk does not let us look (no permission, no folder, no descriptors), nothing is known yet: a ``TransientError``.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import itertools
import os
import struct
import sys
import threading
import uuid
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, BinaryIO

import fsspec
import zstandard
from fsspec.implementations.local import LocalFileSystem

from validator.ports.store import SetPage
from validator.protocol.codec import cbor
from validator.protocol.codec.outcome import part_order
from validator.protocol.codec.outcome import set_root as compute_set_root
from validator.protocol.errors import InvariantError, MalformedInput, TransientError
from validator.protocol.merkle import compute_root
from validator.protocol.model import Digest, PartitionEntry, Record, Root, StreamPart

BLOCK_BYTES = 256 << 10
CHUNK_LEAVES = 4096
"""A power of two, so that the root over a chunk of leaves is a node of the tree over all."""
MAX_BLOCK_BYTES = 8 << 20
"""No block is larger: one message is at most about 1 MiB."""
MAX_INDEX_BYTES = 1 << 30
LEVEL = 1
"""Level 1 costs a fifth of the time of level 3 for about a tenth more bytes."""
CACHED_RECORDS = 500_000
"""Records whose index is kept in memory, over all sets."""

_SKIPPABLE = 0x184D2A50
_TAIL = struct.Struct(">Q8s")
_MAGIC = b"LSINDEX2"
_UNHASHED = b"LSINDEX1"
_ASIDE = "damaged"
_POSITION = struct.Struct(">III")


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


@dataclass(frozen=True, slots=True)
class Salvage:
    """What is left of a damaged set: messages that can still be read, and the leaves of all if the index is whole."""

    messages: tuple[bytes, ...] = ()
    leaves: frozenset[Digest] | None = None


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
        return self.save_ordered(_pages(ordered), expected=set_root).info

    def save_ordered(self, pages: Iterable[SetPage], *, expected: Root | None = None) -> SavedSet:
        """Write the set of distinct messages whose pages come in canonical order; durable when it returns.

        Only the index is held in memory: 52 bytes per message.

        Raises:
            InvariantError: the root is not the expected one.
            TransientError: the disk is full or refuses.
        """
        name = "new set" if expected is None else f"set 0x{expected.hex()}"
        temporary = f"{self._base}/{uuid.uuid4().hex}.tmp"
        try:
            self._fs.makedirs(self._base, exist_ok=True)
            try:
                saved = self._write(temporary, pages)
                if expected not in (None, saved.set_root):
                    raise InvariantError(f"set {expected.hex()} does not have this root")
                target = self.path(saved.set_root)
                folder = target.rpartition("/")[0]
                named = self._fs.exists(folder)
                self._fs.makedirs(folder, exist_ok=True)
                self._fs.mv(temporary, target)
                self._sync_folder(folder)
                if not named:
                    self._sync_folder(self._base)
            except BaseException:
                if self._fs.exists(temporary):
                    self._fs.rm(temporary)
                raise
        except OSError as error:
            raise TransientError(f"{name}: cannot write: {error.strerror or error}") from error
        return saved

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
            raise TransientError(f"set 0x{set_root.hex()}: cannot delete: {error.strerror or error}") from error

    def glance(self, set_root: Root, size: int) -> None:
        """Look whether the file has its length and its end; one that a power loss cut short or left as zeros has not.

        Raises DamagedSegment, or TransientError where that cannot be told now.
        """
        with self._open(set_root) as file:
            end = file.seek(0, io.SEEK_END)
            file.seek(max(0, end - len(_MAGIC)))
            if end != size or file.read() not in (_MAGIC, _UNHASHED):
                raise DamagedSegment(f"set 0x{set_root.hex()}: {end} bytes instead of {size}, or altered at the end")

    def put_aside(self, set_root: Root) -> None:
        """Move a damaged file out of the way, so that the set can be written anew; one that is gone is fine."""
        with self._cache_lock:
            self._cache.pop(set_root, None)
        try:
            self._fs.makedirs(f"{self._base}/{_ASIDE}", exist_ok=True)
            self._fs.mv(self.path(set_root), self._aside(set_root))
        except FileNotFoundError:
            return
        except OSError as error:
            raise TransientError(f"set 0x{set_root.hex()}: cannot move: {error.strerror or error}") from error

    def salvage(self, set_root: Root) -> Salvage:
        """What can still be read of a file that was put aside."""
        messages: list[bytes] = []
        leaves: frozenset[Digest] | None = None
        with contextlib.suppress(OSError, DamagedSegment), self._fs.open(self._aside(set_root), "rb") as file:
            index = _read_index(file, set_root)
            leaves = frozenset(leaf for part in index.parts for _, leaf in _ids(part))
            places = [p for part in index.parts for p in _POSITION.iter_unpack(part.positions)]
            for block, members in itertools.groupby(places, key=lambda place: place[0]):
                with contextlib.suppress(OSError, DamagedSegment):
                    plain = _read_block(file, index, block)
                    messages += [plain[offset : offset + length] for _, offset, length in members]
        return Salvage(tuple(messages), leaves)

    def sweep(self, before_s: float, limit: int) -> int:
        """Delete what is older of damaged files and of files that a process died over; returns how many."""
        if not self._fs.exists(self._base):
            return 0
        deleted = 0
        try:
            names = [name for name in self._fs.ls(self._base, detail=False) if name.endswith(".tmp")]
            aside = f"{self._base}/{_ASIDE}"
            if self._fs.exists(aside):
                names += self._fs.ls(aside, detail=False)
            for name in names:
                if deleted < limit and self._fs.modified(name).timestamp() < before_s:
                    self._fs.rm(name)
                    deleted += 1
        except FileNotFoundError:
            return deleted  # somebody else deletes at the same time
        except OSError as error:
            raise TransientError(f"sets: cannot delete: {error.strerror or error}") from error
        return deleted

    def _aside(self, set_root: Root) -> str:
        return f"{self._base}/{_ASIDE}/{set_root.hex()}.zst"

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

    def _write(self, path: str, pages: Iterable[SetPage]) -> SavedSet:
        with self._fs.open(path, "wb") as file:
            writer = _Writer(file)
            writer.add(pages)
            saved = writer.end()
            if self._local:
                file.flush()
                os.fsync(file.fileno())
        return saved

    def _sync_folder(self, path: str) -> None:
        """Make the names in a folder durable, on file systems where that is asked for."""
        if not self._local:
            return
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @contextlib.contextmanager
    def _open(self, set_root: Root) -> Iterator[BinaryIO]:
        """The file, to be read. Raises DamagedSegment, or TransientError where the disk does not let us look."""
        try:
            with self._fs.open(self.path(set_root), "rb") as file:
                yield file
        except FileNotFoundError as error:
            if not self._fs.exists(self._base):  # not mounted, rather than every file gone
                raise TransientError(f"the folder of sets is not there: {self._base}") from error
            raise DamagedSegment(f"set 0x{set_root.hex()}: the file is gone", set_root=set_root.hex()) from error
        except OSError as error:
            if error.errno == errno.EIO:  # the medium has lost these bytes
                raise DamagedSegment(f"set 0x{set_root.hex()}: {error.strerror}", set_root=set_root.hex()) from error
            raise TransientError(f"set 0x{set_root.hex()}: cannot read: {error.strerror or error}") from error

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


class _Writer:
    """Writes blocks as they fill, and the index at the end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._compressor = zstandard.ZstdCompressor(level=LEVEL, write_content_size=True, write_checksum=True)
        self._blocks: list[tuple[int, int, int]] = []
        self._at = 0
        self._open: list[bytes] = []
        self._filled = 0
        self._parts: list[_Part] = []
        self._newest_ms = 0

    def add(self, pages: Iterable[SetPage]) -> None:
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
        length = 0
        digest = hashlib.sha256()
        for piece in self._index_pieces(root):
            length += len(piece)
            digest.update(piece)
        if length > MAX_INDEX_BYTES:
            raise InvariantError(f"index of {length} bytes")
        self._file.write(struct.pack("<II", _SKIPPABLE, length + digest.digest_size + _TAIL.size))
        for piece in self._index_pieces(root):
            self._file.write(piece)
        self._file.write(digest.digest() + _TAIL.pack(length, _MAGIC))
        info = SegmentInfo(
            sum(e.count for e in entries),
            sum(e.signed_bytes for e in entries),
            self._newest_ms,
            self._at + 8 + length + digest.digest_size + _TAIL.size,
        )
        return SavedSet(root, entries, info)

    def _add_part(self, part: StreamPart, pages: Iterable[SetPage]) -> None:
        timestamps = array("Q")
        leaves = bytearray()
        positions = bytearray()
        tree = _Tree()
        signed = canonical_bytes = 0
        for page in pages:
            timestamps.extend(page.timestamps_ms)
            leaves += b"".join(page.leaves)
            tree.add(page.leaves)
            signed += page.signed_bytes
            canonical_bytes += sum(map(len, page.canonical))
            positions += b"".join(map(self._place, page.canonical))
        count = len(timestamps)
        self._newest_ms = max(self._newest_ms, timestamps[-1])
        if sys.byteorder == "little":
            timestamps.byteswap()
        entry = PartitionEntry(part[0], part[1], tree.root(), count, signed, canonical_bytes)
        self._parts.append(_Part(entry, timestamps.tobytes(), bytes(leaves), bytes(positions)))

    def _place(self, message: bytes) -> bytes:
        """Put a message into the open block; its position."""
        if self._filled >= BLOCK_BYTES:
            self._end_block()
        at = self._filled
        size = len(message)
        self._open.append(message)
        self._filled = at + size
        return _POSITION.pack(len(self._blocks), at, size)

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

    def _index_pieces(self, root: Root) -> Iterator[bytes]:
        """The index as canonical CBOR, its long strings as they are."""
        yield cbor.array_head(4) + cbor.encode("set-index/1") + cbor.encode(root)
        yield cbor.encode([list(block) for block in self._blocks])
        yield cbor.array_head(len(self._parts))
        for part in self._parts:
            *fields, timestamps, leaves, positions = _part_fields(part)
            yield cbor.array_head(9) + b"".join(cbor.encode(field) for field in fields)
            for string in (timestamps, leaves, positions):
                yield cbor.bytes_head(len(string))
                yield string


class _Tree:
    """Root over leaves that come in pieces. A full chunk's root is a node of the whole tree."""

    __slots__ = ("_leaves", "_nodes")

    def __init__(self) -> None:
        self._leaves: list[bytes] = []
        self._nodes: list[bytes] = []

    def add(self, leaves: Iterable[bytes]) -> None:
        self._leaves += leaves
        while len(self._leaves) >= CHUNK_LEAVES:
            self._nodes.append(compute_root(self._leaves[:CHUNK_LEAVES]))
            self._leaves = self._leaves[CHUNK_LEAVES:]

    def root(self) -> Root:
        nodes = [*self._nodes, compute_root(self._leaves)] if self._leaves else self._nodes
        return compute_root(nodes)


def _pages(ordered: Iterable[Record]) -> Iterator[SetPage]:
    """One of each partition."""
    for part, group in itertools.groupby(ordered, key=lambda record: record.message.stream_part):
        members = list(group)
        yield SetPage(
            part,
            [record.message.timestamp_ms for record in members],
            [record.leaf for record in members],
            [record.canonical for record in members],
            sum(record.signed_bytes for record in members),
        )


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
        hash_bytes = 0 if magic == _UNHASHED else 32
        start = end - _TAIL.size - hash_bytes - length
        if magic not in (_MAGIC, _UNHASHED) or length > MAX_INDEX_BYTES or start < 0:
            raise MalformedInput("index", "no index at the end")
        file.seek(start)
        data = file.read(length)
        if hash_bytes and hashlib.sha256(data).digest() != file.read(hash_bytes):
            raise MalformedInput("index", "altered")
        root, blocks, parts = cbor.decode_object(data, "set-index/1", 3, max_bytes=MAX_INDEX_BYTES)
        del data
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
        if compute_set_root(tuple(part.entry for part in index.parts)) != set_root:
            raise MalformedInput("index", "entries do not give the root")
    except (MalformedInput, struct.error, TypeError, ValueError) as error:
        raise DamagedSegment(f"set 0x{set_root.hex()}: {error}", set_root=set_root.hex()) from error
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
