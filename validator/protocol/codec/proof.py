"""Bytes of proofs (``protocol.proof``): canonical CBOR, bounded; a *path* is one byte string of hashes of 32 bytes.

    bundle step   [index, leaves, path]
    window step   [kind, number, SHA-256 of the outcome's rest, index, entries, path]
    entry step    [index, messages, signed bytes, canonical bytes, flags, path]
    neighbour     [timestamp_ms, sequence number, H(publisher), H(content), H(canonical)]
    message       ["message-proof/1", entry step, window step, bundle step | null]
    entry         ["entry-proof/1", window step, bundle step | null]
    window        ["window-proof/1", bundle step]
    range         ["range-proof/1", entry step, neighbour | null, neighbour | null, window step, bundle step | null]
    absence       ["absence-proof/1", window step, entry | null, entry | null, bundle step | null]

In a range and an absence ``index`` is that of the first leaf shown, and ``path`` what lies around them, from the left.
"""

from __future__ import annotations

from typing import Any

from validator.protocol.codec import cbor
from validator.protocol.codec.cbor import read_blob, read_bytes, read_list, read_u64
from validator.protocol.codec.outcome import entry_fields, read_entry, read_flags, read_instance
from validator.protocol.errors import InvariantError, MalformedInput
from validator.protocol.hashing import hash_body
from validator.protocol.merkle import Proof as Path
from validator.protocol.model import Digest, Message
from validator.protocol.proof import (
    AbsenceProof,
    BundleStep,
    EntryProof,
    EntryStep,
    MessageProof,
    Neighbour,
    Proof,
    RangeProof,
    WindowProof,
    WindowStep,
)

MAX_PROOF_BYTES = 16 << 10
MAX_PATH = 128
"""Two hashes a level, of trees of at most 2^64 leaves."""


def encode_proof(proof: Proof) -> bytes:
    """Canonical bytes, at most ``MAX_PROOF_BYTES``."""
    match proof:
        case MessageProof(entry, window, bundle):
            return cbor.encode_object("message-proof/1", _pack_entry(entry), _pack_window(window), pack_bundle(bundle))
        case EntryProof(window, bundle):
            return cbor.encode_object("entry-proof/1", _pack_window(window), pack_bundle(bundle))
        case WindowProof(bundle):
            return cbor.encode_object("window-proof/1", pack_bundle(bundle))
        case RangeProof(entry, before, after, window, bundle):
            return cbor.encode_object(
                "range-proof/1",
                _pack_entry(entry),
                _pack_neighbour(before),
                _pack_neighbour(after),
                _pack_window(window),
                pack_bundle(bundle),
            )
        case AbsenceProof(window, left, right, bundle):
            return cbor.encode_object(
                "absence-proof/1",
                _pack_window(window),
                None if left is None else entry_fields(left),
                None if right is None else entry_fields(right),
                pack_bundle(bundle),
            )


def decode_proof(data: bytes) -> Proof:
    """Inverse of ``encode_proof``; says nothing about what it proves.

    Raises:
        MalformedInput: names the field and the reason.
    """
    fields = cbor.decode(data, max_bytes=MAX_PROOF_BYTES, what="proof")
    kind, *f = read_list(fields, "proof") or [None]
    if kind not in _SIZES:
        raise MalformedInput("proof.kind", f"{kind!r} is none of {', '.join(_SIZES)}")
    read_list(f, f"proof of kind {kind}", _SIZES[kind])
    match kind:
        case "message-proof/1":
            return MessageProof(_read_entry_step(f[0]), _read_window(f[1]), read_bundle(f[2]))
        case "entry-proof/1":
            return EntryProof(_read_window(f[0]), read_bundle(f[1]))
        case "window-proof/1":
            step = read_bundle(f[0])
            if step is None:
                raise MalformedInput("proof.bundle", "left out of a window's proof")
            return WindowProof(step)
        case "range-proof/1":
            before, after = (
                None if item is None else _unpack_neighbour(item, f"proof.{name}")
                for item, name in ((f[1], "before"), (f[2], "after"))
            )
            return RangeProof(_read_entry_step(f[0]), before, after, _read_window(f[3]), read_bundle(f[4]))
        case _:
            left, right = (
                None if item is None else read_entry(item, f"proof.{name}")
                for item, name in ((f[1], "before"), (f[2], "after"))
            )
            return AbsenceProof(_read_window(f[0]), left, right, read_bundle(f[3]))


_SIZES = {"message-proof/1": 3, "entry-proof/1": 2, "window-proof/1": 1, "range-proof/1": 5, "absence-proof/1": 4}


def pack_bundle(step: BundleStep | None) -> list[Any] | None:
    return None if step is None else [step.index, step.leaves, b"".join(step.path)]


def _pack_window(step: WindowStep) -> list[Any]:
    instance = step.instance
    return [int(instance.kind), instance.number, step.rest_hash, step.index, step.entries, b"".join(step.path)]


def _pack_entry(s: EntryStep) -> list[Any]:
    return [s.index, s.count, s.signed_bytes, s.canonical_bytes, int(s.flags), b"".join(s.path)]


def _pack_neighbour(n: Neighbour | None) -> list[Any] | None:
    if n is None:
        return None
    if n.publisher_hash is None:
        raise InvariantError("a proof that stands alone leaves no hash out")
    return [n.timestamp_ms, n.sequence_number, n.publisher_hash, n.content_hash, n.canonical_hash]


def read_bundle(item: Any) -> BundleStep | None:
    if item is None:
        return None
    f = read_list(item, "proof.bundle", 3)
    return BundleStep(
        read_u64(f[0], "proof.bundle.index"), read_u64(f[1], "proof.bundle.leaves"), read_path(f[2], "proof.bundle")
    )


def _read_window(item: Any) -> WindowStep:
    f = read_list(item, "proof.window", 6)
    return WindowStep(
        read_instance(f[0], f[1]),
        Digest(read_bytes(f[2], 32, "proof.window.rest_hash")),
        read_u64(f[3], "proof.window.index"),
        read_u64(f[4], "proof.window.entries"),
        read_path(f[5], "proof.window"),
    )


def _read_entry_step(item: Any) -> EntryStep:
    f = read_list(item, "proof.entry", 6)
    index, count, signed, canonical = (
        read_u64(value, f"proof.entry.{name}")
        for value, name in zip(f, ("index", "count", "signed_bytes", "canonical_bytes"), strict=False)
    )
    return EntryStep(
        index, count, signed, canonical, read_flags(f[4], "proof.entry.flags"), read_path(f[5], "proof.entry")
    )


def _unpack_neighbour(item: Any, what: str) -> Neighbour:
    f = read_list(item, what, 5)
    sequence_number = read_sequence_number(f[1], what)
    publisher, content, canonical = (Digest(read_bytes(value, 32, f"{what}.hashes")) for value in f[2:])
    return Neighbour(read_u64(f[0], f"{what}.timestamp_ms"), sequence_number, publisher, content, canonical)


def read_sequence_number(value: Any, what: str) -> int:
    number = read_u64(value, f"{what}.sequence_number")
    if number >> 32:
        raise MalformedInput(f"{what}.sequence_number", "does not fit the four bytes of a leaf")
    return number


def read_path(value: Any, what: str, most: int = MAX_PATH) -> Path:
    """At most so many hashes from one byte string. Raises MalformedInput."""
    data = read_blob(value, f"{what}.path")
    if len(data) % 32 or len(data) > 32 * most:
        raise MalformedInput(f"{what}.path", f"{len(data)} bytes, not up to {most} hashes of 32")
    return tuple(Digest(data[at : at + 32]) for at in range(0, len(data), 32))


# --- arguments of contract calls ------------------------------------------------------------------


def message_values(message: Message, canonical: bytes) -> tuple[Any, ...]:
    """A message as ``ReportManager.verifyMessage`` is told it (contracts_abi/src/Leaves.sol, struct MessageFields)."""
    m = message
    return (
        m.stream_id,
        m.partition,
        m.timestamp_ms,
        m.sequence_number,
        m.publisher_id,
        m.content,
        hash_body(canonical),
    )


def proof_values(proof: MessageProof | EntryProof | WindowProof) -> tuple[Any, ...]:
    """A proof as ``verifyMessage``, ``verifyEntry`` and ``verifyWindow`` are told it; it goes up to a bundle root."""
    if proof.bundle is None:
        raise InvariantError("a contract knows no certificates: the proof must go up to a bundle root")
    bundle = (proof.bundle.index, proof.bundle.leaves, list(proof.bundle.path))
    if isinstance(proof, WindowProof):
        return bundle
    w = proof.window
    window = (int(w.instance.kind), w.instance.number, w.rest_hash, w.index, w.entries, list(w.path))
    if isinstance(proof, EntryProof):
        return (window, bundle)
    e = proof.entry
    entry = (e.index, e.count, e.signed_bytes, e.canonical_bytes, int(e.flags), list(e.path))
    return (entry, window, bundle)
