"""Rows of a bundle's file read many at a time: what a recount needs of each, without an object for most.

A piece of a batch whose rows are all plain (``plain_messages``: texts of type 0, here JSON) is checked column by
column, put into canonical bytes and hashed, for a third of what the general way costs (``bundle_columns.read_batch``).
Everything else, and all that looks wrong, is left to the general way, so every refusal has its reason from one place,
and both give the same of the same rows (tests/property/protocol/codec/test_bundle_plain.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, groupby
from operator import attrgetter
from typing import Any, overload

import pyarrow as pa
import pyarrow.compute as pc

from validator.protocol.codec.bundle_columns import FOLDED, Row, plain_column, read_batch
from validator.protocol.codec.json_text import are_json
from validator.protocol.codec.limits import MAX_CONTENT_BYTES, MAX_ID_BYTES, MAX_PARTITION, MAX_TIMESTAMP_MS
from validator.protocol.codec.payload import HALF_K1
from validator.protocol.codec.plain_columns import encode_columns, integer_array
from validator.protocol.codec.plain_messages import EARLIEST_MS, Chain, hash_plain, make_chain
from validator.protocol.codec.publisher_text import read_publisher
from validator.protocol.errors import MalformedInput
from validator.protocol.model import StreamPart

_ZERO_DIGITS = integer_array([0])[0]
SMALL_ROWS = 64
"""So few rows, one of which is not plain, go the general way; more are halved first."""
_ZERO = ("message_type", "content_type", "encryption_type", "signature_type")
_NULL = ("group_key_id", "new_group_key_id", "new_group_key", "content_bytes")
_FULL = ("stream_id", "partition", "timestamp", "sequence_number", "publisher_id", "msg_chain_id", "content", "late")
_ADDRESS_BYTES = 20
_SIGNATURE_BYTES = 65

Order = tuple[bytes, int, int, int, bytes, bytes, bytes]
"""Canonical order, as ``Record.order`` says it."""


_read_record = attrgetter(
    "message.stream_id", "message.partition", "message.timestamp_ms", "leaf", "signed_bytes", "canonical"
)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows in file order, column by column: place i of each belongs to row i, but for ``parts`` and ``…_ends``."""

    parts: Sequence[tuple[StreamPart, int]]
    """Each partition that follows another, and where its rows end."""
    timestamps_ms: Sequence[int]
    late: Sequence[bool]
    orders: Sequence[Order]
    leaves: Sequence[bytes]
    signed_ends: Sequence[int]
    canonical_ends: Sequence[int]
    """What row i and all before it add up to is at place i + 1, counted from place 0."""


def rows_of(rows: Iterable[Row]) -> Rows:
    """The general way."""
    pairs = list(rows)
    records = [record for _, record in pairs]
    read = zip(*map(_read_record, records), strict=True)
    stream_ids, partitions, timestamps, leaves, signed_sizes, canonical = list(read) or [()] * 6
    return Rows(
        _find_parts(stream_ids, partitions),
        timestamps,
        [late for late, _ in pairs],
        _Orders(len(records), lambda place: records[place].order),
        leaves,
        list(accumulate(signed_sizes, initial=0)),
        list(accumulate(map(len, canonical), initial=0)),
    )


def _find_parts(stream_ids: Sequence[str], partitions: Sequence[int]) -> list[tuple[StreamPart, int]]:
    ends: list[tuple[StreamPart, int]] = []
    end = 0
    for part, members in groupby(zip(stream_ids, partitions, strict=True)):
        end += sum(1 for _ in members)
        ends.append((part, end))
    return ends


def read_rows(batch: Any) -> Iterator[Rows]:
    """The rows of one Arrow batch of ``bundle_columns.SCHEMA``, each field checked as any message from outside.

    Raises:
        MalformedInput: names the column or the message's field.
    """
    if not batch.num_rows:
        return
    plain = _read_plain(_columns_of(batch))
    if plain is not None:
        yield plain
    elif batch.num_rows <= SMALL_ROWS:
        yield rows_of(read_batch(batch))
    else:
        half = batch.num_rows // 2
        yield from read_rows(batch.slice(0, half))
        yield from read_rows(batch.slice(half))


def read_canonical(batch: Any) -> Iterator[list[bytes]]:
    """Canonical bytes of the same rows, in pieces, without leaves. Raises MalformedInput."""
    columns = _columns_of(batch)
    plain = _find_plain(columns) if batch.num_rows else None
    if plain is not None:
        yield encode_columns(columns, plain.places, plain.chains).to_pylist()
    elif batch.num_rows <= SMALL_ROWS:
        yield [record.canonical for _, record in read_batch(batch)]
    else:
        half = batch.num_rows // 2
        yield from read_canonical(batch.slice(0, half))
        yield from read_canonical(batch.slice(half))


def _columns_of(batch: Any) -> dict[str, Any]:
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    return {name: c if isinstance(c, pa.DictionaryArray) else plain_column(c) for name, c in columns.items()}


@dataclass(frozen=True, slots=True)
class _Plain:
    """What is found out of rows that are all plain."""

    places: Any
    """Of each row's chain in ``chains``."""
    chains: Sequence[Chain]
    contents: Sequence[bytes]


def _find_plain(columns: dict[str, Any]) -> _Plain | None:
    found = _read_chains(columns) if _are_plain(columns) else None
    if found is None:
        return None
    contents = columns["content"].to_pylist()
    return _Plain(*found, contents) if are_json(contents) else None


def _read_plain(columns: dict[str, Any]) -> Rows | None:
    """All rows, if all are plain."""
    plain = _find_plain(columns)
    if plain is None:
        return None
    chains = list(map(plain.chains.__getitem__, plain.places.to_pylist()))
    timestamps, sequences = columns["timestamp"].to_pylist(), columns["sequence_number"].to_pylist()
    canonical = encode_columns(columns, plain.places, plain.chains)
    leaves = hash_plain(chains, timestamps, sequences, plain.contents, canonical.to_pylist())
    parts = [chain.stream_part for chain in plain.chains]
    return Rows(
        [(parts[0], len(chains))]
        if len(set(parts)) == 1
        else _find_parts(*zip(*[c.stream_part for c in chains], strict=True)),
        timestamps,
        columns["late"].to_pylist(),
        _Orders(len(leaves), lambda place: _order(chains[place], timestamps[place], sequences[place], leaves[place])),
        leaves,
        _count_signed(columns, plain.places, plain.chains),
        memoryview(canonical.buffers()[1]).cast("i"),
    )


@dataclass(frozen=True, slots=True)
class _Orders(Sequence[Order]):
    """Made when it is asked for: where times ascend, nobody asks."""

    size: int
    make: Callable[[int], Order]

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, place: int) -> Order: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Order]: ...
    def __getitem__(self, place: int | slice) -> Order | Sequence[Order]:
        if isinstance(place, slice):
            return list(map(self.make, range(*place.indices(self.size))))
        if not 0 <= place < self.size:
            raise IndexError(place)
        return self.make(place)


def _order(chain: Chain, timestamp_ms: int, sequence_number: int, leaf: bytes) -> Order:
    return (
        chain.stream_id,
        chain.stream_part[1],
        timestamp_ms,
        sequence_number,
        chain.publisher_id,
        chain.msg_chain_id,
        leaf,
    )


def _are_plain(columns: dict[str, Any]) -> bool:
    """What can be asked of whole columns."""
    size = len(columns["late"])
    if any(columns[name].null_count != size for name in _NULL) or any(columns[name].null_count for name in _FULL):
        return False
    if any(columns[name].null_count or _range(columns[name]) != (0, 0) for name in _ZERO):
        return False
    times, numbers = columns["timestamp"], columns["sequence_number"]
    before, before_numbers = columns["prev_timestamp"], columns["prev_sequence_number"]
    earliest, latest = _range(times)
    signatures = columns["signature"]
    return (
        _range(pc.binary_length(signatures)) == (_SIGNATURE_BYTES, _SIGNATURE_BYTES)
        and not signatures.null_count
        and _range(pc.binary_slice(signatures, 32, 64))[1] <= HALF_K1
        and _range(pc.binary_length(columns["content"]))[1] <= MAX_CONTENT_BYTES
        and _range(columns["partition"])[1] <= MAX_PARTITION
        and earliest >= EARLIEST_MS
        and latest <= MAX_TIMESTAMP_MS
        and _range(numbers)[0] >= 0
        and pc.is_null(before).equals(pc.is_null(before_numbers))
        and (before.null_count == size or min(_range(before)[0] - EARLIEST_MS, _range(before_numbers)[0]) >= 0)
        and pc.all(
            pc.or_(pc.less(before, times), pc.and_(pc.equal(before, times), pc.less(before_numbers, numbers)))
        ).as_py()
        is not False
    )


def _range(column: Any) -> tuple[Any, Any]:
    found = pc.min_max(column).as_py()
    return found["min"], found["max"]


def _read_chains(columns: dict[str, Any]) -> tuple[Any, list[Chain]] | None:
    """The place of each row's chain, and the chains; None where one is not plain. Few differ."""
    texts = [_fold(columns[name]) for name in FOLDED]
    names = [text.dictionary.to_pylist() for text in texts]
    keys = columns["partition"].cast(pa.int64())
    for text in texts:  # a batch has too few rows for this to overflow
        keys = pc.add(pc.multiply(keys, integer_array([len(text.dictionary)])[0]), text.indices.cast(pa.int64()))
    distinct = keys.dictionary_encode()
    chains = []
    for key in distinct.dictionary.to_pylist():
        rest, chain_id = divmod(key, len(names[2]))
        rest, publisher = divmod(rest, len(names[1]))
        partition, stream = divmod(rest, len(names[0]))
        chain = _read_chain(names[0][stream], partition, names[1][publisher], names[2][chain_id])
        if chain is None:
            return None
        chains.append(chain)
    return distinct.indices, chains


def _fold(column: Any) -> Any:
    return column if isinstance(column, pa.DictionaryArray) else column.dictionary_encode()


@lru_cache(maxsize=4096)
def _read_chain(stream_id: str, partition: int, publisher: str, msg_chain_id: str) -> Chain | None:
    if not 0 < len(stream_id.encode()) <= MAX_ID_BYTES or len(msg_chain_id.encode()) > MAX_ID_BYTES:
        return None
    try:
        publisher_id = read_publisher(publisher)
    except MalformedInput:
        return None
    return make_chain(stream_id, partition, publisher_id, msg_chain_id) if len(publisher_id) == _ADDRESS_BYTES else None


def _count_signed(columns: dict[str, Any], places: Any, chains: Sequence[Chain]) -> Sequence[int]:
    """Bytes of the signed texts, added up."""
    sizes = pc.add(
        integer_array([chain.signed_bytes for chain in chains]).take(places),
        pc.binary_length(columns["content"]),
    )
    for name in ("timestamp", "sequence_number", "prev_timestamp", "prev_sequence_number"):
        sizes = pc.add(sizes, _count_digits(columns[name]))
    return [0, *pc.cumulative_sum(sizes).to_pylist()]


def _count_digits(numbers: Any) -> Any:
    """Decimal digits of each, as they are signed; none where there is no number."""
    if numbers.null_count == len(numbers):
        return _ZERO_DIGITS
    fewest, most = (len(str(number)) for number in _range(numbers))
    if fewest != most:
        return pc.binary_length(numbers.cast(pa.string())).fill_null(_ZERO_DIGITS)
    same = integer_array([most])[0]
    return pc.if_else(pc.is_null(numbers), _ZERO_DIGITS, same) if numbers.null_count else same
