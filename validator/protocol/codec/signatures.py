"""Signature checks, one or many: the verdict is recovery's for every input.

secp256k1 goes straight to libsecp256k1 through coincurve's binding, with its structs allocated once per batch. No
signature goes unrecovered and no batch equation is used, so there is one path and one rule: 65 bytes, v 27 or 28, and
the recovered address is the publisher. ERC-1271 is judged in two steps: recovery must give some signer (as Streamr's
client demands before it asks), then the contract decides, which only the caller can ask. P-256 and ML-DSA-87 go
through OpenSSL. Source: reference of Streamr, section 6.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from typing import Final, Literal

from coincurve._libsecp256k1 import ffi, lib
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, mldsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from msgspec.structs import replace

from validator.protocol.codec.kinds import ERC_1271
from validator.protocol.codec.payload import digest_of_payload, normalise_signature, signature_payload, signed_digest
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.errors import MalformedInput
from validator.protocol.hashing import keccak256
from validator.protocol.model import (
    ContentType,
    Digest,
    EncryptionType,
    Message,
    MessageRef,
    MessageType,
    NewGroupKey,
    Reason,
    Record,
    SignatureType,
)


class Valid(Enum):
    """The verdict of a signature that holds."""

    VALID = "valid"


VALID: Final = Valid.VALID
Verdict = Literal[Valid.VALID] | Reason
"""VALID, or the reason why not; ERC1271_UNKNOWN means: ask the contract, then ``resolve_erc1271``."""

Signed = tuple[bytes, Digest, bytes]
"""(signature, digest that it signs, address of 20 bytes)."""

_RECOVERED = frozenset(
    {
        SignatureType.ECDSA_SECP256K1_LEGACY,
        SignatureType.ECDSA_SECP256K1_EVM,
        SignatureType.ERC_1271,
        SignatureType.ARRAY_ETH_LEGACY,
        SignatureType.ARRAY_ETH,
    }
)
_P256_POINT_FORMS = {33: (2, 3), 65: (4,)}
_MAX_REMEMBERED = 4096
_MIN_PER_THREAD = 64
"""Fewer messages are checked before a second thread would have started."""


def verify_batch(messages: Sequence[Message] | Sequence[Record], threads: int = 1) -> list[Verdict]:
    """One verdict per message, in order. Records are quicker: their digest is already computed.

    ``threads`` > 1 splits the batch; the curve library runs without the interpreter lock.
    """
    parts = min(threads, len(messages) // _MIN_PER_THREAD)
    if parts <= 1:
        return _verify(messages)
    step = -(-len(messages) // parts)
    slices = [messages[at : at + step] for at in range(0, len(messages), step)]
    with ThreadPoolExecutor(len(slices), thread_name_prefix="verify") as pool:
        return [verdict for part in pool.map(_verify, slices) for verdict in part]


def verify_message(message: Message) -> Verdict:
    """Verdict of one message: exactly what ``verify_batch`` says of it."""
    return _verify((message,))[0]


def resolve_erc1271(message: Message, is_valid: bool | None) -> Verdict:
    """Verdict of a contract signature once the contract's answer at the fixed block is known; None: still unknown.

    Of any other signature type it is ``verify_message``'s verdict, whatever was answered.
    """
    verdict = verify_message(message)
    if verdict is not Reason.ERC1271_UNKNOWN or is_valid is None:
        return verdict
    return VALID if is_valid else Reason.BAD_SIGNATURE


def publish_message(
    key: SigningKey,
    *,
    stream_id: str,
    timestamp_ms: int,
    content: bytes,
    partition: int = 0,
    sequence_number: int = 0,
    msg_chain_id: str = "",
    prev: MessageRef | None = None,
    message_type: MessageType = MessageType.MESSAGE,
    content_type: ContentType = ContentType.JSON,
    encryption_type: EncryptionType = EncryptionType.NONE,
    group_key_id: str | None = None,
    new_group_key: NewGroupKey | None = None,
    signature_type: SignatureType = SignatureType.ECDSA_SECP256K1_LEGACY,
    publisher_id: bytes | None = None,
) -> Message:
    """A message signed by ``key``. ``publisher_id`` is the key's address unless given (contracts, forgeries).

    Raises:
        ValueError: a signature type that this key cannot make.
    """
    if signature_type not in _RECOVERED:
        raise ValueError(f"a secp256k1 key makes no {signature_type.name} signature")
    unsigned = Message(
        stream_id,
        partition,
        timestamp_ms,
        sequence_number,
        key.address if publisher_id is None else publisher_id,
        msg_chain_id,
        prev,
        message_type,
        content_type,
        encryption_type,
        group_key_id,
        new_group_key,
        content,
        signature_type,
        b"",
    )
    return sign_message(key, unsigned)


def sign_message(key: SigningKey, message: Message) -> Message:
    """The same message with ``key``'s signature over its payload."""
    return replace(message, signature=key.sign(signed_digest(message)))


def _verify(messages: Sequence[Message] | Sequence[Record]) -> list[Verdict]:
    """Secp256k1 signatures in one go, others one by one."""
    verdicts: list[Verdict] = [Reason.BAD_SIGNATURE] * len(messages)
    asked: list[tuple[int, Message]] = []
    signed: list[Signed] = []
    items: Iterable[Message | Record] = messages
    for number, item in enumerate(items):
        message = item.message if isinstance(item, Record) else item
        signature = message.signature
        if not signature:
            verdicts[number] = Reason.UNSIGNED
        elif message.signature_type not in _RECOVERED:
            verdicts[number] = _verify_other(message)
        elif len(signature) == 65 and 27 <= signature[64] <= 28:
            try:
                digest = item.signed_digest if isinstance(item, Record) else signed_digest(message)
            except MalformedInput:
                verdicts[number] = Reason.MALFORMED
                continue
            asked.append((number, message))
            signed.append((signature, digest, message.publisher_id))
    for (number, message), by_publisher in zip(asked, check_recovered(signed), strict=True):
        if by_publisher is None:
            continue
        if message.signature_type is ERC_1271:
            verdicts[number] = Reason.ERC1271_UNKNOWN
        elif by_publisher:
            verdicts[number] = VALID
    return verdicts


def check_recovered(signed: Iterable[Signed]) -> Iterator[bool | None]:
    """Whether the address that each signature recovers to is the one given; None: it recovers to nobody.

    The one path of secp256k1. Every signature is recovered. Structs are made once: allocation per message would cost
    as much as parsing the signature. Only the address of a recovered key is remembered meanwhile, which saves hashing
    the same key again: equal structs are equal points.
    """
    context = lib.secp256k1_context_static
    parse = lib.secp256k1_ecdsa_recoverable_signature_parse_compact
    recover = lib.secp256k1_ecdsa_recover
    serialize = lib.secp256k1_ec_pubkey_serialize
    signature_struct = ffi.new("secp256k1_ecdsa_recoverable_signature *")
    key_struct = ffi.new("secp256k1_pubkey *")
    key_bytes = ffi.new("unsigned char[65]")
    point = ffi.buffer(key_bytes)
    length = ffi.new("size_t *")
    uncompressed = lib.SECP256K1_EC_UNCOMPRESSED
    raw_key = ffi.buffer(key_struct)
    remembered: dict[bytes, bytes] = {}
    for signature, digest, expected in signed:
        if (
            len(signature) != 65
            or not 27 <= signature[64] <= 28
            or not parse(context, signature_struct, signature, signature[64] - 27)
            or not recover(context, key_struct, signature_struct, digest)
        ):
            yield None
            continue
        recovered = raw_key[:]
        address = remembered.get(recovered)
        if address is None:
            length[0] = 65
            serialize(context, key_bytes, length, key_struct, uncompressed)
            address = keccak256(point[1:])[12:]
            if len(remembered) < _MAX_REMEMBERED:
                remembered[recovered] = address
        yield address == expected


def _verify_other(message: Message) -> Verdict:
    """P-256 over SHA-256 of the payload, ML-DSA-87 over the payload."""
    try:
        payload = signature_payload(message)
    except MalformedInput:
        return Reason.MALFORMED
    if message.signature_type is SignatureType.ECDSA_SECP256R1:
        return VALID if _is_p256(message.publisher_id, message.signature, payload) else Reason.BAD_SIGNATURE
    if message.signature_type is SignatureType.ML_DSA_87:
        return _verify_ml_dsa(message.publisher_id, message.signature, payload)
    return Reason.UNKNOWN_SIGNATURE_TYPE


def _is_p256(public_key: bytes, signature: bytes, payload: bytes) -> bool:
    """64 bytes r, s; the key as compressed or uncompressed point."""
    if len(signature) != 64 or public_key[:1] not in [bytes([f]) for f in _P256_POINT_FORMS.get(len(public_key), ())]:
        return False
    digest = digest_of_payload(SignatureType.ECDSA_SECP256R1, payload)
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public_key)
        key.verify(encode_dss_signature(r, s), digest, ec.ECDSA(Prehashed(hashes.SHA256())))
    except (InvalidSignature, ValueError):
        return False
    return True


def _verify_ml_dsa(public_key: bytes, signature: bytes, payload: bytes) -> Verdict:
    """Pure FIPS 204 with an empty context. A build of OpenSSL without it is a named refusal, never a "no"."""
    try:
        mldsa.MLDSA87PublicKey.from_public_bytes(public_key).verify(signature, payload)
    except UnsupportedAlgorithm:
        return Reason.UNKNOWN_SIGNATURE_TYPE
    except (InvalidSignature, ValueError):
        return Reason.BAD_SIGNATURE
    return VALID


__all__ = [
    "VALID",
    "Signed",
    "Valid",
    "Verdict",
    "check_recovered",
    "normalise_signature",
    "publish_message",
    "resolve_erc1271",
    "sign_message",
    "verify_batch",
    "verify_message",
]
