"""Shares of a bundle's rows that can be recounted apart: rows of whole entries, and no other.

A manifest says how many rows each entry has, and rows come in canonical order: by partition, and in it by time, thus by
window. So it says which row is whose before any is read, but for a partition with late messages, whose times lie among
those of its windows: it is never in two shares. A share that has exactly the rows of its own entries, in order, fits
behind the one before it, and nothing has to be compared across seams.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from validator.protocol.codec.outcome import part_order
from validator.protocol.model import InstanceId, Manifest, StreamPart

Entry = tuple[InstanceId, StreamPart]


@dataclass(frozen=True, slots=True)
class Share:
    """Rows [first, end) of a file, and the entries whose rows they must be."""

    first: int
    end: int
    entries: frozenset[Entry]


def plan_shares(manifest: Manifest, most: int) -> list[Share]:
    """All rows of a sound manifest's file in at most so many shares, of about equally many rows."""
    blocks = _list_blocks(manifest)
    rows = sum(size for size, _ in blocks)
    shares: list[Share] = []
    first = end = 0
    entries: list[Entry] = []
    for size, members in blocks:
        end += size
        entries += members
        if (end - first) * (most - len(shares)) >= rows - first:
            shares.append(Share(first, end, frozenset(entries)))
            first, entries = end, []
    return shares


def _list_blocks(manifest: Manifest) -> list[tuple[int, list[Entry]]]:
    """Entries between which a share may end, in the order of their rows, and how many rows."""
    parts: dict[StreamPart, list[tuple[int, Entry]]] = defaultdict(list)
    for certified in (*manifest.windows, manifest.late):
        for entry in certified.outcome.entries:
            parts[entry.stream_part].append((entry.count, (certified.outcome.instance, entry.stream_part)))
    late = manifest.late.outcome.instance
    blocks: list[tuple[int, list[Entry]]] = []
    for part in sorted(parts, key=part_order):
        found = parts[part]
        if found[-1][1][0] == late:
            blocks.append((sum(size for size, _ in found), [entry for _, entry in found]))
        else:
            blocks += [(size, [entry]) for size, entry in found]
    return blocks
