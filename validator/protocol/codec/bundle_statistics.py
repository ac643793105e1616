"""The statistics of a bundle's row groups: what their rows add up to, and whether the footer says the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from validator.protocol.codec.bundle_columns import SCHEMA, plain_column
from validator.protocol.codec.bundle_schema import STATISTICS, TYPES, Kind
from validator.protocol.codec.parquet_footer import Chunk
from validator.protocol.errors import require

_TEXTS = frozenset({Kind.TEXT, Kind.JSON, Kind.BINARY})


class Totals:
    """What a row group's statistics say, added up from its rows."""

    def __init__(self) -> None:
        self.rows = 0
        self._nulls: dict[str, int] = defaultdict(int)
        self._bytes: dict[str, int] = defaultdict(int)
        self._low: dict[str, bytes | int] = {}
        self._high: dict[str, bytes | int] = {}

    def add(self, batch: Any) -> None:
        self.rows += batch.num_rows
        for (name, kind), column in zip(TYPES.items(), batch.columns, strict=True):
            self._nulls[name] += column.null_count
            if kind in _TEXTS:
                self._bytes[name] += _count_bytes(column)
            if name in STATISTICS:
                low, high = _find_bounds(column)
                self._low[name] = min(self._low.get(name, low), low)
                self._high[name] = max(self._high.get(name, high), high)

    def check(self, chunk: Chunk, what: str) -> None:
        """Raises MalformedInput where a statistic differs from the rows."""
        nulls = self._nulls[chunk.name]
        levels = [nulls, self.rows - nulls] if SCHEMA.field(chunk.name).nullable else [self.rows]
        true: dict[str, Sequence[Any]] = {
            "null_count": (nulls,),
            "is_max_value_exact": (True,),
            "is_min_value_exact": (True,),
            "repetition_levels": ([],),
            "definition_levels": ([], levels),
        }
        if chunk.name in self._bytes:
            true["unencoded_bytes"] = (self._bytes[chunk.name],)
        if chunk.name in STATISTICS:
            true["min"] = true["min_value"] = (_pack_value(chunk.name, self._low[chunk.name]),)
            true["max"] = true["max_value"] = (_pack_value(chunk.name, self._high[chunk.name]),)
        for name, value in {**(chunk.statistics or {}), **(chunk.size_statistics or {})}.items():
            require(value in true.get(name, ()), what, f"its {name} differs from the rows")


def _find_bounds(column: Any) -> tuple[Any, Any]:
    """The smallest and the largest value; texts as bytes."""
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary.take(pc.unique(column.indices))
    if column.type == pa.string():
        column = column.cast(pa.binary())
    low, high = pc.min_max(column.cast(pa.int64()) if column.type != pa.binary() else column).values()
    return low.as_py(), high.as_py()


def _count_bytes(column: Any) -> int:
    """Of all texts together."""
    if column.null_count == len(column):
        return 0
    if isinstance(column, pa.DictionaryArray):
        return int(pc.sum(pc.binary_length(column.dictionary).take(column.indices)).as_py())
    column = plain_column(column)
    if column.null_count:
        return int(pc.sum(pc.binary_length(column)).as_py())
    offsets = memoryview(column.buffers()[1]).cast("i")
    return int(offsets[column.offset + len(column)] - offsets[column.offset])


def _pack_value(name: str, value: bytes | int) -> bytes:
    """A value as statistics hold it: text as it is, numbers little-endian in the column's physical width."""
    if isinstance(value, bytes):
        return value
    return value.to_bytes(8 if name == "timestamp" else 4, "little", signed=True)
