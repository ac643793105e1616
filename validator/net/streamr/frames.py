"""Frames between a bus and the program that is the network's node, over a stream socket.

    | u32 length of what follows | u8 kind | body |        big-endian

    kind            from   body
     1 JOIN         bus    parts, each joined when its turn comes; answered by STATE
     2 LEAVE        bus    parts                           answered by STATE
     3 PUBLISH      bus    one part, then the message's bytes
     4 INFO         bus    empty                           answered by STATE
    17 MESSAGE      node   one part, then the message's bytes
    18 DROPPED      node   u64: messages that this connection has lost so far
    19 ERROR        node   UTF-8 text; of no request in particular
    20 STATE        node   JSON of ``State``

    part            | u16 length | UTF-8 of the stream id | u8 partition |

Requests are answered in their order. Both sides refuse a length above ``MAX_FRAME_BYTES`` before they read on.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from functools import lru_cache

import msgspec

from validator.ports.bus import Delivered
from validator.protocol.errors import MalformedInput, require
from validator.protocol.model import StreamPart

MAX_MESSAGE_BYTES = 1 << 20
"""The network itself carries no more (reference: Streamr, fields)."""
MAX_FRAME_BYTES = MAX_MESSAGE_BYTES + (64 << 10)
MAX_STREAM_ID_BYTES = 4096
PARTS_PER_FRAME = 256
MAX_PARTITION = 99
_LENGTH = struct.Struct(">I")
_ID_LENGTH = struct.Struct(">H")


class Kind(IntEnum):
    JOIN = 1
    LEAVE = 2
    PUBLISH = 3
    INFO = 4
    MESSAGE = 17
    DROPPED = 18
    ERROR = 19
    STATE = 20


class Refused(msgspec.Struct, frozen=True):
    """A part that was not joined or left, and why."""

    stream: str
    partition: int
    reason: str


class State(msgspec.Struct, frozen=True):
    """What a node says of itself: its id, the parts of this connection, those of them whose turn to be joined has not
    come, those (and of these all) where it knows no neighbour, the bytes that wait for this connection, and what the
    request before this answer could not have. ``overhearing`` counts listeners that are shown every message, since
    the program does not know which part's they are: 0 with the packages that are locked."""

    node: str = ""
    parts: int = 0
    waiting: int = 0
    lonely: int = 0
    overhearing: int = 0
    buffered: int = 0
    refused: list[Refused] = msgspec.field(default_factory=list)


def write_frame(kind: Kind, *pieces: bytes) -> bytes:
    """Raises MalformedInput for a body that is too long."""
    length = 1 + sum(map(len, pieces))
    require(length <= MAX_FRAME_BYTES, "frame", f"{length} bytes, at most {MAX_FRAME_BYTES}")
    return b"".join((_LENGTH.pack(length), bytes((kind,)), *pieces))


def write_part(part: StreamPart) -> bytes:
    """Raises MalformedInput."""
    stream_id, partition = part
    try:
        name = stream_id.encode()
    except UnicodeEncodeError as error:
        raise MalformedInput("stream_id", "no UTF-8") from error
    require(0 < len(name) <= MAX_STREAM_ID_BYTES, "stream_id", f"1 to {MAX_STREAM_ID_BYTES} bytes")
    require(0 <= partition <= MAX_PARTITION, "partition", f"0 to {MAX_PARTITION}")
    return _ID_LENGTH.pack(len(name)) + name + bytes((partition,))


def write_parts(parts: Sequence[StreamPart]) -> list[bytes]:
    """Bodies of JOIN or LEAVE, with at most ``PARTS_PER_FRAME`` parts each and none too long. Raises MalformedInput."""
    bodies, body, count = [], bytearray(), 0
    for piece in map(write_part, parts):
        if count == PARTS_PER_FRAME or len(body) + len(piece) >= MAX_FRAME_BYTES:
            bodies.append(bytes(body))
            body, count = bytearray(), 0
        body += piece
        count += 1
    if count:
        bodies.append(bytes(body))
    return bodies


def read_part(body: bytes, start: int = 0) -> tuple[StreamPart, int]:
    """One part and where it ends. Raises MalformedInput."""
    require(start + 2 <= len(body), "part", "cut short")
    (length,) = _ID_LENGTH.unpack_from(body, start)
    end = start + 2 + length
    require(end < len(body), "part", "cut short")
    require(0 < length <= MAX_STREAM_ID_BYTES, "stream_id", f"1 to {MAX_STREAM_ID_BYTES} bytes")
    require(body[end] <= MAX_PARTITION, "partition", f"0 to {MAX_PARTITION}")
    try:
        return (body[start + 2 : end].decode(), body[end]), end + 1
    except UnicodeDecodeError as error:
        raise MalformedInput("stream_id", "no UTF-8") from error


def read_parts(body: bytes) -> list[StreamPart]:
    """Inverse of ``write_parts``, of one body. Raises MalformedInput."""
    parts, at = [], 0
    while at < len(body):
        part, at = read_part(body, at)
        parts.append(part)
    return parts


def write_message(kind: Kind, part: StreamPart, data: bytes) -> bytes:
    """A frame of PUBLISH or MESSAGE. Raises MalformedInput."""
    require(0 < len(data) <= MAX_MESSAGE_BYTES, "message", f"{len(data)} bytes, 1 to {MAX_MESSAGE_BYTES} go")
    return write_frame(kind, write_part(part), data)


def read_message(body: bytes) -> Delivered:
    """Raises MalformedInput."""
    at = 3 + int.from_bytes(body[:2], "big")
    return Delivered(_read_known_part(body[:at]), body[at:])


@lru_cache(maxsize=4096)
def _read_known_part(head: bytes) -> StreamPart:
    """Messages of a part follow each other, and decoding its name takes longer than all else."""
    return read_part(head)[0]


def read_state(body: bytes) -> State:
    """Raises MalformedInput."""
    try:
        return msgspec.json.decode(body, type=State)
    except msgspec.MsgspecError as error:
        raise MalformedInput("state", str(error)) from error


def write_state(state: State) -> bytes:
    return write_frame(Kind.STATE, msgspec.json.encode(state))


def write_count(count: int) -> bytes:
    return write_frame(Kind.DROPPED, count.to_bytes(8, "big"))


def read_count(body: bytes) -> int:
    """Raises MalformedInput."""
    require(len(body) == 8, "dropped", "8 bytes")
    return int.from_bytes(body, "big")


class FrameReader:
    """Cuts a stream of bytes into frames; holds one unfinished frame at most, beside what it is fed."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Kind and body of every frame that is complete now; the kind may be none of ours. To be read to its end.

        Raises MalformedInput, behind the frames that were sound.
        """
        data = self._rest + data if self._rest else data
        at, end = 0, len(data)
        while end - at >= 4:
            (length,) = _LENGTH.unpack_from(data, at)
            require(0 < length <= MAX_FRAME_BYTES, "frame", f"{length} bytes, 1 to {MAX_FRAME_BYTES} go")
            if end - at < 4 + length:
                break
            yield data[at + 4], data[at + 5 : at + 4 + length]
            at += 4 + length
        self._rest = data[at:]
