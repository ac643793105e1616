"""Bytes of what an answer says of its sets (``protocol.completeness``): canonical CBOR, one object a set.

    proof       ["set-proof/2", bundle, kind, number, climb, index, entries, step | null, shown]
                climb     SHA-256 of the outcome's rest, then the path from the first entry shown, at ``index`` of
                          ``entries``, to their root
                step      [index, leaves, path] through the bundle; null: to the digest in the climb before
                shown     of a range      [index, messages, signed bytes, canonical bytes, flags, path, before, after]
                          of an absence   [entry | null, entry | null]
                before, after   a neighbour or null: [ms, sequence number, H(publisher) | null, H(content) H(canonical)]
                          ms: how far before the last millisecond before the span, or how far behind its end
    climb       ["set-climb/1", bundle, index, leaves, digests, path]
    commitment  ["set-commitment/1", bundle, kind, number, entry | null]  entry: [root, messages, signed bytes,
                                                                          canonical bytes, flags]
    marks       ["set-marks/1", [[leaf, bundle | null]…]]                 messages that follow and are not in the window
                                                                          of their time: in the late set of a bundle, or
                                                                          in no set

Paths and digests are one byte string of hashes of 32 bytes. A proof stands in an answer, which both sides know: the
partition and the span are not said again, and it is read with them. One that stands alone is ``codec.proof``. Vectors:
tests/vectors/completeness.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from validator.protocol.codec import cbor
from validator.protocol.codec.cbor import read_blob, read_bytes, read_list, read_u64
from validator.protocol.codec.outcome import entry_fields, read_entry, read_flags, read_instance
from validator.protocol.codec.proof import (
    MAX_PROOF_BYTES,
    pack_bundle,
    read_bundle,
    read_path,
    read_sequence_number,
)
from validator.protocol.completeness import SetClimb, SetCommitment, SetProof
from validator.protocol.errors import MalformedInput
from validator.protocol.model import Digest, PartitionEntry, Root, StreamPart
from validator.protocol.proof import AbsenceProof, EntryStep, Neighbour, RangeProof, WindowStep

PROOF = "set-proof/2"
CLIMB = "set-climb/1"
COMMITMENT = "set-commitment/1"
MAX_SET_PROOF_BYTES = MAX_PROOF_BYTES
MAX_CLIMBED = 64
"""Digests in one climb; an answer may have several, of one bundle too."""
MAX_CLIMB_BYTES = 64 + 32 * MAX_CLIMBED + 32 * 128
MAX_COMMITMENT_BYTES = 160
MARKS = "set-marks/1"
MAX_MARKS = 1 << 14
"""In one object; an answer may have several."""
MAX_MARKS_BYTES = 64 + 48 * MAX_MARKS
_U64 = 1 << 64


def encode_set_proof(said: SetProof, from_ms: int, until_ms: int) -> bytes:
    """In an answer for [from_ms, until_ms)."""
    instance, proof = said.instance, said.proof
    window = proof.window
    shown: list[Any]
    if isinstance(proof, RangeProof):
        e = proof.entry
        shown = [e.index, e.count, e.signed_bytes, e.canonical_bytes, int(e.flags), b"".join(e.path)]
        shown.append(None if proof.before is None else _pack_neighbour(proof.before, from_ms - 1, -1))
        shown.append(None if proof.after is None else _pack_neighbour(proof.after, until_ms, 1))
    else:
        shown = [None if entry is None else entry_fields(entry) for entry in (proof.before, proof.after)]
    climb = b"".join((window.rest_hash, *window.path))
    return cbor.encode_object(
        PROOF,
        said.bundle,
        int(instance.kind),
        instance.number,
        climb,
        window.index,
        window.entries,
        pack_bundle(proof.bundle),
        shown,
    )


def decode_set_proof(data: bytes, from_ms: int, until_ms: int) -> SetProof:
    """Inverse of ``encode_set_proof``; nothing is proven yet. Raises MalformedInput."""
    f = cbor.decode_object(data, PROOF, 8, max_bytes=MAX_SET_PROOF_BYTES)
    bundle, instance = read_u64(f[0], "bundle"), read_instance(f[1], f[2])
    climb = read_blob(f[3], "proof.window")
    window = WindowStep(
        instance,
        Digest(read_bytes(climb[:32], 32, "proof.window.rest_hash")),
        read_u64(f[4], "proof.window.index"),
        read_u64(f[5], "proof.window.entries"),
        read_path(climb[32:], "proof.window"),
    )
    step = read_bundle(f[6])
    shown = read_list(f[7], "proof.shown")
    if len(shown) == 2:
        left, right = (
            None if item is None else read_entry(item, f"proof.{name}")
            for item, name in zip(shown, ("before", "after"), strict=True)
        )
        return SetProof(bundle, instance, AbsenceProof(window, left, right, step))
    read_list(shown, "proof.shown", 8)
    index, count, signed, canonical = (
        read_u64(value, f"proof.entry.{name}")
        for value, name in zip(shown, ("index", "count", "signed_bytes", "canonical_bytes"), strict=False)
    )
    flags, path = read_flags(shown[4], "proof.entry.flags"), read_path(shown[5], "proof.entry")
    before = None if shown[6] is None else _read_neighbour(shown[6], from_ms - 1, -1, "proof.before")
    after = None if shown[7] is None else _read_neighbour(shown[7], until_ms, 1, "proof.after")
    entry = EntryStep(index, count, signed, canonical, flags, path)
    return SetProof(bundle, instance, RangeProof(entry, before, after, window, step))


def _pack_neighbour(n: Neighbour, edge_ms: int, side: int) -> list[Any]:
    return [side * (n.timestamp_ms - edge_ms), n.sequence_number, n.publisher_hash, n.content_hash + n.canonical_hash]


def _read_neighbour(item: Any, edge_ms: int, side: int, what: str) -> Neighbour:
    f = read_list(item, what, 4)
    timestamp_ms = edge_ms + side * read_u64(f[0], f"{what}.ms")
    if not 0 <= timestamp_ms < _U64:
        raise MalformedInput(f"{what}.ms", "beyond all time")
    publisher = None if f[2] is None else Digest(read_bytes(f[2], 32, f"{what}.publisher_hash"))
    hashes = read_bytes(f[3], 64, f"{what}.hashes")
    sequence_number = read_sequence_number(f[1], what)
    return Neighbour(timestamp_ms, sequence_number, publisher, Digest(hashes[:32]), Digest(hashes[32:]))


def encode_climb(said: SetClimb) -> bytes:
    """Of at most ``MAX_CLIMBED`` digests."""
    digests, path = b"".join(said.digests), b"".join(said.path)
    return cbor.encode_object(CLIMB, said.bundle, said.index, said.leaves, digests, path)


def decode_climb(data: bytes) -> SetClimb:
    """Inverse of ``encode_climb``; nothing is proven yet. Raises MalformedInput."""
    f = cbor.decode_object(data, CLIMB, 5, max_bytes=MAX_CLIMB_BYTES)
    bundle, index, leaves = (read_u64(v, f"climb.{n}") for v, n in zip(f, ("bundle", "index", "leaves"), strict=False))
    digests = read_path(f[3], "climb.digests", MAX_CLIMBED)
    if not digests:
        raise MalformedInput("climb.digests", "none")
    return SetClimb(bundle, index, leaves, digests, read_path(f[4], "climb"))


def encode_commitment(said: SetCommitment) -> bytes:
    instance, e = said.instance, said.entry
    entry = None if e is None else [e.root, e.count, e.signed_bytes, e.canonical_bytes, int(e.flags)]
    return cbor.encode_object(COMMITMENT, said.bundle, int(instance.kind), instance.number, entry)


def decode_commitment(data: bytes, part: StreamPart) -> SetCommitment:
    """Inverse of ``encode_commitment``, in an answer about ``part``. Raises MalformedInput."""
    f = cbor.decode_object(data, COMMITMENT, 4, max_bytes=MAX_COMMITMENT_BYTES)
    return SetCommitment(
        read_u64(f[0], "bundle"), read_instance(f[1], f[2]), None if f[3] is None else _read_entry(f[3], part)
    )


def encode_marks(marks: Sequence[tuple[Digest, int | None]]) -> bytes:
    """At most ``MAX_MARKS`` of them."""
    return cbor.encode_object(MARKS, [[leaf, bundle] for leaf, bundle in marks])


def decode_marks(data: bytes) -> dict[Digest, int | None]:
    """Inverse of ``encode_marks``: the bundle whose late set has a message, by its leaf; None: no set has it.

    Raises:
        MalformedInput: names the field; one leaf twice.
    """
    (items,) = cbor.decode_object(data, MARKS, 1, max_bytes=MAX_MARKS_BYTES)
    marks: dict[Digest, int | None] = {}
    for item in read_list(items, "marks"):
        leaf, bundle = read_list(item, "mark", 2)
        digest = Digest(read_bytes(leaf, 32, "mark.leaf"))
        if digest in marks:
            raise MalformedInput("mark.leaf", "twice")
        marks[digest] = None if bundle is None else read_u64(bundle, "mark.bundle")
    return marks


def _read_entry(item: Any, part: StreamPart) -> PartitionEntry:
    f = read_list(item, "entry", 5)
    count, signed, canonical = (
        read_u64(value, f"entry.{name}")
        for value, name in zip(f[1:4], ("messages", "signed_bytes", "canonical_bytes"), strict=True)
    )
    root = Root(read_bytes(f[0], 32, "entry.root"))
    return PartitionEntry(*part, root, count, signed, canonical, read_flags(f[4], "entry.flags"))
