"""Which messages have a canonical form: every field's range, and the one form of what could be written in two ways."""

from __future__ import annotations

from validator.protocol.codec import group_key
from validator.protocol.codec.conversion import BOM, convert_exactly, normalise_stream_id
from validator.protocol.codec.kinds import (
    AES,
    ARRAY,
    ARRAY_LEGACY,
    ARRAY_TYPES,
    ERC_1271,
    EVM,
    LEGACY,
    ML_DSA,
    NONE,
    P256,
    STORED,
)
from validator.protocol.codec.limits import (
    MAX_CONTENT_BYTES,
    MAX_ID_BYTES,
    MAX_NEW_KEY_BYTES,
    MAX_PARTITION,
    MAX_PUBLISHER_BYTES,
    MAX_SEQUENCE,
    MAX_SIGNATURE_BYTES,
    MAX_TIMESTAMP_MS,
    check_id,
)
from validator.protocol.codec.payload import HALF_K1, normalise_signature
from validator.protocol.errors import MalformedInput
from validator.protocol.model import ContentType, Message, MessageType, NewGroupKey, Reason, SignatureType

_PUBLISHER_SIZES: dict[SignatureType, tuple[int, ...]] = {
    LEGACY: (20,),
    EVM: (20,),
    ERC_1271: (20,),
    ML_DSA: (MAX_PUBLISHER_BYTES,),
    P256: (33, 65),
    ARRAY: (20,),
    ARRAY_LEGACY: (20,),
}


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
    if kind is LEGACY and _is_plain(m):
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
    elif m.encryption_type is AES:
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
    if kind is LEGACY:
        _check_converted(m)
    elif kind is ARRAY or kind is ARRAY_LEGACY:
        _check_array(m)
    elif m.message_type is not STORED:
        _check_key_exchange(m)


def _is_plain(m: Message) -> bool:
    """Whether a message of type 0 passes every check below, seen at once: of most messages it is true."""
    stream_id, chain_id, content, signature = m.stream_id, m.msg_chain_id, m.content, m.signature
    timestamp, sequence, prev = m.timestamp_ms, m.sequence_number, m.prev
    return (
        m.message_type is STORED
        and m.encryption_type is NONE
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


def _check_converted(m: Message) -> None:
    """Type 0 signs text: content must be that text exactly, or ciphertext."""
    if m.message_type is not STORED:
        reason = "type 0 cannot sign a key exchange"
        raise MalformedInput("message_type", reason, verdict=Reason.UNSUPPORTED_MESSAGE_TYPE)
    content = m.content
    if m.encryption_type is NONE:
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
    if m.message_type is not STORED and (m.encryption_type is not NONE or m.group_key_id is not None):
        raise MalformedInput("encryption_type", "a key exchange has no group key")
    if not m.content:
        raise MalformedInput("content", "empty")
    _check_text("content", m.content)
    key_text = None if m.new_group_key is None else m.new_group_key.data
    exact = convert_exactly(m.message_type, m.encryption_type, m.content, key_text)
    if exact is not None and m.signature_type is ARRAY:
        raise MalformedInput("signature_type", "converts exactly, so type 0 is its form")


def _check_new_group_key(key: NewGroupKey, kind: SignatureType) -> None:
    check_id("new_group_key.id", key.id)
    if len(key.data) > MAX_NEW_KEY_BYTES:
        raise MalformedInput("new_group_key", f"{len(key.data)} bytes exceed the limit", verdict=Reason.TOO_LARGE)
    if kind in ARRAY_TYPES and key.id:
        raise MalformedInput("new_group_key.id", "the text of an array holds the id")


def _check_key_exchange(m: Message) -> None:
    if m.new_group_key is not None or m.group_key_id is not None or m.encryption_type is not NONE:
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
