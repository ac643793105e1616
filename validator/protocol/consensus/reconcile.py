"""Range-based set reconciliation: the Negentropy V1 wire protocol, as pure functions of records and messages.

A record is (timestamp_ms, leaf hash). The initiator sends fingerprints of ranges of its records; the other side answers
where they differ, with finer fingerprints or with ids, until both know what is missing where. Neither side keeps a
state between messages:

    initiate(records)            -> first message
    answer(records, message)     -> the other side's answer
    reconcile(records, answer)   -> (next message or None when done, ids only we have, ids only they have)

Messages are byte for byte those of the protocol's reference (16 buckets, id lists below 32 records, frame limit).
The additive fingerprint does not withstand someone who chooses ids, so ``strong`` sessions use the whole SHA-256 over
the ids of the range, in record order; they are ours alone and are run where roots still differ. Two sides that differ
in ``strong`` do not understand each other; the request names it.
"""

from __future__ import annotations

import itertools
from array import array
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass

from validator.protocol.columns import split_ids
from validator.protocol.errors import InvariantError, MalformedInput
from validator.protocol.hashing import hash_body
from validator.protocol.model import Digest

VERSION = 0x61
INFINITY = (1 << 64) - 1
ID_BYTES = 32
BUCKETS = 16
FRAME_LIMIT = 512 << 10
"""Size of our own messages, in bytes; the least that the protocol allows is 4096."""
MAX_MESSAGE_BYTES = 2 * FRAME_LIMIT
"""Largest message that is read: the last range may go beyond the sender's limit."""

STRIDE = 64
"""Records to a sum; a range's fingerprint adds up as many ids at either end."""
LOOKED_AT = 4096
"""Ids that are looked at together."""

_SKIP, _FINGERPRINT, _IDS = 0, 1, 2
_RESERVE = 200
_MASK = (1 << 256) - 1


@dataclass(frozen=True, slots=True)
class Bound:
    """Upper end of a range, exclusive: records below (timestamp, prefix padded with zeros) are inside."""

    timestamp: int
    prefix: bytes = b""

    @property
    def padded(self) -> tuple[int, bytes]:
        return (self.timestamp, self.prefix.ljust(ID_BYTES, b"\0"))


_END = Bound(INFINITY)


class Records:
    """Sorted, distinct records with sums: a range's fingerprint costs about the same however long it is.

    40 bytes a record, and one integer of about 60 for each ``STRIDE``. Immutable, so it may be shared between threads.
    """

    __slots__ = ("_ids", "_sums", "_timestamps")

    def __init__(self, items: Iterable[tuple[int, bytes]]) -> None:
        """Raises MalformedInput for a record that occurs twice, a timestamp beyond 64 bits, an id not of 32 bytes."""
        keys = []
        for timestamp, identifier in items:
            if len(identifier) != ID_BYTES:
                raise MalformedInput("records", "an id has not 32 bytes")
            if not 0 <= timestamp < INFINITY:
                raise MalformedInput("records", "a timestamp is not below 2^64 - 1")
            keys.append(timestamp.to_bytes(8, "big") + identifier)
        keys.sort()  # as bytes, which takes a third of the memory that pairs would
        if any(a == b for a, b in itertools.pairwise(keys)):
            raise MalformedInput("records", "a record occurs twice")
        self._timestamps = array("Q", (int.from_bytes(key[:8], "big") for key in keys))
        ids, sums, total = bytearray(), [0], 0
        for start in range(0, len(keys), STRIDE):
            some = [key[8:] for key in keys[start : start + STRIDE]]
            ids += b"".join(some)
            total += sum(int.from_bytes(identifier, "little") for identifier in some)
            sums.append(total)
        self._ids = bytes(ids)
        self._sums = sums

    def __len__(self) -> int:
        return len(self._timestamps)

    def __getitem__(self, index: int) -> tuple[int, bytes]:
        return (self._timestamps[index], self._ids[index * ID_BYTES : (index + 1) * ID_BYTES])

    def find(self, bound: Bound, start: int) -> int:
        """Index of the first record at or behind ``bound``, from ``start`` on. O(log n)."""
        timestamp, prefix = bound.padded
        if timestamp == INFINITY:
            return len(self)
        lower = bisect_left(self._timestamps, timestamp, start)
        if not bound.prefix:
            return lower
        upper = bisect_left(self._timestamps, timestamp + 1, lower)
        while lower < upper:
            middle = (lower + upper) // 2
            if self._ids[middle * ID_BYTES : (middle + 1) * ID_BYTES] < prefix:
                lower = middle + 1
            else:
                upper = middle
        return lower

    def join_ids(self, lower: int, upper: int) -> bytes:
        """Ids of a range, one after the other."""
        return self._ids[lower * ID_BYTES : upper * ID_BYTES]

    def list_ids(self, lower: int, upper: int) -> list[Digest]:
        return [Digest(self._ids[at : at + ID_BYTES]) for at in range(lower * ID_BYTES, upper * ID_BYTES, ID_BYTES)]

    def compute_fingerprint(self, lower: int, upper: int, *, strong: bool = False) -> bytes:
        """16 bytes over sum and count of the range's ids; ``strong``: SHA-256 over the ids themselves."""
        if strong:
            return hash_body(self.join_ids(lower, upper))
        total = (self._sum(upper) - self._sum(lower)) & _MASK
        return hash_body(total.to_bytes(ID_BYTES, "little") + encode_varint(upper - lower))[:16]

    def among(self, ids: set[Digest]) -> set[Digest]:
        """Which of these ids are here. O(n), and nothing where nothing is asked for."""
        found: set[Digest] = set()
        if ids:
            for at in range(0, len(self._ids), LOOKED_AT * ID_BYTES):
                found.update(ids.intersection(split_ids(self._ids[at : at + LOOKED_AT * ID_BYTES])))
        return found

    def _sum(self, upper: int) -> int:
        """Over the ids before ``upper``."""
        whole, rest = divmod(upper, STRIDE)
        ids = self.list_ids(upper - rest, upper)
        return self._sums[whole] + sum(int.from_bytes(identifier, "little") for identifier in ids)


# --- the protocol ---------------------------------------------------------------------------------


def initiate(records: Records, *, strong: bool = False) -> bytes:
    """The first message: covers all records."""
    out = _Writer()
    out.split(records, 0, len(records), _END, strong)
    return bytes([VERSION]) + bytes(out.data)


def answer(records: Records, message: bytes, *, frame_limit: int = FRAME_LIMIT, strong: bool = False) -> bytes:
    """The other side's answer to a message of the initiator. Keeps nothing.

    A message of another protocol version is answered with our version byte alone.

    Raises:
        MalformedInput: field "negentropy".
    """
    if not message:
        raise MalformedInput("negentropy", "empty message")
    if message[0] != VERSION and 0x60 <= message[0] <= 0x6F:
        return bytes([VERSION])
    return _process(records, message, None, frame_limit, strong)


def reconcile(
    records: Records, message: bytes, *, frame_limit: int = FRAME_LIMIT, strong: bool = False
) -> tuple[bytes | None, list[Digest], list[Digest]]:
    """Read an answer: (next message, ids only we have, ids only they have). The message is None when all is known.

    Under a frame limit an id may come again in a later step.

    Raises:
        MalformedInput: field "negentropy".
    """
    found = _Found([], [])
    reply = _process(records, message, found, frame_limit, strong)
    return (None if len(reply) == 1 else reply, found.have, found.need)


@dataclass(frozen=True, slots=True)
class _Found:
    have: list[Digest]
    need: list[Digest]


def _process(records: Records, message: bytes, found: _Found | None, frame_limit: int, strong: bool) -> bytes:
    """One message in, one out; ``found`` is the initiator's. Ranges that are settled become one skip.

    At the frame limit the rest is covered by one fingerprint. The reference takes it from the end of the range it just
    gave up, although the frame ends before that range; so do we, byte for byte, but for ``strong`` sessions, where a
    fingerprint must mean what it covers.
    """
    if frame_limit and frame_limit < 4096:
        raise InvariantError(f"a frame limit of {frame_limit} is below 4096")
    reader = _Reader(message)
    reader.read_version()
    out = bytearray([VERSION])
    writer = _Writer()
    previous, settled, lower, written = Bound(0), False, 0, 0
    while not reader.at_end:
        bound, mode = reader.read_bound(previous), reader.read_varint()
        upper = records.find(bound, lower)
        done = upper
        if mode == _SKIP:
            settled = True
        elif mode == _FINGERPRINT:
            size = 32 if strong else 16
            if reader.read(size) == records.compute_fingerprint(lower, upper, strong=strong):
                settled = True
            else:
                settled = writer.skip_if(settled, previous)
                writer.split(records, lower, upper, bound, strong)
        elif mode == _IDS:
            theirs = reader.read_ids()
            if found is not None:
                settled = True
                _compare(records, lower, upper, theirs, found)
            else:
                settled = writer.skip_if(settled, previous)
                done = _room_for_ids(lower, upper, len(out), frame_limit)
                writer.ids(bound if done == upper else Bound(*records[done]), records.join_ids(lower, done))
                out += writer.take()
                written = done
        else:
            raise MalformedInput("negentropy", f"unknown mode {mode}")
        if frame_limit and len(out) + len(writer.data) > frame_limit - _RESERVE:
            rest = written if strong else done
            writer.data.clear()
            writer.fingerprint(_END, records.compute_fingerprint(rest, len(records), strong=strong))
            return bytes(out + writer.data)
        if not settled:
            written = done
        out += writer.take()
        lower, previous = done, bound
    return bytes(out)


def _compare(records: Records, lower: int, upper: int, theirs: list[Digest], found: _Found) -> None:
    ours, listed = records.list_ids(lower, upper), dict.fromkeys(theirs)
    known = set(ours)
    found.have.extend(i for i in ours if i not in listed)
    found.need.extend(i for i in listed if i not in known)


def _room_for_ids(lower: int, upper: int, size: int, frame_limit: int) -> int:
    """Index up to which the ids of a range are listed before the frame is full."""
    if not frame_limit:
        return upper
    room = frame_limit - _RESERVE - size
    return min(upper, lower + max(0, room // ID_BYTES + 1))


# --- bytes ----------------------------------------------------------------------------------------


def encode_varint(value: int) -> bytes:
    """Base 128, most significant digit first, high bit on all but the last."""
    digits = [value & 0x7F]
    while value := value >> 7:
        digits.append(0x80 | value & 0x7F)
    return bytes(reversed(digits))


class _Writer:
    """Ranges on their way out; timestamps are relative to the bound before, in the order of encoding."""

    __slots__ = ("_last", "data")

    def __init__(self) -> None:
        self.data = bytearray()
        self._last = 0

    def take(self) -> bytes:
        data = bytes(self.data)
        self.data.clear()
        return data

    def bound(self, bound: Bound) -> None:
        if bound.timestamp == INFINITY:
            self.data += b"\0"
        else:
            self.data += encode_varint(bound.timestamp - self._last + 1)
        self._last = bound.timestamp
        self.data += encode_varint(len(bound.prefix)) + bound.prefix

    def skip_if(self, settled: bool, bound: Bound) -> bool:
        """End a run of settled ranges, if there is one. Returns the new state: not settled."""
        if settled:
            self.bound(bound)
            self.data.append(_SKIP)
        return False

    def fingerprint(self, bound: Bound, fingerprint: bytes) -> None:
        self.bound(bound)
        self.data.append(_FINGERPRINT)
        self.data += fingerprint

    def ids(self, bound: Bound, joined: bytes) -> None:
        self.bound(bound)
        self.data.append(_IDS)
        self.data += encode_varint(len(joined) // ID_BYTES)
        self.data += joined

    def split(self, records: Records, lower: int, upper: int, bound: Bound, strong: bool) -> None:
        """A range in 16 buckets of near-equal count, or as its ids where they are fewer than 32."""
        count = upper - lower
        if count < 2 * BUCKETS:
            self.ids(bound, records.join_ids(lower, upper))
            return
        size, larger = divmod(count, BUCKETS)
        start = lower
        for bucket in range(BUCKETS):
            end = start + size + (bucket < larger)
            between = bound if end == upper else _shortest_bound(records[end - 1], records[end])
            self.fingerprint(between, records.compute_fingerprint(start, end, strong=strong))
            start = end


def _shortest_bound(before: tuple[int, bytes], after: tuple[int, bytes]) -> Bound:
    """The shortest bound between two neighbours."""
    if before[0] != after[0]:
        return Bound(after[0])
    shared = next(i for i in range(ID_BYTES) if before[1][i] != after[1][i])
    return Bound(after[0], after[1][: shared + 1])


class _Reader:
    """A hostile message: every length is checked against the bytes that are there, bounds never go back.

    Ranges behind infinity are empty and allowed: at its frame limit the reference itself sends one.
    """

    __slots__ = ("_at", "_last", "_message")

    def __init__(self, message: bytes) -> None:
        self._message = message
        self._at = 0
        self._last = 0

    @property
    def at_end(self) -> bool:
        return self._at == len(self._message)

    def read_version(self) -> None:
        version = self.read(1)[0]
        if version != VERSION:
            raise MalformedInput("negentropy", f"protocol version byte 0x{version:02x} is not 0x{VERSION:02x}")

    def read(self, size: int) -> bytes:
        data = self._message[self._at : self._at + size]
        if len(data) != size:
            raise MalformedInput("negentropy", "cut short")
        self._at += size
        return data

    def read_varint(self) -> int:
        value = 0
        for position in range(10):
            digit = self.read(1)[0]
            if position == 0 and digit == 0x80:
                raise MalformedInput("negentropy", "a number with leading zeros")
            value = value << 7 | digit & 0x7F
            if not digit & 0x80:
                if value > INFINITY:
                    break
                return value
        raise MalformedInput("negentropy", "a number beyond 64 bits")

    def read_bound(self, previous: Bound) -> Bound:
        delta = self.read_varint()
        timestamp = INFINITY if delta == 0 else min(self._last + delta - 1, INFINITY)
        self._last = timestamp
        size = self.read_varint()
        if size > ID_BYTES:
            raise MalformedInput("negentropy", f"an id prefix of {size} bytes")
        bound = Bound(timestamp, self.read(size))
        if bound.padded < previous.padded:
            raise MalformedInput("negentropy", "bounds are not in order")
        return bound

    def read_ids(self) -> list[Digest]:
        count = self.read_varint()
        if count * ID_BYTES > len(self._message) - self._at:
            raise MalformedInput("negentropy", f"{count} ids announced, fewer sent")
        data = self.read(count * ID_BYTES)
        return [Digest(data[at : at + ID_BYTES]) for at in range(0, len(data), ID_BYTES)]
