"""Signature checks, one or many: the verdict is recovery's for every input.

The rule of secp256k1: 65 bytes, v 27 or 28, and the recovered address is the publisher. Validators recover every
signature (``recovery``); readers and brokers, who keep the publishers' keys, have most of them checked by one equation
(``signature_equation``, ``batch_verifier``), which changes no verdict. ERC-1271 is judged in two steps: recovery must
give some signer (as Streamr's client demands before it asks), then the contract decides, which only the caller can ask.
P-256 and ML-DSA-87 go through OpenSSL. Source: reference of Streamr, section 6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from typing import Final, Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, mldsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from msgspec.structs import replace

from validator.protocol.codec.kinds import ERC_1271
from validator.protocol.codec.payload import digest_of_payload, normalise_signature, signature_payload, signed_digest
from validator.protocol.codec.recovery import KeyStruct, Signed, check_recovered
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.codec.signature_equation import check_together
from validator.protocol.errors import MalformedInput
from validator.protocol.model import (
    ContentType,
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
_MIN_PER_THREAD = 64
"""Fewer messages are checked before a second thread would have started."""


Keys = dict[bytes, KeyStruct]
"""Publishers' keys, by their addresses, as a reader has recovered them."""
Check = Callable[[Sequence[Signed]], Iterable[bool | None]]
"""Says of each what ``check_recovered`` says."""
Verify = Callable[[Sequence[Message] | Sequence[Record]], list[Verdict]]


def verify_batch(
    messages: Sequence[Message] | Sequence[Record], threads: int = 1, verify: Verify | None = None
) -> list[Verdict]:
    """One verdict per message, in order. Records are quicker: their digest is already computed.

    ``threads`` > 1 splits the batch; the curve library runs without the interpreter lock. ``verify``: another way to
    the same verdicts.
    """
    verify = verify or verify_by
    parts = min(threads, len(messages) // _MIN_PER_THREAD)
    if parts <= 1:
        return verify(messages)
    step = -(-len(messages) // parts)
    slices = [messages[at : at + step] for at in range(0, len(messages), step)]
    with ThreadPoolExecutor(len(slices), thread_name_prefix="verify") as pool:
        return [verdict for part in pool.map(verify, slices) for verdict in part]


def verify_together(messages: Sequence[Message] | Sequence[Record], keys: Keys) -> list[Verdict]:
    """``verify_batch`` for who stops at the first forgery: at under half of the cost where thousands come of few
    publishers. ``keys`` are those of earlier calls, and learns.
    """
    return verify_by(messages, lambda signed: check_together(signed, keys))


def verify_message(message: Message) -> Verdict:
    """Verdict of one message: exactly what ``verify_batch`` says of it."""
    return verify_by((message,))[0]


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


def verify_by(messages: Sequence[Message] | Sequence[Record], check: Check = check_recovered) -> list[Verdict]:
    """Secp256k1 signatures in one go, by ``check``; others one by one."""
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
    for (number, message), by_publisher in zip(asked, check(signed), strict=True):
        if by_publisher is None:
            continue
        if message.signature_type is ERC_1271:
            verdicts[number] = Reason.ERC1271_UNKNOWN
        elif by_publisher:
            verdicts[number] = VALID
    return verdicts


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
    "Check",
    "Keys",
    "Signed",
    "Valid",
    "Verdict",
    "check_recovered",
    "normalise_signature",
    "publish_message",
    "resolve_erc1271",
    "sign_message",
    "verify_batch",
    "verify_by",
    "verify_message",
    "verify_together",
]
