"""Bytes of what an answer says of its sets (``protocol.completeness``): canonical CBOR, one object a set.

proof       ["set-proof/1", bundle, kind, number, proof]              proof: the bytes of ``codec.proof``
commitment  ["set-commitment/1", bundle, kind, number, entry | null]  entry: [root, messages, signed bytes,
                                                                      canonical bytes, flags]
    marks       ["set-marks/1", [[leaf, bundle | null]…]]                 messages that follow and are not in the window
                                                                          of their time: in the late set of a bundle, or
                                                                          in no set
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from validator.protocol.codec import cbor
from validator.protocol.codec.cbor import read_blob, read_bytes, read_list, read_u64
from validator.protocol.codec.outcome import read_flags, read_instance
from validator.protocol.codec.proof import MAX_PROOF_BYTES, decode_proof, encode_proof
from validator.protocol.completeness import SetCommitment, SetProof
from validator.protocol.errors import MalformedInput
from validator.protocol.model import Digest, PartitionEntry, Root, StreamPart
from validator.protocol.proof import AbsenceProof, RangeProof

PROOF = "set-proof/1"
COMMITMENT = "set-commitment/1"
MAX_SET_PROOF_BYTES = MAX_PROOF_BYTES + 64
MAX_COMMITMENT_BYTES = 160
MARKS = "set-marks/1"
MAX_MARKS = 1 << 14
"""In one object; an answer may have several."""
MAX_MARKS_BYTES = 64 + 48 * MAX_MARKS


def encode_set_proof(said: SetProof) -> bytes:
    instance = said.instance
    return cbor.encode_object(PROOF, said.bundle, int(instance.kind), instance.number, encode_proof(said.proof))


def decode_set_proof(data: bytes) -> SetProof:
    """Inverse of ``encode_set_proof``; nothing is proven yet. Raises MalformedInput."""
    f = cbor.decode_object(data, PROOF, 4, max_bytes=MAX_SET_PROOF_BYTES)
    proof = decode_proof(read_blob(f[3], "proof"))
    if not isinstance(proof, RangeProof | AbsenceProof):
        raise MalformedInput("proof", "not that of a span")
    return SetProof(read_u64(f[0], "bundle"), read_instance(f[1], f[2]), proof)


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
