"""Messages: their canonical bytes, the bytes their signatures cover, and the record computed from both.

Canonical form: deterministic CBOR of one array, kind ``message/1``, the fields of ``Message`` in their order, prev
and new group key as arrays of two or null, enumerations as numbers. One message has one form: a legacy array that
converts exactly is type 0, secp256k1 and P-256 signatures have low s, domains of array messages are lower case.
The decoder refuses everything else. Vectors: tests/vectors/canonical.json.
"""

from __future__ import annotations

import binascii
import json
import re
from dataclasses import replace
from functools import lru_cache
from typing import Any

from validator.protocol.codec import cbor, group_key
from validator.protocol.errors import MalformedInput
from validator.protocol.hashing import hash_body, hash_leaf, keccak256
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

KIND = "message/1"
FIELDS = 15

MAX_PARTITION = 99
"""Streamr names stream parts ``id#0`` to ``id#99``."""
MAX_TIMESTAMP_MS = 2**53 - 1
"""Largest integer both eras' readers carry exactly."""
MAX_SEQUENCE = 2**31 - 1
MAX_ID_BYTES = 256
"""Bound of stream id, msg chain id, group key id and new group key id."""
MAX_NEW_KEY_BYTES = 2048
MAX_CONTENT_BYTES = 1 << 20
"""Bound of the content as it is signed (ciphertext of type 0 counts twice: it is signed as hex).

Streamr's transport refuses larger frames.
"""
MAX_SIGNED_BYTES = MAX_CONTENT_BYTES + (16 << 10)
"""No signed payload is longer: content, and at most 16 KiB of ids, digits, key text and a long public key."""
MAX_CANONICAL_BYTES = MAX_CONTENT_BYTES + (16 << 10)
MAX_SIGNATURE_BYTES = 4627
"""ML-DSA-87's; all other types are far below."""

ARRAY_TYPES = frozenset({SignatureType.ARRAY_ETH, SignatureType.ARRAY_ETH_LEGACY})
SECP256K1_TYPES = frozenset(
    {
        SignatureType.ECDSA_SECP256K1_LEGACY,
        SignatureType.ECDSA_SECP256K1_EVM,
        SignatureType.ERC_1271,
        SignatureType.ARRAY_ETH_LEGACY,
        SignatureType.ARRAY_ETH,
    }
)
SECP256K1_N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
SECP256R1_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

_LEGACY = SignatureType.ECDSA_SECP256K1_LEGACY
_EVM = SignatureType.ECDSA_SECP256K1_EVM
_ERC_1271 = SignatureType.ERC_1271
_ML_DSA = SignatureType.ML_DSA_87
_P256 = SignatureType.ECDSA_SECP256R1
_ARRAY = SignatureType.ARRAY_ETH
_ARRAY_LEGACY = SignatureType.ARRAY_ETH_LEGACY
_STORED = MessageType.MESSAGE
_NONE = EncryptionType.NONE
_AES = EncryptionType.AES

_PUBLISHER_SIZES: dict[SignatureType, tuple[int, ...]] = {
    _LEGACY: (20,),
    _EVM: (20,),
    _ERC_1271: (20,),
    _ML_DSA: (2592,),
    _P256: (33, 65),
    _ARRAY: (20,),
    _ARRAY_LEGACY: (20,),
}
HALF_K1 = (SECP256K1_N // 2).to_bytes(32, "big")
_HALF_R1 = (SECP256R1_N // 2).to_bytes(32, "big")
BOM = b"\xef\xbb\xbf"
_LOWER_HEX = re.compile(rb"(?:[0-9a-f]{2})+")
_LOWER_HEX_TEXT = re.compile(r"(?:[0-9a-f]{2})*")
_ADDRESS_DOMAIN = re.compile(r"0x[0-9a-fA-F]{40}")


def encode_message(message: Message) -> bytes:
    """Canonical bytes.

    Raises:
        MalformedInput: a field is out of range, or the form is not the canonical one (``check_message``).
    """
    check_message(message)
    return _encode(message)


def decode_message(data: bytes) -> Message:
    """The message whose canonical bytes these are; accepts exactly what ``encode_message`` writes.

    Raises:
        MalformedInput: not canonical CBOR, or a field out of range; names the field.
    """
    message = _read_quickly(data)
    if message is None:  # not canonical, or a number unknown: the general decoder finds the reason
        message = _from_fields(cbor.decode_object(data, KIND, FIELDS, max_bytes=MAX_CANONICAL_BYTES))
    check_message(message)
    if _encode(message) != data:
        raise MalformedInput(KIND, "not the canonical encoding")
    return message


def make_record(message: Message) -> Record:
    """Normalise the signature, encode, hash. Says nothing about the signature's validity.

    Raises:
        MalformedInput: see ``encode_message``.
    """
    signature = normalise_signature(message.signature_type, message.signature)
    if signature is not message.signature:
        message = replace(message, signature=signature)
    check_message(message)
    return _record(message, _encode(message))


def record_of_read(message: Message) -> Record:
    """``make_record`` for a message as a reader of this package returned it: normalised and checked there.

    Saves a tenth of the work where every message of a window passes through.
    """
    return _record(message, _encode(message))


def record_from_canonical(data: bytes) -> Record:
    """The record of canonical bytes, as peers and bundles hand them over.

    Raises:
        MalformedInput: see ``decode_message``.
    """
    return _record(decode_message(data), data)


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
    if kind is _ARRAY_LEGACY:
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
    if kind is _LEGACY:
        if message.encryption_type is not _NONE:
            content = binascii.hexlify(content)
        if key is None:
            return header.encode() + content
        return header.encode() + content + compact_key_text(key).encode()
    if message.message_type is not _STORED and kind is not _ARRAY:
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
    if kind is _P256 or kind is _ML_DSA:
        return hash_body(payload)
    return keccak256(b"\x19Ethereum Signed Message:\n%d%b" % (len(payload), payload))


def normalise_signature(kind: SignatureType, signature: bytes) -> bytes:
    """The twin with low s, v flipped with it; any other signature as it is (the same object).

    Both twins recover the same key, so the verdict is untouched. ERC-1271 signatures are the contract's affair.
    """
    size = len(signature)
    if size == 65 and kind in SECP256K1_TYPES and kind is not _ERC_1271:
        s = signature[32:64]
        if s <= HALF_K1 or signature[64] not in (27, 28):
            return signature
        twin = SECP256K1_N - int.from_bytes(s, "big")
        if twin <= 0:
            return signature
        return signature[:32] + twin.to_bytes(32, "big") + bytes([55 - signature[64]])
    if size == 64 and kind is _P256:
        s = signature[32:]
        if s <= _HALF_R1:
            return signature
        twin = SECP256R1_N - int.from_bytes(s, "big")
        return signature[:32] + twin.to_bytes(32, "big") if twin > 0 else signature
    return signature


def reason_of(error: MalformedInput) -> Reason:
    """Name under which a refusal of this package is counted: its ``verdict`` field, else *malformed*."""
    verdict = error.fields.get("verdict", Reason.MALFORMED)
    return verdict if isinstance(verdict, Reason) else Reason.MALFORMED


def check_message(m: Message) -> None:
    """Refuse fields out of range and forms that are not canonical. Cheap: no hashing, no curve.

    Raises:
        MalformedInput: names the first field that is wrong.
    """
    kind = m.signature_type
    if kind is _LEGACY and _is_plain(m):
        return
    check_id("stream_id", m.stream_id)
    if not m.stream_id:
        raise MalformedInput("stream_id", "empty")
    check_id("msg_chain_id", m.msg_chain_id)
    if not 0 <= m.partition <= MAX_PARTITION:
        reason = f"{m.partition} is not 0..{MAX_PARTITION}"
        raise MalformedInput("partition", reason, verdict=Reason.PARTITION_OUT_OF_RANGE)
    timestamp, sequence, prev = m.timestamp_ms, m.sequence_number, m.prev
    if not 0 <= timestamp <= MAX_TIMESTAMP_MS:
        raise MalformedInput("timestamp", f"{timestamp} is not 0..2^53-1")
    if not 0 <= sequence <= MAX_SEQUENCE:
        raise MalformedInput("sequence_number", f"{sequence} is not 0..2^31-1")
    if prev is not None:
        if prev.timestamp_ms < 0 or not 0 <= prev.sequence_number <= MAX_SEQUENCE:
            raise MalformedInput("prev", "out of range")
        if prev.timestamp_ms > timestamp or (prev.timestamp_ms == timestamp and prev.sequence_number >= sequence):
            raise MalformedInput("prev", "not older than the message")
    if len(m.publisher_id) not in _PUBLISHER_SIZES[kind]:
        raise MalformedInput("publisher_id", f"{len(m.publisher_id)} bytes do not fit {kind.name}")
    key_id = m.group_key_id
    if key_id is not None:
        check_id("group_key_id", key_id)
    elif m.encryption_type is _AES:
        raise MalformedInput("group_key_id", "missing although the content is encrypted")
    if len(m.content) > MAX_CONTENT_BYTES:
        raise MalformedInput("content", f"{len(m.content)} bytes exceed the limit", verdict=Reason.TOO_LARGE)
    signature = m.signature
    if len(signature) > MAX_SIGNATURE_BYTES:
        raise MalformedInput("signature", f"{len(signature)} bytes exceed the limit", verdict=Reason.TOO_LARGE)
    if normalise_signature(kind, signature) is not signature:
        raise MalformedInput("signature", "s is not low")
    if m.new_group_key is not None:
        _check_new_group_key(m.new_group_key, kind)
    if kind is _LEGACY:
        _check_converted(m)
    elif kind is _ARRAY or kind is _ARRAY_LEGACY:
        _check_array(m)
    elif m.message_type is not _STORED:
        _check_key_exchange(m)


def _is_plain(m: Message) -> bool:
    """Whether a message of type 0 passes every check below, seen at once: of most messages it is true."""
    stream_id, chain_id, content, signature = m.stream_id, m.msg_chain_id, m.content, m.signature
    timestamp, sequence, prev = m.timestamp_ms, m.sequence_number, m.prev
    return (
        m.message_type is _STORED
        and m.encryption_type is _NONE
        and m.new_group_key is None
        and m.group_key_id is None
        and 0 < len(stream_id) <= MAX_ID_BYTES
        and stream_id.isascii()
        and len(chain_id) <= MAX_ID_BYTES
        and chain_id.isascii()
        and 0 <= m.partition <= MAX_PARTITION
        and 0 <= timestamp <= MAX_TIMESTAMP_MS
        and 0 <= sequence <= MAX_SEQUENCE
        and (
            prev is None
            or (
                0 <= prev.timestamp_ms <= timestamp
                and 0 <= prev.sequence_number <= MAX_SEQUENCE
                and (prev.timestamp_ms < timestamp or prev.sequence_number < sequence)
            )
        )
        and len(m.publisher_id) == 20
        and len(content) <= MAX_CONTENT_BYTES
        and content.isascii()
        and len(signature) == 65
        and signature[32:64] <= HALF_K1
    )


def check_id(name: str, text: str) -> None:
    """At most ``MAX_ID_BYTES`` of UTF-8. Raises MalformedInput."""
    if len(text) <= MAX_ID_BYTES // 4 and text.isascii():
        return
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise MalformedInput(name, "a lone surrogate has no UTF-8") from error
    if size > MAX_ID_BYTES:
        raise MalformedInput(name, f"{size} bytes exceed the limit of {MAX_ID_BYTES}", verdict=Reason.TOO_LARGE)


# --- the two eras ---------------------------------------------------------------------------------


def normalise_stream_id(text: str) -> str:
    """A stream id as the array era reads it: the domain in lower case, the path untouched.

    Raises:
        MalformedInput: empty, without a domain, or a domain that is neither ENS name nor address.
    """
    if len(text) > MAX_ID_BYTES:  # before anything is remembered
        raise MalformedInput("stream_id", f"longer than {MAX_ID_BYTES} bytes", verdict=Reason.TOO_LARGE)
    return _normalise_stream_id(text)


@lru_cache(maxsize=4096)
def _normalise_stream_id(text: str) -> str:
    if not text:
        raise MalformedInput("stream_id", "empty")
    domain, slash, path = text.partition("/")
    if not slash:
        return text
    if not domain:
        raise MalformedInput("stream_id", "a path without a domain")
    if domain.find(".") > 0 or _ADDRESS_DOMAIN.fullmatch(domain):
        return f"{domain.lower()}/{path}"
    raise MalformedInput("stream_id", "the domain is neither an ENS name nor an address")


def compact_key_text(key: NewGroupKey) -> str:
    """``["id","hex"]`` as JSON.stringify writes it: the signed text of a rotated key of type 0."""
    return json.dumps([key.id, key.data.hex()], ensure_ascii=False, separators=(",", ":"))


def read_key_text(text: bytes) -> tuple[str, str]:
    """Id and hex of an array's new group key text. Raises MalformedInput unless it is a JSON array of two texts."""
    try:
        value = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise MalformedInput("new_group_key", "not JSON") from error
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(item, str) for item in value):
        raise MalformedInput("new_group_key", "not a JSON array of two texts")
    return value[0], value[1]


def convert_exactly(
    message_type: MessageType, encryption_type: EncryptionType, content: bytes, key_text: bytes | None
) -> tuple[bytes, NewGroupKey | None] | None:
    """Content and new group key of type 0 if they rebuild the text that an array's type 2 signed, else None.

    Not exact are: key exchange, a leading byte order mark, ciphertext that is not lower-case hex, a new group key
    text that is not compact JSON. Source: reference of Streamr, conversion of 8.5 to 100.0.

    Raises:
        MalformedInput: the new group key text is no JSON array of two texts.
    """
    key = None
    if key_text is not None:
        key_id, ciphertext = read_key_text(key_text)
        if not _LOWER_HEX_TEXT.fullmatch(ciphertext):
            return None
        key = NewGroupKey(key_id, binascii.unhexlify(ciphertext))
        if compact_key_text(key).encode("utf-8", "surrogatepass") != key_text:
            return None
    if message_type is not _STORED:
        return None
    if encryption_type is _NONE:
        return None if content.startswith(BOM) else (content, key)
    return (binascii.unhexlify(content), key) if _LOWER_HEX.fullmatch(content) else None


def _check_converted(m: Message) -> None:
    """Type 0 signs text: content must be that text exactly, or ciphertext."""
    if m.message_type is not _STORED:
        reason = "type 0 cannot sign a key exchange"
        raise MalformedInput("message_type", reason, verdict=Reason.UNSUPPORTED_MESSAGE_TYPE)
    content = m.content
    if m.encryption_type is _NONE:
        if content.startswith(BOM):
            raise MalformedInput("content", "type 0 does not carry a byte order mark")
        _check_text("content", content)
    elif len(content) * 2 > MAX_CONTENT_BYTES:
        raise MalformedInput("content", f"{len(content)} bytes exceed the limit as hex", verdict=Reason.TOO_LARGE)


def _check_array(m: Message) -> None:
    if normalise_stream_id(m.stream_id) != m.stream_id:
        raise MalformedInput("stream_id", "the domain is not in lower case")
    if m.content_type is not ContentType.JSON:
        raise MalformedInput("content_type", "arrays know JSON only")
    if m.message_type is not _STORED and (m.encryption_type is not _NONE or m.group_key_id is not None):
        raise MalformedInput("encryption_type", "a key exchange has no group key")
    if not m.content:
        raise MalformedInput("content", "empty")
    _check_text("content", m.content)
    key_text = None if m.new_group_key is None else m.new_group_key.data
    exact = convert_exactly(m.message_type, m.encryption_type, m.content, key_text)
    if exact is not None and m.signature_type is _ARRAY:
        raise MalformedInput("signature_type", "converts exactly, so type 0 is its form")


def _check_new_group_key(key: NewGroupKey, kind: SignatureType) -> None:
    check_id("new_group_key.id", key.id)
    if len(key.data) > MAX_NEW_KEY_BYTES:
        raise MalformedInput("new_group_key", f"{len(key.data)} bytes exceed the limit", verdict=Reason.TOO_LARGE)
    if kind in ARRAY_TYPES and key.id:
        raise MalformedInput("new_group_key.id", "the text of an array holds the id")


def _check_key_exchange(m: Message) -> None:
    if m.new_group_key is not None or m.group_key_id is not None or m.encryption_type is not _NONE:
        raise MalformedInput("encryption_type", "a key exchange has no group key")
    if m.content_type is not ContentType.BINARY:
        raise MalformedInput("content_type", "a key exchange is binary")
    if m.message_type is MessageType.GROUP_KEY_REQUEST:
        rewritten = group_key.write_request(group_key.read_request(m.content))
    else:
        rewritten = group_key.write_response(group_key.read_response(m.content))
    if rewritten != m.content:
        raise MalformedInput("content", "key exchange body is not in its shortest form")


def _check_text(name: str, value: bytes) -> None:
    if value.isascii():
        return
    try:
        value.decode()
    except UnicodeDecodeError as error:
        raise MalformedInput(name, "not UTF-8") from error


def _signed_part(m: Message) -> bytes:
    if m.message_type is MessageType.GROUP_KEY_REQUEST:
        return group_key.read_request(m.content).signed_part()
    return group_key.read_response(m.content).signed_part()


# --- many at a time -------------------------------------------------------------------------------


class _MessageDraft:
    """A message while it is filled. Has the slots of ``Message``, so that it can become one.

    A frozen dataclass fills each field through ``object.__setattr__``: 1.4 us for a message, 0.3 us this way,
    where the whole of reading one takes 5.
    """

    __slots__ = (
        "content",
        "content_type",
        "encryption_type",
        "group_key_id",
        "message_type",
        "msg_chain_id",
        "new_group_key",
        "partition",
        "prev",
        "publisher_id",
        "sequence_number",
        "signature",
        "signature_type",
        "stream_id",
        "timestamp_ms",
    )

    def __init__(
        self,
        stream_id: str,
        partition: int,
        timestamp_ms: int,
        sequence_number: int,
        publisher_id: bytes,
        msg_chain_id: str,
        prev: MessageRef | None,
        message_type: MessageType,
        content_type: ContentType,
        encryption_type: EncryptionType,
        group_key_id: str | None,
        new_group_key: NewGroupKey | None,
        content: bytes,
        signature_type: SignatureType,
        signature: bytes,
    ) -> None:
        self.stream_id = stream_id
        self.partition = partition
        self.timestamp_ms = timestamp_ms
        self.sequence_number = sequence_number
        self.publisher_id = publisher_id
        self.msg_chain_id = msg_chain_id
        self.prev = prev
        self.message_type = message_type
        self.content_type = content_type
        self.encryption_type = encryption_type
        self.group_key_id = group_key_id
        self.new_group_key = new_group_key
        self.content = content
        self.signature_type = signature_type
        self.signature = signature


class _RecordDraft:
    """The same for ``Record``."""

    __slots__ = ("canonical", "leaf", "message", "signed_bytes", "signed_digest")

    def __init__(
        self, message: Message, canonical: bytes, leaf: Digest, signed_digest: Digest, signed_bytes: int
    ) -> None:
        self.message = message
        self.canonical = canonical
        self.leaf = leaf
        self.signed_digest = signed_digest
        self.signed_bytes = signed_bytes


class _RefDraft:
    """The same for ``MessageRef``."""

    __slots__ = ("sequence_number", "timestamp_ms")

    def __init__(self, timestamp_ms: int, sequence_number: int) -> None:
        self.timestamp_ms = timestamp_ms
        self.sequence_number = sequence_number


def build_ref(timestamp_ms: int, sequence_number: int) -> MessageRef:
    """``MessageRef(...)``, quicker."""
    draft: Any = _RefDraft(timestamp_ms, sequence_number)
    draft.__class__ = MessageRef
    built: MessageRef = draft
    return built


def build_message(
    stream_id: str,
    partition: int,
    timestamp_ms: int,
    sequence_number: int,
    publisher_id: bytes,
    msg_chain_id: str,
    prev: MessageRef | None,
    message_type: MessageType,
    content_type: ContentType,
    encryption_type: EncryptionType,
    group_key_id: str | None,
    new_group_key: NewGroupKey | None,
    content: bytes,
    signature_type: SignatureType,
    signature: bytes,
) -> Message:
    """``Message(...)``, quicker."""
    draft: Any = _MessageDraft(
        stream_id,
        partition,
        timestamp_ms,
        sequence_number,
        publisher_id,
        msg_chain_id,
        prev,
        message_type,
        content_type,
        encryption_type,
        group_key_id,
        new_group_key,
        content,
        signature_type,
        signature,
    )
    draft.__class__ = Message
    built: Message = draft
    return built


# --- bytes ----------------------------------------------------------------------------------------


_TEXT_HEADS = tuple(cbor.encode("x" * size)[: -size or None] for size in range(MAX_ID_BYTES + 1))
_BYTES_HEADS = tuple(cbor.encode(bytes(size))[: -size or None] for size in range(MAX_ID_BYTES + 1))
_INTEGERS = tuple(cbor.encode(number) for number in range(MAX_ID_BYTES + 1))
_PREFIX = bytes([0x80 + FIELDS + 1]) + cbor.encode(KIND)
NULL = b"\xf6"
PAIR = b"\x82"
ENUMERATIONS = {
    (message, content, encryption): bytes((message, content, encryption))
    for message in MessageType
    for content in ContentType
    for encryption in EncryptionType
}


def _encode(m: Message) -> bytes:
    """The array of a checked message, put together from ready-made heads: a third of a general encoder's time."""
    group_key_id = m.group_key_id
    return b"".join(
        (
            part_bytes(m.stream_id, m.partition),
            integer_bytes(m.timestamp_ms),
            integer_bytes(m.sequence_number),
            chain_bytes(m.publisher_id, m.msg_chain_id),
            NULL
            if m.prev is None
            else PAIR + integer_bytes(m.prev.timestamp_ms) + integer_bytes(m.prev.sequence_number),
            ENUMERATIONS[m.message_type, m.content_type, m.encryption_type],
            NULL if group_key_id is None else text_bytes(group_key_id),
            NULL
            if m.new_group_key is None
            else PAIR + text_bytes(m.new_group_key.id) + string_bytes(m.new_group_key.data),
            string_bytes(m.content),
            _INTEGERS[m.signature_type],
            string_bytes(m.signature),
        )
    )


@lru_cache(maxsize=4096)
def part_bytes(stream_id: str, partition: int) -> bytes:
    """The array's beginning, the same for all messages of a partition. Fields checked before, as in all of these."""
    text = stream_id.encode()
    return _PREFIX + _TEXT_HEADS[len(text)] + text + _INTEGERS[partition]


@lru_cache(maxsize=4096)
def chain_bytes(publisher_id: bytes, msg_chain_id: str) -> bytes:
    """Publisher and chain id, the same for all messages of a chain."""
    return string_bytes(publisher_id) + text_bytes(msg_chain_id)


def integer_bytes(number: int) -> bytes:
    """A CBOR integer from 0 up."""
    if number >= 1 << 32:
        return b"\x1b" + number.to_bytes(8, "big")
    if number <= MAX_ID_BYTES:
        return _INTEGERS[number]
    return b"\x19" + number.to_bytes(2, "big") if number < 1 << 16 else b"\x1a" + number.to_bytes(4, "big")


def text_bytes(text: str) -> bytes:
    """A CBOR text of at most ``MAX_ID_BYTES``."""
    value = text.encode()
    return _TEXT_HEADS[len(value)] + value


def string_bytes(value: bytes) -> bytes:
    """A CBOR byte string."""
    size = len(value)
    if size <= MAX_ID_BYTES:
        return _BYTES_HEADS[size] + value
    return (b"\x59" + size.to_bytes(2, "big") if size < 1 << 16 else b"\x5a" + size.to_bytes(4, "big")) + value


def _read_head(data: bytes, at: int) -> tuple[int, int, int]:
    """Major type, argument, offset behind. Lenient: the caller encodes again and compares.

    Raises:
        IndexError: indefinite or cut short.
    """
    first = data[at]
    argument = first & 31
    if argument < 24:
        return first >> 5, argument, at + 1
    if argument == 24:
        return first >> 5, data[at + 1], at + 2
    width = 1 << (argument - 24)
    if width > 8:
        raise IndexError("indefinite length")
    return first >> 5, int.from_bytes(data[at + 1 : at + 1 + width], "big"), at + 1 + width


def _read_integer(data: bytes, at: int) -> tuple[int, int]:
    major, value, at = _read_head(data, at)
    if major != 0:
        raise IndexError("no integer")
    return value, at


def _read_bytes(data: bytes, at: int) -> tuple[bytes, int]:
    major, size, at = _read_head(data, at)
    if major != 2:
        raise IndexError("no bytes")
    return data[at : at + size], at + size


def _read_text(data: bytes, at: int) -> tuple[str, int]:
    major, size, at = _read_head(data, at)
    if major != 3:
        raise IndexError("no text")
    return data[at : at + size].decode(), at + size


_NULL_BYTE = NULL[0]
_PAIR_BYTE = PAIR[0]


def _read_quickly(data: bytes) -> Message | None:
    """The message of bytes that look canonical, unchecked; None sends the bytes to the general decoder.

    Everything lenient here is caught by encoding the result again; nothing is allocated but slices of ``data``.
    """
    if len(data) > MAX_CANONICAL_BYTES or not data.startswith(_PREFIX):
        return None
    try:
        stream_id, at = _read_text(data, len(_PREFIX))
        partition, at = _read_integer(data, at)
        timestamp_ms, at = _read_integer(data, at)
        sequence_number, at = _read_integer(data, at)
        publisher_id, at = _read_bytes(data, at)
        msg_chain_id, at = _read_text(data, at)
        prev = None
        if data[at] == _PAIR_BYTE:
            first, at = _read_integer(data, at + 1)
            second, at = _read_integer(data, at)
            prev = build_ref(first, second)
        elif data[at] == _NULL_BYTE:
            at += 1
        else:
            return None
        message_type = MESSAGE_TYPES[data[at]]
        content_type = CONTENT_TYPES[data[at + 1]]
        encryption_type = ENCRYPTION_TYPES[data[at + 2]]
        at += 3
        group_key_id = None
        if data[at] == _NULL_BYTE:
            at += 1
        else:
            group_key_id, at = _read_text(data, at)
        new_group_key = None
        if data[at] == _PAIR_BYTE:
            key_id, at = _read_text(data, at + 1)
            key_data, at = _read_bytes(data, at)
            new_group_key = NewGroupKey(key_id, key_data)
        elif data[at] == _NULL_BYTE:
            at += 1
        else:
            return None
        content, at = _read_bytes(data, at)
        number, at = _read_integer(data, at)
        signature_type = SIGNATURE_TYPES[number]
        signature, at = _read_bytes(data, at)
    except (IndexError, KeyError, UnicodeDecodeError):
        return None
    if at != len(data):
        return None
    return build_message(
        stream_id,
        partition,
        timestamp_ms,
        sequence_number,
        publisher_id,
        msg_chain_id,
        prev,
        message_type,
        content_type,
        encryption_type,
        group_key_id,
        new_group_key,
        content,
        signature_type,
        signature,
    )


def _record(message: Message, canonical: bytes) -> Record:
    payload = signature_payload(message)
    digest = digest_of_payload(message.signature_type, payload)
    draft: Any = _RecordDraft(message, canonical, hash_leaf(canonical), digest, len(payload))
    draft.__class__ = Record
    record: Record = draft
    return record


_FIELD_TYPES: tuple[tuple[str, type], ...] = (
    ("stream_id", str),
    ("partition", int),
    ("timestamp", int),
    ("sequence_number", int),
    ("publisher_id", bytes),
    ("msg_chain_id", str),
    ("prev", object),
    ("message_type", int),
    ("content_type", int),
    ("encryption_type", int),
    ("group_key_id", object),
    ("new_group_key", object),
    ("content", bytes),
    ("signature_type", int),
    ("signature", bytes),
)


def _from_fields(values: list[Any]) -> Message:
    for (name, expected), value in zip(_FIELD_TYPES, values, strict=True):
        if expected is not object and type(value) is not expected:
            raise MalformedInput(name, f"{type(value).__name__} where {expected.__name__} belongs")
    group_key_id = values[10]
    if group_key_id is not None and type(group_key_id) is not str:
        raise MalformedInput("group_key_id", "neither text nor null")
    prev = _pair("prev", values[6], int, int)
    key = _pair("new_group_key", values[11], str, bytes)
    return Message(
        values[0],
        values[1],
        values[2],
        values[3],
        values[4],
        values[5],
        None if prev is None else MessageRef(*prev),
        _known(MESSAGE_TYPES, "message_type", values[7], Reason.UNSUPPORTED_MESSAGE_TYPE),
        _known(CONTENT_TYPES, "content_type", values[8], Reason.MALFORMED),
        _known(ENCRYPTION_TYPES, "encryption_type", values[9], Reason.MALFORMED),
        group_key_id,
        None if key is None else NewGroupKey(*key),
        values[12],
        _known(SIGNATURE_TYPES, "signature_type", values[13], Reason.UNKNOWN_SIGNATURE_TYPE),
        values[14],
    )


MESSAGE_TYPES: dict[int, MessageType] = {int(item): item for item in MessageType}
CONTENT_TYPES: dict[int, ContentType] = {int(item): item for item in ContentType}
ENCRYPTION_TYPES: dict[int, EncryptionType] = {int(item): item for item in EncryptionType}
SIGNATURE_TYPES: dict[int, SignatureType] = {int(item): item for item in SignatureType}


def _known(table: dict[int, Any], name: str, number: int, verdict: Reason) -> Any:
    """Look up an enumeration's number; a dictionary is several times faster than calling the enumeration."""
    value = table.get(number)
    if value is None:
        raise MalformedInput(name, f"number {number} is unknown", verdict=verdict)
    return value


def _pair(name: str, value: Any, first: type, second: type) -> tuple[Any, Any] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2 or type(value[0]) is not first or type(value[1]) is not second:
        raise MalformedInput(name, f"neither null nor an array of {first.__name__} and {second.__name__}")
    return value[0], value[1]
