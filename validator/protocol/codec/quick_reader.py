"""Canonical bytes read without a general decoder: lenient, because the reader encodes the result again and compares."""

from __future__ import annotations

from validator.protocol.codec.heads import NULL, PAIR, PREFIX
from validator.protocol.codec.kinds import CONTENT_TYPES, ENCRYPTION_TYPES, MESSAGE_TYPES, SIGNATURE_TYPES
from validator.protocol.codec.limits import MAX_CANONICAL_BYTES
from validator.protocol.model import Message, MessageRef, NewGroupKey

_NULL_BYTE = NULL[0]
_PAIR_BYTE = PAIR[0]


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


def _read_reference(data: bytes, at: int) -> tuple[MessageRef | None, int]:
    if data[at] == _NULL_BYTE:
        return None, at + 1
    if data[at] != _PAIR_BYTE:
        raise IndexError("no reference")
    timestamp_ms, at = _read_integer(data, at + 1)
    sequence_number, at = _read_integer(data, at)
    return MessageRef(timestamp_ms, sequence_number), at


def _read_key(data: bytes, at: int) -> tuple[NewGroupKey | None, int]:
    if data[at] == _NULL_BYTE:
        return None, at + 1
    if data[at] != _PAIR_BYTE:
        raise IndexError("no key")
    key_id, at = _read_text(data, at + 1)
    key, at = _read_bytes(data, at)
    return NewGroupKey(key_id, key), at


def read_quickly(data: bytes) -> Message | None:
    """The message of bytes that look canonical, unchecked; None sends the bytes to the general decoder.

    Everything lenient here is caught by encoding the result again; nothing is allocated but slices of ``data``.
    """
    if len(data) > MAX_CANONICAL_BYTES or not data.startswith(PREFIX):
        return None
    try:
        stream_id, at = _read_text(data, len(PREFIX))
        partition, at = _read_integer(data, at)
        timestamp_ms, at = _read_integer(data, at)
        sequence_number, at = _read_integer(data, at)
        publisher_id, at = _read_bytes(data, at)
        msg_chain_id, at = _read_text(data, at)
        prev, at = _read_reference(data, at)
        message_type = MESSAGE_TYPES[data[at]]
        content_type = CONTENT_TYPES[data[at + 1]]
        encryption_type = ENCRYPTION_TYPES[data[at + 2]]
        at += 3
        group_key_id = None
        if data[at] == _NULL_BYTE:
            at += 1
        else:
            group_key_id, at = _read_text(data, at)
        new_group_key, at = _read_key(data, at)
        content, at = _read_bytes(data, at)
        number, at = _read_integer(data, at)
        signature_type = SIGNATURE_TYPES[number]
        signature, at = _read_bytes(data, at)
    except (IndexError, KeyError, UnicodeDecodeError):
        return None
    if at != len(data):
        return None
    return Message(
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


def message_id_bytes(data: bytes) -> bytes:
    """How canonical bytes begin, up to the end of the message id: two messages have one id where these are equal."""
    _, size, at = _read_head(data, len(PREFIX))
    at += size
    for _ in range(3):  # partition, timestamp, sequence number
        _, _, at = _read_head(data, at)
    for _ in range(2):  # publisher, chain
        _, size, at = _read_head(data, at)
        at += size
    return data[:at]
