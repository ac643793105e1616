"""What a broker of the development network holds: every distinct record it received, sorted, in memory.

Nothing is judged here. Two records with one message id are two records; only equal lines are one.
"""

from __future__ import annotations

import json
from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from validator.protocol.codec.protobuf import read_protobuf
from validator.protocol.codec.received import ARRAY
from validator.protocol.errors import MalformedInput
from validator.protocol.hashing import hash_body
from validator.protocol.model import Digest, StreamPart

Stored = tuple[int, int, str, str, int, bytes]
"""(timestamp_ms, sequence number, publisher id, msg chain id, arrival, bytes): its order is that of answers."""

MessageId = tuple[str, int, int, int, str, str]
MAX_SEQUENCE = 2**31 - 1


class _Head(msgspec.Struct, array_like=True, gc=False):
    """The first two elements of a message array; the rest is skipped, but must be JSON."""

    version: int
    message_id: MessageId


_decode_head = msgspec.json.Decoder(_Head).decode


@dataclass(frozen=True, slots=True)
class Range:
    """Both ends inclusive; a publisher, or a publisher and a chain, where asked for."""

    from_ms: int
    to_ms: int
    from_sequence: int = 0
    to_sequence: int = MAX_SEQUENCE
    publisher_id: str | None = None
    msg_chain_id: str | None = None


@dataclass(slots=True)
class _Part:
    records: list[Stored] = field(default_factory=list)
    seen: set[Digest] = field(default_factory=set)


class MessageCache:
    """Records of one form by stream part. One thread; the arrival counter is shared by all parts."""

    def __init__(self, form: str = ARRAY) -> None:
        self._read_id = _read_array_id if form == ARRAY else _read_protobuf_id
        self._parts: dict[StreamPart, _Part] = {}
        self._arrivals = 0

    def add(self, record: bytes) -> tuple[Digest, bool]:
        """Keep a record unless an equal one is there; its SHA-256 and whether it was new.

        Raises:
            MalformedInput: not an array that begins with a version and a message id, or no protobuf message.
        """
        stream_id, partition, timestamp_ms, sequence, publisher, chain = self._read_id(record)
        digest = hash_body(record)
        part = self._parts.setdefault((stream_id, partition), _Part())
        if digest in part.seen:
            return digest, False
        part.seen.add(digest)
        self._arrivals += 1
        insort(part.records, (timestamp_ms, sequence, publisher.lower(), chain, self._arrivals, record))
        return digest, True

    def count(self) -> int:
        return sum(len(part.records) for part in self._parts.values())

    def select(self, part: StreamPart, wanted: Range) -> Sequence[Stored]:
        """The records of the range, sorted."""
        held = self._parts.get(part)
        if held is None:
            return ()
        records = held.records
        start = bisect_left(records, (wanted.from_ms, wanted.from_sequence))
        end = bisect_left(records, (wanted.to_ms, wanted.to_sequence + 1))
        found = records[start:end]
        keep = _filter(wanted)
        return found if keep is None else [record for record in found if keep(record)]

    def last(self, part: StreamPart, count: int) -> Sequence[Stored]:
        """The newest ``count`` records, oldest first."""
        held = self._parts.get(part)
        return () if held is None or count < 1 else held.records[-count:]


def _read_protobuf_id(body: bytes) -> MessageId:
    message = read_protobuf(body)
    stream_id, partition, timestamp_ms, sequence, publisher, chain = message.message_id
    return stream_id, partition, timestamp_ms, sequence, "0x" + publisher.hex(), chain


def _read_array_id(line: bytes) -> MessageId:
    """Fast where it can be; what the fast reader refuses (a lone surrogate is JSON, too) gets a second look."""
    try:
        return _decode_head(line).message_id
    except (msgspec.MsgspecError, UnicodeDecodeError):
        try:
            return msgspec.convert(json.loads(line), _Head).message_id
        except (ValueError, RecursionError) as error:
            raise MalformedInput("line", str(error)) from error


def _filter(wanted: Range) -> Callable[[Stored], bool] | None:
    publisher, chain = wanted.publisher_id, wanted.msg_chain_id
    if publisher is None:
        return None
    return lambda record: record[2] == publisher and (chain is None or record[3] == chain)


def tag_of(boot: str, records: Sequence[Stored]) -> str:
    """Entity tag of a range: how many records it holds and the newest arrival among them, in one run of the broker."""
    return f'"{boot}-{len(records)}-{max((record[4] for record in records), default=0)}"'
