"""Thrift's compact protocol, read strictly and driven by tables: what they do not name is refused.

Parquet's footer and the headers of its pages are thrift structs. The common libraries skip fields that they do not
know, and some end the whole process on a number they do not expect.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from validator.protocol.errors import MalformedInput, require

Kind: TypeAlias = "str | list[Kind] | dict[int, tuple[str, Kind]]"
"""A scalar by name, a list of one kind, or a struct: (name, kind) by field id."""

_CODES = {"i8": 3, "i16": 4, "i32": 5, "i64": 6, "binary": 8}
_LIST, _STRUCT = 9, 12
_VARINT_BYTES = 10
_MORE = 0x80
"""Set in every byte of a number but its last."""
_BITS = {"i16": 16, "i32": 32, "i64": 64}
_INTEGERS = {name: _CODES[name] for name in _BITS}
_LAST_INTEGER = max(_INTEGERS.values())


class ThriftReader:
    """Reads structs from the front of ``data``; complaints name ``what``, or the struct's field.

    ``refused``: names of known fields, by the struct that has them and their number, for the complaint.
    """

    def __init__(
        self, data: bytes, what: str, *, max_items: int, refused: Mapping[tuple[str, int], str] | None = None
    ) -> None:
        self._data = data
        self._what = what
        self._refused = refused or {}
        self._at = 0
        self._items = max_items

    @property
    def position(self) -> int:
        """Where the next byte is read."""
        return self._at

    def end(self) -> None:
        require(self._at == len(self._data), self._what, f"{len(self._data) - self._at} trailing bytes")

    def struct(self, kind: Mapping[int, tuple[str, Kind]] | Any, what: str) -> dict[str, Any]:
        """Fields by name; ids must ascend, so none is there twice."""
        values: dict[str, Any] = {}
        data, size = self._data, len(self._data)
        last = 0
        while True:
            at = self._at
            header = data[at] if at < size else self._byte()
            self._at = at + 1
            if not header:
                return values
            number = last + (header >> 4) if header >> 4 else self._integer(16)
            if number <= last:
                raise MalformedInput(what, "fields out of order, or one twice")
            last = number
            field = kind.get(number)
            if field is None:
                named = self._refused.get((what, number), f"a field {number}")
                raise MalformedInput(what, f"has {named}, which a bundle does not have")
            name, field_kind = field
            code = header & 15
            if code <= _LAST_INTEGER and type(field_kind) is str and code == _INTEGERS.get(field_kind):  # nearly all
                at = self._at
                first = data[at] if at < size else _MORE
                if first < _MORE:  # as most are, in one byte
                    self._at = at + 1
                    values[name] = (first >> 1) ^ -(first & 1)
                else:
                    values[name] = self._integer(_BITS[field_kind])
            elif field_kind == "bool":
                require(code in (1, 2), f"{what}.{name}", "not a truth value")
                values[name] = code == 1
            else:
                values[name] = self._value(field_kind, code, f"{what}.{name}")

    def _value(self, kind: Kind, code: int, what: str) -> Any:
        if isinstance(kind, dict):
            require(code == _STRUCT, what, "not a struct")
            return self.struct(kind, what)
        if isinstance(kind, list):
            require(code == _LIST, what, "not a list")
            return self._list(kind[0], what)
        require(code == _CODES[kind], what, f"not of type {kind}")
        if kind == "binary":
            return self._read(self._varint())
        return self._byte() if kind == "i8" else self._integer(_BITS[kind])

    def _list(self, kind: Kind, what: str) -> list[Any]:
        header = self._byte()
        size = header >> 4 if header >> 4 < 15 else self._varint()
        self._items -= size
        require(self._items >= 0, what, "too many items")
        code = _STRUCT if isinstance(kind, dict) else _LIST if isinstance(kind, list) else _CODES[kind]
        require(header & 15 == code, what, "a list of another kind")
        if isinstance(kind, dict):
            return [self.struct(kind, what) for _ in range(size)]
        if isinstance(kind, str) and kind in _BITS:
            return [self._integer(_BITS[kind]) for _ in range(size)]
        return [self._value(kind, code, what) for _ in range(size)]

    def _integer(self, bits: int) -> int:
        """A zigzag integer."""
        number = self._varint()
        if number >> bits:
            raise MalformedInput(self._what, f"an integer of more than {bits} bits")
        return (number >> 1) ^ -(number & 1)

    def _varint(self) -> int:
        data, at = self._data, self._at
        if at < len(data) and data[at] < _MORE:  # one byte
            self._at = at + 1
            return data[at]
        number = shift = 0
        for byte in data[at : at + _VARINT_BYTES]:
            if byte < _MORE:
                if not byte and shift:
                    raise MalformedInput(self._what, "an integer that is not minimal")
                self._at = at + shift // 7 + 1
                return number | byte << shift
            number |= (byte & 0x7F) << shift
            shift += 7
        if len(data) - at < _VARINT_BYTES:
            raise MalformedInput(self._what, "cut short")
        raise MalformedInput(self._what, "an integer of more than 64 bits")

    def _byte(self) -> int:
        at = self._at
        if at >= len(self._data):
            raise MalformedInput(self._what, "cut short")
        self._at = at + 1
        return self._data[at]

    def _read(self, size: int) -> bytes:
        require(size <= len(self._data) - self._at, self._what, "cut short")
        self._at += size
        return self._data[self._at - size : self._at]
