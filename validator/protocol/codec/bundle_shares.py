"""Shares of a bundle's rows that can be recounted apart: row groups between which a partition ends and the next begins.

A manifest says of every partition how many rows it has, and they come in canonical order: so it says which row is whose
before any is read. A share that has exactly the rows of its own partitions, in order, fits behind the one before it,
and nothing has to be compared across seams. Small partitions share row groups and large ones have groups of their own
(``bundle_file``), so nearly every partition ends where a group does; one is never in two shares, however large it is.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from validator.protocol.codec.outcome import part_order
from validator.protocol.codec.parquet_footer import Footer
from validator.protocol.model import Manifest, StreamPart


@dataclass(frozen=True, slots=True)
class Share:
    """Consecutive row groups, by number, and the partitions whose rows they must hold, all of them and no other."""

    groups: range
    parts: frozenset[StreamPart]


def plan_shares(footer: Footer, manifest: Manifest, most: int) -> list[Share]:
    """All rows of a file whose layout is sound, in at most so many shares of about equally many rows."""
    rows: Counter[StreamPart] = Counter()
    for certified in (*manifest.windows, manifest.late):
        for entry in certified.outcome.entries:
            rows[entry.stream_part] += entry.count
    parts = sorted(rows, key=part_order)
    ends: dict[int, int] = {}  # by the row before which partitions end: how many
    end = 0
    for number, part in enumerate(parts, 1):
        end += rows[part]
        ends[end] = number
    shares: list[Share] = []
    start = at = first_group = first_part = 0
    for number, group in enumerate(footer.groups, 1):
        at += group.rows
        is_fair = (at - start) * (most - len(shares)) >= footer.rows - start
        if at < footer.rows and is_fair and at in ends:
            shares.append(Share(range(first_group, number), frozenset(parts[first_part : ends[at]])))
            start, first_group, first_part = at, number, ends[at]
    return [*shares, Share(range(first_group, len(footer.groups)), frozenset(parts[first_part:]))]
