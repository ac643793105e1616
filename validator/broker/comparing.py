"""What this broker holds, compared with what is certified: set by set, by count and root.

    equal         the rows are the entry's; nobody needs to be asked
    too many      late arrivals lie among them: left out, newest first, until the root is the entry's
    too few       read from the bundle on Arweave, believed by leaf and root, and stored
    not retained  nothing is stored; the lake answers

Nothing is ever removed: what is held and in no set stays tail. A comparison is a memo of a count, since rows are only
added: as long as a span has as many rows, they are the same rows.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence

from validator.broker.certified import CertifiedBundles, OpenedBundle, Refusal
from validator.broker.certified_index import CertifiedIndex, Compared
from validator.broker.entry_tree import EntryRows, EntryTree, Remembered, RowsChanged, build_tree, just_before
from validator.broker.lake import Lake, LakeEntry, key_of
from validator.log import get_logger
from validator.ports.certified import CertifiedSet
from validator.ports.message_store import Columns, MessageStore, SortKey, StoredRow
from validator.protocol.errors import RemoteFault, TransientError
from validator.protocol.model import Digest, InstanceId, InstanceKind, Record, StreamPart

log = get_logger(__name__)

PAGE = 4096
FETCHED = 256
COUNTED = 2_048
"""Rows of a span that are counted for each page that is read of it; of more, a page is held against the tree."""
NODES_REMEMBERED = 20_000
"""Of trees in memory: five million messages, some 6 MB."""
Key = tuple[InstanceId, StreamPart, bytes]
NO_OTHERS: frozenset[Digest] = frozenset()


class HeldWindow:
    """``EntryRows`` of a window that the store holds whole, among ``others`` that are not the entry's."""

    def __init__(
        self, store: MessageStore, part: StreamPart, from_ms: int, until_ms: int, others: frozenset[Digest] = NO_OTHERS
    ) -> None:
        self._store = store
        self._part = part
        self._span = (from_ms, until_ms)
        self._others = others

    def pages(self) -> Iterator[list[StoredRow]]:
        after = None
        while page := self._store.scan(self._part, *self._span, after=after, limit=PAGE):
            after = page[-1].key
            yield [row for row in page if row.key.leaf not in self._others] if self._others else page

    def between(self, low: SortKey, high: SortKey | None) -> list[StoredRow]:
        until_ms = self._span[1] if high is None else high.timestamp_ms + 1
        after, found = just_before(low), list[StoredRow]()
        while page := self._store.scan(self._part, low.timestamp_ms, until_ms, after=after, limit=FETCHED + 16):
            after = page[-1].key
            found += [row for row in page if low <= row.key and (high is None or row.key < high)]
            if high is not None and after >= high:
                break
        return [row for row in found if row.key.leaf not in self._others] if self._others else found


class HeldLate:
    """``EntryRows`` of a late set whose rows are all in the store, named by time and leaf."""

    def __init__(self, store: MessageStore, part: StreamPart, members: Sequence[tuple[int, Digest]]) -> None:
        self._store = store
        self._part = part
        self._members = members

    def pages(self) -> Iterator[list[StoredRow]]:
        for at in range(0, len(self._members), FETCHED):
            yield self._store.fetch(self._part, self._members[at : at + FETCHED])

    def between(self, low: SortKey, high: SortKey | None) -> list[StoredRow]:
        until_ms = None if high is None else high.timestamp_ms
        wanted = [m for m in self._members if low.timestamp_ms <= m[0] and (until_ms is None or m[0] <= until_ms)]
        found: list[StoredRow] = []
        for at in range(0, len(wanted), FETCHED):
            found += self._store.fetch(self._part, wanted[at : at + FETCHED])
        return [row for row in found if low <= row.key and (high is None or row.key < high)]


class Chosen:
    """Rows of a page by their places (``KeyedRows``)."""

    def __init__(self, columns: Columns, places: Sequence[int]) -> None:
        self._columns = columns
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    def key(self, number: int) -> SortKey:
        return self._columns.key(self._places[number])

    def leaf(self, number: int) -> Digest:
        return self._columns.leaf(self._places[number])

    def without(self, others: frozenset[Digest]) -> Chosen:
        leaf = self._columns.leaf
        return Chosen(self._columns, [place for place in self._places if leaf(place) not in others])


class Comparing:
    """Thread-safe: two threads that compare the same set do the same work."""

    def __init__(
        self,
        store: MessageStore,
        bundles: CertifiedBundles,
        lake: Lake,
        retained_from_ms: Callable[[], int],
        now_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._bundles = bundles
        self._index: CertifiedIndex = bundles.index
        self._lake = lake
        self._retained_from_ms = retained_from_ms
        self._now_ms = now_ms
        self._memo: Remembered[Key, Compared] = Remembered(65_536)
        self._late: Remembered[Key, list[tuple[int, Digest]]] = Remembered(1 << 20, len)
        self._trees: Remembered[Key, EntryTree] = Remembered(NODES_REMEMBERED, lambda tree: tree.weight)
        self.filled = 0
        """Rows that were missing and are stored now."""

    # --- windows

    def count(self, part: StreamPart, from_ms: int, until_ms: int) -> int:
        return self._store.state(part, from_ms, until_ms).count

    def known(self, found: CertifiedSet, part: StreamPart) -> Compared | None:
        """What the last comparison said, which may be old."""
        key = _key(found, part)
        known = self._memo.find(key)
        if known is None:
            known = self._index.compared(found.instance, part)
            if known is not None:
                self._memo.add(key, known)
        return known

    def vouch(self, found: CertifiedSet, part: StreamPart, page: Chosen) -> frozenset[Digest] | None:
        """Which rows of a window's page are not the window's; None: rows came in since they were compared.

        Asked behind the page, so what is true now was true when it was read. Raises as ``compare_window``.
        """
        if found.entry is None or not found.entry.count:
            return NO_OTHERS
        known = self.known(found, part)
        if known is None:
            return None
        if known.held <= COUNTED:
            return known.others if self.count(part, found.from_ms, found.until_ms) == known.held else None
        rows = HeldWindow(*self._place(found, part), known.others)
        own = page.without(known.others) if known.others else page
        try:
            fits = not len(own) or self.tree(found, part, rows).holds_page(rows, own)
        except RowsChanged:
            fits = False
        return known.others if fits else None

    def compare_window(self, found: CertifiedSet, part: StreamPart) -> Compared | None:
        """Which of a window's rows here are the entry's, missing ones brought; None where it is not retained.

        Raises:
            TransientError: some are missing, and nobody gives them now.
            RemoteFault: the bundle's rows are not what its manifest certifies.
        """
        entry = found.entry
        if entry is None or not entry.count or found.from_ms < self._retained_from_ms():
            return None
        held = self.count(part, found.from_ms, found.until_ms)
        known = self.known(found, part)
        if known is not None and known.held == held:
            return known
        compared = None
        if held >= entry.count:
            compared = self._leave_out_the_newest(found, part, held, NO_OTHERS if known is None else known.others)
        if compared is None:
            compared = self._fill_window(found, part)
        self._memo.add(_key(found, part), compared)
        self._index.keep_compared(found.bundle, found.instance, part, compared)
        return compared

    def _leave_out_the_newest(
        self, found: CertifiedSet, part: StreamPart, held: int, known: frozenset[Digest]
    ) -> Compared | None:
        """What late sets hold is not the window's, and its rows were here before those that came too late for it: a
        guess, which the entry's root settles."""
        assert found.entry is not None
        others = known | self._index.late_leaves(part, found.bundle, found.from_ms, found.until_ms)
        if others:
            pages = self._store.keys(part, found.from_ms, found.until_ms)
            others = frozenset(leaf for page in pages for _, leaf in page if leaf in others)
        still = held - found.entry.count - len(others)
        if still < 0:
            return None
        if still:
            rows = (row for page in HeldWindow(*self._place(found, part), others).pages() for row in page)
            newest = heapq.nlargest(still, ((row.arrived_ms, row.key.leaf) for row in rows))
            others |= {leaf for _, leaf in newest}
        tree = build_tree(found.entry, HeldWindow(*self._place(found, part), others).pages())
        if tree is None:
            return None
        self._trees.add(_key(found, part), tree)
        return Compared(held, others)

    def _fill_window(self, found: CertifiedSet, part: StreamPart) -> Compared:
        """Walk the bundle's rows and ours side by side: store what we lack, note what the entry lacks."""
        self.lake_tree(found, part)  # the bundle's rows give the root, or nothing of them is believed
        ours = (row for page in HeldWindow(*self._place(found, part)).pages() for row in page)
        own = next(ours, None)
        held, others = 0, set[Digest]()
        for records in self._lake_entry(found, part).records(found.from_ms, found.until_ms):
            missing: list[Record] = []
            for record in records:
                key = key_of(record)
                while own is not None and own.key < key:
                    others.add(own.key.leaf)
                    held, own = held + 1, next(ours, None)
                if own is not None and own.key == key:
                    held, own = held + 1, next(ours, None)
                else:
                    missing.append(record)
            held += len(missing)
            self._store_missing(missing)
        while own is not None:
            others.add(own.key.leaf)
            held, own = held + 1, next(ours, None)
        return Compared(held, frozenset(others))

    def _store_missing(self, records: Sequence[Record]) -> None:
        if records:
            self.filled += self._store.insert(records, self._now_ms())

    def _place(self, found: CertifiedSet, part: StreamPart) -> tuple[MessageStore, StreamPart, int, int]:
        return self._store, part, found.from_ms, found.until_ms

    # --- late sets

    def late_members(self, found: CertifiedSet, part: StreamPart) -> list[tuple[int, Digest]]:
        """Time and leaf of every row of a late set, in order; what is retained of them is in the store from then on.

        Raises as ``compare_window``.
        """
        if found.entry is None or not found.entry.count:
            return []
        key = _key(found, part)
        known = self._late.find(key)
        if known is not None:
            return known
        members = self._index.late(found.bundle, part)
        if members is None or not self._holds(part, members):
            self.lake_tree(found, part)
            retained_ms, members = self._retained_from_ms(), []
            for records in self._lake_entry(found, part).records(found.from_ms, found.until_ms):
                self._store_missing([r for r in records if r.message.timestamp_ms >= retained_ms])
                members += [(r.message.timestamp_ms, r.leaf) for r in records]
            self._index.keep_late(found.bundle, part, members)
        return self._late.add(key, members)

    def _holds(self, part: StreamPart, members: Sequence[tuple[int, Digest]]) -> bool:
        """Whether the store has those that are retained: it may have been lost since they were noted."""
        retained_ms = self._retained_from_ms()
        wanted = [member for member in members if member[0] >= retained_ms]
        return sum(map(len, HeldLate(self._store, part, wanted).pages())) == len(wanted)

    # --- rows and trees

    def is_held(self, found: CertifiedSet, part: StreamPart) -> bool:
        """Whether all rows of a set are in the store, missing ones brought. Raises as ``compare_window``."""
        if found.entry is None or not found.entry.count:
            return True
        if found.instance.kind is InstanceKind.WINDOW:
            return self.compare_window(found, part) is not None
        members = self.late_members(found, part)
        return not members or members[0][0] >= self._retained_from_ms()

    def is_known(self, found: CertifiedSet, part: StreamPart) -> bool:
        """The same of a window, without counting its rows anew where they were compared before."""
        entry = found.entry
        if entry is None or not entry.count:
            return True
        if found.from_ms < self._retained_from_ms():
            return False
        return self.known(found, part) is not None or self.compare_window(found, part) is not None

    def rows(self, found: CertifiedSet, part: StreamPart) -> EntryRows:
        """The entry's rows: the store's if it holds them all, else the lake's. Raises as ``compare_window``."""
        if not self.is_held(found, part):
            return self._lake_entry(found, part)
        if found.instance.kind is InstanceKind.LATE:
            return HeldLate(self._store, part, self.late_members(found, part))
        compared = self.compare_window(found, part)
        return HeldWindow(*self._place(found, part), NO_OTHERS if compared is None else compared.others)

    def tree(self, found: CertifiedSet, part: StreamPart, rows: EntryRows) -> EntryTree:
        """The tree over an entry's rows. Raises RowsChanged where they are not the entry's."""
        if isinstance(rows, LakeEntry):
            return self.lake_tree(found, part)
        key = _key(found, part)
        tree = self._trees.find(key)
        if tree is None:
            assert found.entry is not None
            tree = build_tree(found.entry, rows.pages())
            if tree is None:
                self._memo.forget(key)
                raise RowsChanged(f"not yet: the rows of {found.instance} are compared anew")
            self._trees.add(key, tree)
        return tree

    def lake_tree(self, found: CertifiedSet, part: StreamPart) -> EntryTree:
        """The tree over the rows of the bundle's file.

        Raises:
            TransientError: nobody gives them now.
            RemoteFault: they are not what the manifest certifies; that is kept as evidence.
        """
        key = _key(found, part)
        tree = self._trees.find(key)
        if tree is None:
            assert found.entry is not None
            tree = build_tree(found.entry, self._lake_entry(found, part).pages())
            if tree is None:
                bundle = self._bundles.require(found.bundle)
                said = f"{found.instance} {part[0]}/{part[1]}: the bundle's rows do not give the root that is certified"
                self._bundles.keep_evidence(bundle, Refusal.ENTRY_ROOT, said)
                raise RemoteFault(said, number=found.bundle, reason=Refusal.ENTRY_ROOT.value)
            self._trees.add(key, tree)
        return tree

    def _lake_entry(self, found: CertifiedSet, part: StreamPart) -> LakeEntry:
        bundle = self._bundles.require(found.bundle)
        return self._lake.entry(bundle.storage_id, found.instance, part, found.from_ms, found.until_ms)

    def forget(self, found: CertifiedSet, part: StreamPart) -> None:
        """What was noted of a set turned out to be old."""
        key = _key(found, part)
        self._memo.forget(key)
        self._trees.forget(key)
        self._late.forget(key)

    # --- in the background

    def compare_bundle(self, opened: OpenedBundle) -> int:
        """Compare every set of a bundle, as far as it is retained; how many could not be. Nothing is raised."""
        failed = 0
        for instance, part in opened.entries:
            try:
                self.is_held(opened.find_set(instance, part), part)
            except (TransientError, RemoteFault) as error:
                failed += 1
                log.warning("certified.not_held", set=str(instance), stream=part[0], reason=error.message[:200])
        return failed


def _key(found: CertifiedSet, part: StreamPart) -> Key:
    """Of what is remembered of an entry; its root is in it, should the contract ever hold another."""
    return found.instance, part, b"" if found.entry is None else found.entry.root
