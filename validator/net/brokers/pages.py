"""Bodies of brokers' answers, split into records while they arrive. Nothing is parsed but what paging needs.

Two raw formats (reference: Log Store broker layer, HTTP API): lines of JSON arrays whose last line is a metadata
object, and since April 2024 frames of a 4-byte big-endian length and a protobuf message, without metadata. And that of
``/v1``: such frames of canonical objects, the last of them the broker's signed word of what it gave.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any

import msgspec

from validator.net.brokers.ranges import Position
from validator.protocol.codec import cbor
from validator.protocol.codec.answer import ANSWER_FIELDS, ANSWER_KIND, MAX_ANSWER_BYTES, Answer, decode_answer
from validator.protocol.codec.conversion import BOM
from validator.protocol.codec.frames import take_frames
from validator.protocol.codec.heads import PREFIX as MESSAGE_PREFIX
from validator.protocol.codec.legacy_array import MAX_LINE_BYTES, read_legacy_array
from validator.protocol.codec.limits import MAX_CANONICAL_BYTES
from validator.protocol.codec.message import decode_message
from validator.protocol.codec.protobuf import MAX_BODY_BYTES, read_protobuf
from validator.protocol.codec.received import ARRAY, CANONICAL, PROTOBUF
from validator.protocol.errors import MalformedInput

_READERS = {ARRAY: read_legacy_array, PROTOBUF: read_protobuf, CANONICAL: decode_message}
ANSWER_PREFIX = cbor.array_head(1 + ANSWER_FIELDS) + cbor.encode(ANSWER_KIND)
MAX_FRAME_BYTES = max(MAX_CANONICAL_BYTES, MAX_ANSWER_BYTES)
MAX_METADATA_BYTES = 64 << 10
MAX_RECORD_BYTES = MAX_LINE_BYTES + 1
"""Of a longer line only so much is kept: enough for the codec to refuse it as too large."""

Sink = Callable[[Sequence[bytes], str], None]
"""Takes the records that ended with a piece of the body, never none, and their form; raises to stop the reading."""


class _Metadata(msgspec.Struct):
    """The last line; other members are the broker's affair."""

    has_next: bool = msgspec.field(name="hasNext")
    type: str
    next_timestamp: int | None = msgspec.field(name="nextTimestamp", default=None)
    next_sequence_number: int | None = msgspec.field(name="nextSequenceNumber", default=None)


_decode_metadata = msgspec.json.Decoder(_Metadata).decode


def read_lines(chunks: Iterable[bytes], sink: Sink) -> Position | None:
    """Hand all lines but the last to ``sink``; the last line says whether a page follows, and where it begins.

    Lines end at byte 0x0A only; empty ones are skipped. A byte order mark before the first belongs to the encoding.

    Raises:
        MalformedInput: "metadata": the last line is not a metadata object, so the answer may be cut.
    """
    parts: list[bytes] = []
    size = 0
    held: bytes | None = None
    """A whole line that is the metadata if nothing follows it."""
    for chunk in _without_mark(chunks):
        *lines, rest = chunk.split(b"\n")
        if lines and size:
            if size < MAX_RECORD_BYTES:
                parts.append(lines[0][: MAX_RECORD_BYTES - size])
            lines[0] = b"".join(parts)
            parts, size = [], 0
        if held is not None:
            lines.insert(0, held)
        whole = list(filter(None, lines))
        if len(chunk) > MAX_RECORD_BYTES:
            whole = [line[:MAX_RECORD_BYTES] for line in whole]
        held = whole.pop() if whole else None
        if whole:
            sink(whole, ARRAY)
        if rest and size < MAX_RECORD_BYTES:
            parts.append(rest[: MAX_RECORD_BYTES - size])
            size += len(parts[-1])
    if size:
        if held is not None:
            sink([held], ARRAY)
        held = b"".join(parts)
    return _read_metadata(held, sink)


def _without_mark(chunks: Iterable[bytes]) -> Iterable[bytes]:
    """The same bytes without a byte order mark at their beginning, however that is cut."""
    pieces = iter(chunks)
    head = b""
    for piece in pieces:
        head += piece
        if len(head) >= len(BOM) or not BOM.startswith(head):
            break
    return chain([head.removeprefix(BOM)], pieces)


def _read_metadata(line: bytes | None, sink: Sink) -> Position | None:
    if line is None:
        raise MalformedInput("metadata", "the answer is empty")
    if line.startswith(b"["):
        sink([line], ARRAY)
        raise MalformedInput("metadata", "the last line is a message: the answer is cut", cut=True)
    if len(line) > MAX_METADATA_BYTES:
        raise MalformedInput("metadata", f"{len(line)} bytes exceed the limit of {MAX_METADATA_BYTES}")
    try:
        metadata = _decode_metadata(line)
        json.loads(line, object_pairs_hook=_refuse_repeated)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise MalformedInput("metadata", f"the last line is none: {str(error)[:200]}") from error
    if metadata.type != "metadata":
        raise MalformedInput("metadata", f"type {metadata.type[:40]!r} is not metadata")
    if not metadata.has_next:
        return None
    if metadata.next_timestamp is None or metadata.next_sequence_number is None:
        raise MalformedInput("metadata", "says that more follows, but not where")
    return Position(metadata.next_timestamp, metadata.next_sequence_number)


def _refuse_repeated(members: list[tuple[str, Any]]) -> None:
    """Of two members with one name readers take different ones: ``hasNext`` would be both."""
    names = [name for name, _ in members]
    if len(set(names)) < len(names):
        raise ValueError("a member is repeated")


def read_frames(chunks: Iterable[bytes], sink: Sink) -> None:
    """Hand the frames' bodies to ``sink``.

    Raises:
        MalformedInput: "frame": longer than any message, or cut short.
    """
    buffer = bytearray()
    for chunk in chunks:
        buffer += chunk
        if whole := list(take_frames(buffer, MAX_BODY_BYTES)):
            sink(whole, PROTOBUF)
    if buffer:
        raise MalformedInput("frame", "the last one is cut short", cut=True)


def read_answer(chunks: Iterable[bytes], sink: Sink) -> Answer:
    """Hand the canonical messages of a ``/v1`` answer to ``sink``; its trailer, of whoever wrote it.

    Raises:
        MalformedInput: "frame": longer than any object, or of an unknown kind; "trailer": none at the end (cut),
            something behind it, or not a trailer.
    """
    buffer = bytearray()
    trailer: bytes | None = None
    for chunk in chunks:
        buffer += chunk
        whole: list[bytes] = []
        for body in take_frames(buffer, MAX_FRAME_BYTES):
            if trailer is not None:
                raise MalformedInput("trailer", "not the last frame")
            if body.startswith(MESSAGE_PREFIX):
                whole.append(body)
            elif body.startswith(ANSWER_PREFIX):
                trailer = body
            else:
                raise MalformedInput("frame", "of an unknown kind")
        if whole:
            sink(whole, CANONICAL)
    if buffer or trailer is None:
        raise MalformedInput("trailer", "the answer is cut", cut=True)
    return decode_answer(trailer)


def position_of(record: bytes, form: str) -> Position | None:
    """Where a record stands; None if it cannot be read."""
    try:
        message = _READERS[form](record)
    except MalformedInput:
        return None
    return Position(message.timestamp_ms, message.sequence_number)
