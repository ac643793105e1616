"""Sums over what a broker holds: per stream partition and slice of time, and from there up a tree of time.

Two brokers compare without showing their messages. Time is cut into *slices* of 10 s; a slice closes 5 s after its end,
and opens again for whatever comes later. Of each slice and stream partition there is a count and a root over the
message leaves in canonical order, which is the root of an agreed entry over the same messages. Above lie the slice, the
block of 5 minutes and the hour, each a count and a root over what is not empty below it, so that brokers of which one
has kept less than the other differ where they do and nowhere else.

    part    16 B "logstore2slice" 00 00 | 32 B H(stream id) | 4 B partition | 8 B messages |
            32 B root over messages                                                                   = 92 B
    span    16 B "logstore2span" 00 00 00 | 8 B start ms | 8 B length ms | 8 B messages |
            32 B root over what is below                                                              = 72 B

Leaf hashes as in ``leaves``. The root of a slice is over its partitions by ``part_order``, that of a block over its
slices, that of an hour over its blocks, by time. The total of any range of whole slices is over the fewest nodes that
cover it (``cut``), so that both sides of a comparison name a range and nothing else.
Vectors: tests/vectors/slices.json.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from struct import Struct

from validator.protocol.errors import MalformedInput, require
from validator.protocol.hashing import EMPTY_ROOT, sha256
from validator.protocol.leaves import LABEL_BYTES, hash_stream_id
from validator.protocol.merkle import compute_root
from validator.protocol.model import Digest, Root, StreamPart

SLICE_MS = 10_000
BLOCK_MS = 30 * SLICE_MS
HOUR_MS = 12 * BLOCK_MS
LEVELS_MS = (SLICE_MS, BLOCK_MS, HOUR_MS)
"""Lengths of the nodes of the tree of time, each a multiple of the one below."""
CLOSE_MS = 5_000
"""A slice closes so long after its end: what travels in time is in it."""
MAX_TIME_MS = 1 << 62

_pack_part = partial(Struct(f">x{LABEL_BYTES}s32sIQ32s").pack, b"logstore2slice")
_pack_span = partial(Struct(f">x{LABEL_BYTES}sQQQ32s").pack, b"logstore2span")


@dataclass(frozen=True, slots=True, order=True)
class PartSum:
    """Of one stream partition: how many messages a slice has of it, and the root over their leaves."""

    part: StreamPart
    count: int
    root: Root


@dataclass(frozen=True, slots=True, order=True)
class Sum:
    """Of a range of whole slices: how many messages it has, and a root. Not empty unless it is a total."""

    start_ms: int
    length_ms: int
    count: int
    root: Root

    @property
    def end_ms(self) -> int:
        return self.start_ms + self.length_ms


def slice_start(timestamp_ms: int) -> int:
    """Start of the slice that a time lies in."""
    return timestamp_ms - timestamp_ms % SLICE_MS


def closed_until(now_ms: int) -> int:
    """End of the newest slice that is closed."""
    return slice_start(max(0, now_ms - CLOSE_MS))


def sum_messages(part: StreamPart, leaves: Sequence[bytes]) -> PartSum:
    """``leaves``: leaf hashes of a partition's messages in a slice, in canonical order."""
    return PartSum(part, len(leaves), compute_root(leaves))


def sum_parts(start_ms: int, parts: Iterable[PartSum]) -> Sum:
    """The slice that has these partitions; those without a message count for nothing."""
    held = sorted((p for p in parts if p.count), key=lambda p: (p.part[0].encode(), p.part[1]))
    root = compute_root([_part_leaf(p) for p in held])
    return Sum(start_ms, SLICE_MS, sum(p.count for p in held), root)


def sum_spans(start_ms: int, length_ms: int, below: Iterable[Sum]) -> Sum:
    """A node, or the total of a range, from the nodes below it; empty ones count for nothing."""
    held = sorted(s for s in below if s.count)
    return Sum(start_ms, length_ms, sum(s.count for s in held), compute_root([_span_leaf(s) for s in held]))


def cut(from_ms: int, until_ms: int) -> list[tuple[int, int]]:
    """(start, length) of the fewest nodes that cover [from_ms, until_ms), in order.

    A range that is itself one node above the slice is cut into those below it: so whoever sees two nodes differ asks
    for the range of the node. A slice is cut no further.

    Raises:
        MalformedInput: the bounds are not those of slices, or not in order.
    """
    check_range(from_ms, until_ms)
    levels = [length for length in LEVELS_MS if length < until_ms - from_ms or length == SLICE_MS]
    nodes = []
    at = from_ms
    while at < until_ms:
        length = max(length for length in levels if at % length == 0 and at + length <= until_ms)
        nodes.append((at, length))
        at += length
    return nodes


def check_range(from_ms: int, until_ms: int) -> None:
    """Raises MalformedInput unless these are bounds of slices, in order; they may be equal."""
    require(0 <= from_ms <= until_ms <= MAX_TIME_MS, "range", f"from {from_ms} until {until_ms}")
    require(from_ms % SLICE_MS == until_ms % SLICE_MS == 0, "range", "not of whole slices")


def empty_total(from_ms: int, until_ms: int) -> Sum:
    return Sum(from_ms, until_ms - from_ms, 0, EMPTY_ROOT)


def check_below(total: Sum, below: Sequence[Sum]) -> None:
    """Raises MalformedInput unless these are nodes of the range's ``cut``, not empty, in order, and give ``total``."""
    nodes = cut(total.start_ms, total.end_ms)
    places = [(s.start_ms, s.length_ms) for s in below]
    if not set(places) <= set(nodes) or sorted(set(places)) != places or any(s.count < 1 for s in below):
        raise MalformedInput("sums", "not nodes of the range, each once and in order")
    if sum_spans(total.start_ms, total.length_ms, below) != total:
        raise MalformedInput("sums", "do not give the total of the range")


def check_parts(slice_sum: Sum, parts: Sequence[PartSum]) -> None:
    """Raises MalformedInput unless these partitions give the slice's sum, each once."""
    if len({p.part for p in parts}) != len(parts) or any(p.count < 1 for p in parts):
        raise MalformedInput("parts", "one twice, or without a message")
    if sum_parts(slice_sum.start_ms, parts) != slice_sum:
        raise MalformedInput("parts", "do not give the sum of the slice")


def _part_leaf(p: PartSum) -> Digest:
    return Digest(sha256(_pack_part(hash_stream_id(p.part[0]), p.part[1], p.count, p.root)).digest())


def _span_leaf(s: Sum) -> Digest:
    return Digest(sha256(_pack_span(s.start_ms, s.length_ms, s.count, s.root)).digest())
