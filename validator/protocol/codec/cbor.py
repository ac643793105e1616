"""Deterministic CBOR (RFC 8949 section 4.2.1), reduced to what canonical objects need.

Types: unsigned and negative integers of 64 bits, byte strings, text strings, arrays, null, booleans. One
array per object; its first element names kind and version ("outcome/2"). A decoder accepts exactly what the
encoder writes: the bytes are scanned for shape and bounds before any object is built, then decoded, encoded
again and compared. Tags, maps, floats, indefinite lengths, non-minimal integers and trailing bytes are refused.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import cbor2

from validator.protocol.errors import MalformedInput

Cbor: TypeAlias = "int | bytes | str | bool | list[Any] | tuple[Any, ...] | None"

MAX_DEPTH = 8
MAX_ITEMS = 1 << 22
"""Items of all arrays together: one takes 60 bytes of memory, and one of the encoding. No object has as many."""


def encode(value: Cbor) -> bytes:
    """Canonical bytes of ``value``. Raises TypeError for a type outside the subset."""
    _check_types(value)
    return bytes(cbor2.dumps(value))


def encode_object(kind: str, *fields: Cbor) -> bytes:
    """Array of kind and fields: the form of every canonical object."""
    return encode([kind, *fields])


def array_head(count: int) -> bytes:
    """The bytes before an array's items, for arrays that are written item by item."""
    head = encode(count)
    return bytes([head[0] | 0x80]) + head[1:]


def bytes_head(size: int) -> bytes:
    """The same before the bytes of a byte string."""
    head = encode(size)
    return bytes([head[0] | 0x40]) + head[1:]


def decode(data: bytes, *, max_bytes: int, max_items: int = MAX_ITEMS, what: str = "cbor") -> Any:
    """Decode exactly one canonical item.

    Raises:
        MalformedInput: larger than ``max_bytes``, more than ``max_items`` in its arrays together, outside the subset,
            or not as the encoder writes it.
    """
    if len(data) > max_bytes:
        raise MalformedInput(what, f"{len(data)} bytes exceed the limit of {max_bytes}")
    end = scan_item(data, 0, what, max_items=max_items)
    if end != len(data):
        raise MalformedInput(what, f"{len(data) - end} trailing bytes")
    return _load(data, what)


def decode_object(data: bytes, kind: str, fields: int, *, max_bytes: int, max_items: int = MAX_ITEMS) -> list[Any]:
    """Decode an object of ``kind``; returns its fields without the kind.

    Raises:
        MalformedInput: not canonical, another kind, or another number of fields.
    """
    value = decode(data, max_bytes=max_bytes, max_items=max_items, what=kind)
    if not isinstance(value, list) or not value or value[0] != kind:
        raise MalformedInput(kind, "not an object of this kind and version")
    if len(value) != fields + 1:
        raise MalformedInput(kind, f"{len(value) - 1} fields where {fields} belong")
    return value[1:]


def split_sequence(data: bytes, *, max_items: int, what: str = "sequence") -> list[bytes]:
    """Cut a CBOR sequence (RFC 8742) into the bytes of its items, without building objects.

    Raises:
        MalformedInput: an item outside the subset, cut short, or more than ``max_items``.
    """
    items: list[bytes] = []
    start = 0
    while start < len(data):
        if len(items) == max_items:
            raise MalformedInput(what, f"more than {max_items} items")
        end = scan_item(data, start, what)
        items.append(data[start:end])
        start = end
    return items


def scan_item(data: bytes, start: int, what: str, *, max_items: int = MAX_ITEMS) -> int:
    """Offset behind the item at ``start``; checks types, minimal lengths and bounds, builds nothing.

    Iterative, so that depth is a bound and not a stack overflow.
    """
    size = len(data)
    at = start
    items = 0
    pending = [1]
    while pending:
        if pending[-1] == 0:
            pending.pop()
            continue
        pending[-1] -= 1
        if at >= size:
            raise MalformedInput(what, "cut short")
        first = data[at]
        major, info = first >> 5, first & 31
        at += 1
        if major == 7:
            if info not in (20, 21, 22):
                raise MalformedInput(what, f"simple value or float {info} is not allowed")
            continue
        if info < 24:
            argument = info
        elif info < 28:
            width = 1 << (info - 24)
            if at + width > size:
                raise MalformedInput(what, "cut short")
            argument = int.from_bytes(data[at : at + width], "big")
            at += width
            if argument < (24 if width == 1 else 1 << (width * 4)):
                raise MalformedInput(what, "integer or length is not minimal")
        else:
            raise MalformedInput(what, "indefinite length or reserved value")
        if major in (0, 1):
            continue
        if major in (2, 3):
            at += argument
            if at > size:
                raise MalformedInput(what, "cut short")
        elif major == 4:
            if argument > size - at:
                raise MalformedInput(what, "array longer than its bytes")
            items += argument
            if items > max_items:
                raise MalformedInput(what, f"more than {max_items} items")
            if len(pending) >= MAX_DEPTH:
                raise MalformedInput(what, f"nested deeper than {MAX_DEPTH}")
            pending.append(argument)
        else:
            raise MalformedInput(what, "maps and tags are not allowed")
    return at


def _load(data: bytes, what: str) -> Any:
    try:
        value = cbor2.loads(data)
    except (cbor2.CBORDecodeError, UnicodeDecodeError, ValueError) as error:
        raise MalformedInput(what, str(error)) from error
    if cbor2.dumps(value) != data:
        raise MalformedInput(what, "not the canonical encoding")
    return value


def _check_types(value: Cbor) -> None:
    if isinstance(value, (list, tuple)):
        for item in value:
            _check_types(item)
    elif isinstance(value, int):
        if not -(1 << 64) <= value < 1 << 64:
            raise TypeError(f"integer of {value.bit_length()} bits does not fit 64")
    elif value is not None and not isinstance(value, (bytes, str)):
        raise TypeError(f"{type(value).__name__} has no canonical encoding")


# --- fields of decoded objects --------------------------------------------------------------------


def read_blob(value: Any, what: str) -> bytes:
    """A byte string of any length. Raises MalformedInput."""
    if not isinstance(value, bytes):
        raise MalformedInput(what, "not a byte string")
    return value


def read_bytes(value: Any, size: int, what: str) -> bytes:
    """A byte string of exactly ``size`` bytes. Raises MalformedInput."""
    if not isinstance(value, bytes) or len(value) != size:
        raise MalformedInput(what, f"not {size} bytes")
    return value


def read_u63(value: Any, what: str) -> int:
    """An unsigned integer that fits a signed column of 64 bits. Raises MalformedInput."""
    return _read_unsigned(value, what, 63)


def read_u64(value: Any, what: str) -> int:
    """An unsigned integer of 64 bits. Raises MalformedInput."""
    return _read_unsigned(value, what, 64)


def read_list(value: Any, what: str, size: int | None = None) -> list[Any]:
    """A list, of exactly ``size`` items where that is given. Raises MalformedInput."""
    if not isinstance(value, list) or (size is not None and len(value) != size):
        raise MalformedInput(what, "not a list" if size is None else f"not a list of {size}")
    return value


def _read_unsigned(value: Any, what: str, bits: int) -> int:
    if type(value) is not int or not 0 <= value < 1 << bits:
        raise MalformedInput(what, f"not an unsigned integer below 2^{bits}")
    return value


def pack_amount(amount: int) -> bytes:
    """An amount or price of up to 256 bits as the shortest big-endian byte string (0 is empty)."""
    if not 0 <= amount < 1 << 256:
        raise TypeError(f"amount of {amount.bit_length()} bits, or negative")
    return amount.to_bytes((amount.bit_length() + 7) // 8, "big")


def unpack_amount(data: Any, what: str) -> int:
    """Inverse of ``pack_amount``. Raises MalformedInput unless minimal and at most 32 bytes."""
    if not isinstance(data, bytes) or len(data) > 32 or data[:1] == b"\0":
        raise MalformedInput(what, "not a minimal big-endian amount of at most 32 bytes")
    return int.from_bytes(data, "big")
