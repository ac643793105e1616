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
STATISTICS: Kind = {
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
    12: ("statistics", STATISTICS),
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
class Column:
    """A column as the schema has it: Parquet's physical type and repetition, and what its values stand for, if told."""

    name: str
    physical: int
    repetition: int
    converted: int | None = None
    logical: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """One column of one row group; statistics by their names above.

    ``start``: offset of its first page, which is a dictionary unless ``data_start`` is the same.
    """

    name: str
    values: int
    start: int
    data_start: int
    compressed_bytes: int
    uncompressed_bytes: int
    statistics: Mapping[str, Any] | None
    size_statistics: Mapping[str, Any] | None
    encodings: frozenset[int]
    page_counts: Mapping[tuple[int, int], int] | None
    """Number of pages by (type, encoding), if told."""


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
    columns: tuple[Column, ...]


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
    columns = tuple(_column(element) for element in schema[1:])
    require(schema[0].get("num_children") == len(columns), "schema", "not one row of plain columns")
    root = set(schema[0]) <= {"repetition", "name", "num_children"} and schema[0].get("repetition", 0) == 0
    require(root, "schema", "not one row of plain columns")
    require(len(schema[0].get("name", b"")) <= MAX_NAME_BYTES, "schema", "a name that is too long")
    orders = file.get("column_orders", [{}] * len(columns))
    require(len(orders) == len(columns), "footer.column_orders", "not one per column")
    require(len(file.get("created_by", b"")) <= MAX_NAME_BYTES, "footer.created_by", "too long")
    require(file.get("version") in (1, 2), "footer.version", "unknown")
    groups = tuple(
        _group(group, number, columns) for number, group in enumerate(_read_field(file, "row_groups", "footer"))
    )
    keys = tuple(
        (_read_field(item, "key", "metadata"), _read_field(item, "value", "metadata"))
        for item in file.get("key_values", [])
    )
    return Footer(_count(file, "num_rows", "footer"), groups, keys, columns)


def _column(element: Mapping[str, Any]) -> Column:
    name = _name(_read_field(element, "name", "schema"), "schema")
    flat = "num_children" not in element and element.get("type") in _TYPES and element.get("repetition") in (0, 1)
    require(flat, "schema", "not one row of plain columns")
    return Column(
        name, element["type"], element["repetition"], element.get("converted_type"), element.get("logical_type")
    )


def _group(group: Mapping[str, Any], number: int, columns: tuple[Column, ...]) -> Group:
    what = f"row group {number}"
    told = _read_field(group, "columns", what)
    require(len(told) == len(columns), what, "not one chunk per column")
    chunks = tuple(
        _chunk(chunk, f"{what} column {column.name}", column) for column, chunk in zip(columns, told, strict=True)
    )
    for name, true in (
        ("total_byte_size", sum(chunk.uncompressed_bytes for chunk in chunks)),
        ("total_compressed_size", sum(chunk.compressed_bytes for chunk in chunks)),
        ("file_offset", chunks[0].start),
        ("ordinal", number),
    ):
        require(group.get(name, true) == true, f"{what}.{name}", f"{group.get(name)} where its columns give {true}")
    return Group(_count(group, "num_rows", what), chunks)


def _chunk(chunk: Mapping[str, Any], what: str, place: Column) -> Chunk:
    column = _read_field(chunk, "meta_data", what)
    require(column.get("path") == [place.name.encode()], what, "another path than its place")
    require(column.get("type") == place.physical, what, "another type than its place")
    require(column.get("codec") == ZSTD, what, "not compressed with zstd")
    data = _count(column, "data_page_offset", what)
    start = _count(column, "dictionary_page_offset", what) if "dictionary_page_offset" in column else data
    require(start <= data, what, "its dictionary lies behind its data")
    size = _count(column, "compressed_bytes", what)
    # a field without a use: writers put 0 there, or where the chunk or what they say of it lies
    require(chunk.get("file_offset", 0) in (0, start, data, start + size), f"{what}.file_offset", "lies elsewhere")
    return Chunk(
        place.name,
        _count(column, "num_values", what),
        start,
        data,
        size,
        _count(column, "uncompressed_bytes", what),
        column.get("statistics"),
        column.get("size_statistics"),
        _encodings(column, what),
        _page_counts(column, what),
    )


def _encodings(column: Mapping[str, Any], what: str) -> frozenset[int]:
    encodings = _read_field(column, "encodings", what)
    require(all(encoding in _ENCODINGS for encoding in encodings), what, "unknown encoding")
    return frozenset(encodings)


def _page_counts(column: Mapping[str, Any], what: str) -> Mapping[tuple[int, int], int] | None:
    if "encoding_stats" not in column:
        return None
    counts: dict[tuple[int, int], int] = {}
    for stats in column["encoding_stats"]:
        kind = stats.get("page_type"), stats.get("encoding")
        require(kind[1] in _ENCODINGS and kind[0] in range(4), what, "unknown encoding")
        require(kind not in counts and stats.get("count", 0) > 0, what, "pages counted twice, or none")
        counts[kind] = stats["count"]
    return counts


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
