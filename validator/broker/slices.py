"""Sums of what the store holds, kept as messages come: nothing is ever computed over all of it when somebody asks.

A slice is summed once, when it closes, by one scan of its keys, and again when something came late. Sums of slices,
blocks and hours lie in a book (``ports.broker_state.SumBook``), a small SQLite file or the broker's PostgreSQL;
partitions of slices that were asked for lately, in memory. Whatever a process may have left half done is written down
before the messages are (``reopen``), or with them by the store itself, so that a kill costs a second look at some
slices, never a claim that is not so. After a power cut, which may take a file's last messages with it, the newest hour
is looked at once more.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Sequence

from validator.broker.passing_store import PassingStore
from validator.ports.broker_state import SumBook
from validator.ports.message_store import MessageStore
from validator.protocol.model import Record, StreamPart
from validator.protocol.slices import (
    HOUR_MS,
    LEVELS_MS,
    SLICE_MS,
    PartSum,
    Sum,
    closed_until,
    cut,
    slice_start,
    sum_messages,
    sum_parts,
    sum_spans,
)

LOOKED_HOURS, LOOKED_KEYS = 64, 50_000
"""Of what is looked at after a start, in one settling: an eighth of a second."""
CACHED_TOTALS = 64
CACHED_PARTS = 20_000
"""Sums of partitions that stay in memory: 4 MB."""


class SliceSums:
    """Thread-safe. ``from_ms``: nothing before it is summed, or claimed.

    Of several processes that share the book one ``settles``; the others say what they have changed, and read.
    """

    def __init__(self, book: SumBook, store: MessageStore, *, from_ms: int = 0, settles: bool = True) -> None:
        self._book = book
        self._store = store
        self._settles = settles
        self._lock = threading.RLock()
        self._floor_ms = slice_start(from_ms + SLICE_MS - 1)
        self._dirty: defaultdict[int, set[StreamPart]] = defaultdict(set)
        self._seen: defaultdict[int, set[int]] = defaultdict(set)
        """Numbers of the marks behind what is dirty, where the store makes them."""
        self._busy: Counter[int] = Counter()
        self._parts: OrderedDict[int, dict[StreamPart, PartSum]] = OrderedDict()
        self._totals: OrderedDict[tuple[int, int], Sum] = OrderedDict()
        """Of ranges asked for since a sum has changed last."""
        self._unlooked: list[tuple[int, int]] | None = None
        """Spans whose slices nobody has looked at since the start, newest first; None before the first settling."""

    def close(self) -> None:
        with self._lock:
            self._book.close()

    def settle_from_now(self, settles: bool) -> None:
        """This process is the one that settles, or is no longer; what it remembers may be another's past."""
        with self._lock:
            self._settles = settles
            for remembered in (self._dirty, self._seen, self._parts, self._totals):
                remembered.clear()
            self._unlooked = None

    # --- what changes

    def reopen(self, touched: Iterable[tuple[int, StreamPart]]) -> None:
        """Messages of these slices are about to be stored; they are summed after ``done``."""
        if self._book.keeps_marks:
            return
        with self._lock:
            starts = {start for start, _ in touched}
            fresh = [start for start in starts if start not in self._dirty or not self._settles]
            for start, part in touched:
                self._dirty[start].add(part)
            self._busy.update(starts)
            self._book.mark(fresh)

    def done(self, touched: Iterable[tuple[int, StreamPart]]) -> None:
        if self._book.keeps_marks:
            return
        with self._lock:
            starts = {start for start, _ in touched}
            self._busy -= Counter(starts)
            if not self._settles:
                self._dirty.clear()
                self._book.mark(starts)

    def settle(self, now_ms: int, *, most: int = 256) -> int:
        """Sum slices that are closed and have changed, newest first, at most so many. Returns how many are left."""
        until_ms = closed_until(now_ms)
        self._read_marks()
        keys = 0
        for _ in range(LOOKED_HOURS):
            found = self._look(until_ms)
            keys += found or 0
            if found is None or keys > LOOKED_KEYS:
                break
        with self._lock:
            waiting = sorted((s for s in self._dirty if s < until_ms and not self._busy[s]), reverse=True)
        for start in waiting[:most]:
            self._settle_slice(start)
        with self._lock:
            return max(0, len(waiting) - most) + len(self._unlooked or ())

    def _read_marks(self) -> None:
        """What was stored by another process, or before a start."""
        marks = self._book.marks()
        with self._lock:
            for mark in marks:
                changed = self._dirty[mark.start_ms]
                if mark.part is not None:
                    changed.add(mark.part)
                    self._seen[mark.start_ms].add(mark.number)

    def freshen(self, from_ms: int, until_ms: int) -> None:
        """Sum what has changed in a range of closed slices now: what is answered next is of one moment."""
        if self._settles and self._book.keeps_marks:
            self._read_marks()
        with self._lock:
            waiting = [s for s in self._dirty if self._settles and from_ms <= s < until_ms and not self._busy[s]]
        for start in waiting:
            self._settle_slice(start)

    def drop_before(self, ms: int) -> None:
        """Nothing before this time is kept any more."""
        with self._lock:
            self._floor_ms = max(self._floor_ms, slice_start(ms + SLICE_MS - 1))
            self._totals.clear()
            # a block or an hour that the floor cuts is summed anew when it is asked for
            if self._settles or not self._book.keeps_marks:
                self._book.drop_before(self._floor_ms)
            for start in [s for s in self._dirty if s < self._floor_ms]:
                del self._dirty[start]
                self._seen.pop(start, None)

    def _look(self, until_ms: int) -> int | None:
        """Find slices with messages in an hour that nobody has looked at since the start, the newest first.

        Returns how many keys that took; None where everything was looked at.
        """
        with self._lock:
            if self._unlooked is None:
                self._unlooked = self._plan(until_ms)
            if not self._unlooked:
                return None
            start, end = self._unlooked[0]
        begin = max(start, end - HOUR_MS)
        found: set[tuple[int, StreamPart]] = set()
        keys = 0
        for part in self._store.parts():
            for page in self._store.keys(part, begin, end):
                keys += len(page)
                found.update((slice_start(timestamp_ms), part) for timestamp_ms, _ in page)
        with self._lock:
            for first, part in found:
                self._dirty[first].add(part)
            self._unlooked[:1] = [(start, begin)] if start < begin else []
            if not self._unlooked:
                self._book.note_looked_from(self._floor_ms)
        return keys

    def _plan(self, until_ms: int) -> list[tuple[int, int]]:
        """What to look at after a start: the newest hour that was summed and what follows it; what never was."""
        looked = self._book.looked_from()
        begin = until_ms
        if not self._book.keeps_marks:
            newest = self._book.newest_slice()
            begin = max(self._floor_ms, slice_start(max(0, (newest or 0) - HOUR_MS)))
        spans = [(begin, until_ms), (self._floor_ms, min(begin, until_ms if looked is None else looked))]
        return [(start, end) for start, end in spans if start < end]

    def _settle_slice(self, start: int) -> None:
        with self._lock:
            changed = self._dirty.pop(start, None)
            seen = self._seen.pop(start, set())
            known = self._parts.get(start)
        if changed is None:
            return
        if known is None and self._book.keeps_marks and not self._book.load([(start, SLICE_MS)]):
            known = {}  # whatever is there is marked
        scanned = self._store.parts() if known is None or not changed else changed
        sums = {**(known or {}), **{part: self._sum_part(part, start) for part in scanned}}
        held = {part: s for part, s in sums.items() if s.count}
        above = [(start - start % length, length) for length in LEVELS_MS[1:]]
        with self._lock:
            if start >= self._floor_ms:
                self._totals.clear()
                if self._book.settle(sum_parts(start, held.values()), seen, above):
                    self._cache(start, held)
                else:
                    self._parts.pop(start, None)
            if start not in self._dirty:  # nothing has come since
                self._book.unmark(start)

    def _sum_part(self, part: StreamPart, start: int) -> PartSum:
        pages = self._store.keys(part, start, start + SLICE_MS)
        return sum_messages(part, [leaf for page in pages for _, leaf in page])

    def _cache(self, start: int, parts: dict[StreamPart, PartSum]) -> None:
        self._parts[start] = parts
        self._parts.move_to_end(start)
        total = sum(map(len, self._parts.values()))
        while total > CACHED_PARTS and len(self._parts) > 1:
            total -= len(self._parts.popitem(last=False)[1])

    # --- what is asked

    @property
    def from_ms(self) -> int:
        """Since when everything that is held is summed."""
        with self._lock:
            return max((end for _, end in self._unlooked or ()), default=self._floor_ms)

    def total(self, from_ms: int, until_ms: int) -> Sum:
        """Raises MalformedInput unless the range is of whole slices."""
        with self._lock:
            known = self._totals.get((from_ms, until_ms)) if self._settles else None
            if known is None:
                known = sum_spans(from_ms, until_ms - from_ms, self.below(from_ms, until_ms))
                self._totals[from_ms, until_ms] = known
                while len(self._totals) > CACHED_TOTALS:
                    self._totals.popitem(last=False)
            return known

    def below(self, from_ms: int, until_ms: int) -> list[Sum]:
        """The nodes that cover a range of whole slices, without empty ones. Raises MalformedInput."""
        with self._lock:
            nodes = cut(from_ms, until_ms)
            known = dict(self._book.load(nodes))
            missing = [node for node in nodes if node not in known and node[1] > SLICE_MS]
            for start, length in sorted(self._book.filled(missing)) if missing else ():
                known[start, length] = made = self.total(start, start + length)
                if self._settles or not self._book.keeps_marks:
                    self._book.write(made)
            return [known[node] for node in nodes if node in known and known[node].count]

    def parts(self, start: int) -> list[PartSum]:
        """What a slice has of each partition."""
        with self._lock:
            known = self._parts.get(start) if self._settles else None
            if known is None and start < self._floor_ms:
                return []
        if known is None:
            sums = [self._sum_part(part, start) for part in self._store.parts()]
            known = {s.part: s for s in sums if s.count}
            with self._lock:
                if start not in self._dirty:
                    self._cache(start, known)
        return sorted(known.values())


class SummedStore(PassingStore):
    """A message store (``ports.MessageStore``) whose sums follow what is stored. Everything else goes straight on."""

    def __init__(
        self, store: MessageStore, sums: SliceSums, on_stored: Callable[[Sequence[Record]], None] | None = None
    ) -> None:
        """``on_stored`` is told what is stored, in the thread that did so."""
        super().__init__(store)
        self._on_stored = on_stored
        self._sums = sums

    def insert(self, records: Sequence[Record], arrived_ms: int) -> int:
        touched = {(slice_start(r.message.timestamp_ms), r.message.stream_part) for r in records}
        self._sums.reopen(touched)
        try:
            new = super().insert(records, arrived_ms)
        finally:
            self._sums.done(touched)
        if self._on_stored is not None:
            self._on_stored(records)
        return new

    def drop_days_before(self, ms: int) -> int:
        self._sums.drop_before(ms)
        return super().drop_days_before(ms)
