"""The protobuf StreamMessage of Streamr 1.0, and its length-prefixed framing.

One message has many encodings (order, unknown fields, zero values), so wire bytes are never compared, only what
is read from them. Unknown enumeration numbers pass the reference's parser; here they are named refusals, as are
partitions of 100 or more and empty stream ids. Source: reference of Streamr, section 8.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from validator.protocol.codec import group_key, wire
from validator.protocol.codec.kinds import CONTENT_TYPES, ENCRYPTION_TYPES, SIGNATURE_TYPES
from validator.protocol.codec.limits import MAX_CANONICAL_BYTES
from validator.protocol.codec.message_rules import check_message
from validator.protocol.codec.payload import normalise_signature
from validator.protocol.codec.quick_protobuf import read_plain_protobuf
from validator.protocol.errors import MalformedInput
from validator.protocol.model import ContentType, EncryptionType, Message, MessageRef, MessageType, NewGroupKey, Reason

MAX_BODY_BYTES = MAX_CANONICAL_BYTES
"""Fields of the largest size; a body of unknown fields beyond that is refused unread."""

_MESSAGE = {1: wire.BYTES, 2: wire.BYTES, 3: wire.BYTES, 4: wire.VARINT, 5: wire.BYTES, 6: wire.BYTES, 7: wire.BYTES}
_MESSAGE_ID = {1: wire.BYTES, 2: wire.VARINT, 3: wire.VARINT, 4: wire.VARINT, 5: wire.BYTES, 6: wire.BYTES}
_REF = {1: wire.VARINT, 2: wire.VARINT}
_CONTENT = {1: wire.BYTES, 2: wire.VARINT, 3: wire.VARINT, 4: wire.BYTES, 5: wire.BYTES}
_MAX_WIRE_SIGNATURE_TYPE = 4
"""Numbers above are not on this wire: our own array forms must not enter through it."""


def read_protobuf(body: bytes) -> Message:
    """Read one StreamMessage (without length prefix). The signature is not checked.

    Raises:
        MalformedInput: names the field and the reason; ``verdict`` says how it is counted (``message.reason_of``).
    """
    if len(body) > MAX_BODY_BYTES:
        raise MalformedInput("protobuf", f"{len(body)} bytes exceed the limit", verdict=Reason.TOO_LARGE)
    plain = read_plain_protobuf(body)
    if plain is None:
        return read_any_protobuf(body)
    signature = normalise_signature(plain.signature_type, plain.signature)
    message = plain if signature is plain.signature else replace(plain, signature=signature)
    check_message(message)
    return message


def read_any_protobuf(body: bytes) -> Message:
    """The same by the general reader, however it is written. Raises MalformedInput."""
    outer = wire.Fields(body, "protobuf", _MESSAGE)
    if not outer.has(1):
        raise MalformedInput("messageId", "missing")
    ids = wire.Fields(outer.blob(1), "messageId", _MESSAGE_ID)
    prev = None
    if outer.has(2):
        ref = wire.Fields(outer.blob(2), "previousMessageRef", _REF)
        prev = MessageRef(ref.integer(1), ref.integer(2))
    number = outer.integer(4)
    signature_type = SIGNATURE_TYPES.get(number) if number <= _MAX_WIRE_SIGNATURE_TYPE else None
    if signature_type is None:
        raise MalformedInput("signature_type", f"number {number} is unknown", verdict=Reason.UNKNOWN_SIGNATURE_TYPE)
    message_type, content_type, encryption_type, group_key_id, new_group_key, content = _read_body(outer)
    message = Message(
        ids.text(1, "stream_id"),
        ids.integer(2),
        ids.integer(3),
        ids.integer(4),
        ids.blob(5),
        ids.text(6, "msg_chain_id"),
        prev,
        message_type,
        content_type,
        encryption_type,
        group_key_id,
        new_group_key,
        content,
        signature_type,
        normalise_signature(signature_type, outer.blob(3)),
    )
    check_message(message)
    return message


def write_protobuf(message: Message) -> bytes:
    """StreamMessage bytes, fields in ascending order, zero values left out.

    Raises:
        MalformedInput: a field out of range, or an array form that this wire cannot carry.
    """
    m = message
    check_message(m)
    if m.signature_type > _MAX_WIRE_SIGNATURE_TYPE:
        raise MalformedInput("signature_type", f"{m.signature_type.name} is not on this wire")
    message_id = b"".join(
        (
            wire.write_scalar_bytes(1, m.stream_id.encode()),
            wire.write_integer(2, m.partition),
            wire.write_integer(3, m.timestamp_ms),
            wire.write_integer(4, m.sequence_number),
            wire.write_scalar_bytes(5, m.publisher_id),
            wire.write_scalar_bytes(6, m.msg_chain_id.encode()),
        )
    )
    parts = [wire.write_bytes(1, message_id)]
    if m.prev is not None:
        ref = wire.write_integer(1, m.prev.timestamp_ms) + wire.write_integer(2, m.prev.sequence_number)
        parts.append(wire.write_bytes(2, ref))
    parts.append(wire.write_scalar_bytes(3, m.signature))
    parts.append(wire.write_integer(4, m.signature_type))
    if m.message_type is MessageType.MESSAGE:
        parts.append(wire.write_bytes(5, _write_content(m)))
    else:
        parts.append(wire.write_bytes(5 + m.message_type, m.content))
    return b"".join(parts)


_Body = tuple[MessageType, ContentType, EncryptionType, "str | None", "NewGroupKey | None", bytes]


def _read_body(outer: wire.Fields) -> _Body:
    present = [number for number in (5, 6, 7) if outer.has(number)]
    if len(present) != 1:
        raise MalformedInput("body", "none of content, key request and key response, or several")
    number = present[0]
    body = outer.blob(number)
    if number == 6:
        request = group_key.write_request(group_key.read_request(body))
        return MessageType.GROUP_KEY_REQUEST, ContentType.BINARY, EncryptionType.NONE, None, None, request
    if number == 7:
        response = group_key.write_response(group_key.read_response(body))
        return MessageType.GROUP_KEY_RESPONSE, ContentType.BINARY, EncryptionType.NONE, None, None, response
    fields = wire.Fields(body, "contentMessage", _CONTENT)
    new_group_key = None
    if fields.has(5):
        new_group_key = NewGroupKey(*group_key.read_key(fields.blob(5), "new_group_key"))
    return (
        MessageType.MESSAGE,
        _enumerated(CONTENT_TYPES, "content_type", fields.integer(2)),
        _enumerated(ENCRYPTION_TYPES, "encryption_type", fields.integer(3)),
        fields.text(4, "group_key_id") if fields.has(4) else None,
        new_group_key,
        fields.blob(1),
    )


def _write_content(m: Message) -> bytes:
    key = m.new_group_key
    return b"".join(
        (
            wire.write_scalar_bytes(1, m.content),
            wire.write_integer(2, m.content_type),
            wire.write_integer(3, m.encryption_type),
            b"" if m.group_key_id is None else wire.write_bytes(4, m.group_key_id.encode()),
            b"" if key is None else wire.write_bytes(5, group_key.write_key(key.id, key.data)),
        )
    )


def _enumerated(table: dict[int, Any], name: str, number: int) -> Any:
    value = table.get(number)
    if value is None:
        raise MalformedInput(name, f"number {number} is unknown")
    return value
