"""Thrift's compact protocol as a tree that can be changed and written again: for footers and page headers of strangers.

It knows no names, and reads whatever is well-formed; what it read and nobody changed, it writes as it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

TRUE, FALSE, BINARY = 1, 2, 8
"""Some of the codes that say of what type a value is."""
Path = tuple[int, ...]
"""Field ids and places in lists, from the outermost struct inwards."""


@dataclass(slots=True)
class Struct:
    """(code, value) by field id, in the order of the file."""

    fields: dict[int, tuple[int, Any]] = field(default_factory=dict)

    def find(self, path: Path) -> Any:
        """The value at a path."""
        value: Any = self
        for step in path:
            value = value.fields[step][1] if isinstance(value, Struct) else value.values[step]
        return value

    def put(self, path: Path, value: Any) -> None:
        """Another value of the same kind at a path."""
        holder, last = self.find(path[:-1]), path[-1]
        if isinstance(holder, Struct):
            code = holder.fields[last][0]
            holder.fields[last] = ((TRUE if value else FALSE) if code in (TRUE, FALSE) else code, value)
        else:
            holder.values[last] = value

    def leaves(self) -> Iterator[Path]:
        """Where the numbers, texts and truth values are."""
        yield from _leaves(self, ())


@dataclass(slots=True)
class List:
    code: int
    values: list[Any]


def _leaves(value: Any, at: Path) -> Iterator[Path]:
    if isinstance(value, Struct):
        for number, (_, child) in value.fields.items():
            yield from _leaves(child, (*at, number))
    elif isinstance(value, List):
        for place, child in enumerate(value.values):
            yield from _leaves(child, (*at, place))
    else:
        yield at


# --- reading ----------------------------------------------------------------------------------------


def read_struct(data: bytes, at: int = 0) -> tuple[Struct, int]:
    """The struct that begins there, and where it ends."""
    struct, number = Struct(), 0
    while True:
        header = data[at]
        at += 1
        if header == 0:
            return struct, at
        if header >> 4:
            number += header >> 4
        else:
            number, at = _read_zigzag(data, at)
        value, at = _read_value(data, at, header & 15)
        struct.fields[number] = (header & 15, value)


def _read_value(data: bytes, at: int, code: int) -> tuple[Any, int]:
    match code:
        case 1 | 2:
            return code == TRUE, at
        case 3:
            return data[at], at + 1
        case 4 | 5 | 6:
            return _read_zigzag(data, at)
        case 8:
            size, at = _read_varint(data, at)
            return data[at : at + size], at + size
        case 9:
            return _read_list(data, at)
        case 12:
            return read_struct(data, at)
    raise ValueError(f"type {code} at {at}")


def _read_list(data: bytes, at: int) -> tuple[List, int]:
    header = data[at]
    at += 1
    size = header >> 4
    if size == 15:
        size, at = _read_varint(data, at)
    values = []
    for _ in range(size):
        value, at = _read_value(data, at, header & 15)
        values.append(value)
    return List(header & 15, values), at


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7


def _read_zigzag(data: bytes, at: int) -> tuple[int, int]:
    number, at = _read_varint(data, at)
    return (number >> 1) ^ -(number & 1), at


# --- writing ----------------------------------------------------------------------------------------


def write_struct(struct: Struct) -> bytes:
    written = bytearray()
    last = 0
    for number, (code, value) in struct.fields.items():
        step = number - last
        written += bytes([step << 4 | code]) if 0 < step < 16 else bytes([code]) + write_number(number)
        written += _write_value(code, value)
        last = number
    return bytes(written) + b"\0"


def _write_value(code: int, value: Any) -> bytes:
    match code:
        case 1 | 2:
            return b""
        case 3:
            return bytes([value])
        case 8:
            return _write_varint(len(value)) + bytes(value)
        case 9:
            size = len(value.values)
            header = bytes([size << 4 | value.code]) if size < 15 else bytes([0xF0 | value.code]) + _write_varint(size)
            return header + b"".join(_write_value(value.code, child) for child in value.values)
        case 12:
            return write_struct(value)
    return write_number(value)


def _write_varint(number: int) -> bytes:
    pieces = []
    while number >= 0x80:
        pieces.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*pieces, number])


def write_number(number: int) -> bytes:
    """A zigzag integer."""
    return _write_varint(number << 1 if number >= 0 else (-number << 1) - 1)
