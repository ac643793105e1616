"""A message from outside, in whichever form it travels, as a record whose signature nobody has checked yet."""

from __future__ import annotations

from collections.abc import Sequence

from validator.protocol.codec.legacy_array import read_legacy_array
from validator.protocol.codec.message import record_from_canonical, record_of_read
from validator.protocol.codec.plain_protobuf import read_plain_bodies
from validator.protocol.codec.protobuf import read_protobuf
from validator.protocol.errors import MalformedInput
from validator.protocol.model import MessageType, Reason, Record

ARRAY = "array"
PROTOBUF = "protobuf"
CANONICAL = "canonical"


def read_received(form: str, data: bytes, message_limit: int) -> Record:
    """The record of a message that may be stored, by its form and size.

    Raises:
        MalformedInput: with ``verdict``, the reason under which it is counted.
    """
    if len(data) > 2 * message_limit:
        raise MalformedInput("message", f"{len(data)} bytes", verdict=Reason.TOO_LARGE)
    if form == CANONICAL:
        record = record_from_canonical(data)
    else:
        record = record_of_read(read_legacy_array(data) if form == ARRAY else read_protobuf(data))
    kind = record.message.message_type
    if kind is not MessageType.MESSAGE:
        raise MalformedInput("message_type", kind.name, verdict=Reason.UNSUPPORTED_MESSAGE_TYPE)
    size = max(len(record.canonical), record.signed_bytes)
    if size > message_limit:
        reason = f"{size} canonical or signed bytes"
        raise MalformedInput("message", reason, verdict=Reason.TOO_LARGE)
    return record


def read_all_received(form: str, bodies: Sequence[bytes], message_limit: int) -> list[Record | MalformedInput]:
    """``read_received`` of each, or what it raises; of most protobuf messages in half of its time."""
    quick = read_plain_bodies(bodies, message_limit) if form == PROTOBUF else [None] * len(bodies)
    return [record or _read_or_refuse(form, body, message_limit) for record, body in zip(quick, bodies, strict=True)]


def _read_or_refuse(form: str, data: bytes, message_limit: int) -> Record | MalformedInput:
    try:
        return read_received(form, data, message_limit)
    except MalformedInput as error:
        return error
