"""What each trick saves, in bytes a message: those that a bundle's file uses, and those that it could use.

Each is measured on the file's own columns, in its row groups, against the form that the format has now; zstd's level is
the default one unless the trick is another level. Contents in columns are taken apart at every value of their JSON,
templates kept beside them, numbers as deltas where digits come back exactly; they are put together again to be sure.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from validator.protocol.codec.bundle_columns import PAGE_VERSION, plain_column
from validator.protocol.codec.bundle_file import BEST_LEVEL, DEFAULT_LEVEL, PAGE_BYTES, SIGNATURE_LEVEL

FORMER_LEVEL = 9
MANY_ROWS = 8_192
FEW_ROWS = 50
"""A template of fewer messages is not worth columns."""
TARGET_ROWS = 2_100
_VALUE = re.compile(rb'"(?:[^"\\]|\\.)*"(:?)|-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?')
_DECIMAL = re.compile(rb"-?(?:0|[1-9][0-9]{0,9})\.[0-9]{1,6}")
_HOLE = b"\0"

Groups = list[Any]
"""The same column in each row group, as an Arrow array."""


def measure_tricks(path: Path) -> dict[str, dict[str, float]]:
    """Bytes a message: of each column of the file, and saved by each trick."""
    parquet = pq.ParquetFile(path)
    count = parquet.metadata.num_rows
    columns = _load(parquet)
    contents, signatures = columns["content"], columns["signature"]
    fixed = [_as_fixed(group, 65) for group in signatures]
    content, best = _size(contents), _size(contents, level=BEST_LEVEL)
    signature = _size(signatures, level=SIGNATURE_LEVEL)
    times, before = (_size(columns[name], encoding="DELTA_BINARY_PACKED") for name in ("timestamp", "prev_timestamp"))
    used = {
        "publishers in dictionaries": _size(columns["publisher_id"]) - _size(columns["publisher_id"], dictionary=True),
        "times as differences": _size(columns["timestamp"]) + _size(columns["prev_timestamp"]) - times - before,
        f"contents at level {DEFAULT_LEVEL}, not {FORMER_LEVEL}": _size(contents, level=FORMER_LEVEL) - content,
        f"contents at level {BEST_LEVEL} besides: the best": content - best,
        f"signatures at level {SIGNATURE_LEVEL}, not 3": _size(signatures, level=3) - signature,
    }
    rows = {name: pa.chunked_array(groups).combine_chunks() for name, groups in columns.items()}
    regrouped = [rows["content"].slice(n, MANY_ROWS) for n in range(0, count, MANY_ROWS)]
    whole = _size([rows["content"]], level=BEST_LEVEL, page_bytes=1 << 30)
    bits = [pa.array([value[64] & 1 for value in group.to_pylist()], pa.uint8()) for group in signatures]
    links = _without_links(columns)
    unused = {
        "row groups of 8192 rows (a query fetches a larger one)": content - _size(regrouped),
        "contents of a whole bundle in one page, at the best (nothing to fetch by range)": best - whole,
        "lengths apart (fastparquet has no DELTA_LENGTH_BYTE_ARRAY)": content
        + signature
        - _size(contents, encoding="DELTA_LENGTH_BYTE_ARRAY")
        - _size(signatures, encoding="DELTA_LENGTH_BYTE_ARRAY", level=SIGNATURE_LEVEL),
        "prefixes shared (DELTA_BYTE_ARRAY: a page unpacks without bound)": content
        - _size(contents, encoding="DELTA_BYTE_ARRAY"),
        "signatures of a fixed width (others have other widths)": signature - _size(fixed),
        "the recovery bit in a column of its own, and that": signature
        - _size([_as_fixed(group, 64) for group in signatures])
        - _size(bits, dictionary=True),
        "the recovery bit in s, and that (64 bytes)": signature - _size([_as_fixed(g, 64) for g in signatures]),
        "previous references only where not the chain's last message": before
        - _size(links, encoding="DELTA_BINARY_PACKED"),
        "contents in columns, at the default (no text to ask)": content - _size_apart(rows["content"], DEFAULT_LEVEL),
        "contents in columns, at the best": _size(contents, level=BEST_LEVEL)
        - _size_apart(rows["content"], BEST_LEVEL),
    }
    return {
        "columns": _column_sizes(parquet.metadata, path.stat().st_size),
        "used": {name: saved / count for name, saved in used.items()},
        "not used": {name: saved / count for name, saved in unused.items()},
    }


def _load(parquet: Any) -> dict[str, Groups]:
    columns: dict[str, Groups] = defaultdict(list)
    for number in range(parquet.num_row_groups):
        table = parquet.read_row_group(number)
        for name in table.schema.names:
            columns[name].append(plain_column(table.column(name).combine_chunks()))
    return columns


def _column_sizes(metadata: Any, file_bytes: int) -> dict[str, float]:
    """Bytes a message of all columns that take some, and of what lies around them."""
    sizes: dict[str, int] = defaultdict(int)
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for index in range(group.num_columns):
            chunk = group.column(index)
            sizes[chunk.path_in_schema] += chunk.total_compressed_size
    sizes["footer and manifest"] = file_bytes - sum(sizes.values())
    found = {name: size / metadata.num_rows for name, size in sizes.items()}
    shown = {name: size for name, size in found.items() if size >= 0.1}
    return shown | {"all others": sum(found.values()) - sum(shown.values())}


def _size(
    groups: Sequence[Any],
    *,
    level: int = DEFAULT_LEVEL,
    encoding: str = "PLAIN",
    dictionary: bool = False,
    page_bytes: int = PAGE_BYTES,
) -> int:
    """Compressed bytes of a column's chunks, the footer apart."""
    sink = pa.BufferOutputStream()
    schema = pa.schema([pa.field("c", groups[0].type, nullable=any(group.null_count for group in groups))])
    with pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        compression_level=level,
        use_dictionary=dictionary,
        column_encoding=None if dictionary else {"c": encoding},
        write_statistics=False,
        data_page_version=PAGE_VERSION,
        data_page_size=page_bytes,
    ) as writer:
        for group in groups:
            writer.write_table(pa.Table.from_arrays([group], schema=schema), row_group_size=max(1, len(group)))
    metadata = pq.ParquetFile(pa.BufferReader(sink.getvalue())).metadata
    return sum(metadata.row_group(n).column(0).total_compressed_size for n in range(metadata.num_row_groups))


def _as_fixed(group: Any, width: int) -> Any:
    return pa.array([value[:width] for value in group.to_pylist()], pa.binary(width))


def _without_links(columns: dict[str, Groups]) -> Groups:
    """Previous timestamps, null where they are those of the last row of the same chain."""
    last: dict[tuple[Any, ...], int] = {}
    kept = []
    names = ("stream_id", "partition", "publisher_id", "msg_chain_id")
    for *chains, times, before in zip(
        *(columns[name] for name in names), columns["timestamp"], columns["prev_timestamp"], strict=True
    ):
        values = []
        for *chain, time, previous in zip(*(c.to_pylist() for c in (*chains, times, before)), strict=True):
            values.append(None if last.get(tuple(chain)) == previous else previous)
            last[tuple(chain)] = time
        kept.append(pa.array(values, pa.int64()))
    return kept


# --- contents in columns ----------------------------------------------------------------------------


def _size_apart(contents: Any, level: int) -> int:
    """Bytes of all values as columns of their template, and of the number of each row's template."""
    by_template: dict[bytes, list[list[bytes]]] = defaultdict(list)
    numbers: dict[bytes, int] = {}
    of_rows = []
    for content in contents.to_pylist():
        template, values = _take_apart(content)
        by_template[template].append(values)
        of_rows.append(numbers.setdefault(template, len(numbers)))
    size = sum(map(len, by_template)) + _size(_groups(pa.array(of_rows, pa.int32())), level=level, dictionary=True)
    for template, rows in by_template.items():
        if len(rows) < FEW_ROWS:
            size += _size([pa.array([_put_together(template, values) for values in rows], pa.binary())], level=level)
            continue
        size += sum(_size_values(column, level) for column in zip(*rows, strict=True))
    return size


def _take_apart(content: bytes) -> tuple[bytes, list[bytes]]:
    values: list[bytes] = []

    def take(found: re.Match[bytes]) -> bytes:
        if found.group(1):  # a name
            return found.group()
        values.append(found.group())
        return _HOLE

    template = _VALUE.sub(take, content)
    if _put_together(template, values) != content:
        raise SystemExit("a content does not come back from its columns")
    return template, values


def _put_together(template: bytes, values: Sequence[bytes]) -> bytes:
    pieces: Iterator[tuple[bytes, bytes]] = zip_longest(template.split(_HOLE), values, fillvalue=b"")
    return b"".join(piece + value for piece, value in pieces)


def _size_values(values: Sequence[bytes], level: int) -> int:
    """The smallest of the forms that give the values back exactly."""
    texts = _groups(pa.array(values, pa.binary()))
    sizes = [_size(texts, level=level), _size(texts, level=level, dictionary=True)]
    forms: tuple[tuple[re.Pattern[bytes], Callable[[], list[Any]]], ...] = (
        (re.compile(rb"0|-?[1-9][0-9]{0,17}"), lambda: [[int(value) for value in values]]),
        (_DECIMAL, lambda: _scale(values)),
    )
    for pattern, columns in forms:
        if all(pattern.fullmatch(value) for value in values):
            arrays = [_groups(pa.array(column, pa.int64())) for column in columns()]
            sizes += [sum(_size(array, level=level, encoding=form) for array in arrays) for form in _NUMBER_FORMS]
    return min(sizes)


_NUMBER_FORMS = ("PLAIN", "DELTA_BINARY_PACKED")


def _scale(values: Sequence[bytes]) -> list[Any]:
    """Decimals as integers of the finest unit, and how many digits each has behind the point."""
    digits = [len(value) - value.index(b".") - 1 for value in values]
    finest = max(digits)
    scaled = [int(value.replace(b".", b"")) * 10 ** (finest - n) for value, n in zip(values, digits, strict=True)]
    return [scaled, digits]


def _groups(column: Any) -> Groups:
    return [column.slice(n, TARGET_ROWS) for n in range(0, len(column), TARGET_ROWS)]
