"""The JSON array of Streamr before 1.0: version 32, and the older 31 and 30.

Reading is strict: what the old clients tolerated beyond the format (texts for numbers, fractions and exponents,
extra elements, ``false`` for null, junk behind the hex) is refused, as two readers could understand it
differently. What they normalised is normalised: the stream's domain, publisher and signature in any letter case,
a signature without 0x, white space and escapes outside texts, a lone surrogate (signed as U+FFFD).

A type 2 message becomes type 0 of the 1.0 form where that rebuilds the signed text byte for byte; otherwise it
stays ARRAY_ETH with its texts as on the wire. Type 1 signs neither partition nor sequence number, so everything
but stream, time, publisher and content of such a message is hearsay. Source: reference of Streamr, section 5.
"""

from __future__ import annotations

import binascii
import re
from functools import lru_cache
from typing import Any, Final, NoReturn

import msgspec

from validator.protocol.codec.conversion import compact_key_text, convert_exactly, normalise_stream_id
from validator.protocol.codec.kinds import ARRAY, LEGACY
from validator.protocol.codec.limits import MAX_CONTENT_BYTES, MAX_NEW_KEY_BYTES
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

MAX_LINE_BYTES = 6 * MAX_CONTENT_BYTES + (64 << 10)
"""Content of the largest size, every byte of it escaped as six, and the other elements."""


class _Id(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False, frozen=True):
    stream_id: str
    partition: int
    timestamp: int
    sequence_number: int
    publisher_id: str
    msg_chain_id: str


class _Prev(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False, frozen=True):
    timestamp: int
    sequence_number: int


class _Array32(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False, frozen=True):
    version: int
    message_id: _Id
    prev: _Prev | None
    message_type: int
    content_type: int
    encryption_type: int
    group_key_id: str | None
    content: str
    new_group_key: str | None
    signature_type: int
    signature: str | None


class _Array31(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False, frozen=True):
    version: int
    message_id: _Id
    prev: _Prev | None
    message_type: int
    encryption_type: int
    content: str
    signature_type: int
    signature: str | None


class _Array30(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False, frozen=True):
    version: int
    message_id: _Id
    prev: _Prev | None
    message_type: int
    content: str
    signature_type: int
    signature: str | None


_decode_32: Final = msgspec.json.Decoder(_Array32).decode
_decode_31: Final = msgspec.json.Decoder(_Array31).decode
_decode_30: Final = msgspec.json.Decoder(_Array30).decode
_VERSION = re.compile(rb"\s*\[\s*(\d{1,9})\s*[,\]]")
_FIELD_BY_LENGTH = {"2": "prev", "6": "message_id"}
_PATH = re.compile(r"`\$((?:\[\d+\])*)`")
_ESCAPE = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")

_MESSAGE_TYPES: dict[int, MessageType] = {
    27: MessageType.MESSAGE,
    28: MessageType.GROUP_KEY_REQUEST,
    29: MessageType.GROUP_KEY_RESPONSE,
}
_SIGNATURE_TYPES: dict[int, SignatureType] = {1: SignatureType.ARRAY_ETH_LEGACY, 2: SignatureType.ARRAY_ETH}
_AES_IN_ARRAY = 2
_RSA_IN_ARRAY = 1


def read_legacy_array(line: bytes) -> Message:
    """Read one array, 32, 31 or 30, from its UTF-8 bytes. The signature is not checked.

    Raises:
        MalformedInput: names the field and the reason; ``verdict`` says how it is counted (``message.reason_of``).
    """
    if len(line) > MAX_LINE_BYTES:
        raise MalformedInput("array", f"{len(line)} bytes exceed the limit", verdict=Reason.TOO_LARGE)
    if line.startswith(b"[32,"):
        version = 32
    else:
        match = _VERSION.match(line)
        if match is None:
            raise MalformedInput("version", "not an array that begins with a version number")
        version = int(match[1])
    if version == 32:
        return _build(_decode(_decode_32, _Array32, line))
    if version == 31:
        old = _decode(_decode_31, _Array31, line)
        return _build(_widen(old, old.encryption_type))
    if version == 30:
        return _build(_widen(_decode(_decode_30, _Array30, line), 0))
    raise MalformedInput("version", f"{version} is not 30, 31 or 32")


def write_legacy_array(message: Message) -> bytes:
    """Version 32 as the old clients write it: compact, non-ASCII raw. ``read_legacy_array`` gives the message back.

    Raises:
        MalformedInput: the message has no array form (its signature type, content type, empty content or stream id).
    """
    check_message(message)
    m = message
    kind = m.signature_type
    if kind not in (SignatureType.ECDSA_SECP256K1_LEGACY, SignatureType.ARRAY_ETH, SignatureType.ARRAY_ETH_LEGACY):
        raise MalformedInput("signature_type", f"{kind.name} has no array form")
    if m.content_type is not ContentType.JSON:
        raise MalformedInput("content_type", "arrays know JSON only")
    if not m.content:
        raise MalformedInput("content", "empty content has no array form")
    if normalise_stream_id(m.stream_id) != m.stream_id:
        raise MalformedInput("stream_id", "the domain is not in lower case")
    encrypted = m.encryption_type is EncryptionType.AES
    key = m.new_group_key
    key_text: str | None = None
    if kind is SignatureType.ECDSA_SECP256K1_LEGACY:
        content = m.content.hex() if encrypted else m.content.decode()
        if key is not None:
            key_text = compact_key_text(key)
    else:
        content = m.content.decode()
        if key is not None:
            key_text = key.data.decode()
    encryption = _AES_IN_ARRAY if encrypted else 0
    if m.message_type is MessageType.GROUP_KEY_RESPONSE:
        encryption = _RSA_IN_ARRAY
    return msgspec.json.encode(
        [
            32,
            [
                m.stream_id,
                m.partition,
                m.timestamp_ms,
                m.sequence_number,
                "0x" + m.publisher_id.hex(),
                m.msg_chain_id,
            ],
            None if m.prev is None else [m.prev.timestamp_ms, m.prev.sequence_number],
            27 + m.message_type,
            0,
            encryption,
            m.group_key_id,
            content,
            key_text,
            1 if kind is SignatureType.ARRAY_ETH_LEGACY else 2,
            "0x" + m.signature.hex(),
        ]
    )


def _widen(old: Any, encryption_type: int) -> _Array32:
    """The older versions lack content type, key id and rotated key."""
    return _Array32(
        32,
        old.message_id,
        old.prev,
        old.message_type,
        0,
        encryption_type,
        None,
        old.content,
        None,
        old.signature_type,
        old.signature,
    )


def _build(a: _Array32) -> Message:
    i = a.message_id
    message_type = _MESSAGE_TYPES.get(a.message_type)
    if message_type is None:
        raise MalformedInput("message_type", f"{a.message_type} is unknown", verdict=Reason.UNSUPPORTED_MESSAGE_TYPE)
    if a.content_type != 0:
        raise MalformedInput("content_type", f"{a.content_type} is not JSON (0)")
    signature_type, signature = _signature(a)
    encryption_type = _encryption(a.encryption_type, message_type)
    content = a.content.encode()
    if not content:
        raise MalformedInput("content", "empty")
    key_text = None if a.new_group_key is None else a.new_group_key.encode()
    if key_text is not None and len(key_text) > MAX_NEW_KEY_BYTES:
        raise MalformedInput("new_group_key", f"{len(key_text)} bytes exceed the limit", verdict=Reason.TOO_LARGE)
    key = None if key_text is None else NewGroupKey("", key_text)
    if len(content) > MAX_CONTENT_BYTES:
        raise MalformedInput("content", f"{len(content)} bytes exceed the limit", verdict=Reason.TOO_LARGE)
    if signature_type is ARRAY:
        exact = convert_exactly(message_type, encryption_type, content, key_text)
        if exact is not None:
            content, key = exact
            signature_type = LEGACY
    message = Message(
        normalise_stream_id(i.stream_id),
        i.partition,
        i.timestamp,
        i.sequence_number,
        read_address(i.publisher_id),
        i.msg_chain_id,
        None if a.prev is None else MessageRef(a.prev.timestamp, a.prev.sequence_number),
        message_type,
        ContentType.JSON,
        encryption_type,
        a.group_key_id,
        key,
        content,
        signature_type,
        normalise_signature(signature_type, signature),
    )
    check_message(message)
    return message


@lru_cache(maxsize=4096)
def read_address(text: str) -> bytes:
    """20 bytes of 0x and 40 hex digits in any case. Few publishers send many messages, so it is remembered.

    Raises:
        MalformedInput: publisher_id.
    """
    if not _ADDRESS.fullmatch(text):
        raise MalformedInput("publisher_id", "not 0x and 40 hex digits")
    return binascii.unhexlify(text[2:])


def _signature(a: _Array32) -> tuple[SignatureType, bytes]:
    text = a.signature
    if a.signature_type == 0:
        raise MalformedInput("signature_type", "0: not signed", verdict=Reason.UNSIGNED)
    kind = _SIGNATURE_TYPES.get(a.signature_type)
    if kind is None:
        raise MalformedInput("signature_type", f"{a.signature_type} is unknown", verdict=Reason.UNKNOWN_SIGNATURE_TYPE)
    if not text:
        raise MalformedInput("signature", "missing", verdict=Reason.UNSIGNED)
    try:
        return kind, binascii.unhexlify(text[2:] if text.startswith("0x") else text)
    except ValueError as error:  # binascii.Error, or text that is not ASCII
        raise MalformedInput("signature", "not hex digits in pairs", verdict=Reason.BAD_SIGNATURE) from error


def _encryption(number: int, message_type: MessageType) -> EncryptionType:
    """The array's 0 and 2; a key response is RSA inside its content, which is 1 there and NONE here."""
    if message_type is MessageType.GROUP_KEY_RESPONSE:
        if number == _RSA_IN_ARRAY:
            return EncryptionType.NONE
    elif number == 0:
        return EncryptionType.NONE
    elif number == _AES_IN_ARRAY:
        return EncryptionType.AES
    raise MalformedInput("encryption_type", f"{number} is not known for {message_type.name}")


def _decode(decode: Any, shape: type[msgspec.Struct], line: bytes) -> Any:
    try:
        return decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if b"\\u" in line and isinstance(error, msgspec.DecodeError) and not isinstance(error, msgspec.ValidationError):
            repaired = _replace_lone_surrogates(line)
            if repaired != line:
                return _decode(decode, shape, repaired)
        _refuse(error, shape)


def _replace_lone_surrogates(line: bytes) -> bytes:
    """Turn escaped surrogates without a partner into U+FFFD, which is what UTF-8 encoders of the old clients sign."""
    out: list[bytes] = []
    last = 0
    high: re.Match[bytes] | None = None
    for match in _ESCAPE.finditer(line):
        unit = int(match[1], 16) if match[1] else 0
        paired = high is not None and high.end() == match.start() and 0xDC00 <= unit < 0xE000
        if high is not None and not paired:
            out += (line[last : high.start()], b"\\ufffd")
            last = high.end()
        if 0xDC00 <= unit < 0xE000 and not paired:
            out += (line[last : match.start()], b"\\ufffd")
            last = match.end()
        high = match if 0xD800 <= unit < 0xDC00 else None
    if high is not None:
        out += (line[last : high.start()], b"\\ufffd")
        last = high.end()
    out.append(line[last:])
    return b"".join(out)


def _refuse(error: Exception, shape: type[msgspec.Struct]) -> NoReturn:
    """Name the field that the JSON library's message points at."""
    text = str(error)
    path = _PATH.search(text)
    reason = text.split(" - at ")[0]
    if path is None or not path[1]:
        # too long an array is reported without a path; its due length tells which one it is
        raise MalformedInput(_FIELD_BY_LENGTH.get(reason.rpartition(" ")[2], "array"), reason) from error
    steps = [int(step) for step in re.findall(r"\d+", path[1])]
    fields = shape.__struct_fields__
    name = fields[steps[0]] if steps[0] < len(fields) else "array"
    if len(steps) > 1:
        inner = _Id if name == "message_id" else _Prev
        names = inner.__struct_fields__
        own = names[steps[1]] if steps[1] < len(names) else name
        name = own if name == "message_id" else f"{name}.{own}"
    raise MalformedInput(name, reason) from error
