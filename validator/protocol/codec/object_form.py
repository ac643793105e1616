"""The object form of brokers and storage nodes: read what can be verified, say what lacks.

This form shows parsed content and leaves out what signatures cover, so it is a last resort; raw is the form to
ask for. Three shapes exist. The old Log Store's ``{"metadata": {...}, "content": ...}`` names everything, the
signature type being the array's 2. Streamr's flat object and the later Log Store's lack ``prevMsgRef`` and
``newGroupKey``: they are refused with that word, never guessed, unless the object carries both keys.

Encrypted content is text and exact. Unencrypted content is taken as the bytes that stand in the answer; the
signature then tells whether these are the signed ones, so a failed check means "printed anew", not "forged".
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from validator.protocol.codec.heads import SIGNATURE_TYPES
from validator.protocol.codec.legacy_array import MAX_LINE_BYTES, read_legacy_array
from validator.protocol.codec.message_rules import check_message
from validator.protocol.codec.payload import normalise_signature
from validator.protocol.errors import MalformedInput
from validator.protocol.model import (
    ContentType,
    EncryptionType,
    Message,
    MessageRef,
    MessageType,
    NewGroupKey,
    Reason,
    SignatureType,
)

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_KEY = msgspec.json.Decoder(tuple[str, str])
_HEX = re.compile(r"(?:0x)?((?:[0-9a-fA-F]{2})*)")
_ID_NAMES = ("streamId", "streamPartition", "timestamp", "sequenceNumber", "publisherId", "msgChainId")
_WHOLE = ("prevMsgRef", "newGroupKey")
_ARRAY_MESSAGE = 27


def read_object(data: bytes) -> Message:
    """Read one message object from its UTF-8 bytes. The signature is not checked.

    Raises:
        MalformedInput: names the field; for a missing one the reason says that the form cannot be verified.
    """
    if len(data) > MAX_LINE_BYTES:
        raise MalformedInput("object", f"{len(data)} bytes exceed the limit", verdict=Reason.TOO_LARGE)
    outer = _members("object", data)
    if "metadata" in outer:
        fields = _members("metadata", bytes(outer["metadata"]))
        fields["content"] = _need(outer, "content")
        if "id" in fields:
            fields.update(_members("id", bytes(fields["id"])))
    else:
        fields = outer
    for name in _WHOLE:
        if name not in fields:
            raise MalformedInput(name, "lacks in this object, so its signature cannot be verified; ask for raw")
    number = _integer(fields, "messageType")
    if number == _ARRAY_MESSAGE:
        return _read_array_era(fields)
    if number == MessageType.MESSAGE:
        return _read_protobuf_era(fields)
    raise MalformedInput("messageType", f"{number} is not stored", verdict=Reason.UNSUPPORTED_MESSAGE_TYPE)


def _read_array_era(fields: dict[str, msgspec.Raw]) -> Message:
    """Put the array together again and read that: one set of rules for both."""
    content = bytes(_need(fields, "content"))
    encrypted = _integer(fields, "encryptionType") != 0
    prev = _prev(fields)
    parts = [
        b"32",
        b"[" + b",".join(bytes(_need(fields, name)) for name in _ID_NAMES) + b"]",
        b"null" if prev is None else b"[%d,%d]" % (prev.timestamp_ms, prev.sequence_number),
        b"27",
        bytes(_need(fields, "contentType")),
        bytes(_need(fields, "encryptionType")),
        bytes(fields.get("groupKeyId", msgspec.Raw(b"null"))),
        content if encrypted else msgspec.json.encode(_utf8("content", content)),
        _key_text(fields),
        bytes(fields.get("signatureType", msgspec.Raw(b"2"))),
        bytes(_need(fields, "signature")),
    ]
    return read_legacy_array(b"[" + b",".join(parts) + b"]")


def _read_protobuf_era(fields: dict[str, msgspec.Raw]) -> Message:
    encryption = _integer(fields, "encryptionType")
    content_type = _integer(fields, "contentType")
    kind = SIGNATURE_TYPES.get(_integer(fields, "signatureType"))
    if kind is None or kind > SignatureType.ECDSA_SECP256R1:
        raise MalformedInput("signatureType", "number is unknown", verdict=Reason.UNKNOWN_SIGNATURE_TYPE)
    if encryption not in (0, 1) or content_type not in (0, 1):
        raise MalformedInput("encryptionType" if content_type in (0, 1) else "contentType", "number is unknown")
    raw_content = bytes(_need(fields, "content"))
    as_text = encryption == EncryptionType.AES or content_type == ContentType.BINARY
    key = fields.get("newGroupKey")
    message = Message(
        _text(fields, "streamId"),
        _integer(fields, "streamPartition"),
        _integer(fields, "timestamp"),
        _integer(fields, "sequenceNumber"),
        _hex(fields, "publisherId"),
        _text(fields, "msgChainId"),
        _prev(fields),
        MessageType.MESSAGE,
        ContentType(content_type),
        EncryptionType(encryption),
        None if _is_null(fields.get("groupKeyId")) else _text(fields, "groupKeyId"),
        None if key is None or _is_null(key) else _new_group_key(key),
        _hex(fields, "content") if as_text else raw_content,
        kind,
        normalise_signature(kind, _hex(fields, "signature")),
    )
    check_message(message)
    return message


def _members(name: str, data: bytes) -> dict[str, msgspec.Raw]:
    try:
        return _OBJECT.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedInput(name, "not a JSON object") from error


def _need(fields: dict[str, msgspec.Raw], name: str) -> msgspec.Raw:
    value = fields.get(name)
    if value is None:
        raise MalformedInput(name, "lacks in this object")
    return value


def _decode(fields: dict[str, msgspec.Raw], name: str, expected: Any) -> Any:
    try:
        return msgspec.json.decode(bytes(_need(fields, name)), type=expected)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedInput(name, str(error)) from error


def _integer(fields: dict[str, msgspec.Raw], name: str) -> int:
    value = _decode(fields, name, int)
    assert isinstance(value, int)
    return value


def _text(fields: dict[str, msgspec.Raw], name: str) -> str:
    value = _decode(fields, name, str)
    assert isinstance(value, str)
    return value


def _hex(fields: dict[str, msgspec.Raw], name: str) -> bytes:
    match = _HEX.fullmatch(_text(fields, name))
    if match is None:
        raise MalformedInput(name, "not hex digits in pairs")
    return bytes.fromhex(match[1])


class _Ref(msgspec.Struct, forbid_unknown_fields=True):
    timestamp: int
    sequenceNumber: int


def _prev(fields: dict[str, msgspec.Raw]) -> MessageRef | None:
    ref = _decode(fields, "prevMsgRef", _Ref | None)
    return None if ref is None else MessageRef(ref.timestamp, ref.sequenceNumber)


def _new_group_key(value: msgspec.Raw) -> NewGroupKey:
    try:
        key_id, ciphertext = _KEY.decode(bytes(value))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedInput("newGroupKey", "not an array of two texts") from error
    match = _HEX.fullmatch(ciphertext)
    if match is None:
        raise MalformedInput("newGroupKey", "not hex digits in pairs")
    return NewGroupKey(key_id, bytes.fromhex(match[1]))


def _key_text(fields: dict[str, msgspec.Raw]) -> bytes:
    """The array's element: a text that itself holds JSON. An array in the object is printed compactly."""
    value = bytes(_need(fields, "newGroupKey"))
    if value.startswith(b"["):
        return msgspec.json.encode(_utf8("newGroupKey", value))
    return value


def _utf8(name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise MalformedInput(name, "not UTF-8") from error


def _is_null(value: msgspec.Raw | None) -> bool:
    return value is None or bytes(value) == b"null"
