"""Protobuf's wire format, reduced and bounded: fields in, fields out, no schema compiler.

A reader accepts any order of fields and skips unknown ones, as proto3 asks. It refuses what no writer of the
network produces and two readers could understand differently: a singular field twice, groups, field number 0,
varints beyond 64 bits, bytes cut short. Source: protobuf encoding specification, reference of Streamr 1.0.
"""

from __future__ import annotations

from collections.abc import Iterator

from validator.protocol.errors import MalformedInput

VARINT = 0
FIXED64 = 1
BYTES = 2
FIXED32 = 5

MAX_FIELDS = 4096
"""Fields in one message, unknown ones included: bounds the work that a hostile body can cause."""


def read_fields(body: bytes, what: str) -> Iterator[tuple[int, int, int | bytes]]:
    """Yield (field number, wire type, value) of each field; fixed-width values come as bytes.

    Raises:
        MalformedInput: not the wire format, cut short, or more than ``MAX_FIELDS`` fields.
    """
    at = 0
    count = 0
    size = len(body)
    while at < size:
        count += 1
        if count > MAX_FIELDS:
            raise MalformedInput(what, f"more than {MAX_FIELDS} fields")
        key, at = _read_varint(body, at, what)
        number, kind = key >> 3, key & 7
        if not 0 < number < 1 << 29:
            raise MalformedInput(what, f"field number {number} is out of range")
        if kind == VARINT:
            value, at = _read_varint(body, at, what)
            yield number, kind, value
            continue
        if kind == BYTES:
            width, at = _read_varint(body, at, what)
        elif kind == FIXED64:
            width = 8
        elif kind == FIXED32:
            width = 4
        else:
            raise MalformedInput(what, f"wire type {kind} of field {number} is not used here")
        if width > size - at:
            raise MalformedInput(what, f"field {number} is cut short")
        yield number, kind, body[at : at + width]
        at += width


class Fields:
    """The fields of one message by number, for a schema known to the caller."""

    __slots__ = ("_many", "_values")

    def __init__(self, body: bytes, what: str, known: dict[int, int], repeated: frozenset[int] = frozenset()) -> None:
        """``known``: wire type by field number; others are skipped.

        Raises:
            MalformedInput: a known field with another wire type, or a singular one twice.
        """
        self._values: dict[int, int | bytes] = {}
        self._many: dict[int, list[bytes]] = {}
        for number, kind, value in read_fields(body, what):
            expected = known.get(number)
            if expected is None:
                continue
            if kind != expected:
                raise MalformedInput(what, f"field {number} has wire type {kind} where {expected} belongs")
            if number in repeated:
                assert isinstance(value, bytes)
                self._many.setdefault(number, []).append(value)
            elif number in self._values:
                raise MalformedInput(what, f"field {number} is there twice")
            else:
                self._values[number] = value

    def has(self, number: int) -> bool:
        return number in self._values

    def integer(self, number: int) -> int:
        value = self._values.get(number, 0)
        assert isinstance(value, int)
        return value

    def blob(self, number: int) -> bytes:
        value = self._values.get(number, b"")
        assert isinstance(value, bytes)
        return value

    def text(self, number: int, name: str) -> str:
        return decode_text(self.blob(number), name)

    def blobs(self, number: int) -> list[bytes]:
        return self._many.get(number, [])


def decode_text(value: bytes, name: str) -> str:
    """UTF-8 text. Raises MalformedInput naming the field."""
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise MalformedInput(name, "not UTF-8") from error


def write_varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def write_integer(number: int, value: int) -> bytes:
    """Varint field; nothing for 0, as proto3 writes."""
    return write_varint(number << 3 | VARINT) + write_varint(value) if value else b""


def write_bytes(number: int, value: bytes) -> bytes:
    """Length-prefixed field, also when empty; the caller leaves out what proto3 leaves out."""
    return write_varint(number << 3 | BYTES) + write_varint(len(value)) + value


def write_scalar_bytes(number: int, value: bytes) -> bytes:
    """Length-prefixed field without presence: nothing when empty."""
    return write_bytes(number, value) if value else b""


def _read_varint(body: bytes, at: int, what: str) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(body):
            raise MalformedInput(what, "cut short")
        byte = body[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            if value >= 1 << 64:
                raise MalformedInput(what, "integer beyond 64 bits")
            return value, at
    raise MalformedInput(what, "integer longer than 10 bytes")
