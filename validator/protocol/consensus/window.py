"""What a window holds: union, variants, budgets, entries. Pure functions over records.

Order is canonical (Record.order); identity decides what is one message (model.Identity). Two records of one
identity are variants: one is kept, by the rule of codec.variants. Two identities under one message id are an
equivocation: both are kept and marked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from validator.protocol.codec.variants import ServeCounts, choose_variant
from validator.protocol.merkle import compute_root
from validator.protocol.model import (
    MIB,
    Digest,
    Equivocation,
    Flag,
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


def unite(records: Iterable[Record], sightings: Mapping[Digest, ServeCounts]) -> Union:
    """One record per identity. ``sightings`` by leaf hash says how many brokers and observers had a variant."""
    by_identity: dict[Identity, dict[Digest, Record]] = defaultdict(dict)
    for record in records:
        by_identity[record.identity][record.leaf] = record
    nothing = ServeCounts(0, 0)
    chosen = [
        next(iter(variants.values()))
        if len(variants) == 1
        else choose_variant([(r, sightings.get(leaf, nothing)) for leaf, r in variants.items()])
        for variants in by_identity.values()
    ]
    chosen.sort(key=lambda r: r.order)
    return Union(tuple(chosen), frozenset(i for i, v in by_identity.items() if len(v) > 1))


def cut_to_budget(records: Sequence[Record], budget: Budget) -> tuple[list[Record], bool]:
    """The longest prefix within the budget, and whether the entry is *full*.

    Full exactly if something was cut, so one more message of that size would not fit. For the system stream the
    prefix is taken per publisher.
    """
    if budget.per_publisher:
        kept: list[Record] = []
        full = False
        spent: dict[bytes, int] = defaultdict(int)
        closed: set[bytes] = set()
        for record in records:
            publisher = record.message.publisher_id
            if publisher in closed or spent[publisher] + record.signed_bytes > budget.limit:
                closed.add(publisher)
                full = True
                continue
            spent[publisher] += record.signed_bytes
            kept.append(record)
        return kept, full
    total = 0
    for index, record in enumerate(records):
        if total + record.signed_bytes > budget.limit:
            return list(records[:index]), True
        total += record.signed_bytes
    return list(records), False


def may_be_full(records: Sequence[Record], budget: Budget) -> bool:
    """Whether a message can have been cut: one of the largest would not fit (any more, of some publisher).

    A *full* mark without it would keep late messages out for ever on one leader's word.
    """
    spent: dict[bytes, int] = defaultdict(int)
    for record in records:
        spent[record.message.publisher_id if budget.per_publisher else b""] += record.signed_bytes
    return max(spent.values(), default=0) + budget.message_limit > budget.limit


def make_entry(part: StreamPart, records: Sequence[Record], flags: Flag = Flag(0)) -> PartitionEntry:
    """Entry of one partition from its records in canonical order."""
    return PartitionEntry(
        stream_id=part[0],
        partition=part[1],
        root=compute_root([r.leaf for r in records]),
        count=len(records),
        signed_bytes=sum(r.signed_bytes for r in records),
        canonical_bytes=sum(len(r.canonical) for r in records),
        flags=flags,
    )


def make_entries(records: Iterable[Record]) -> tuple[PartitionEntry, ...]:
    """Entries without flags, one per partition that has records: a set as it stands."""
    return tuple(make_entry(part, members) for part, members in sorted_parts(group_by_part(records)))


def sorted_parts(parts: Mapping[StreamPart, list[Record]]) -> list[tuple[StreamPart, list[Record]]]:
    return sorted(parts.items(), key=lambda item: (item[0][0].encode(), item[0][1]))


def find_equivocations(records: Sequence[Record], limit: int) -> tuple[tuple[Equivocation, ...], int, set[StreamPart]]:
    """Message ids with two identities: at most ``limit`` as evidence, their number, and the partitions they are in."""
    by_id: dict[tuple[str, int, int, int, bytes, str], list[Record]] = defaultdict(list)
    for record in records:
        by_id[record.message.message_id].append(record)
    found = []
    parts = set()
    for members in by_id.values():
        if len({r.signed_digest for r in members}) > 1:
            first, second = sorted(r.leaf for r in members)[:2]
            part = members[0].message.stream_part
            parts.add(part)
            found.append(Equivocation(part[0], part[1], first, second))
    found.sort(key=lambda e: (e.stream_id.encode(), e.partition, e.first, e.second))
    return tuple(found[:limit]), len(found), parts
