"""An answer's frames as Arrow columns, without an object for each message: for answers that nobody verifies.

Canonical messages of one partition have one form, so a page of them is read field by field: each step moves a vector of
places, one per message. What has another form than an ordinary message's is left to the reader of single messages. It
needs numpy, which pandas and DuckDB's users have; without it that reader reads all.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from logstore.stored_message import decode_text
from validator.protocol.codec.heads import PREFIX, part_bytes
from validator.protocol.codec.publisher_text import format_publisher
from validator.protocol.errors import MalformedInput

if TYPE_CHECKING:
    from collections.abc import Sequence

Places = Any
"""A vector of int64: one place in the page's bytes, or one number, per message."""
PADDING = bytes(16)
"""Behind the last message, so that heads may be read without asking where it ends."""
_SIZES = np.array([1] * 24 + [2, 3, 5, 9] + [0] * 4, dtype=np.int64)
_WIDTHS = ((24, 1), (25, 2), (26, 4), (27, 8))
_HEX = np.frombuffer(bytes(range(256)).hex().encode(), dtype="<u2")
_NULL, _PAIR = 0xF6, 0x82
_UNSIGNED, _BYTES, _TEXT = 0, 2, 3
_ADDRESS_BYTES = 20
_u32 = Struct(">I").unpack_from


class OtherForm(Exception):
    """Something in the page is no ordinary message."""


@dataclass(frozen=True, slots=True)
class Page:
    """Messages of one partition in the order in which they came; ``columns`` are those of ``MESSAGE_SCHEMA``."""

    columns: list[Any]
    count: int
    first: tuple[int, int]
    """Timestamp and sequence number of the first."""
    is_ordered: bool
    """By timestamps and sequence numbers; what follows in a sort key nobody has looked at."""
    last: bytes
    """Canonical bytes of the last."""


def split_frames(data: bytes, most: int) -> tuple[list[int], list[int], int]:
    """Where whole frames' objects begin and end, and where the rest begins.

    Raises:
        MalformedInput: an object of more than ``most`` bytes.
    """
    starts: list[int] = []
    ends: list[int] = []
    at, size = 0, len(data)
    while at + 4 <= size:
        end = at + 4 + _u32(data, at)[0]
        if end > size:
            if end - at - 4 > most:
                raise MalformedInput("frame", f"{end - at - 4} bytes exceed the limit of {most}")
            break
        starts.append(at + 4)
        ends.append(end)
        at = end
    return starts, ends, at


class _Walk:
    """Places in the bytes of a page, moved over one field of every message at a time."""

    def __init__(self, data: Places, at: Places) -> None:
        self.data = data
        self.at = at

    def head(self, major: int) -> Places:
        """The argument of each head."""
        first = self.data[self.at]
        if (first >> 5 != major).any():
            raise OtherForm
        info = first & 31
        sizes = _SIZES[info]
        if not sizes.all():
            raise OtherForm
        values = info.astype(np.int64)
        for code, width in _WIDTHS:
            rows = np.nonzero(info == code)[0]
            if rows.size:
                at = self.at[rows]
                number = np.zeros(rows.size, dtype=np.int64)
                for byte in range(1, width + 1):
                    number = number << 8 | self.data[at + byte]
                values[rows] = number
        self.at = self.at + sizes
        if (values < 0).any():
            raise OtherForm
        return values

    def string(self, major: int, ends: Places) -> tuple[Places, Places]:
        """Where each string begins and ends."""
        sizes = self.head(major)
        start = self.at
        self.at = start + sizes
        if (sizes > ends - start).any():
            raise OtherForm
        return start, self.at

    def null_or_pair(self) -> Places:
        """Rows that have a pair, whose first half is next; of the others null was passed."""
        first = self.data[self.at]
        pairs = first == _PAIR
        if not (pairs | (first == _NULL)).all():
            raise OtherForm
        self.at = self.at + 1
        return np.nonzero(pairs)[0]

    def numbers_of(self, rows: Places, count: int) -> None:
        """Pass so many integers of these rows."""
        if rows.size:
            some = _Walk(self.data, self.at[rows])
            for _ in range(count):
                some.head(_UNSIGNED)
            self.at[rows] = some.at


def read_page(data: bytes, starts: Sequence[int], ends: Sequence[int], stream: str, partition: int) -> Page:
    """The columns of messages that begin and end there, all of one partition.

    Raises:
        OtherForm: one of them has another form, or is of another partition.
    """
    raw = np.frombuffer(data + PADDING, dtype=np.uint8)
    begin, end = np.array(starts, dtype=np.int64), np.array(ends, dtype=np.int64)
    head = part_bytes(stream, partition)
    if (end - begin < len(head) + 40).any() or not _all_begin(raw, begin, head):
        raise OtherForm
    walk = _Walk(raw, begin + len(head))
    times, sequences = walk.head(_UNSIGNED), walk.head(_UNSIGNED)
    publishers, chains = walk.string(_BYTES, end), walk.string(_TEXT, end)
    walk.numbers_of(walk.null_or_pair(), 2)
    encryption = raw[walk.at + 2]
    if (raw[walk.at] != 0).any() or (encryption > 1).any():
        raise OtherForm
    walk.at = walk.at + 3
    if (raw[walk.at] != _NULL).any() or (raw[walk.at + 1] != _NULL).any():
        raise OtherForm  # group keys: of encrypted streams
    walk.at = walk.at + 2
    contents = walk.string(_BYTES, end)
    kinds = walk.head(_UNSIGNED)
    signatures = walk.string(_BYTES, end)
    if (walk.at != end).any() or (kinds > 255).any():
        raise OtherForm
    count = len(starts)
    text, other = _contents(data, raw, *contents)
    columns = [
        pa.array([stream], pa.string()).take(pa.array(np.zeros(count, dtype=np.int32))),
        pa.array(np.full(count, partition, dtype=np.uint8)),
        pa.array(times).view(pa.timestamp("ms", tz="UTC")),
        pa.array(sequences.astype(np.int32)),
        _publishers(data, raw, *publishers),
        _strings(data, raw, *chains, pa.string()),
        text,
        other,
        pa.array(encryption.astype(np.uint8)),
        pa.nulls(count, pa.string()),
        pa.array(kinds.astype(np.uint8)),
        _strings(data, raw, *signatures, pa.binary()),
    ]
    later = (times[1:] > times[:-1]) | ((times[1:] == times[:-1]) & (sequences[1:] >= sequences[:-1]))
    first = int(times[0]), int(sequences[0])
    return Page(columns, count, first, bool(later.all()), data[starts[-1] : ends[-1]])


def _all_begin(raw: Places, begin: Places, head: bytes) -> bool:
    there = raw[begin[:, None] + np.arange(len(head))]
    return bool((there == np.frombuffer(head, dtype=np.uint8)).all())


def _joined(data: bytes, raw: Places, start: Places, end: Places) -> bytes:
    """The strings one behind the other."""
    size = int(end[0] - start[0])
    if size < 128 and (end - start == size).all():
        gathered: bytes = raw[start[:, None] + np.arange(size)].tobytes()
        return gathered
    return b"".join([data[a:b] for a, b in zip(start.tolist(), end.tolist(), strict=True)])


def _offsets(start: Places, end: Places) -> Any:
    offsets = np.zeros(len(start) + 1, dtype=np.int32)
    np.cumsum(end - start, out=offsets[1:])
    return pa.py_buffer(offsets)


def _strings(data: bytes, raw: Places, start: Places, end: Places, kind: Any) -> Any:
    values = _joined(data, raw, start, end)
    if kind == pa.string() and not values.isascii():
        return pa.array([data[a:b].decode() for a, b in zip(start.tolist(), end.tolist(), strict=True)], kind)
    return pa.Array.from_buffers(kind, len(start), [None, _offsets(start, end), pa.py_buffer(values)])


def _contents(data: bytes, raw: Places, start: Places, end: Places) -> tuple[Any, Any]:
    """Contents as text, and those that are none."""
    values = _joined(data, raw, start, end)
    if values.isascii() or _is_text(values, raw, start, end):
        buffers = [None, _offsets(start, end), pa.py_buffer(values)]
        return pa.Array.from_buffers(pa.string(), len(start), buffers), pa.nulls(len(start), pa.binary())
    contents = [data[a:b] for a, b in zip(start.tolist(), end.tolist(), strict=True)]
    texts = [decode_text(content) for content in contents]
    others = [content if text is None else None for content, text in zip(contents, texts, strict=True)]
    return pa.array(texts, pa.string()), pa.array(others, pa.binary())


def _is_text(values: bytes, raw: Places, start: Places, end: Places) -> bool:
    """Whether each is UTF-8: all together are, and none begins within a letter."""
    first = raw[start[end > start]]
    return decode_text(values) is not None and not ((first >= 0x80) & (first < 0xC0)).any()


def _publishers(data: bytes, raw: Places, start: Places, end: Places) -> Any:
    if (end - start != _ADDRESS_BYTES).any():
        names = [format_publisher(data[a:b]) for a, b in zip(start.tolist(), end.tolist(), strict=True)]
        return pa.array(names, pa.string())
    count, size = len(start), 2 + 2 * _ADDRESS_BYTES
    texts = np.empty((count, size), dtype=np.uint8)
    texts[:, 0], texts[:, 1] = b"0x"
    digits = _HEX[raw[start[:, None] + np.arange(_ADDRESS_BYTES)]]
    texts[:, 2:] = digits.view(np.uint8).reshape(count, size - 2)
    offsets = np.arange(count + 1, dtype=np.int32) * np.int32(size)
    return pa.Array.from_buffers(pa.string(), count, [None, pa.py_buffer(offsets), pa.py_buffer(texts.tobytes())])


def is_message(data: bytes, at: int) -> bool:
    return data.startswith(PREFIX, at)
