"""Files of sets: the canonical messages behind a root, in canonical order, compressed; and their columns beside them.

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
index (``zstd -dc``) gets the CBOR sequence. A file is written under a temporary name, synced, and renamed, so it is
there whole or not at all; equal sets written at once by two workers replace each other. Blocks are decompressed to the
size the index names and no further, with a zstd window of at most 8 MiB.

Columns hold what the rules ask of a message, so that sets are compared, judged and united without a block being read.
They were computed from the canonical bytes by whoever wrote the file, and whoever reads a message compares its leaf.

What is read was written here, or it is damaged: the index is hashed when it is opened, its entries must give the set's
root, each column page is hashed and each block carries a checksum. A file that is gone, cut short, altered, or of a
release before columns raises ``DamagedSegment``. Where a disk does not let us look (no permission, no folder, no
descriptors), nothing is known yet: a ``TransientError``.
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
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from typing import Any, BinaryIO

import fsspec
import zstandard
from fsspec.implementations.local import LocalFileSystem

from validator.protocol.codec import cbor
from validator.protocol.codec.outcome import part_order
from validator.protocol.codec.outcome import set_root as compute_set_root
from validator.protocol.columns import ID_BYTES, PAGE_ROWS, Name, Page, RecordSet, all_pages
from validator.protocol.errors import Disagreement, InvariantError, MalformedInput, TransientError
from validator.protocol.merkle import RunningRoot
from validator.protocol.model import Digest, PartitionEntry, Record, Root, StreamPart

BLOCK_BYTES = 256 << 10
MAX_BLOCK_BYTES = 8 << 20
"""No block is larger: one message is at most about 1 MiB."""
MAX_INDEX_BYTES = 1 << 30
LEVEL = 1
"""Level 1 costs a fifth of the time of level 3 for about a tenth more bytes."""
CACHED_ROWS = 20_000
"""Rows of indexes (blocks, partitions, column pages) that are kept in memory, over all sets."""
CACHED_LEAVES = 4_000_000
"""Messages whose leaves can be found without a search through their set, over all sets; 8 bytes each."""

_SKIPPABLE = 0x184D2A50
_FRAME = struct.Struct("<II")
_TAIL = struct.Struct(">Q8s")
_MAGIC = b"LSINDEX3"
_ASIDE = "damaged"
_ROW_BYTES = 8 + 4 * 4 + 1 + 2 * ID_BYTES + 8


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


ColumnPage = tuple[int, int, int, bytes]
"""(offset in the file, size, messages, SHA-256)."""


@dataclass(slots=True)
class _Part:
    entry: PartitionEntry
    pages: list[ColumnPage]


@dataclass(slots=True)
class _Index:
    blocks: list[tuple[int, int, int]]
    parts: list[_Part]
    by_part: dict[StreamPart, _Part] = field(init=False)

    def __post_init__(self) -> None:
        self.by_part = {part.entry.stream_part: part for part in self.parts}

    @property
    def rows(self) -> int:
        return len(self.blocks) + sum(1 + len(part.pages) for part in self.parts)


@dataclass(slots=True)
class _Finder:
    """Where the message of a leaf stands: of each leaf the first four bytes, and the number of its message."""

    sorted: array[int] = field(default_factory=lambda: array("Q"))
    starts: list[int] = field(default_factory=list)
    """Number of the first message of each column page, over all partitions."""
    pages: list[tuple[StreamPart, ColumnPage]] = field(default_factory=list)

    def candidates(self, leaf: bytes) -> Iterator[tuple[int, int]]:
        """(column page, position in it) of messages whose leaf begins alike."""
        prefix = int.from_bytes(leaf[:4], "big")
        at = bisect_left(self.sorted, prefix << 32)
        while at < len(self.sorted) and self.sorted[at] >> 32 == prefix:
            number = self.sorted[at] & 0xFFFFFFFF
            page = bisect_right(self.starts, number) - 1
            yield page, number - self.starts[page]
            at += 1


class SegmentStore:
    """Sets as files below an fsspec URL or a local folder. Thread-safe."""

    def __init__(self, url: str) -> None:
        self._fs, self._base = fsspec.core.url_to_fs(url)
        self._local = isinstance(self._fs, LocalFileSystem)
        self._cache: OrderedDict[Root, _Index] = OrderedDict()
        self._finders: OrderedDict[Root, _Finder] = OrderedDict()
        self._cache_lock = threading.Lock()

    def path(self, set_root: Root) -> str:
        return f"{self._base}/{set_root.hex()[:2]}/{set_root.hex()}.zst"

    def save(self, set_root: Root, records: Sequence[Record]) -> SegmentInfo:
        """Write a set; durable when it returns.

        Raises:
            InvariantError: the root is not that of these records.
            TransientError: the disk is full or refuses.
        """
        try:
            return self.save_ordered(all_pages(RecordSet(records)), expected=set_root).info
        except Disagreement as error:
            raise InvariantError(f"set {set_root.hex()} does not have this root") from error

    def save_ordered(self, pages: Iterable[Page], *, expected: Root | None = None) -> SavedSet:
        """Write the set of distinct messages whose pages come in canonical order; durable when it returns.

        A block and a column page are held in memory, and the index: about 60 bytes for each of these.

        Raises:
            Disagreement: the root is not the expected one.
            TransientError: the disk is full or refuses.
        """
        name = "new set" if expected is None else f"set 0x{expected.hex()}"
        temporary = f"{self._base}/{uuid.uuid4().hex}.tmp"
        try:
            self._fs.makedirs(self._base, exist_ok=True)
            try:
                saved = self._write(temporary, pages)
                if expected not in (None, saved.set_root):
                    raise Disagreement(f"the messages of {name} have another root", set_root=saved.set_root)
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
        self._forget(set_root)
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
            if end != size or file.read() != _MAGIC:
                raise DamagedSegment(f"set 0x{set_root.hex()}: {end} bytes instead of {size}, or altered at the end")

    def put_aside(self, set_root: Root) -> None:
        """Move a damaged file out of the way, so that the set can be written anew; one that is gone is fine."""
        self._forget(set_root)
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
            pages = (_read_columns(file, p.entry.stream_part, page, _unread) for p in index.parts for page in p.pages)
            with contextlib.suppress(DamagedSegment):
                leaves = frozenset(leaf for page in pages for leaf in page.list_leaves())
            for block in range(len(index.blocks)):
                with contextlib.suppress(OSError, DamagedSegment):
                    plain = _read_block(file, index, block)
                    messages += cbor.split_sequence(plain, max_items=len(plain))
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

    def load_pages(self, set_root: Root, part: StreamPart) -> Iterator[Page]:
        """Column pages of a partition, in canonical order. Raises DamagedSegment."""
        index = self._index(set_root)
        found = index.by_part.get(part)
        if found is None:
            return
        read = partial(self._read_places, set_root)
        with self._open(set_root) as file:
            for page in found.pages:
                yield _read_columns(file, part, page, read)

    def load_set(self, set_root: Root) -> Iterator[bytes]:
        """Canonical messages in canonical order, page by page. Raises DamagedSegment."""
        for entry in self.load_entries(set_root):
            for page in self.load_pages(set_root, entry.stream_part):
                yield from page.canonical()

    def load_messages(self, set_root: Root, leaves: Sequence[Digest]) -> list[bytes]:
        """Canonical messages by leaf, in the order asked for; leaves that the set does not hold are left out.

        Only the column pages and blocks that hold them are read. Raises DamagedSegment.
        """
        finder = self._finder(set_root)
        asked = {leaf: list(finder.candidates(leaf)) for leaf in set(leaves)}
        by_page: dict[int, list[tuple[int, Digest]]] = {}
        for leaf, candidates in asked.items():
            for number, at in candidates:
                by_page.setdefault(number, []).append((at, leaf))
        places: dict[Digest, tuple[int, int]] = {}
        with self._open(set_root) as file:
            for number in sorted(by_page):
                page = _read_columns(file, *finder.pages[number], _unread)
                for at, leaf in by_page[number]:
                    if page.leaves[at * ID_BYTES : (at + 1) * ID_BYTES] == leaf:
                        places[leaf] = (page.places[at], page.sizes[at])
        known = list(places)
        read = self._read_places(set_root, [places[leaf][0] for leaf in known], [places[leaf][1] for leaf in known])
        found = dict(zip(known, read, strict=True))
        return [found[leaf] for leaf in leaves if leaf in found]

    def _read_places(self, set_root: Root, places: Sequence[int], sizes: Sequence[int]) -> list[bytes]:
        """Canonical messages that stand there; each block is unpacked once. Raises DamagedSegment."""
        found = [b""] * len(places)
        if not found:
            return found
        index = self._index(set_root)
        order = range(len(places))
        if any(a > b for a, b in itertools.pairwise(places)):
            order = sorted(order, key=places.__getitem__)  # type: ignore[assignment]
        with self._open(set_root) as file:
            block, plain = -1, b""
            for number in order:
                place = places[number]
                if place >> 32 != block:
                    block = place >> 32
                    plain = _read_block(file, index, block)
                offset = place & 0xFFFFFFFF
                found[number] = plain[offset : offset + sizes[number]]
        return found

    def _finder(self, set_root: Root) -> _Finder:
        """Built by reading all column pages once."""
        with self._cache_lock:
            held = self._finders.get(set_root)
            if held is not None:
                self._finders.move_to_end(set_root)
                return held
        index = self._index(set_root)
        finder = _Finder()
        found = array("Q")
        count = 0
        with self._open(set_root) as file:
            for part in index.parts:
                for page in part.pages:
                    finder.starts.append(count)
                    finder.pages.append((part.entry.stream_part, page))
                    leaves = _read_columns(file, part.entry.stream_part, page, _unread).list_leaves()
                    found.extend(int.from_bytes(leaf[:4], "big") << 32 | n for n, leaf in enumerate(leaves, count))
                    count += len(leaves)
        finder.sorted = array("Q", sorted(found))
        with self._cache_lock:
            self._finders[set_root] = finder
            while len(self._finders) > 1 and sum(len(f.sorted) for f in self._finders.values()) > CACHED_LEAVES:
                self._finders.popitem(last=False)
        return finder

    def _forget(self, set_root: Root) -> None:
        with self._cache_lock:
            self._cache.pop(set_root, None)
            self._finders.pop(set_root, None)

    def _write(self, path: str, pages: Iterable[Page]) -> SavedSet:
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
            while len(self._cache) > 1 and sum(i.rows for i in self._cache.values()) > CACHED_ROWS:
                self._cache.popitem(last=False)
        return index


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


class _Writer:
    """Writes blocks and column pages as they fill, and the index at the end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._compressor = zstandard.ZstdCompressor(level=LEVEL, write_content_size=True, write_checksum=True)
        self._blocks: list[tuple[int, int, int]] = []
        self._at = 0
        self._open: list[bytes] = []
        self._filled = 0
        self._parts: list[_Part] = []
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
            "set-index/3", root, [list(block) for block in self._blocks], [_part_fields(part) for part in self._parts]
        )
        if len(index) > MAX_INDEX_BYTES:
            raise InvariantError(f"index of {len(index)} bytes")
        frame = index + hashlib.sha256(index).digest() + _TAIL.pack(len(index), _MAGIC)
        self._file.write(_FRAME.pack(_SKIPPABLE, len(frame)) + frame)
        self._at += _FRAME.size + len(frame)
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
        self._parts.append(_Part(entry, written))

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
        self._file.write(_FRAME.pack(_SKIPPABLE, len(data)) + data)
        at = self._at + _FRAME.size
        self._at = at + len(data)
        return (at, len(data), len(columns), hashlib.sha256(data).digest())


def _short(pages: Iterable[Page]) -> Iterator[Page]:
    """Longer ones in pieces."""
    for page in pages:
        for start in range(0, len(page), PAGE_ROWS):
            yield page.cut(start, min(len(page), start + PAGE_ROWS))


def _little_endian(column: array[int]) -> bytes:
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column.tobytes()


def _part_fields(part: _Part) -> list[Any]:
    e = part.entry
    fields = [e.stream_id, e.partition, e.root, e.count, e.signed_bytes, e.canonical_bytes]
    return [*fields, [list(page) for page in part.pages]]


def _read_index(file: BinaryIO, set_root: Root) -> _Index:
    try:
        end = file.seek(0, io.SEEK_END)
        file.seek(max(0, end - _TAIL.size))
        length, magic = _TAIL.unpack(file.read(_TAIL.size))
        start = end - _TAIL.size - 32 - length
        if magic != _MAGIC or length > MAX_INDEX_BYTES or start < 0:
            raise MalformedInput("index", "no index of this release at the end")
        file.seek(start)
        data = file.read(length)
        if hashlib.sha256(data).digest() != file.read(32):
            raise MalformedInput("index", "altered")
        root, blocks, parts = cbor.decode_object(data, "set-index/3", 3, max_bytes=MAX_INDEX_BYTES)
        if root != set_root:
            raise MalformedInput("index", "of another set")
        index = _Index(
            [(offset, size, plain) for offset, size, plain in blocks],
            [_Part(PartitionEntry(*fields[:6]), [(a, b, c, d) for a, b, c, d in fields[6]]) for fields in parts],
        )
        if any(part.entry.count != sum(page[2] for page in part.pages) for part in index.parts):
            raise MalformedInput("index", "column pages do not give the count")
        if compute_set_root(tuple(part.entry for part in index.parts)) != set_root:
            raise MalformedInput("index", "entries do not give the root")
    except (MalformedInput, struct.error, TypeError, ValueError) as error:
        raise DamagedSegment(f"set 0x{set_root.hex()}: {error}", set_root=set_root.hex()) from error
    return index


def _read_columns(
    file: BinaryIO, part: StreamPart, page: ColumnPage, read: Callable[[Sequence[int], Sequence[int]], list[bytes]]
) -> Page:
    """One column page, as it was written. Raises DamagedSegment."""
    offset, size, count, digest = page
    file.seek(offset)
    data = file.read(size)
    if hashlib.sha256(data).digest() != digest:
        raise DamagedSegment(f"columns of {part[0]}#{part[1]} at {offset}: altered")
    at = size - count * _ROW_BYTES
    (names,) = cbor.decode_object(data[:at], "names/1", 1, max_bytes=MAX_INDEX_BYTES)

    columns = []
    for width in (8, 4, 4, 4, 4, 1, ID_BYTES, ID_BYTES, 8):
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


def _from_little_endian(code: str, data: bytes) -> array[int]:
    column = array(code, data)
    if sys.byteorder == "big":
        column.byteswap()
    return column


def _unread(_places: Sequence[int], _sizes: Sequence[int]) -> list[bytes]:
    raise InvariantError("canonical bytes of a page that was read for its columns alone")


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
