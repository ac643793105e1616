"""Builders with valid defaults: a test names only what it is about. Messages are really signed."""

from __future__ import annotations

from functools import cache
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, mldsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from msgspec.structs import replace

from validator.protocol.codec.message import make_record
from validator.protocol.codec.payload import normalise_signature, signature_payload
from validator.protocol.codec.secp256k1 import CURVE_ORDER, SigningKey
from validator.protocol.codec.signatures import publish_message
from validator.protocol.model import ContentType, EncryptionType, Message, MessageType, Record, SignatureType

GENESIS_MS = 1_700_000_000_000
CHAIN_ID = "tsq8m0O5bVZkzh2e1NDP"
"""A msg chain id of the shape that clients make."""


@cache
def a_key(number: int = 1) -> SigningKey:
    """The same key for the same number."""
    return SigningKey(number.to_bytes(32, "big"))


def flip_s(signature: bytes) -> bytes:
    """The other signature over the same digest that recovers to the same signer: n - s, and the other v."""
    order = CURVE_ORDER
    s = order - int.from_bytes(signature[32:64], "big")
    return signature[:32] + s.to_bytes(32, "big") + bytes([55 - signature[64]])


def a_stream_id(number: int = 1, path: str = "sensors/room-1") -> str:
    """A stream owned by ``a_key(number)``."""
    return f"0x{a_key(number).address.hex()}/{path}"


def a_message(key: SigningKey | None = None, **fields: Any) -> Message:
    """One signed message, type 0 unless ``signature_type`` says otherwise; any field of ``publish_message``."""
    values: dict[str, Any] = {
        "stream_id": a_stream_id(),
        "timestamp_ms": GENESIS_MS,
        "content": b'{"temperature":21.5,"unit":"C"}',
        "msg_chain_id": CHAIN_ID,
    }
    return publish_message(key or a_key(), **{**values, **fields})


def a_record(key: SigningKey | None = None, **fields: Any) -> Record:
    return make_record(a_message(key, **fields))


def some_records(count: int, **fields: Any) -> list[Record]:
    """Distinct records of one partition, one per millisecond, in canonical order."""
    start = fields.pop("timestamp_ms", GENESIS_MS)
    return [a_record(timestamp_ms=start + i, content=b'{"i":%d}' % i, **fields) for i in range(count)]


@cache
def a_p256_key(number: int = 1) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(number, ec.SECP256R1())


def a_p256_message(
    number: int = 1, *, compressed: bool = True, publisher_id: bytes | None = None, **fields: Any
) -> Message:
    """Signed with P-256: 64 bytes r, s, low s; the publisher is the public key."""
    key = a_p256_key(number)
    form = PublicFormat.CompressedPoint if compressed else PublicFormat.UncompressedPoint
    unsigned = _unsigned(
        SignatureType.ECDSA_SECP256R1, publisher_id or key.public_key().public_bytes(Encoding.X962, form), **fields
    )
    r, s = decode_dss_signature(key.sign(signature_payload(unsigned), ec.ECDSA(hashes.SHA256())))
    signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    return replace(unsigned, signature=normalise_signature(unsigned.signature_type, signature))


@cache
def an_ml_dsa_key(number: int = 1) -> mldsa.MLDSA87PrivateKey:
    return mldsa.MLDSA87PrivateKey.from_seed_bytes(number.to_bytes(32, "big"))


def an_ml_dsa_message(number: int = 1, **fields: Any) -> Message:
    """Signed with ML-DSA-87; the publisher is the public key of 2592 bytes."""
    key = an_ml_dsa_key(number)
    unsigned = _unsigned(SignatureType.ML_DSA_87, key.public_key().public_bytes_raw(), **fields)
    return replace(unsigned, signature=key.sign(signature_payload(unsigned)))


def an_unsigned_message(**fields: Any) -> Message:
    """One whose signature has the right form and is nobody's: quick to make, for who only hashes it."""
    values = {"signature": b"\x01" * 64 + b"\x1b", **fields}
    return _unsigned(SignatureType.ECDSA_SECP256K1_LEGACY, bytes(20), **values)


def _unsigned(kind: SignatureType, publisher_id: bytes, **fields: Any) -> Message:
    values: dict[str, Any] = {
        "stream_id": a_stream_id(),
        "partition": 0,
        "timestamp_ms": GENESIS_MS,
        "sequence_number": 0,
        "publisher_id": publisher_id,
        "msg_chain_id": CHAIN_ID,
        "prev": None,
        "message_type": MessageType.MESSAGE,
        "content_type": ContentType.JSON,
        "encryption_type": EncryptionType.NONE,
        "group_key_id": None,
        "new_group_key": None,
        "content": b'{"temperature":21.5,"unit":"C"}',
        "signature_type": kind,
        "signature": b"",
    }
    return Message(**{**values, **fields})
