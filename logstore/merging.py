"""Rows of several bundles in one order: stream, partition, time, sequence number, publisher, chain.

Each file is in that order, and files hold different times, so what comes next is as a rule a stretch of one
of them: stretches are compared at their ends and passed on whole. Memory is bounded by a batch a bundle, whatever the
span.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from logstore.rows import BATCH_ROWS, scan
from logstore.selection import BundleFile
from validator.protocol.codec.bundle_schema import COLUMNS
from validator.protocol.codec.publisher_text import read_publisher

Part = tuple[str | None, int | None]
"""A stream and a partition; None: any."""
Key = tuple[bytes, int, int, int, bytes, bytes]
_KEYS = ("stream_id", "partition", "timestamp", "sequence_number", "publisher_id", "msg_chain_id")


def read_merged(
    files: Sequence[BundleFile],
    part: Part,
    from_ms: int | None,
    to_ms: int,
    columns: Sequence[str] = COLUMNS,
) -> Iterator[tuple[Any, list[int]]]:
    """Batches of all rows of the span, and the number of each row's bundle."""
    sources = [scan(file.path, part, from_ms or 0, to_ms, columns) for file in files]
    numbers = [file.bundle.number for file in files]
    for pieces in _group(merge(sources)):
        batches = [batch for _, batch in pieces]
        whole = batches[0] if len(batches) == 1 else pa.concat_batches(batches)
        yield whole, [numbers[n] for n, batch in pieces for _ in range(batch.num_rows)]


def merge(sources: Sequence[Iterator[Any]]) -> Iterator[tuple[int, Any]]:
    """Stretches of batches, each with the number of its source; rows of equal key in the sources' order."""
    heads = [head for head in map(_Head, range(len(sources)), sources) if head.advance()]
    while heads:
        heads.sort(key=lambda head: head.place)
        first = heads[0]
        end = first.batch.num_rows
        if len(heads) > 1:
            end = bisect_left(range(end), heads[1].place, lo=first.at + 1, key=first.place_of)
        yield first.number, first.batch.slice(first.at, end - first.at)
        if not first.move_to(end):
            heads.remove(first)


class _Head:
    """Where the merge is in one source."""

    def __init__(self, number: int, source: Iterator[Any]) -> None:
        self.number = number
        self.batch: Any = None
        self._source = source

    def advance(self) -> bool:
        """To the next batch, if there is one."""
        self.batch = next(self._source, None)
        return self.batch is not None and self.move_to(0)

    def move_to(self, row: int) -> bool:
        """To a row, or the one behind the batch; False where the source has ended."""
        if row == self.batch.num_rows:
            return self.advance()
        self.at = row
        self.place = self.place_of(row)
        return True

    def place_of(self, row: int) -> tuple[Key, int]:
        stream, partition, time, number, publisher, chain = (self.batch.column(name)[row] for name in _KEYS)
        key = (
            stream.as_py().encode(),
            partition.as_py(),
            time.value,
            number.as_py(),
            read_publisher(publisher.as_py()),
            chain.as_py().encode(),
        )
        return key, self.number


def _group(pieces: Iterable[tuple[int, Any]]) -> Iterator[list[tuple[int, Any]]]:
    """Pieces together until they are as many rows as a batch."""
    group: list[tuple[int, Any]] = []
    rows = 0
    for piece in pieces:
        group.append(piece)
        rows += piece[1].num_rows
        if rows >= BATCH_ROWS:
            yield group
            group, rows = [], 0
    if group:
        yield group
