"""The footer of a Parquet file, read strictly: it has the fields that a bundle's file may have, each once.

The footer is a thrift struct. The common libraries skip fields that they do not know, and some end the whole process on
a number they do not expect; so the footer of a foreign file is read here first (``thrift``), and only a sound one is
handed on. The tables below are all that a bundle needs of parquet-format 2.x: no index, no bloom filter,
no encryption, no declared order, no other file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from validator.protocol.codec.thrift import Kind, ThriftReader
from validator.protocol.errors import MalformedInput, require

MAX_ITEMS = 1 << 20
"""Items in all lists together."""
MAX_NAME_BYTES = 256
ZSTD = 6
_TYPES = range(8)
_ENCODINGS = range(10)

_EMPTY: Kind = {}
_STATISTICS: Kind = {
    1: ("max", "binary"),
    2: ("min", "binary"),
    3: ("null_count", "i64"),
    5: ("max_value", "binary"),
    6: ("min_value", "binary"),
    7: ("is_max_value_exact", "bool"),
    8: ("is_min_value_exact", "bool"),
}
_SIZE_STATISTICS: Kind = {
    1: ("unencoded_bytes", "i64"),
    2: ("repetition_levels", ["i64"]),
    3: ("definition_levels", ["i64"]),
}
_COLUMN: Kind = {
    1: ("type", "i32"),
    2: ("encodings", ["i32"]),
    3: ("path", ["binary"]),
    4: ("codec", "i32"),
    5: ("num_values", "i64"),
    6: ("uncompressed_bytes", "i64"),
    7: ("compressed_bytes", "i64"),
    9: ("data_page_offset", "i64"),
    11: ("dictionary_page_offset", "i64"),
    12: ("statistics", _STATISTICS),
    13: ("encoding_stats", [{1: ("page_type", "i32"), 2: ("encoding", "i32"), 3: ("count", "i32")}]),
    16: ("size_statistics", _SIZE_STATISTICS),
}
_ROW_GROUP: Kind = {
    1: ("columns", [{2: ("file_offset", "i64"), 3: ("meta_data", _COLUMN)}]),
    2: ("total_byte_size", "i64"),
    3: ("num_rows", "i64"),
    5: ("file_offset", "i64"),
    6: ("total_compressed_size", "i64"),
    7: ("ordinal", "i16"),
}
_LOGICAL: Kind = {
    1: ("string", _EMPTY),
    8: ("timestamp", {1: ("is_adjusted", "bool"), 2: ("unit", {1: ("millis", _EMPTY)})}),
    10: ("integer", {1: ("bits", "i8"), 2: ("signed", "bool")}),
    12: ("json", _EMPTY),
}
_SCHEMA_ELEMENT: Kind = {
    1: ("type", "i32"),
    3: ("repetition", "i32"),
    4: ("name", "binary"),
    5: ("num_children", "i32"),
    6: ("converted_type", "i32"),
    10: ("logical_type", _LOGICAL),
}
_FILE: Kind = {
    1: ("version", "i32"),
    2: ("schema", [_SCHEMA_ELEMENT]),
    3: ("num_rows", "i64"),
    4: ("row_groups", [_ROW_GROUP]),
    5: ("key_values", [{1: ("key", "binary"), 2: ("value", "binary")}]),
    6: ("created_by", "binary"),
    7: ("column_orders", [{1: ("type_order", _EMPTY)}]),
}
_REFUSED = {
    ("footer", 8): "encryption",
    ("footer", 9): "encryption",
    ("footer.row_groups", 4): "a declared order",
    ("footer.row_groups.columns", 1): "another file",
    ("footer.row_groups.columns", 4): "an index",
    ("footer.row_groups.columns", 6): "an index",
    ("footer.row_groups.columns", 8): "encryption",
    ("footer.row_groups.columns.meta_data", 8): "keys of its own",
    ("footer.row_groups.columns.meta_data", 10): "an index",
    ("footer.row_groups.columns.meta_data", 14): "a bloom filter",
    ("footer.row_groups.columns.meta_data.statistics", 4): "a number of distinct values",
}
"""What Parquet knows and a bundle does not have."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """One column of one row group. ``start``: offset of its first page; statistics by their names above."""

    name: str
    values: int
    start: int
    compressed_bytes: int
    uncompressed_bytes: int
    statistics: Mapping[str, Any] | None
    size_statistics: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Group:
    """One row group."""

    rows: int
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class Footer:
    """What a bundle's reader needs of a footer."""

    rows: int
    groups: tuple[Group, ...]
    keys: tuple[tuple[bytes, bytes], ...]
    columns: tuple[str, ...]


def parse_footer(data: bytes) -> Footer:
    """Read a footer of bounded size.

    Raises:
        MalformedInput: cut short, trailing bytes, a field that a bundle does not have, or a number out of range.
    """
    reader = ThriftReader(data, "footer", max_items=MAX_ITEMS, refused=_REFUSED)
    file = reader.struct(_FILE, "footer")
    reader.end()
    schema = _read_field(file, "schema", "footer")
    require(0 < len(schema) <= 1024, "schema", "no columns, or too many")
    columns = tuple(_name(_read_field(element, "name", "schema"), "schema") for element in schema[1:])
    require(schema[0].get("num_children") == len(columns), "schema", "not one row of plain columns")
    for element in schema[1:]:
        flat = "num_children" not in element and element.get("type") in _TYPES and element.get("repetition") in (0, 1)
        require(flat, "schema", "not one row of plain columns")
    orders = file.get("column_orders", [{}] * len(columns))
    require(len(orders) == len(columns), "footer.column_orders", "not one per column")
    require(len(file.get("created_by", b"")) <= MAX_NAME_BYTES, "footer.created_by", "too long")
    require(file.get("version") in (1, 2), "footer.version", "unknown")
    groups = tuple(
        _group(group, f"row group {number}", columns)
        for number, group in enumerate(_read_field(file, "row_groups", "footer"))
    )
    keys = tuple(
        (_read_field(item, "key", "metadata"), _read_field(item, "value", "metadata"))
        for item in file.get("key_values", [])
    )
    return Footer(_count(file, "num_rows", "footer"), groups, keys, columns)


def _group(group: Mapping[str, Any], what: str, columns: tuple[str, ...]) -> Group:
    chunks = _read_field(group, "columns", what)
    require(len(chunks) == len(columns), what, "not one chunk per column")
    return Group(
        _count(group, "num_rows", what),
        tuple(
            _chunk(_read_field(chunk, "meta_data", what), f"{what} column {name}", name)
            for name, chunk in zip(columns, chunks, strict=True)
        ),
    )


def _chunk(column: Mapping[str, Any], what: str, name: str) -> Chunk:
    require(column.get("path") == [name.encode()], what, "another path than its place")
    require(column.get("type") in _TYPES, what, "unknown type")
    require(column.get("codec") == ZSTD, what, "not compressed with zstd")
    require(all(e in _ENCODINGS for e in _read_field(column, "encodings", what)), what, "unknown encoding")
    for stats in column.get("encoding_stats", []):
        require(stats.get("encoding") in _ENCODINGS and stats.get("page_type") in range(4), what, "unknown encoding")
    data = _count(column, "data_page_offset", what)
    start = _count(column, "dictionary_page_offset", what) if "dictionary_page_offset" in column else data
    require(start <= data, what, "its dictionary lies behind its data")
    return Chunk(
        name,
        _count(column, "num_values", what),
        start,
        _count(column, "compressed_bytes", what),
        _count(column, "uncompressed_bytes", what),
        column.get("statistics"),
        column.get("size_statistics"),
    )


def _read_field(values: Mapping[str, Any], name: str, what: str) -> Any:
    if name not in values:
        raise MalformedInput(f"{what}.{name}", "is missing")
    return values[name]


def _count(values: Mapping[str, Any], name: str, what: str) -> int:
    value: int = _read_field(values, name, what)
    require(value >= 0, f"{what}.{name}", "negative")
    return value


def _name(value: bytes, what: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise MalformedInput(what, "a name that is not UTF-8") from error
