"""What publishers sign: the payload of every signature type, its digest, and the one form a signature is kept in."""

from __future__ import annotations

import binascii

from validator.protocol.codec import group_key
from validator.protocol.codec.conversion import compact_key_text
from validator.protocol.codec.kinds import (
    ARRAY,
    ARRAY_LEGACY,
    ERC_1271,
    LEGACY,
    ML_DSA,
    NONE,
    P256,
    SECP256K1_TYPES,
    STORED,
)
from validator.protocol.codec.secp256k1 import CURVE_ORDER
from validator.protocol.hashing import hash_body, keccak256
from validator.protocol.model import Digest, Message, MessageType, SignatureType

SECP256R1_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
HALF_K1 = (CURVE_ORDER // 2).to_bytes(32, "big")
_HALF_R1 = (SECP256R1_N // 2).to_bytes(32, "big")


def signature_payload(message: Message) -> bytes:
    """The bytes that the publisher signed, built from the fields.

    No separators: stream id, partition, timestamp, sequence number, publisher, chain id, previous timestamp and
    sequence, content, new group key. Type 0 signs ciphertext as lower-case hex and the key as compact JSON; array
    types sign both as the text on the wire; the old array type 1 signs stream id, timestamp, publisher and content
    only. Key exchange bodies are signed member by member.

    Raises:
        MalformedInput: a key exchange body that does not parse.
    """
    kind = message.signature_type
    publisher = "0x" + message.publisher_id.hex()
    if kind is ARRAY_LEGACY:
        return f"{message.stream_id}{message.timestamp_ms}{publisher}".encode() + message.content
    header = (
        f"{message.stream_id}{message.partition}{message.timestamp_ms}{message.sequence_number}"
        f"{publisher}{message.msg_chain_id}"
    )
    prev = message.prev
    if prev is not None:
        header = f"{header}{prev.timestamp_ms}{prev.sequence_number}"
    content = message.content
    key = message.new_group_key
    if kind is LEGACY:
        if message.encryption_type is not NONE:
            content = binascii.hexlify(content)
        if key is None:
            return header.encode() + content
        return header.encode() + content + compact_key_text(key).encode()
    if message.message_type is not STORED and kind is not ARRAY:
        return header.encode() + _signed_part(message)
    if key is None:
        return header.encode() + content
    return header.encode() + content + key.id.encode() + key.data


def signed_digest(message: Message) -> Digest:
    """What identifies the signed text: EIP-191 keccak for secp256k1 types, SHA-256 of the payload for 3 and 4.

    Type 3 (ML-DSA) signs the payload itself; its digest here only serves identity.

    Raises:
        MalformedInput: a key exchange body that does not parse.
    """
    return digest_of_payload(message.signature_type, signature_payload(message))


def digest_of_payload(kind: SignatureType, payload: bytes) -> Digest:
    if kind is P256 or kind is ML_DSA:
        return hash_body(payload)
    return keccak256(b"\x19Ethereum Signed Message:\n%d%b" % (len(payload), payload))


def normalise_signature(kind: SignatureType, signature: bytes) -> bytes:
    """The twin with low s, v flipped with it; any other signature as it is (the same object).

    Both twins recover the same key, so the verdict is untouched. ERC-1271 signatures are the contract's affair.
    """
    size = len(signature)
    if size == 65 and kind in SECP256K1_TYPES and kind is not ERC_1271:
        s = signature[32:64]
        if s <= HALF_K1 or signature[64] not in (27, 28):
            return signature
        twin = CURVE_ORDER - int.from_bytes(s, "big")
        if twin <= 0:
            return signature
        return signature[:32] + twin.to_bytes(32, "big") + bytes([55 - signature[64]])
    if size == 64 and kind is P256:
        s = signature[32:]
        if s <= _HALF_R1:
            return signature
        twin = SECP256R1_N - int.from_bytes(s, "big")
        return signature[:32] + twin.to_bytes(32, "big") if twin > 0 else signature
    return signature


def _signed_part(m: Message) -> bytes:
    if m.message_type is MessageType.GROUP_KEY_REQUEST:
        return group_key.read_request(m.content).signed_part()
    return group_key.read_response(m.content).signed_part()
