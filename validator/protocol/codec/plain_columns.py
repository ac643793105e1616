"""Plain messages of Arrow columns: their canonical bytes, put together by the library for all rows at once.

What comes out is what ``plain_messages.encode_plain`` makes of the same values. Whoever calls this has seen to it that
all are plain: the only nulls are those of previous references.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from validator.protocol.codec.heads import NULL, PAIR, integer_bytes
from validator.protocol.codec.plain_messages import SIGNATURE_HEAD, TEXT, Chain, content_head

_LONG: Final = b"\x1b"


def binary_array(values: Sequence[bytes]) -> Any:
    """An array of these values. ``pyarrow.array`` imports pandas, where it is installed, before it looks at them."""
    ends = array("i", accumulate(map(len, values), initial=0))
    return pa.Array.from_buffers(pa.binary(), len(values), [None, pa.py_buffer(ends), pa.py_buffer(b"".join(values))])


def integer_array(values: Sequence[int]) -> Any:
    """The same for integers of 32 bits."""
    return pa.Array.from_buffers(pa.int32(), len(values), [None, pa.py_buffer(array("i", values))])


(_REFERENCE, _NO_REFERENCE, _FIRST_TEXT, _SIGNATURE_HEAD, _NOTHING) = binary_array(
    [PAIR + _LONG, NULL + TEXT, integer_bytes(0) + TEXT, SIGNATURE_HEAD, b""]
)


def encode_columns(columns: dict[str, Any], places: Any, chains: Sequence[Chain]) -> Any:
    """Canonical bytes of texts, as an array; ``places``: of each row's chain in ``chains``.

    What is the same in all rows is joined before it is repeated: the library takes as long for a piece as for its row.
    """
    sequences = columns["sequence_number"]
    fronts = [chain.part_head + _LONG for chain in chains]
    same = _find_same(sequences)
    number = b"" if same is None else integer_bytes(same)
    return pc.binary_join_element_wise(
        binary_array(fronts[:1])[0] if len(set(fronts)) == 1 else binary_array(fronts).take(places),
        _pack_longs(columns["timestamp"]),
        *(() if same is not None else (_map_distinct(sequences, integer_bytes),)),
        binary_array([number + chain.chain_head for chain in chains]).take(places),
        *_join_references(columns["prev_timestamp"], columns["prev_sequence_number"]),
        _map_distinct(pc.binary_length(columns["content"]), content_head),
        columns["content"],
        _SIGNATURE_HEAD,
        columns["signature"],
        _NOTHING,
    )


def _join_references(before: Any, numbers: Any) -> tuple[Any, ...]:
    """Pieces from the reference to what stands before the content."""
    missing = pc.is_null(before) if before.null_count else None
    opening = _REFERENCE if missing is None else pc.if_else(missing, _NO_REFERENCE, _REFERENCE)
    if _find_same(numbers) == 0:  # as nearly all are
        closing = _FIRST_TEXT
    else:
        closing = _map_distinct(numbers, lambda number: integer_bytes(number) + TEXT)
    return opening, _pack_longs(before), closing if missing is None else pc.if_else(missing, _NOTHING, closing)


def _find_same(numbers: Any) -> int | None:
    """The number that all are, nulls aside."""
    found = pc.min_max(numbers).as_py()
    same: int | None = found["min"]
    return same if same == found["max"] else None


def _pack_longs(column: Any) -> Any:
    """Each number as eight bytes, big-endian; nothing where there is none."""
    size, start = len(column), column.offset
    numbers = array("q")
    numbers.frombytes(memoryview(column.buffers()[1])[8 * start : 8 * (start + size)])
    if sys.byteorder == "little":
        numbers.byteswap()
    packed = pa.Array.from_buffers(pa.binary(8), size, [None, pa.py_buffer(numbers)]).cast(pa.binary())
    return pc.if_else(pc.is_null(column), _NOTHING, packed) if column.null_count else packed


def _map_distinct(column: Any, make: Callable[[int], bytes]) -> Any:
    """What ``make`` makes of each number; few differ."""
    found = column.dictionary_encode()
    return binary_array(list(map(make, found.dictionary.to_pylist()))).take(found.indices)
