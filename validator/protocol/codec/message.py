"""Messages: their canonical bytes, and the record computed from them and from what was signed.

Canonical form: deterministic CBOR of one array, kind ``message/1``, the fields of ``Message`` in their order, prev
and new group key as arrays of two or null, enumerations as numbers. One message has one form: a legacy array that
converts exactly is type 0, secp256k1 and P-256 signatures have low s, domains of array messages are lower case.
The decoder refuses everything else. Vectors: tests/vectors/canonical.json.

Beside it: ``limits`` (bounds of fields), ``kinds`` (the enumerations), ``conversion`` (arrays and what replaced them),
``payload`` (what is signed), ``message_rules`` (which messages have a canonical form), ``heads`` (the bytes piece by
piece), ``quick_reader``.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from validator.protocol.codec import cbor
from validator.protocol.codec.heads import (
    ENUMERATIONS,
    FIELDS,
    INTEGERS,
    KIND,
    NULL,
    PAIR,
    chain_bytes,
    integer_bytes,
    part_bytes,
    string_bytes,
    text_bytes,
)
from validator.protocol.codec.kinds import CONTENT_TYPES, ENCRYPTION_TYPES, MESSAGE_TYPES, SIGNATURE_TYPES
from validator.protocol.codec.limits import MAX_CANONICAL_BYTES
from validator.protocol.codec.message_rules import check_message
from validator.protocol.codec.payload import digest_of_payload, normalise_signature, signature_payload
from validator.protocol.codec.quick_reader import read_quickly
from validator.protocol.errors import MalformedInput
from validator.protocol.leaves import message_leaf
from validator.protocol.model import Digest, Message, MessageRef, NewGroupKey, Reason, Record


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
    message = read_quickly(data)
    if message is None:  # not canonical, or a number unknown: the general decoder finds the reason
        message = _from_fields(cbor.decode_object(data, KIND, FIELDS, max_bytes=MAX_CANONICAL_BYTES))
    check_message(message)
    if _encode(message) != data:
        raise MalformedInput(KIND, "not the canonical encoding")
    return message


def leaf_of_canonical(data: bytes) -> Digest:
    """Leaf hash of the message whose canonical bytes these are.

    Raises:
        MalformedInput: see ``decode_message``.
    """
    return leaf_of(decode_message(data), data)


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
            INTEGERS[m.signature_type],
            string_bytes(m.signature),
        )
    )


def _record(message: Message, canonical: bytes) -> Record:
    payload = signature_payload(message)
    digest = digest_of_payload(message.signature_type, payload)
    return Record(message, canonical, leaf_of(message, canonical), digest, len(payload))


def leaf_of(m: Message, canonical: bytes) -> Digest:
    """Leaf hash of a message whose canonical bytes are known to be these."""
    return message_leaf(
        m.stream_id, m.partition, m.timestamp_ms, m.sequence_number, m.publisher_id, m.content, canonical
    )


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
