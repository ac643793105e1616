"""Certified history over three tiers (port ``CertifiedHistory``): one order, each row once, each marked with its set.

Time is walked bundle by bundle, so nothing grows with the span of a question. Where the store holds the sets of a
stretch, its rows are read in pages and marked; a page is marked after it was read, and only if the span still has as
many rows as when it was compared, so a late arrival is never taken for a certified row. Where it does not, the rows of
the lake are merged with what the store has besides.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from operator import itemgetter

from validator.broker.certified import CertifiedBundles, OpenedBundle
from validator.broker.comparing import Chosen, Comparing
from validator.broker.entry_tree import Remembered, RowsChanged
from validator.net.chain.bundles import AcceptedBundle
from validator.ports.certified import CertifiedSet, MarkedPage, MarkedRow
from validator.ports.message_store import Columns, MessageStore, SortKey, StoredRow
from validator.protocol.codec.outcome import outcome_digest
from validator.protocol.codec.stored_message import StoredMessage
from validator.protocol.completeness import SetClimb, SetProof
from validator.protocol.errors import TransientError
from validator.protocol.merkle import range_proof
from validator.protocol.model import Digest, InstanceId, InstanceKind, StreamPart
from validator.protocol.proof import (
    BundleStep,
    MessageProof,
    RangeProof,
    WindowStep,
    build_absence,
    bundle_step,
    climb_from,
    entry_step,
)

PAGE_BYTES = 4 << 20
"""Canonical bytes after which a page ends before its limit."""
MERGED = 512
"""Rows of a source that are read at once where sources are merged."""
ATTEMPTS = 4
"""How often a page is marked anew because rows came in meanwhile."""


class History:
    """Thread-safe."""

    def __init__(self, store: MessageStore, bundles: CertifiedBundles, comparing: Comparing) -> None:
        self._chain_id = bundles.network.chain_id
        self._report_manager = bundles.network.contracts.report_manager
        self._store = store
        self._bundles = bundles
        self._comparing = comparing
        self._sets: Remembered[tuple[bytes, InstanceKind, StreamPart], tuple[CertifiedSet, ...]] = Remembered(
            16_384, lambda sets: len(sets) + 1
        )
        self._climbs: Remembered[tuple[bytes, InstanceId, StreamPart], tuple[WindowStep, BundleStep]] = Remembered(4096)

    # --- sets

    def newest(self) -> int | None:
        bundle = self._bundles.newest()
        return None if bundle is None else bundle.number

    def complete_to(self, as_of: int) -> int:
        return self._bundles.require(as_of).end_ms

    def sets(
        self, part: StreamPart, from_ms: int, until_ms: int, as_of: int, *, behind_ms: int = 0
    ) -> Iterator[CertifiedSet]:
        self._bundles.require(as_of)
        return self._find_sets(part, from_ms, until_ms, as_of, behind_ms)

    def _find_sets(
        self, part: StreamPart, from_ms: int, until_ms: int, as_of: int, behind_ms: int
    ) -> Iterator[CertifiedSet]:
        first_ms = max(from_ms, behind_ms)
        for bundle in self._bundles.ending_after(first_ms, as_of):
            if bundle.first_ms >= until_ms:
                break
            yield from self._windows(bundle, part, first_ms, until_ms)
        yield from self._late_sets(part, from_ms, until_ms, as_of)

    def _windows(self, bundle: AcceptedBundle, part: StreamPart, from_ms: int, until_ms: int) -> list[CertifiedSet]:
        """A bundle's windows that overlap the span."""
        found = self._of_bundle(bundle, InstanceKind.WINDOW, part)
        return [each for each in found if each.from_ms < until_ms and each.until_ms > from_ms]

    def _late_sets(self, part: StreamPart, from_ms: int, until_ms: int, as_of: int) -> Iterator[CertifiedSet]:
        """Late sets of the bundles from the span's first on, as far as the network lets them reach back."""
        if from_ms >= until_ms:
            return
        for bundle in self._bundles.ending_after(from_ms, as_of):
            (late,) = self._of_bundle(bundle, InstanceKind.LATE, part)
            if late.from_ms >= until_ms:
                return
            yield late

    def _of_bundle(self, bundle: AcceptedBundle, kind: InstanceKind, part: StreamPart) -> tuple[CertifiedSet, ...]:
        key = (bundle.root, kind, part)
        found = self._sets.find(key)
        if found is None:
            opened = self._bundles.open(bundle)
            instances = list(opened.spans) if kind is InstanceKind.WINDOW else [opened.manifest.late.outcome.instance]
            found = self._sets.add(key, tuple(opened.find_set(instance, part) for instance in instances))
        return found

    # --- rows

    def page(
        self,
        part: StreamPart,
        from_ms: int,
        until_ms: int,
        as_of: int,
        *,
        after: SortKey | None = None,
        limit: int,
    ) -> MarkedPage:
        complete_ms = self.complete_to(as_of)
        at_ms = from_ms if after is None else max(from_ms, after.timestamp_ms)
        pages: list[MarkedPage] = []
        rows = size = 0
        for bundle in self._bundles.ending_after(at_ms, as_of) if at_ms < complete_ms else ():
            if bundle.first_ms >= until_ms:
                return _join(pages)
            span = max(at_ms, bundle.first_ms), min(until_ms, bundle.end_ms)
            while more := self._page_of_bundle(bundle, part, *span, as_of, after, limit - rows):
                pages.append(more)
                after = more.columns.last_key
                rows, size = rows + len(more.columns), size + len(more.columns.canonical)
                if rows == limit or size >= PAGE_BYTES:
                    return _join(pages)
        tail_ms = max(at_ms, complete_ms)
        if tail_ms < until_ms:
            tail = self._store.page(part, tail_ms, until_ms, after=after, limit=limit - rows)
            pages.append(MarkedPage(tail, ()))
        return _join(pages)

    def _page_of_bundle(
        self,
        bundle: AcceptedBundle,
        part: StreamPart,
        from_ms: int,
        until_ms: int,
        as_of: int,
        after: SortKey | None,
        limit: int,
    ) -> MarkedPage | None:
        """The next page of a bundle's windows: of a stretch that the store holds, or of one window that it does not."""
        windows = self._windows(bundle, part, from_ms, until_ms)
        lates = [s for s in self._late_sets(part, from_ms, until_ms, as_of) if s.entry is not None and s.entry.count]
        in_lake = [late for late in lates if not self._comparing.is_held(late, part)]
        marks = {leaf: s.instance for s in lates for leaf in self._late_leaves(s, part, from_ms, until_ms)}
        for is_held, group in groupby(windows, key=lambda s: not in_lake and self._comparing.is_known(s, part)):
            stretch = list(group)
            for some in [stretch] if is_held else [[window] for window in stretch]:
                low, high = max(from_ms, some[0].from_ms), min(until_ms, some[-1].until_ms)
                if after is not None and after.timestamp_ms >= high:
                    continue
                read = self._read_held if is_held else partial(self._merge, in_lake=in_lake)
                page = read(part, some, marks, low, high, after, limit)
                if page.columns:
                    return page
        return None

    def _late_leaves(self, found: CertifiedSet, part: StreamPart, from_ms: int, until_ms: int) -> list[Digest]:
        members = self._comparing.late_members(found, part)
        first, end = (bisect_left(members, ms, key=itemgetter(0)) for ms in (from_ms, until_ms))
        return [leaf for _, leaf in members[first:end]]

    def _read_held(
        self,
        part: StreamPart,
        windows: Sequence[CertifiedSet],
        marks: dict[Digest, InstanceId],
        from_ms: int,
        until_ms: int,
        after: SortKey | None,
        limit: int,
    ) -> MarkedPage:
        for _ in range(ATTEMPTS):
            columns = self._store.page(part, from_ms, until_ms, after=after, limit=limit)
            exceptions: list[tuple[int, InstanceId | None]] = []
            for window, places in _by_window(windows, columns.times_ms):
                others = self._comparing.vouch(window, part, Chosen(columns, places))
                if others is None:
                    self._comparing.compare_window(window, part)
                    break
                exceptions += _exceptions(window, columns, places, others, marks)
            else:
                return MarkedPage(columns, exceptions)
        raise TransientError("not yet: messages come in faster than they are compared", reason="busy")

    def _merge(
        self,
        part: StreamPart,
        windows: Sequence[CertifiedSet],
        marks: dict[Digest, InstanceId],
        from_ms: int,
        until_ms: int,
        after: SortKey | None,
        limit: int,
        *,
        in_lake: Sequence[CertifiedSet],
    ) -> MarkedPage:
        """One window, of which the store has some or nothing, with what the lake has of it and of late sets."""
        certified = [s for s in (*windows, *in_lake) if s.entry is not None and s.entry.count]
        lake = [self._read_entry(found, part, from_ms, until_ms, after) for found in certified]
        held = (MarkedRow(row, marks.get(row.key.leaf)) for row in self._read_store(part, from_ms, until_ms, after))
        # at one place the certified row comes first, so it is the one that stays
        merged = heapq.merge(*lake, held, key=lambda marked: (marked.row.key, marked.instance is None))
        page: list[MarkedRow] = []
        size = 0
        for _, same in groupby(merged, key=lambda marked: marked.row.key):
            marked = next(same)
            page.append(marked)
            size += len(marked.row.canonical)
            if len(page) == limit or size >= PAGE_BYTES:
                break
        others = [
            (place, m.instance)
            for place, m in enumerate(page)
            if m.instance is None or m.instance.kind is InstanceKind.LATE
        ]
        return MarkedPage(Columns.of_rows([m.row for m in page]), others)

    def _read_entry(
        self, found: CertifiedSet, part: StreamPart, from_ms: int, until_ms: int, after: SortKey | None
    ) -> Iterator[MarkedRow]:
        """A set's rows out of its bundle, chunk by chunk, each compared with the tree over the entry."""
        rows = self._comparing.rows(found, part)
        tree = self._comparing.tree(found, part, rows)
        for number in tree.chunks_of(from_ms, until_ms, after):
            for row in tree.read(rows, number):
                if from_ms <= row.key.timestamp_ms < until_ms and (after is None or row.key > after):
                    yield MarkedRow(row, found.instance)

    def _read_store(self, part: StreamPart, from_ms: int, until_ms: int, after: SortKey | None) -> Iterator[StoredRow]:
        while page := self._store.scan(part, from_ms, until_ms, after=after, limit=MERGED):
            after = page[-1].key
            yield from page

    # --- proofs

    def prove(self, found: CertifiedSet, part: StreamPart, from_ms: int, until_ms: int) -> SetProof:
        opened = self._bundles.open(self._bundles.require(found.bundle))
        outcome = opened.outcomes[found.instance]
        entry = found.entry
        if entry is None:
            return SetProof(found.bundle, found.instance, build_absence(outcome, part, opened.leaves))
        window, bundle = self._climb(opened, found, part)
        if not entry.count or (from_ms <= found.from_ms and found.until_ms <= until_ms):
            proof = RangeProof(entry_step(entry, 0, ()), None, None, window, bundle)
            return SetProof(found.bundle, found.instance, proof)
        for attempt in range(ATTEMPTS):
            try:
                rows = self._comparing.rows(found, part)
                shown = self._comparing.tree(found, part, rows).show_range(rows, from_ms, until_ms)
                break
            except RowsChanged:
                self._comparing.forget(found, part)
                if attempt == ATTEMPTS - 1:
                    raise
        step = entry_step(entry, shown.start, shown.path)
        return SetProof(found.bundle, found.instance, RangeProof(step, shown.before, shown.after, window, bundle))

    def climb(self, found: Sequence[CertifiedSet]) -> SetClimb:
        opened = self._bundles.open(self._bundles.require(found[0].bundle))
        leaves, digests = opened.leaves, [outcome_digest(opened.outcomes[each.instance]) for each in found]
        index = leaves.index(digests[0])
        path = range_proof(leaves, index, index + len(digests))
        return SetClimb(found[0].bundle, index, len(leaves), tuple(digests), path)

    def prove_message(self, part: StreamPart, timestamp_ms: int, leaf: Digest, as_of: int) -> StoredMessage | None:
        """The message with its proof up to the contract's root, as ``logstore verify`` reads it; None: in no set.

        Raises:
            NotVerifiedYet: no such bundle is verified here.
        """
        found_at = self._find(part, timestamp_ms, leaf, as_of)
        if found_at is None:
            return None
        key, instance = found_at
        sets = self._find_sets(part, timestamp_ms, timestamp_ms + 1, as_of, 0)
        found = next(each for each in sets if each.instance == instance)
        assert found.entry is not None
        opened = self._bundles.open(self._bundles.require(found.bundle))
        rows = self._comparing.rows(found, part)
        shown = self._comparing.tree(found, part, rows).show_message(rows, key)
        if shown is None:
            self._comparing.forget(found, part)
            raise RowsChanged(f"not yet: the rows of {found.instance} are compared anew")
        index, row, path = shown
        window, bundle = self._climb(opened, found, part)
        proof = MessageProof(entry_step(found.entry, index, path), window, bundle)
        return StoredMessage(
            self._chain_id, self._report_manager, found.bundle, opened.bundle.root, row.canonical, proof
        )

    def _find(self, part: StreamPart, timestamp_ms: int, leaf: Digest, as_of: int) -> tuple[SortKey, InstanceId] | None:
        """Place of a message, and the set that holds it."""
        after = None
        while (page := self.page(part, timestamp_ms, timestamp_ms + 1, as_of, after=after, limit=MERGED)).columns:
            after = page.columns.last_key
            leaves = page.columns.leaf_list()
            if leaf in leaves:
                place = leaves.index(leaf)
                instance = dict(page.exceptions).get(place, self._window_at(part, timestamp_ms, as_of))
                return None if instance is None else (page.columns.key(place), instance)
        return None

    def _window_at(self, part: StreamPart, ms: int, as_of: int) -> InstanceId | None:
        """The window of this time; None where certificates do not reach."""
        if ms >= self.complete_to(as_of):
            return None
        sets = self._find_sets(part, ms, ms + 1, as_of, 0)
        return next((found.instance for found in sets if found.instance.kind is InstanceKind.WINDOW), None)

    def _climb(self, opened: OpenedBundle, found: CertifiedSet, part: StreamPart) -> tuple[WindowStep, BundleStep]:
        key = (opened.bundle.root, found.instance, part)
        known = self._climbs.find(key)
        if known is None:
            outcome = opened.outcomes[found.instance]
            _, window = climb_from(outcome, part)
            known = self._climbs.add(key, (window, bundle_step(outcome_digest(outcome), opened.leaves)))
        return known


def _by_window(windows: Sequence[CertifiedSet], times_ms: Sequence[int]) -> Iterator[tuple[CertifiedSet, range]]:
    """Places of a page's rows, cut where windows end; windows without rows are left out."""
    start = 0
    for window in windows:
        if start == len(times_ms):
            return
        end = bisect_left(times_ms, window.until_ms, start)
        if end > start:
            yield window, range(start, end)
        start = end


def _exceptions(
    window: CertifiedSet,
    columns: Columns,
    places: range,
    others: frozenset[Digest],
    marks: dict[Digest, InstanceId],
) -> Iterator[tuple[int, InstanceId | None]]:
    """Which rows of a window's time are not the window's, and whose they are."""
    is_all = window.entry is not None and window.entry.count
    if is_all and not others and not marks:
        return
    for place in places:
        leaf = columns.leaf(place)
        if leaf in marks:
            yield place, marks[leaf]
        elif not is_all or leaf in others:
            yield place, None


def _join(pages: Sequence[MarkedPage]) -> MarkedPage:
    """Pages one behind the other."""
    if len(pages) == 1:
        return pages[0]
    exceptions: list[tuple[int, InstanceId | None]] = []
    start = 0
    for page in pages:
        exceptions += [(start + place, instance) for place, instance in page.exceptions]
        start += len(page.columns)
    return MarkedPage(Columns.join([page.columns for page in pages]), exceptions)
