"""Lines of JSON out of Arrow columns: the library joins the words of all rows at once, with no object for a row.

What comes out is what ``json.dumps(row, ensure_ascii=False)`` makes of each. Of columns whose values repeat, each word
is made once; times are put together from their seconds; contents are quoted in one call, one a line, and cut where
these lines end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from logstore.times import format_time
from validator.protocol.codec.plain_columns import binary_array

_encoder = msgspec.json.Encoder()
_NULL = b"null"
_THOUSANDTHS = [b'Z"', *(b'.%03dZ"' % number for number in range(1, 1_000))]
"""How a text of a time ends."""


def join_lines(names: Sequence[str], words: Sequence[Any]) -> Any:
    """A buffer of lines, from a column of words for each name."""
    parts: list[Any] = []
    for place, (name, column) in enumerate(zip(names, words, strict=True)):
        parts += [_literal(f'{", " if place else "{"}"{name}": '.encode()), column]
    lines = pc.binary_join_element_wise(*parts, _literal(b"}\n"), _literal(b""))
    ends = memoryview(lines.buffers()[1]).cast("i")
    return lines.buffers()[2].slice(0, ends[len(lines)]) if len(lines) else b""


def repeated_words(column: Any) -> Any:
    """Words of a column whose values repeat: of numbers, texts, truth values and null."""
    return _map_distinct(column, _encoder.encode)


def number_words(column: Any) -> Any:
    """Words of whole numbers, all there."""
    return column.cast(pa.string()).cast(pa.binary())


def time_words(times_ms: Any) -> Any:
    """Quoted times, as ``format_time`` has them, of Unix milliseconds from 1970 on."""
    seconds = pc.divide(times_ms, 1_000)
    ends = pc.subtract(times_ms, pc.multiply(seconds, 1_000))
    begun = _map_distinct(seconds, lambda second: f'"{format_time(second * 1_000)}'.removesuffix("Z").encode())
    return pc.binary_join_element_wise(begun, binary_array(_THOUSANDTHS).take(ends), _literal(b""))


def text_words(texts: Sequence[str | None]) -> Any:
    """Quoted texts, and null."""
    lines = binary_array([_encoder.encode_lines(texts)])
    return pc.split_pattern(lines, b"\n").values.slice(0, len(texts))


def hex_words(column: Any, prefix: bytes = b"") -> Any:
    """Quoted hex of bytes, behind ``prefix``; null where there are none."""
    size, first = len(column), column.offset
    if column.null_count == size:
        return binary_array([_NULL] * size)
    ends = pa.Array.from_buffers(pa.int32(), size + 1, [None, column.buffers()[1]], offset=first)
    start = ends[0].as_py()
    digits = memoryview(column.buffers()[2])[start : ends[size].as_py()].hex().encode()
    doubled = pc.multiply(pc.subtract(ends, start), 2).cast(pa.int32()).buffers()[1]
    texts = pa.Array.from_buffers(pa.binary(), size, [None, doubled, pa.py_buffer(digits)])
    quoted = pc.binary_join_element_wise(_literal(b'"' + prefix), texts, _literal(b'"'), _literal(b""))
    return pc.if_else(pc.is_null(column), _literal(_NULL), quoted) if column.null_count else quoted


def _map_distinct(column: Any, make: Callable[[Any], bytes]) -> Any:
    found = column.dictionary_encode(null_encoding="encode")
    return binary_array(list(map(make, found.dictionary.to_pylist()))).take(found.indices)


def _literal(text: bytes) -> Any:
    return binary_array([text])[0]
