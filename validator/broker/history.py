"""Certified history over three tiers (port ``CertifiedHistory``): one order, each row once, each marked with its set.

Time is walked bundle by bundle, so nothing grows with the span of a question. Where the store holds the sets of a
stretch, its rows are read in pages and marked; a page is marked after it was read, and only if the span still has as
many rows as when it was compared, so a late arrival is never taken for a certified row. Where it does not, the rows of
the lake are merged with what the store has besides.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from operator import itemgetter

from validator.broker.certified import CertifiedBundles, OpenedBundle
from validator.broker.comparing import Comparing
from validator.broker.entry_tree import Remembered, RowsChanged
from validator.net.chain.bundles import AcceptedBundle
from validator.ports.certified import CertifiedSet, MarkedRow
from validator.ports.message_store import MessageStore, SortKey, StoredRow
from validator.protocol.codec.outcome import outcome_digest
from validator.protocol.codec.stored_message import StoredMessage
from validator.protocol.completeness import SetProof
from validator.protocol.errors import TransientError
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

    def scan(
        self,
        part: StreamPart,
        from_ms: int,
        until_ms: int,
        as_of: int,
        *,
        after: SortKey | None = None,
        limit: int,
    ) -> list[MarkedRow]:
        complete_ms = self.complete_to(as_of)
        at_ms = from_ms if after is None else max(from_ms, after.timestamp_ms)
        page: list[MarkedRow] = []
        size = 0
        for bundle in self._bundles.ending_after(at_ms, as_of) if at_ms < complete_ms else ():
            if bundle.first_ms >= until_ms:
                return page
            span = max(at_ms, bundle.first_ms), min(until_ms, bundle.end_ms)
            while more := self._scan_bundle(bundle, part, *span, as_of, after, limit - len(page)):
                page += more
                after = more[-1].row.key
                size += sum(len(marked.row.canonical) for marked in more)
                if len(page) == limit or size >= PAGE_BYTES:
                    return page
        tail_ms = max(at_ms, complete_ms)
        if tail_ms < until_ms:
            rows = self._store.scan(part, tail_ms, until_ms, after=after, limit=limit - len(page))
            page += [MarkedRow(row, None) for row in rows]
        return page

    def _scan_bundle(
        self,
        bundle: AcceptedBundle,
        part: StreamPart,
        from_ms: int,
        until_ms: int,
        as_of: int,
        after: SortKey | None,
        limit: int,
    ) -> list[MarkedRow]:
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
                if page:
                    return page
        return []

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
    ) -> list[MarkedRow]:
        for _ in range(ATTEMPTS):
            rows = self._store.scan(part, from_ms, until_ms, after=after, limit=limit)
            page: list[MarkedRow] = []
            for window, own in _by_window(windows, rows):
                others = self._comparing.vouch(window, part, own)
                if others is None:
                    self._comparing.compare_window(window, part)
                    break
                is_all = window.entry is not None and window.entry.count
                default = window.instance if is_all else None
                if not others and not marks:
                    page += [MarkedRow(row, default) for row in own]
                else:
                    page += [
                        MarkedRow(row, marks.get(row.key.leaf, None if row.key.leaf in others else default))
                        for row in own
                    ]
            else:
                return page
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
    ) -> list[MarkedRow]:
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
        return page

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

    def prove_message(self, part: StreamPart, timestamp_ms: int, leaf: Digest, as_of: int) -> StoredMessage | None:
        """The message with its proof up to the contract's root, as ``logstore verify`` reads it; None: in no set.

        Raises:
            NotVerifiedYet: no such bundle is verified here.
        """
        marked = self._find(part, timestamp_ms, leaf, as_of)
        if marked is None or marked.instance is None:
            return None
        key = marked.row.key
        sets = self._find_sets(part, timestamp_ms, timestamp_ms + 1, as_of, 0)
        found = next(each for each in sets if each.instance == marked.instance)
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

    def _find(self, part: StreamPart, timestamp_ms: int, leaf: Digest, as_of: int) -> MarkedRow | None:
        after = None
        while page := self.scan(part, timestamp_ms, timestamp_ms + 1, as_of, after=after, limit=MERGED):
            after = page[-1].row.key
            for marked in page:
                if marked.row.key.leaf == leaf:
                    return marked
        return None

    def _climb(self, opened: OpenedBundle, found: CertifiedSet, part: StreamPart) -> tuple[WindowStep, BundleStep]:
        key = (opened.bundle.root, found.instance, part)
        known = self._climbs.find(key)
        if known is None:
            outcome = opened.outcomes[found.instance]
            _, window = climb_from(outcome, part)
            known = self._climbs.add(key, (window, bundle_step(outcome_digest(outcome), opened.leaves)))
        return known


def _by_window(
    windows: Sequence[CertifiedSet], rows: Iterable[StoredRow]
) -> Iterator[tuple[CertifiedSet, list[StoredRow]]]:
    """Rows in order, cut where windows end; windows without rows are left out."""
    own: list[StoredRow] = []
    place = 0
    for row in rows:
        if row.key.timestamp_ms >= windows[place].until_ms:
            if own:
                yield windows[place], own
            own = []
            while row.key.timestamp_ms >= windows[place].until_ms:
                place += 1
        own.append(row)
    if own:
        yield windows[place], own
