"""Files of sets, one each: the canonical messages behind a root, found by root, partition and leaf.

What a file holds is in segment_format.py. A file is written under a temporary name, synced, and renamed, so it is there
whole or not at all; equal sets written at once by two workers replace each other. Columns were computed from the
canonical bytes by whoever wrote the file.

What is read was written here, or it is damaged: a file that is gone, cut short, altered, or of a release before columns
raises ``DamagedSegment``. Where a disk does not let us look (no permission, no folder, no descriptors), nothing is
known yet: a ``TransientError``. So it is with an object store that does not answer; of one, no listing is remembered,
since workers on other machines write into it too.
"""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import os
import threading
import uuid
from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, BinaryIO

import fsspec
from fsspec.implementations.local import LocalFileSystem

from validator.protocol.codec import cbor
from validator.protocol.codec.message import record_from_canonical
from validator.protocol.columns import ID_BYTES, Page, RecordSet, all_pages
from validator.protocol.errors import ConfigError, Disagreement, InvariantError, MalformedInput, TransientError
from validator.protocol.model import Digest, PartitionEntry, Record, Root, StreamPart
from validator.store.segment_format import MAGIC, ColumnPage, DamagedSegment, Index, SavedSet, SegmentInfo
from validator.store.segment_reader import read_block, read_columns, read_index, unread
from validator.store.segment_writer import SegmentWriter

CACHED_ROWS = 20_000
"""Rows of indexes (blocks, partitions, column pages) that are kept in memory, over all sets."""
CACHED_LEAVES = 4_000_000
"""Messages whose leaves can be found without a search through their set, over all sets; 8 bytes each."""

SETS_URL = "SETS_URL"
"""Where a child finds the URL in its environment: arguments can be read by anybody on the machine, and a URL may have a
password in it."""
_ASIDE = "damaged"


@dataclass(frozen=True, slots=True)
class Salvage:
    """What is left of a damaged set: messages that can still be read, and the leaves of all if the index is whole."""

    messages: tuple[bytes, ...] = ()
    leaves: frozenset[Digest] | None = None


class SegmentStore:
    """Sets as files below an fsspec URL or a local folder. Thread-safe."""

    def __init__(self, url: str) -> None:
        self._fs, self._base = _open_file_system(url)
        self._local = isinstance(self._fs, LocalFileSystem)
        self._refusals = _refusals_of(self._fs)
        self._cache: OrderedDict[Root, Index] = OrderedDict()
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
            raise InvariantError(f"set 0x{set_root.hex()} does not have this root") from error

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
        except self._refusals as error:
            raise TransientError(f"{name}: cannot write: {_reason(error)}") from error
        return saved

    def exists(self, set_root: Root) -> bool:
        """Raises TransientError where that cannot be told now."""
        try:
            return bool(self._fs.exists(self.path(set_root)))
        except self._refusals as error:
            raise TransientError(f"set 0x{set_root.hex()}: cannot look: {_reason(error)}") from error

    def delete(self, set_root: Root) -> None:
        """Remove the file; one that is gone already is fine."""
        self._forget(set_root)
        try:
            self._fs.rm(self.path(set_root))
        except FileNotFoundError:
            return
        except self._refusals as error:
            raise TransientError(f"set 0x{set_root.hex()}: cannot delete: {_reason(error)}") from error

    def glance(self, set_root: Root, size: int) -> None:
        """Look whether the file has its length and its end; one that a power loss cut short or left as zeros has not.

        Raises DamagedSegment, or TransientError where that cannot be told now.
        """
        with self._open(set_root) as file:
            end = file.seek(0, io.SEEK_END)
            file.seek(max(0, end - len(MAGIC)))
            if end != size or file.read() != MAGIC:
                raise DamagedSegment(f"set 0x{set_root.hex()}: {end} bytes instead of {size}, or altered at the end")

    def put_aside(self, set_root: Root) -> None:
        """Move a damaged file out of the way, so that the set can be written anew; one that is gone is fine."""
        self._forget(set_root)
        try:
            self._fs.makedirs(f"{self._base}/{_ASIDE}", exist_ok=True)
            self._fs.mv(self.path(set_root), self._aside(set_root))
        except FileNotFoundError:
            return
        except self._refusals as error:
            raise TransientError(f"set 0x{set_root.hex()}: cannot move: {_reason(error)}") from error

    def salvage(self, set_root: Root) -> Salvage:
        """What can still be read of a file that was put aside."""
        messages: list[bytes] = []
        leaves: frozenset[Digest] | None = None
        with contextlib.suppress(OSError, DamagedSegment), self._fs.open(self._aside(set_root), "rb") as file:
            index = read_index(file, set_root)
            pages = (read_columns(file, p.entry.stream_part, page, unread) for p in index.parts for page in p.pages)
            with contextlib.suppress(DamagedSegment):
                leaves = frozenset(leaf for page in pages for leaf in page.list_leaves())
            for block in range(len(index.blocks)):
                with contextlib.suppress(OSError, DamagedSegment):
                    plain = read_block(file, index, block)
                    messages += cbor.split_sequence(plain, max_items=len(plain))
        return Salvage(tuple(messages), leaves)

    def sweep(self, before_s: float, limit: int) -> int:
        """Delete what is older of damaged files and of files that a process died over; returns how many."""
        deleted = 0
        try:
            if not self._fs.exists(self._base):
                return 0
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
        except self._refusals as error:
            raise TransientError(f"sets: cannot delete: {_reason(error)}") from error
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
                yield read_columns(file, part, page, read)

    def iterate(self, set_root: Root, parts: Collection[StreamPart] | None = None) -> Iterator[Record]:
        """Records in canonical order, of all partitions or of some, one by one: a set need not fit in memory.

        Raises DamagedSegment: not here, or not what was saved; each record has the leaf of its place.
        """
        for entry in self.load_entries(set_root):
            if parts is None or entry.stream_part in parts:
                for page in self.load_pages(set_root, entry.stream_part):
                    yield from _records_of(page)

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
                page = read_columns(file, *finder.pages[number], unread)
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
                    plain = read_block(file, index, block)
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
                    leaves = read_columns(file, part.entry.stream_part, page, unread).list_leaves()
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
            writer = SegmentWriter(file)
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
            if not self._is_there():  # not mounted, rather than every file gone
                raise TransientError(f"the folder of sets is not there: {self._base}") from error
            raise DamagedSegment(f"set 0x{set_root.hex()}: the file is gone", set_root=set_root.hex()) from error
        except self._refusals as error:
            if self._local and isinstance(error, OSError) and error.errno == errno.EIO:  # these bytes are lost
                raise DamagedSegment(f"set 0x{set_root.hex()}: {error.strerror}", set_root=set_root.hex()) from error
            raise TransientError(f"set 0x{set_root.hex()}: cannot read: {_reason(error)}") from error

    def _is_there(self) -> bool:
        """Whether the place of all sets is; an object store has no folders, and a bucket may be empty."""
        return bool(self._fs.exists(self._base if self._local else self._base.partition("/")[0]))

    def _index(self, set_root: Root) -> Index:
        with self._cache_lock:
            held = self._cache.get(set_root)
            if held is not None:
                self._cache.move_to_end(set_root)
                return held
        with self._open(set_root) as file:
            index = read_index(file, set_root)
        with self._cache_lock:
            self._cache[set_root] = index
            while len(self._cache) > 1 and sum(i.rows for i in self._cache.values()) > CACHED_ROWS:
                self._cache.popitem(last=False)
        return index


def _open_file_system(url: str) -> tuple[Any, str]:
    """What a URL or path names. Raises ConfigError for a scheme that nothing here, or nothing at all, can open."""
    try:
        fs, base = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        scheme = url.partition(":")[0]
        extra = "pip install 'logstore-validator[s3]'" if scheme in ("s3", "s3a") else str(error)
        raise ConfigError(f"LOGSTORE_SEGMENTS_URL: {scheme}:// needs more: {extra}", field="segments_url") from error
    except ValueError as error:
        raise ConfigError(f"LOGSTORE_SEGMENTS_URL: {error}", field="segments_url") from error
    return fs, base


def _refusals_of(fs: Any) -> tuple[type[Exception], ...]:
    """What a file system raises where it does not do as it is told; S3's library has errors of its own beside."""
    if "s3" not in fs.protocol:
        return (OSError,)
    from botocore.exceptions import BotoCoreError

    return (OSError, BotoCoreError)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


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


def _records_of(page: Page) -> Iterator[Record]:
    """The messages of a page. Raises DamagedSegment: one is not that of which its columns are."""
    for leaf, data in zip(page.list_leaves(), page.canonical(), strict=True):
        try:
            record = record_from_canonical(data)
        except MalformedInput as error:
            raise DamagedSegment(f"a message of {page.stream_part[0]}: {error}") from error
        if record.leaf != leaf:
            raise DamagedSegment(f"a message of {page.stream_part[0]} was altered")
        yield record
