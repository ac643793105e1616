"""The columns of a bundle's file by name and Parquet type: what a footer is held against, without a Parquet library.

``bundle_columns`` says what each of them holds, and reads and writes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from validator.protocol.codec.parquet_footer import Column
from validator.protocol.errors import require

NULLABLE = frozenset(
    {
        "prev_timestamp",
        "prev_sequence_number",
        "group_key_id",
        "new_group_key_id",
        "new_group_key",
        "content",
        "content_bytes",
    }
)


class Kind(StrEnum):
    """What the values of a column are."""

    BOOL = "bool"
    UINT8 = "uint8"
    INT32 = "int32"
    TIME = "time"
    TEXT = "text"
    JSON = "json"
    BINARY = "binary"


PARQUET: dict[Kind, tuple[int, int | None, Mapping[str, Any] | None]] = {
    Kind.BOOL: (0, None, None),
    Kind.UINT8: (1, 11, {"integer": {"bits": 8, "signed": False}}),
    Kind.INT32: (1, None, None),
    Kind.TIME: (2, 9, {"timestamp": {"is_adjusted": True, "unit": {"millis": {}}}}),
    Kind.TEXT: (6, 0, {"string": {}}),
    Kind.JSON: (6, 19, {"json": {}}),
    Kind.BINARY: (6, None, None),
}
"""Parquet's physical, converted and logical type of ours, by their numbers and names there."""
TYPES: dict[str, Kind] = {
    "stream_id": Kind.TEXT,
    "partition": Kind.UINT8,
    "timestamp": Kind.TIME,
    "sequence_number": Kind.INT32,
    "publisher_id": Kind.TEXT,
    "msg_chain_id": Kind.TEXT,
    "prev_timestamp": Kind.TIME,
    "prev_sequence_number": Kind.INT32,
    "message_type": Kind.UINT8,
    "content_type": Kind.UINT8,
    "encryption_type": Kind.UINT8,
    "group_key_id": Kind.TEXT,
    "new_group_key_id": Kind.TEXT,
    "new_group_key": Kind.BINARY,
    "content": Kind.JSON,
    "content_bytes": Kind.BINARY,
    "signature_type": Kind.UINT8,
    "signature": Kind.BINARY,
    "late": Kind.BOOL,
}
COLUMNS = tuple(TYPES)
STATISTICS = ("stream_id", "partition", "timestamp")


def check_columns(columns: Sequence[Column]) -> None:
    """Raises MalformedInput unless a footer's schema is that of a bundle; no reader may find other types in it."""
    require(tuple(column.name for column in columns) == COLUMNS, "schema", "not exactly the columns of a bundle")
    for column in columns:
        physical, converted, logical = PARQUET[TYPES[column.name]]
        shape = (column.physical, column.repetition) == (physical, int(column.name in NULLABLE))
        told = column.converted in (None, converted) and column.logical in (None, logical)
        require(shape and told, f"schema.{column.name}", "another type than a bundle has there")
        is_told = column.converted == converted or column.logical == logical
        require(is_told, f"schema.{column.name}", "does not say what its values are")
