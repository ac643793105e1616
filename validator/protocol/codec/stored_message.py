"""One stored message with its proof, as bytes that anyone can keep and check.

    ["stored-message/1", chain id, ReportManager, bundle number, bundle root, message, proof]

canonical CBOR; ``message`` are its canonical bytes, ``proof`` those of a message's proof that ends at the bundle root
(``protocol.proof``). Whoever holds the root from the contract needs nothing else: leaf, entry, window and bundle are
rebuilt from the message.
"""

from __future__ import annotations

from dataclasses import dataclass

from validator.protocol.codec import cbor
from validator.protocol.codec.cbor import read_blob, read_bytes, read_u64
from validator.protocol.codec.limits import MAX_CANONICAL_BYTES
from validator.protocol.codec.proof import MAX_PROOF_BYTES, decode_proof, encode_proof
from validator.protocol.errors import MalformedInput
from validator.protocol.model import Address, Root
from validator.protocol.proof import MessageProof

KIND = "stored-message/1"
MAX_STORED_BYTES = MAX_CANONICAL_BYTES + MAX_PROOF_BYTES + 256


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """What they hold. ``root`` is what they say of themselves: the contract's is another matter."""

    chain_id: int
    report_manager: Address
    number: int
    root: Root
    canonical: bytes
    proof: MessageProof


def encode_stored(stored: StoredMessage) -> bytes:
    return cbor.encode_object(
        KIND,
        stored.chain_id,
        stored.report_manager,
        stored.number,
        stored.root,
        stored.canonical,
        encode_proof(stored.proof),
    )


def decode_stored(data: bytes) -> StoredMessage:
    """Inverse of ``encode_stored``; nothing is proven yet. Raises MalformedInput."""
    f = cbor.decode_object(data, KIND, 6, max_bytes=MAX_STORED_BYTES)
    proof = decode_proof(read_blob(f[5], "proof"))
    if not isinstance(proof, MessageProof) or proof.bundle is None:
        raise MalformedInput("proof", "not that of a message in a bundle")
    return StoredMessage(
        read_u64(f[0], "chain_id"),
        Address(read_bytes(f[1], 20, "report_manager")),
        read_u64(f[2], "number"),
        Root(read_bytes(f[3], 32, "root")),
        read_blob(f[4], "message"),
        proof,
    )
