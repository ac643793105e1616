"""Bodies that brokers exchange, one pair of functions per body; canonical CBOR, bounded, strictly read.

    span/1        from_ms, until_ms                        -> sums/1     [[start, length, count, root]…]
    slices/1      [start…]                                 -> parts/1    [[start, [[stream id, partition, count,
                                                                          root]…]]…]
    reconcile/2   from_ms, until_ms, [[stream id, partition]…], message  -> a Negentropy message
    listing/1     stream id, partition, start, root        -> the leaf hashes of the slice that has this root, joined
    bodies/1      from_ms, until_ms, [[stream id, partition]…], [leaf…]  -> page of messages (net.signed.pages)
    a page of messages                                     -> offered/1  stored, [[leaf, reason]…]
    range/1       stream id, partition, from_ms, until_ms  -> slice-claim/1 (codec.slice_claim)

Sums are those of protocol.slices, empty ones left out. Of ``slices/1`` as many are answered, in the order asked, as
fit.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from validator.net.signed.pages import MAX_LEAVES, MAX_PAGE_BYTES
from validator.protocol.codec import cbor
from validator.protocol.codec.cbor import read_blob, read_bytes, read_u63
from validator.protocol.codec.outcome import part_order
from validator.protocol.codec.slice_claim import MAX_CLAIM_BYTES, read_part
from validator.protocol.columns import split_ids
from validator.protocol.consensus.reconcile import ID_BYTES, MAX_MESSAGE_BYTES
from validator.protocol.errors import MalformedInput
from validator.protocol.model import Digest, Root, StreamPart
from validator.protocol.slices import PartSum, Sum

PURPOSE = "Brokers"
"""Of the channel (net.signed) among brokers, and between them and those who audit them."""

SUMS, PARTS, RECONCILE, LEAVES, BODIES, OFFER, CLAIM = (
    "/v1/sums",
    "/v1/parts",
    "/v1/reconcile",
    "/v1/leaves",
    "/v1/bodies",
    "/v1/offer",
    "/v1/claim",
)

MAX_SUMS = 4096
"""Nodes of one span: a year has 8 760 hours, and is asked for in three spans."""
MAX_SLICES = 64
MAX_PARTS = 4096
"""Stream partitions of one session."""
MAX_LISTED = 1 << 17
"""Messages of one partition and slice that are listed at once: 13 000 a second."""
PARTS_BYTES = 4 << 20
_PART_BYTES = 256 + 64
MAX_PARTS_BYTES = PARTS_BYTES + (1 << 16) * _PART_BYTES
_NAMED_BYTES = MAX_PARTS * (256 + 16) + 256

REQUEST_BYTES = {
    SUMS: 64,
    PARTS: MAX_SLICES * 9 + 64,
    RECONCILE: MAX_MESSAGE_BYTES + _NAMED_BYTES,
    LEAVES: 512,
    BODIES: MAX_LEAVES * 34 + _NAMED_BYTES,
    OFFER: MAX_PAGE_BYTES,
    CLAIM: 512,
}
"""Most bytes of a request's body, by endpoint."""
ANSWER_BYTES = {
    SUMS: MAX_SUMS * 64 + 64,
    PARTS: MAX_PARTS_BYTES,
    RECONCILE: MAX_MESSAGE_BYTES,
    LEAVES: MAX_LISTED * ID_BYTES,
    BODIES: MAX_PAGE_BYTES,
    OFFER: MAX_LEAVES * 128 + 64,
    CLAIM: MAX_CLAIM_BYTES,
}
"""Most bytes of an answer's body, by endpoint."""


# --- sums -----------------------------------------------------------------------------------------


def encode_span(from_ms: int, until_ms: int) -> bytes:
    return cbor.encode_object("span/1", from_ms, until_ms)


def decode_span(data: bytes) -> tuple[int, int]:
    f = cbor.decode_object(data, "span/1", 2, max_bytes=REQUEST_BYTES[SUMS])
    return read_u63(f[0], "span.from_ms"), read_u63(f[1], "span.until_ms")


def encode_sums(sums: Iterable[Sum]) -> bytes:
    return cbor.encode_object("sums/1", [[s.start_ms, s.length_ms, s.count, s.root] for s in sums])


def decode_sums(data: bytes) -> list[Sum]:
    """Inverse of ``encode_sums``; whether they are nodes of the span, the caller checks. Raises MalformedInput."""
    (items,) = cbor.decode_object(data, "sums/1", 1, max_bytes=ANSWER_BYTES[SUMS])
    sums = []
    for item in _list(items, "sums", MAX_SUMS):
        f = _list(item, "sums", 4, exactly=True)
        numbers = [read_u63(f[i], "sums") for i in range(3)]
        sums.append(Sum(numbers[0], numbers[1], numbers[2], Root(read_bytes(f[3], 32, "sums.root"))))
    return sums


def encode_slices(starts: Sequence[int]) -> bytes:
    return cbor.encode_object("slices/1", list(starts))


def decode_slices(data: bytes) -> list[int]:
    (items,) = cbor.decode_object(data, "slices/1", 1, max_bytes=REQUEST_BYTES[PARTS])
    return [read_u63(item, "slices") for item in _list(items, "slices", MAX_SLICES)]


def encode_parts(slices: Mapping[int, Sequence[PartSum]]) -> bytes:
    """As many of the slices, in order, as fit; at least one."""
    rows: list[list[Any]] = []
    size = 0
    for start, parts in slices.items():
        size += sum(len(p.part[0].encode()) + 64 for p in parts)
        if rows and size > PARTS_BYTES:
            break
        rows.append([start, [[*p.part, p.count, p.root] for p in parts]])
    return cbor.encode_object("parts/1", rows)


def decode_parts(data: bytes) -> dict[int, list[PartSum]]:
    """Inverse of ``encode_parts``. Raises MalformedInput."""
    (rows,) = cbor.decode_object(data, "parts/1", 1, max_bytes=ANSWER_BYTES[PARTS])
    slices: dict[int, list[PartSum]] = {}
    for row in _list(rows, "parts", MAX_SLICES):
        start, items = _list(row, "parts", 2, exactly=True)
        parts = []
        for item in _list(items, "parts", 1 << 16):
            f = _list(item, "parts", 4, exactly=True)
            root = Root(read_bytes(f[3], 32, "parts.root"))
            parts.append(PartSum(read_part(f[0], f[1]), read_u63(f[2], "parts.count"), root))
        if slices.setdefault(read_u63(start, "parts.start"), parts) is not parts:
            raise MalformedInput("parts.start", "a slice twice")
    return slices


# --- sessions -------------------------------------------------------------------------------------


def encode_reconcile(from_ms: int, until_ms: int, parts: Iterable[StreamPart], message: bytes) -> bytes:
    return cbor.encode_object("reconcile/2", from_ms, until_ms, _ordered(parts), message)


def decode_reconcile(data: bytes) -> tuple[int, int, list[StreamPart], bytes]:
    f = cbor.decode_object(data, "reconcile/2", 4, max_bytes=REQUEST_BYTES[RECONCILE])
    return (*_read_span(f), _read_parts(f[2]), read_blob(f[3], "reconcile.message"))


def encode_listing(part: StreamPart, start_ms: int, root: Root) -> bytes:
    return cbor.encode_object("listing/1", *part, start_ms, root)


def decode_listing(data: bytes) -> tuple[StreamPart, int, Root]:
    f = cbor.decode_object(data, "listing/1", 4, max_bytes=REQUEST_BYTES[LEAVES])
    root = Root(read_bytes(f[3], 32, "listing.root"))
    return read_part(f[0], f[1]), read_u63(f[2], "listing.start"), root


def decode_leaves(data: bytes) -> list[Digest]:
    """Leaf hashes as they are joined. Raises MalformedInput."""
    if len(data) % ID_BYTES or len(data) > ANSWER_BYTES[LEAVES]:
        raise MalformedInput("leaves", "no whole number of hashes, or too many")
    return split_ids(data)


def encode_bodies(from_ms: int, until_ms: int, parts: Iterable[StreamPart], leaves: Sequence[Digest]) -> bytes:
    return cbor.encode_object("bodies/1", from_ms, until_ms, _ordered(parts), list(leaves))


def decode_bodies(data: bytes) -> tuple[int, int, list[StreamPart], list[Digest]]:
    f = cbor.decode_object(data, "bodies/1", 4, max_bytes=REQUEST_BYTES[BODIES])
    leaves = [Digest(read_bytes(leaf, 32, "bodies.leaves")) for leaf in _list(f[3], "bodies.leaves", MAX_LEAVES)]
    if len(set(leaves)) != len(leaves):
        raise MalformedInput("bodies.leaves", "one occurs twice")
    return (*_read_span(f), _read_parts(f[2]), leaves)


def encode_offered(stored: int, refused: Mapping[Digest, str]) -> bytes:
    return cbor.encode_object("offered/1", stored, [[leaf, reason[:64]] for leaf, reason in sorted(refused.items())])


def decode_offered(data: bytes) -> tuple[int, dict[Digest, str]]:
    """(how many were new, reasons of those refused, by leaf). Raises MalformedInput."""
    f = cbor.decode_object(data, "offered/1", 2, max_bytes=ANSWER_BYTES[OFFER])
    refused = {}
    for item in _list(f[1], "offered", MAX_LEAVES):
        leaf, reason = _list(item, "offered", 2, exactly=True)
        if not isinstance(reason, str):
            raise MalformedInput("offered.reason", "no text")
        refused[Digest(read_bytes(leaf, 32, "offered.leaf"))] = reason[:64]
    return read_u63(f[0], "offered.stored"), refused


def encode_range(part: StreamPart, from_ms: int, until_ms: int) -> bytes:
    return cbor.encode_object("range/1", *part, from_ms, until_ms)


def decode_range(data: bytes) -> tuple[StreamPart, int, int]:
    f = cbor.decode_object(data, "range/1", 4, max_bytes=REQUEST_BYTES[CLAIM])
    return (read_part(f[0], f[1]), *_read_span(f[2:]))


# --- reading --------------------------------------------------------------------------------------


def _ordered(parts: Iterable[StreamPart]) -> list[list[str | int]]:
    return [list(part) for part in sorted(parts, key=part_order)]


def _read_parts(items: Any) -> list[StreamPart]:
    parts = [read_part(*_list(item, "parts", 2, exactly=True)) for item in _list(items, "parts", MAX_PARTS)]
    if any(not a < b for a, b in itertools.pairwise(map(part_order, parts))):
        raise MalformedInput("parts", "not in strictly ascending order")
    return parts


def _read_span(f: Sequence[Any]) -> tuple[int, int]:
    from_ms, until_ms = read_u63(f[0], "from_ms"), read_u63(f[1], "until_ms")
    if until_ms < from_ms:
        raise MalformedInput("until_ms", "before the begin")
    return from_ms, until_ms


def _list(value: Any, what: str, limit: int, *, exactly: bool = False) -> list[Any]:
    if not isinstance(value, list) or (exactly and len(value) != limit):
        raise MalformedInput(what, f"not a list of {limit}" if exactly else "not a list")
    if len(value) > limit:
        raise MalformedInput(what, f"{len(value)} items exceed the limit of {limit}")
    return value
