"""What a window holds: union, variants, budgets, entries. Pure functions over pages, and over few records.

Order is canonical (Record.order); identity decides what is one message (model.Identity). Two records of one
identity are variants: one is kept, by the rule of codec.variants. Two identities under one message id are an
equivocation: both are kept and marked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from validator.protocol.codec.variants import ServeCounts, choose_variant
from validator.protocol.columns import Page, Row, make_entry
from validator.protocol.model import (
    MIB,
    Digest,
    Identity,
    PartitionEntry,
    Record,
    StreamPart,
)
from validator.protocol.parameters import ParameterSet


@dataclass(frozen=True, slots=True)
class Budget:
    """How many signed bytes an entry may hold; ``per_publisher`` for the system stream's limit.

    ``message_limit``: the largest message there can be; an entry with room for one is not *full*.
    """

    limit: int
    per_publisher: bool = False
    message_limit: int = 1 << 20


def partition_budget(parameters: ParameterSet, balance: int, partitions: int) -> int:
    """Signed bytes that one partition of a store may hold in one window (design: nobody floods for free).

    min(partition_limit, balance x 2^20 / (price_max x partitions x budget_windows)), one floor division.
    """
    funded = balance * MIB // (parameters.price_max * partitions * parameters.budget_windows)
    return min(parameters.partition_limit, funded)


def group_by_part(records: Iterable[Record]) -> dict[StreamPart, list[Record]]:
    """Records by stream partition, each list in canonical order."""
    parts: dict[StreamPart, list[Record]] = defaultdict(list)
    for record in records:
        parts[record.message.stream_part].append(record)
    for members in parts.values():
        members.sort(key=lambda r: r.order)
    return dict(parts)


@dataclass(frozen=True, slots=True)
class Union:
    """Distinct records of a window: one per identity, canonical order; and the identities that had variants."""

    records: tuple[Record, ...]
    varied: frozenset[Identity]


def unite(records: Iterable[Record], served: Mapping[Digest, ServeCounts]) -> Union:
    """One record per identity. ``served`` by leaf hash says how many brokers and observers had a variant."""
    by_identity: dict[Identity, dict[Digest, Record]] = defaultdict(dict)
    for record in records:
        by_identity[record.identity][record.leaf] = record
    nothing = ServeCounts(0, 0)
    chosen = [
        next(iter(variants.values()))
        if len(variants) == 1
        else choose_variant([(r, served.get(leaf, nothing)) for leaf, r in variants.items()])
        for variants in by_identity.values()
    ]
    chosen.sort(key=lambda r: r.order)
    return Union(tuple(chosen), frozenset(i for i, v in by_identity.items() if len(v) > 1))


class Spending:
    """What messages of one partition, in canonical order, use of its budget: the longest prefix that fits.

    For the system stream the prefix is taken per publisher. Limits that messages share are named by the publisher,
    else by nothing.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.full = False
        """Whether something was cut, so one more message of that size would not fit."""
        self.spent: dict[bytes, int] = defaultdict(int)
        """Signed bytes of what fits, by limit."""
        self._last: dict[bytes, tuple[Page, int]] = {}
        self._closed: set[bytes] = set()
        self._unread: Iterator[Page] = iter(())

    def take(self, page: Page) -> Page | None:
        """What fits of the messages that come next; None if nothing does."""
        return page.keep([self._fits(page, at) for at in range(len(page))])

    def take_all(self, entry: PartitionEntry, pages: Iterable[Page]) -> None:
        """All messages of an entry, which follows from them. They are read only where its totals do not tell."""
        if self.budget.per_publisher:
            for page in pages:
                self.take(page)
        else:
            self.spent[b""] = entry.signed_bytes
            self.full = entry.signed_bytes > self.budget.limit
            self._unread = iter(pages)

    def last(self, limit: bytes) -> Row | None:
        """The last message that fits."""
        for page in self._unread:
            self._last[b""] = (page, len(page) - 1)
        place = self._last.get(limit)
        return None if place is None else place[0].row(place[1])

    def limit_of(self, publisher_id: bytes) -> bytes:
        return publisher_id if self.budget.per_publisher else b""

    def may_be_full(self) -> bool:
        """Whether a message can have been cut: one of the largest would not fit (any more, of some publisher).

        A *full* mark without it would keep late messages out for ever on one leader's word.
        """
        return any(self.has_no_room(limit) for limit in self.spent or (b"",))

    def has_no_room(self, limit: bytes) -> bool:
        """Whether one of the largest messages would not fit any more."""
        return self.spent.get(limit, 0) + self.budget.message_limit > self.budget.limit

    def _fits(self, page: Page, at: int) -> bool:
        limit = self.limit_of(page.names[page.named[at]][0])
        size = page.signed_sizes[at]
        if limit in self._closed or self.spent[limit] + size > self.budget.limit:
            self._closed.add(limit)
            self.full = True
            return False
        self.spent[limit] += size
        self._last[limit] = (page, at)
        return True


def make_entries(records: Iterable[Record]) -> tuple[PartitionEntry, ...]:
    """Entries without flags, one per partition that has records: a set as it stands."""
    return tuple(make_entry(part, members) for part, members in sorted_parts(group_by_part(records)))


def sorted_parts(parts: Mapping[StreamPart, list[Record]]) -> list[tuple[StreamPart, list[Record]]]:
    return sorted(parts.items(), key=lambda item: (item[0][0].encode(), item[0][1]))
