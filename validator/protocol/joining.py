"""Sets beside each other: what one lacks of another, the union of several, and what is remarkable about one.

Pages of several sets are cut at the same times, so that what is to be compared lies together and everything else has
gone by or lies ahead: variants and equivocations have one timestamp. Where the leaves of two sets are equal nothing is
looked at; rows are made of what differs only. Memory: a page or two of each set, and what has one timestamp.
"""

from __future__ import annotations

import operator
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import compress, islice

from validator.protocol.columns import ID_BYTES, Page, Row, contract_signed_rows, pick
from validator.protocol.model import Digest, Equivocation, StreamPart

Moment = tuple[int, Digest]
"""(timestamp_ms, signed digest): the identity within a partition."""


class _Cutter:
    """Pages of one set, given out up to a time."""

    __slots__ = ("_pages", "ended", "held")

    def __init__(self, pages: Iterable[Page]) -> None:
        self._pages = iter(pages)
        self.held: list[Page] = []
        self.ended = False

    def more(self) -> None:
        page = next(self._pages, None)
        if page is None:
            self.ended = True
        else:
            self.held.append(page)

    @property
    def last_ms(self) -> int:
        return self.held[-1].timestamps_ms[-1]

    def before(self, bound_ms: int) -> tuple[Page, ...]:
        """Take what lies before a time."""
        taken = []
        while self.held:
            page = self.held[0]
            stop = bisect_left(page.timestamps_ms, bound_ms)
            if stop < len(page):
                if stop:
                    taken.append(page.cut(0, stop))
                    self.held[0] = page.cut(stop, len(page))
                break
            taken.append(self.held.pop(0))
        return tuple(taken)

    def rest(self) -> tuple[Page, ...]:
        taken, self.held = tuple(self.held), []
        return taken


def cut_alike(sources: Sequence[Iterable[Page]]) -> Iterator[tuple[tuple[Page, ...], ...]]:
    """Pages of several sets, all of one partition, for one stretch of time after the other."""
    cutters = [_Cutter(pages) for pages in sources]
    while True:
        for cutter in cutters:
            if not cutter.ended and not cutter.held:
                cutter.more()
        open_ends = [cutter.last_ms for cutter in cutters if not cutter.ended]
        if not open_ends:
            if any(cutter.held for cutter in cutters):
                yield tuple(cutter.rest() for cutter in cutters)
            return
        bound_ms = min(open_ends)
        taken = tuple(cutter.before(bound_ms) for cutter in cutters)
        if any(taken):
            yield taken
        else:  # all that is held of some set has one time: its end has to be seen first
            for cutter in cutters:
                if not cutter.ended and cutter.last_ms == bound_ms:
                    cutter.more()


def _joined(pages: Sequence[Page]) -> bytes:
    return pages[0].leaves if len(pages) == 1 else b"".join([page.leaves for page in pages])


def lacking(ours: Iterable[Page], theirs: Iterable[Page]) -> Iterator[tuple[Row, Row | None]]:
    """Rows of ours that theirs lack, in canonical order, each with what theirs hold of that identity instead."""
    for mine, other in cut_alike([ours, theirs]):
        if not mine or _joined(mine) == _joined(other):
            continue
        held: set[Digest] = set()
        for page in other:
            held.update(page.list_leaves())
        rows = [page.row(at) for page in mine for at, leaf in enumerate(page.list_leaves()) if leaf not in held]
        if rows:
            instead = _of_identities(other, {(row.timestamp_ms, row.signed_digest) for row in rows})
            yield from ((row, instead.get((row.timestamp_ms, row.signed_digest))) for row in rows)


def _of_identities(pages: Sequence[Page], wanted: set[Moment]) -> dict[Moment, Row]:
    digests = {digest for _, digest in wanted}
    found = {}
    for page in pages:
        for at, digest in enumerate(page.list_digests()):
            if digest in digests and (page.timestamps_ms[at], digest) in wanted:
                found[page.timestamps_ms[at], digest] = page.row(at)
    return found


def without(pages: Iterable[Page], leaves: set[Digest]) -> Iterator[Page]:
    """The pages without the messages of these leaves."""
    for page in pages:
        kept = page.keep([leaf not in leaves for leaf in page.list_leaves()])
        if kept is not None:
            yield kept


def merge(sources: Sequence[Iterable[Page]]) -> Iterator[Page]:
    """Distinct messages of several sets of one partition in canonical order."""
    for stretch in cut_alike(sources):
        there = [pages for pages in stretch if pages]
        if len(there) == 1:
            yield from there[0]
        else:
            yield _in_order([(page, at) for pages in there for page in pages for at in range(len(page))])


def _in_order(picks: Iterable[tuple[Page, int]]) -> Page:
    """Rows of one partition as one page in canonical order, a leaf that comes twice once."""
    by_leaf = {page.leaves[at * ID_BYTES : (at + 1) * ID_BYTES]: (page, at) for page, at in picks}

    def order(item: tuple[bytes, tuple[Page, int]]) -> tuple[int, int, tuple[bytes, bytes], bytes]:
        leaf, (page, at) = item
        return (page.timestamps_ms[at], page.sequence_numbers[at], page.names[page.named[at]], leaf)

    return pick([place for _, place in sorted(by_leaf.items(), key=order)])


Choose = Callable[[Sequence[tuple[Row, int]]], Row]
"""The variant to keep, of (row, how many hold it)."""


def unite_pages(sources: Sequence[tuple[int, Iterable[Page]]], choose: Choose) -> Iterator[tuple[Page, bool]]:
    """One message per identity of several sets of one partition, each held by so many; whether one had variants."""
    weights = [weight for weight, _ in sources]
    for stretch in cut_alike([pages for _, pages in sources]):
        there = [(weight, pages) for weight, pages in zip(weights, stretch, strict=True) if pages]
        first = there[0][1]
        if len({_joined(pages) for _, pages in there}) == 1 and not _repeated(first):
            for page in first:
                yield page, False
        else:
            yield _united(there, choose)


def _repeated(pages: Sequence[Page]) -> bool:
    """Whether an identity stands twice in pages that hold all of their times."""
    survey = Survey()
    for page in pages:
        survey.add(page)
    survey.close()
    return survey.twice


def _united(there: Sequence[tuple[int, Sequence[Page]]], choose: Choose) -> tuple[Page, bool]:
    places: dict[Digest, tuple[Page, int]] = {}
    holders: dict[Digest, int] = defaultdict(int)
    for weight, pages in there:
        for page in pages:
            for at, leaf in enumerate(page.list_leaves()):
                places[leaf] = (page, at)
                holders[leaf] += weight
    variants: dict[Moment, list[Digest]] = defaultdict(list)
    for leaf, (page, at) in places.items():
        digest = Digest(page.digests[at * ID_BYTES : (at + 1) * ID_BYTES])
        variants[page.timestamps_ms[at], digest].append(leaf)
    varied = False
    for leaves in variants.values():
        if len(leaves) > 1:
            varied = True
            kept = choose([(places[leaf][0].row(places[leaf][1]), holders[leaf]) for leaf in leaves]).leaf
            for leaf in leaves:
                if leaf != kept:
                    del places[leaf]
    return _in_order(places.values()), varied


class Survey:
    """What is remarkable about messages that go by in canonical order: times, identities and ids that stand twice.

    Only messages that share a timestamp are looked at.
    """

    def __init__(self) -> None:
        self.span_ms: tuple[int, ...] = ()
        """The first and the last time, where there are messages."""
        self.twice = False
        """Whether an identity stands twice."""
        self.equivocations: list[Equivocation] = []
        """Message ids with two identities: their smallest leaves; complete after ``close``."""
        self.equivocated: set[StreamPart] = set()
        self.contract_signed: set[Digest] = set()
        """Signed digests of messages signed by contracts."""
        self._open: tuple[Page, int] | None = None
        self._group: list[Row] = []

    def add(self, page: Page) -> None:
        times = page.timestamps_ms
        known = (*self.span_ms, times[0], times[-1])
        self.span_ms = (min(known), max(known))
        for at in contract_signed_rows(page):
            self.contract_signed.add(Digest(page.digests[at * ID_BYTES : (at + 1) * ID_BYTES]))
        if self._open is not None:
            before, last = self._open
            if before.stream_part != page.stream_part or before.timestamps_ms[last] != times[0]:
                self._end_group()
            elif not self._group:
                self._group.append(before.row(last))
        if self._group:  # it goes on here
            self._group.append(page.row(0))
        for at in compress(range(1, len(page)), map(operator.eq, times, islice(times, 1, None))):
            if self._group and self._group[-1].timestamp_ms != times[at]:
                self._end_group()
            if not self._group:
                self._group.append(page.row(at - 1))
            self._group.append(page.row(at))
        if self._group and self._group[-1].timestamp_ms != times[-1]:
            self._end_group()
        self._open = (page, len(page) - 1)

    def close(self) -> None:
        self._end_group()
        self._open = None

    def evidence(self, limit: int) -> tuple[Equivocation, ...]:
        """At most ``limit`` equivocations, the first in order."""
        ordered = sorted(self.equivocations, key=lambda e: (e.stream_id.encode(), e.partition, e.first, e.second))
        return tuple(ordered[:limit])

    def _end_group(self) -> None:
        group, self._group = self._group, []
        if not group:
            return
        if len({row.signed_digest for row in group}) < len(group):
            self.twice = True
        if len({row.message_id for row in group}) == len(group):
            return
        by_id: dict[tuple[object, ...], list[Row]] = defaultdict(list)
        for row in group:
            by_id[row.message_id].append(row)
        for members in by_id.values():
            if len({row.signed_digest for row in members}) > 1:
                first, second = sorted(row.leaf for row in members)[:2]
                part = members[0].stream_part
                self.equivocated.add(part)
                self.equivocations.append(Equivocation(part[0], part[1], first, second))
