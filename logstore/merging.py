"""Rows of several bundles in one order: stream, partition, time, sequence number, publisher, chain.

Each file is in that order, and files hold different times, so what comes next is as a rule a stretch of one
of them: stretches are compared at their ends and passed on whole. Memory does not grow with the span: only the files
that were read last are open, the others are read again from where they were, once a partition as a rule.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from logstore.rows import BATCH_ROWS, BEGIN, Place, Rows
from logstore.selection import BundleFile
from validator.protocol.codec.bundle_schema import COLUMNS
from validator.protocol.codec.publisher_text import read_publisher

OPEN = 12
"""Files at once; of each a row group and its readers' state are in memory, some 8 MiB."""
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
    sources = [Rows(file.path, part, from_ms or 0, to_ms, columns) for file in files]
    numbers = [file.bundle.number for file in files]
    for pieces in _group(merge(sources)):
        batches = [batch for _, batch in pieces]
        whole = batches[0] if len(batches) == 1 else pa.concat_batches(batches)
        yield whole, [numbers[n] for n, batch in pieces for _ in range(batch.num_rows)]


def merge(sources: Sequence[Rows]) -> Iterator[tuple[int, Any]]:
    """Stretches of batches, each with the number of its source; rows of equal key in the sources' order."""
    heads = _open_heads(sources)
    used: OrderedDict[_Head, None] = OrderedDict()
    while heads:
        _, first = heapq.heappop(heads)
        used[first] = None
        used.move_to_end(first)
        if len(used) > OPEN:
            used.popitem(last=False)[0].park()
        batch = first.batch
        end = batch.num_rows
        if heads:
            end = bisect_left(range(end), heads[0][0], lo=first.at + 1, key=first.place_of)
        yield first.number, batch.slice(first.at, end - first.at)
        if first.move_to(end):
            heapq.heappush(heads, (first.place, first))
        else:
            del used[first]


def _open_heads(sources: Sequence[Rows]) -> list[tuple[tuple[Key, int], _Head]]:
    """Of all sources that have rows, none of them with a file open."""
    heads = []
    for number, rows in enumerate(sources):
        head = _Head(number, rows)
        if head.move_to(0):
            heads.append((head.place, head))
            head.park()
    heapq.heapify(heads)
    return heads


class _Head:
    """Where the merge is in one source. While it is parked its file is closed, and nothing of it is held but this."""

    def __init__(self, number: int, rows: Rows) -> None:
        self.number = number
        self.at = 0
        self._rows = rows
        self._place = BEGIN
        self._batch: Any = None
        self._source: Iterator[tuple[Place, Any]] | None = None

    @property
    def batch(self) -> Any:
        """The batch in which it is; read again after it was parked."""
        if self._batch is None:
            self._advance()
        return self._batch

    def park(self) -> None:
        self._batch = self._source = None

    def move_to(self, row: int) -> bool:
        """To a row, or the one behind the batch; False where the source has ended."""
        self.at = row
        if self.batch is not None and row == self.batch.num_rows:
            self.at = 0
            self._advance()
        if self._batch is None:
            return False
        self.place = self.place_of(self.at)
        return True

    def _advance(self) -> None:
        """To the next batch; to the one where it was, if it was parked."""
        if self._source is None:
            self._source = self._rows.scan(self._place)
        self._place, self._batch = next(self._source, (self._place, None))

    def place_of(self, row: int) -> tuple[Key, int]:
        stream, partition, time, number, publisher, chain = (self._batch.column(name)[row] for name in _KEYS)
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
