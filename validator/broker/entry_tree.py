"""The tree over one entry's messages, kept small: one node per 256 leaves, and where each 256 begin.

Built once in a pass over the rows, and believed only if it gives the entry's root. A range is then proven from two
short reads at its ends, whatever lies between: 100 000 messages take 60 kB here and not 100 000 hashes per question.
What those reads give is compared with the node above it, so rows that changed since are noticed and not proven.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Generic, Protocol, TypeVar

from validator.ports.message_store import SortKey, StoredRow
from validator.protocol.completeness import without_publishers
from validator.protocol.errors import TransientError
from validator.protocol.leaves import hash_publisher
from validator.protocol.merkle import KEPT_LEAVES, KeptTree, compute_root, inclusion_proof
from validator.protocol.merkle import Proof as Path
from validator.protocol.model import Digest, PartitionEntry
from validator.protocol.proof import Neighbour, read_neighbour

_KEY = attrgetter("key")
K = TypeVar("K")
V = TypeVar("V")


class EntryRows(Protocol):
    """The rows of one entry, wherever they lie."""

    def pages(self) -> Iterator[Sequence[StoredRow]]:
        """All of them, in order."""

    def between(self, low: SortKey, high: SortKey | None) -> list[StoredRow]:
        """Those from ``low`` on and before ``high`` (None: to the end), in order."""


class KeyedRows(Protocol):
    """Some rows of a page, in order. A leaf names a row; a key is quick to ask for a few of them."""

    def __len__(self) -> int: ...

    def key(self, number: int) -> SortKey: ...

    def leaf(self, number: int) -> Digest: ...


class RowsChanged(TransientError):
    """Rows are not those that the tree was built over: they are compared anew before anything is proven."""


@dataclass(frozen=True, slots=True)
class RangeShown:
    """What a range proof shows of an entry: from leaf ``start`` on, one neighbour on either side, and the path.

    A neighbour's publisher is left out where the message beside it has the same (``protocol.completeness``)."""

    start: int
    before: Neighbour | None
    after: Neighbour | None
    path: Path


class EntryTree:
    """Immutable, so any thread may use it."""

    __slots__ = ("_firsts", "_nodes", "_times", "_tree")

    def __init__(self, nodes: Sequence[bytes], firsts: Sequence[SortKey], count: int) -> None:
        self._nodes = nodes
        self._firsts = firsts
        self._times = [key.timestamp_ms for key in firsts]
        self._tree = KeptTree(nodes, count)

    @property
    def weight(self) -> int:
        """Nodes kept."""
        return len(self._nodes) + 1

    @property
    def count(self) -> int:
        return self._tree.size

    def show_range(self, rows: EntryRows, from_ms: int, until_ms: int) -> RangeShown:
        """Raises RowsChanged; and what reading the rows raises."""
        chunk = _Chunks(self, rows)
        first = self._index_of(chunk, from_ms)
        end = max(first, self._index_of(chunk, until_ms))
        start, stop = max(first - 1, 0), min(end + 1, self.count)
        path = self._tree.range_proof(start, stop, chunk.leaves) if self.count else ()
        before = _neighbour(chunk.row(first - 1)) if first else None
        after = _neighbour(chunk.row(end)) if end < self.count else None
        first_publisher, last_publisher = (
            Digest(hash_publisher(chunk.row(index).key.publisher_id)) if first < end else None
            for index in (first, end - 1)
        )
        return RangeShown(start, *without_publishers(before, after, first_publisher, last_publisher), path)

    def show_message(self, rows: EntryRows, key: SortKey) -> tuple[int, StoredRow, Path] | None:
        """Index, row and path of the message at this place; None where the entry has none. Raises as ``show_range``."""
        chunk = _Chunks(self, rows)
        number = bisect_left(self._firsts, key)
        if number == len(self._firsts) or self._firsts[number] != key:
            number -= 1
        if number < 0:
            return None
        for place, row in enumerate(chunk.rows(number)):
            if row.key == key:
                path = (*inclusion_proof(chunk.leaves(number), place), *inclusion_proof(self._nodes, number))
                return number * KEPT_LEAVES + place, row, path
        return None

    def _index_of(self, chunk: _Chunks, ms: int) -> int:
        """Of the first leaf whose time is ``ms`` or later."""
        number = bisect_left(self._times, ms)
        if number == 0:
            return 0
        times = [row.key.timestamp_ms for row in chunk.rows(number - 1)]
        return (number - 1) * KEPT_LEAVES + bisect_left(times, ms)

    def read(self, rows: EntryRows, number: int) -> list[StoredRow]:
        """The rows of a chunk. Raises RowsChanged."""
        high = self._firsts[number + 1] if number + 1 < len(self._firsts) else None
        found = rows.between(self._firsts[number], high)
        if not self._tree.holds(number, [row.key.leaf for row in found]):
            raise RowsChanged("not yet: the rows of an entry are not those that were compared; they are compared anew")
        return found

    def holds_page(self, rows: EntryRows, page: KeyedRows) -> bool:
        """Whether a page, read from ``rows`` before, is the entry's rows one behind the other and nothing among them.

        Rows are only ever added, so those between two chunks' beginnings are the entry's if they are as many; at the
        page's ends the chunks are read again. Raises what reading the rows raises.
        """
        places = range(len(page))
        low = page.key(0)
        first = bisect_left(self._firsts, low)
        last = bisect_right(self._firsts, page.key(len(page) - 1)) - 1
        try:
            if first > last:
                chunk = self.read(rows, last) if last >= 0 else []
                at = bisect_left(chunk, low, key=_KEY)
                return _leaves(page, 0, len(page)) == [row.key.leaf for row in chunk[at : at + len(page)]]
            begin, end = (bisect_left(places, self._firsts[number], key=page.key) for number in (first, last))
            ahead = [row.key.leaf for row in self.read(rows, first - 1)[-begin:]] if begin else []
            rest = [row.key.leaf for row in self.read(rows, last)[: len(page) - end]]
            return (
                page.key(begin) == self._firsts[first]
                and end - begin == (last - first) * KEPT_LEAVES
                and _leaves(page, 0, begin) == ahead
                and _leaves(page, end, len(page)) == rest
            )
        except RowsChanged:
            return False

    def chunks_of(self, from_ms: int, until_ms: int, after: SortKey | None) -> range:
        """Numbers of the chunks in which rows of [from_ms, until_ms) behind ``after`` may lie."""
        first = max(bisect_left(self._times, from_ms) - 1, 0)
        if after is not None:
            first = max(first, bisect_left(self._firsts, after) - 1)
        return range(first, bisect_left(self._times, until_ms))


class _Chunks:
    """What one question has read of an entry's rows."""

    def __init__(self, tree: EntryTree, rows: EntryRows) -> None:
        self._tree = tree
        self._rows = rows
        self._read: dict[int, list[StoredRow]] = {}

    def rows(self, number: int) -> list[StoredRow]:
        if number not in self._read:
            self._read[number] = self._tree.read(self._rows, number)
        return self._read[number]

    def leaves(self, number: int) -> list[Digest]:
        return [row.key.leaf for row in self.rows(number)]

    def row(self, index: int) -> StoredRow:
        number, place = divmod(index, KEPT_LEAVES)
        return self.rows(number)[place]


def build_tree(entry: PartitionEntry, pages: Iterable[Sequence[StoredRow]]) -> EntryTree | None:
    """The tree, if these are exactly the entry's rows; None if they are others."""
    nodes: list[bytes] = []
    firsts: list[SortKey] = []
    waiting: list[SortKey] = []
    count = 0
    for page in pages:
        count += len(page)
        if count > entry.count:
            return None
        waiting += [row.key for row in page]
        while len(waiting) >= KEPT_LEAVES:
            _close_chunk(nodes, firsts, waiting[:KEPT_LEAVES])
            del waiting[:KEPT_LEAVES]
    if waiting:
        _close_chunk(nodes, firsts, waiting)
    tree = EntryTree(nodes, firsts, count)
    return tree if (count, compute_root(nodes)) == (entry.count, entry.root) else None


def _close_chunk(nodes: list[bytes], firsts: list[SortKey], keys: Sequence[SortKey]) -> None:
    firsts.append(keys[0])
    nodes.append(compute_root([key.leaf for key in keys]))


def _leaves(page: KeyedRows, start: int, end: int) -> list[Digest]:
    return [page.leaf(number) for number in range(start, end)]


def _neighbour(row: StoredRow) -> Neighbour:
    return read_neighbour(row.canonical)


def just_before(key: SortKey) -> SortKey | None:
    """The place before a key, so that what follows it begins with the key; None: nothing with its other fields does."""
    number = int.from_bytes(key.leaf, "big")
    return key._replace(leaf=Digest((number - 1).to_bytes(32, "big"))) if number else None


class Remembered(Generic[K, V]):
    """Values by key, the least used forgotten first while their weights exceed the bound. Thread-safe."""

    def __init__(self, limit: int, weigh: Callable[[V], int] = lambda _: 1) -> None:
        self._limit = limit
        self._weigh = weigh
        self._total = 0
        self._lock = threading.Lock()
        self._known: OrderedDict[K, V] = OrderedDict()

    def find(self, key: K) -> V | None:
        with self._lock:
            value = self._known.get(key)
            if value is not None:
                self._known.move_to_end(key)
            return value

    def add(self, key: K, value: V) -> V:
        """The same value. One that alone exceeds the bound is not kept."""
        with self._lock:
            self._drop(key)
            self._known[key] = value
            self._total += self._weigh(value)
            while self._total > self._limit:
                self._drop(next(iter(self._known)))
        return value

    def forget(self, key: K) -> None:
        with self._lock:
            self._drop(key)

    def clear(self) -> None:
        with self._lock:
            self._known.clear()
            self._total = 0

    def _drop(self, key: K) -> None:
        value = self._known.pop(key, None)
        if value is not None:
            self._total -= self._weigh(value)
