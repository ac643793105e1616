"""Canonical bytes of what is agreed on: entries, observations, outcomes; roots over entries, digests of both.

    entries      ["entries/1", [[stream_id, partition, root, count, signed_bytes, canonical_bytes, flags]…]]
    observation  ["observation/1", kind, number, set_root, count, signed_bytes,
                  [[stream, partition]…], [[broker, served, missed]…], [digest…], price | null, observer]
    outcome      ["outcome/2", kind, number, [[entry fields…]…], rest]
    rest         ["rest/2", block_number, block_hash, price, [[broker, served, missed]…], [observation digest…],
                  [[stream, partition, first leaf, second leaf]…], evidence_count], as a byte string

An observation's digest is SHA-256 of its bytes; an outcome's is the hash of its window's leaf (``leaves``), over the
root of its entries and SHA-256 of ``rest``, so that what a window holds can be proven without showing the outcome.

Lists are sorted here and must be sorted when read: entries and partitions by (UTF-8 of stream id, partition),
shares by broker, digests by bytes. Prices are minimal big-endian byte strings. Vectors: tests/vectors/outcome.json.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from validator.protocol.codec import cbor
from validator.protocol.codec.cbor import read_blob, read_bytes, read_list, read_u64
from validator.protocol.errors import InvariantError, MalformedInput
from validator.protocol.hashing import hash_object
from validator.protocol.leaves import MAX_PARTITION, entry_leaf, window_leaf
from validator.protocol.merkle import compute_root
from validator.protocol.model import (
    Address,
    BrokerShare,
    Digest,
    Equivocation,
    Flag,
    InstanceId,
    InstanceKind,
    Observation,
    Outcome,
    PartitionEntry,
    Root,
    StreamPart,
)

OUTCOME = "outcome/2"
REST = "rest/2"
_OUTCOME_HEAD = cbor.array_head(5) + cbor.encode(OUTCOME)
MAX_OBSERVATION_BYTES = 4 << 20
MAX_OUTCOME_BYTES = 16 << 20
MAX_ENTRIES_BYTES = 16 << 20


def part_order(part: StreamPart) -> tuple[bytes, int]:
    """Sort key of stream partitions: UTF-8 bytes of the id, then the partition."""
    return (part[0].encode(), part[1])


def entry_order(entry: PartitionEntry) -> tuple[bytes, int]:
    return part_order(entry.stream_part)


# --- entries and their roots ----------------------------------------------------------------------


def entries_root(entries: Sequence[PartitionEntry]) -> Root:
    """RFC 9162 root over the entries, flags included, in canonical order: the root of an outcome."""
    return compute_root([entry_leaf(e, e.flags) for e in sorted(entries, key=entry_order)])


def set_root(entries: Sequence[PartitionEntry]) -> Root:
    """The same with all flags zero: names the set of messages behind the entries. Empty entries do not count."""
    return compute_root([entry_leaf(e, Flag(0)) for e in sorted(entries, key=entry_order) if e.count])


def encode_entries(entries: Sequence[PartitionEntry]) -> bytes:
    """The list of entries of a set, as peers exchange it."""
    return cbor.encode_object("entries/1", [entry_fields(e) for e in sorted(entries, key=entry_order)])


def decode_entries(data: bytes) -> tuple[PartitionEntry, ...]:
    """Inverse of ``encode_entries``. Raises MalformedInput."""
    (items,) = cbor.decode_object(data, "entries/1", 1, max_bytes=MAX_ENTRIES_BYTES)
    return _read_entries(read_list(items, "entries"), "entries")


# --- observations ---------------------------------------------------------------------------------


def encode_observation(observation: Observation) -> bytes:
    o = observation
    return cbor.encode_object(
        "observation/1",
        int(o.instance.kind),
        o.instance.number,
        o.set_root,
        o.count,
        o.signed_bytes,
        [list(part) for part in sorted(o.incomplete, key=part_order)],
        [[s.broker, s.served, s.missed] for s in sorted(o.shares, key=lambda s: s.broker)],
        sorted(o.erc1271),
        None if o.price is None else cbor.pack_amount(o.price),
        o.observer,
    )


def observation_digest(observation: Observation) -> Digest:
    return hash_object(encode_observation(observation))


def decode_observation(data: bytes) -> Observation:
    """Inverse of ``encode_observation``. Raises MalformedInput naming the field."""
    f = cbor.decode_object(data, "observation/1", 10, max_bytes=MAX_OBSERVATION_BYTES)
    observation = Observation(
        instance=read_instance(f[0], f[1]),
        set_root=Root(read_bytes(f[2], 32, "set_root")),
        count=read_u64(f[3], "count"),
        signed_bytes=read_u64(f[4], "signed_bytes"),
        incomplete=tuple(read_part(p) for p in read_list(f[5], "incomplete")),
        shares=_read_shares(f[6]),
        erc1271=tuple(Digest(read_bytes(d, 32, "erc1271")) for d in read_list(f[7], "erc1271")),
        price=None if f[8] is None else cbor.unpack_amount(f[8], "price"),
        observer=Address(read_bytes(f[9], 20, "observer")),
    )
    _require_sorted([part_order(p) for p in observation.incomplete], "incomplete")
    _require_sorted(list(observation.erc1271), "erc1271")
    return observation


# --- outcomes -------------------------------------------------------------------------------------


def encode_outcome(outcome: Outcome) -> bytes:
    o = outcome
    _require_own_root(o)
    return cbor.encode_object(
        OUTCOME,
        int(o.instance.kind),
        o.instance.number,
        [entry_fields(e) for e in sorted(o.entries, key=entry_order)],
        encode_rest(o),
    )


def encode_rest(outcome: Outcome) -> bytes:
    """What an outcome says besides its instance and its entries: the window's leaf has SHA-256 of it."""
    o = outcome
    return cbor.encode_object(
        REST,
        o.block_number,
        o.block_hash,
        cbor.pack_amount(o.price),
        [[s.broker, s.served, s.missed] for s in sorted(o.shares, key=lambda s: s.broker)],
        sorted(o.observations),
        [[e.stream_id, e.partition, e.first, e.second] for e in sorted(o.evidence, key=_evidence_order)],
        o.evidence_count,
    )


def outcome_digest(outcome: Outcome) -> Digest:
    """The hash of the window's leaf, which votes and certificates name and the bundle's tree holds."""
    _require_own_root(outcome)
    return window_leaf(outcome.instance, outcome.root, len(outcome.entries), hash_object(encode_rest(outcome)))


def body_digest(body: bytes) -> Digest:
    """The digest under which canonical bytes are asked for and kept, whatever they are.

    What calls itself an outcome and is none is named by its SHA-256, as an observation is: it can be fetched, judged
    and refused like any other, and no outcome has such a digest.
    """
    if body.startswith(_OUTCOME_HEAD):
        try:
            outcome, rest = _read_outcome(body)
        except MalformedInput:
            return hash_object(body)
        return window_leaf(outcome.instance, outcome.root, len(outcome.entries), hash_object(rest))
    return hash_object(body)


def decode_outcome(data: bytes) -> Outcome:
    """Inverse of ``encode_outcome``; the root is computed.

    Raises:
        MalformedInput: names the field and the reason.
    """
    outcome, _ = _read_outcome(data)
    return outcome


@lru_cache(maxsize=1)
def _read_outcome(data: bytes) -> tuple[Outcome, bytes]:
    """With the bytes of its rest. The last one is kept: what is kept by its digest is decoded next, and is large."""
    f = cbor.decode_object(data, OUTCOME, 4, max_bytes=MAX_OUTCOME_BYTES)
    packed = read_blob(f[3], "outcome.rest")
    rest = cbor.decode_object(packed, REST, 7, max_bytes=MAX_OUTCOME_BYTES)
    entries = _read_entries(read_list(f[2], "entries"), "entries")
    outcome = Outcome(
        instance=read_instance(f[0], f[1]),
        block_number=read_u64(rest[0], "block_number"),
        block_hash=Digest(read_bytes(rest[1], 32, "block_hash")),
        entries=entries,
        root=entries_root(entries),
        price=cbor.unpack_amount(rest[2], "price"),
        shares=_read_shares(rest[3]),
        observations=tuple(Digest(read_bytes(d, 32, "observations")) for d in read_list(rest[4], "observations")),
        evidence=tuple(_read_evidence(e) for e in read_list(rest[5], "evidence")),
        evidence_count=read_u64(rest[6], "evidence_count"),
    )
    _require_sorted(list(outcome.observations), "observations")
    _require_sorted([_evidence_order(e) for e in outcome.evidence], "evidence")
    return outcome, packed


def _require_own_root(outcome: Outcome) -> None:
    if outcome.root != entries_root(outcome.entries):
        raise InvariantError("outcome root does not follow from its entries")


# --- reading --------------------------------------------------------------------------------------


def entry_fields(entry: PartitionEntry) -> list[Any]:
    """An entry as it stands in lists."""
    e = entry
    return [e.stream_id, e.partition, e.root, e.count, e.signed_bytes, e.canonical_bytes, int(e.flags)]


def _read_entries(items: list[Any], what: str) -> tuple[PartitionEntry, ...]:
    entries = tuple(read_entry(item, what) for item in items)
    _require_sorted([entry_order(e) for e in entries], what)
    return entries


def read_entry(item: Any, what: str) -> PartitionEntry:
    """Inverse of ``entry_fields``. Raises MalformedInput."""
    f = read_list(item, what, 7)
    return PartitionEntry(
        *read_part(f[:2]),
        Root(read_bytes(f[2], 32, f"{what}.root")),
        read_u64(f[3], f"{what}.count"),
        read_u64(f[4], f"{what}.signed_bytes"),
        read_u64(f[5], f"{what}.canonical_bytes"),
        read_flags(f[6], f"{what}.flags"),
    )


def read_flags(value: Any, what: str) -> Flag:
    """Raises MalformedInput for a flag that is unknown."""
    flags = read_u64(value, what)
    if flags > 15:
        raise MalformedInput(what, f"unknown flag in {flags}")
    return Flag(flags)


def _read_shares(items: Any) -> tuple[BrokerShare, ...]:
    shares = []
    for item in read_list(items, "shares"):
        f = read_list(item, "shares", 3)
        shares.append(
            BrokerShare(
                Address(read_bytes(f[0], 20, "shares.broker")), read_u64(f[1], "served"), read_u64(f[2], "missed")
            )
        )
    _require_sorted([s.broker for s in shares], "shares")
    return tuple(shares)


def _read_evidence(item: Any) -> Equivocation:
    f = read_list(item, "evidence", 4)
    first, second = Digest(read_bytes(f[2], 32, "evidence.first")), Digest(read_bytes(f[3], 32, "evidence.second"))
    if not first < second:
        raise MalformedInput("evidence", "the two leaves are not in ascending order")
    return Equivocation(*read_part(f[:2]), first, second)


def _evidence_order(e: Equivocation) -> tuple[bytes, int, bytes, bytes]:
    return (e.stream_id.encode(), e.partition, e.first, e.second)


def read_instance(kind: Any, number: Any) -> InstanceId:
    """Raises MalformedInput."""
    try:
        return InstanceId(InstanceKind(read_u64(kind, "instance.kind")), read_u64(number, "instance.number"))
    except ValueError:
        raise MalformedInput("instance.kind", f"{kind} is unknown") from None


def read_part(item: Any) -> StreamPart:
    """Raises MalformedInput."""
    f = read_list(item, "partition", 2)
    if not isinstance(f[0], str) or not 0 < len(f[0].encode()) <= 256:
        raise MalformedInput("stream_id", "not a text of 1 to 256 bytes")
    partition = read_u64(f[1], "partition")
    if partition > MAX_PARTITION:
        raise MalformedInput("partition", f"{partition} does not fit the four bytes of a leaf")
    return (f[0], partition)


def _require_sorted(keys: Sequence[Any], what: str) -> None:
    if any(not a < b for a, b in itertools.pairwise(keys)):
        raise MalformedInput(what, "not in strictly ascending order")
