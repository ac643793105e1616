"""Rows of verified files, in batches: only the row groups in which a stream, or a span of time, can be.

Statistics of a verified file were compared with its rows, so they can be trusted here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from validator.protocol.codec.bundle_columns import SCHEMA, read_batch
from validator.protocol.codec.bundle_schema import COLUMNS
from validator.protocol.errors import RemoteFault
from validator.protocol.model import InstanceId, InstanceKind, Manifest, Record, StreamPart

BATCH_ROWS = 4_096


def read_part(path: Path, manifest: Manifest, instance: InstanceId, part: StreamPart) -> list[Record]:
    """All messages of one entry, in its order."""
    is_late = instance.kind is InstanceKind.LATE
    starts = [c.outcome.instance.number for c in manifest.windows]
    from_ms = 0 if is_late else instance.number
    to_ms = None if is_late else next((start for start in starts if start > from_ms), None)
    records: list[Record] = []
    for batch in scan(path, part, from_ms, to_ms):
        records += [record for late, record in read_batch(batch) if late is is_late]
    return records


def scan(
    path: Path,
    part: tuple[str | None, int | None],
    from_ms: int,
    to_ms: int | None,
    columns: Sequence[str] = COLUMNS,
) -> Iterator[Any]:
    """Batches of rows of a stream (None: any), a partition (None: any), and a span of time, in file order."""
    for _, batch in Rows(path, part, from_ms, to_ms, columns).scan():
        yield batch


class Place(NamedTuple):
    """Where a batch lies in a file: its row group, and the batches of that group before it."""

    group: int
    batch: int


BEGIN = Place(0, 0)


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of ``scan``, which can also be read from a place that was noted before."""

    path: Path
    part: tuple[str | None, int | None]
    from_ms: int
    to_ms: int | None
    columns: Sequence[str]

    def scan(self, start: Place = BEGIN) -> Iterator[tuple[Place, Any]]:
        """Batches that have rows, from ``start`` on, each with its place."""
        try:
            yield from self._scan(start)
        except (pa.ArrowException, OSError) as error:
            raise RemoteFault(f"{self.path}: not readable: {str(error).splitlines()[0]}") from error

    def _scan(self, start: Place) -> Iterator[tuple[Place, Any]]:
        parquet = pq.ParquetFile(self.path, pre_buffer=False)
        if parquet.schema_arrow != SCHEMA:
            raise RemoteFault(f"{self.path}: not the columns of a bundle; delete the file, and it is fetched again")
        columns = list(self.columns)
        for group in range(start.group, parquet.metadata.num_row_groups):
            if not _may_hold(parquet.metadata.row_group(group), self.part[0]):
                continue
            batches = parquet.iter_batches(BATCH_ROWS, row_groups=[group], columns=columns, use_threads=False)
            for number, batch in enumerate(batches):
                place = Place(group, number)
                if place >= start:
                    kept = batch.filter(_mask(batch, self.part, self.from_ms, self.to_ms))
                    if kept.num_rows:
                        yield place, kept


def _may_hold(group: Any, stream_id: str | None) -> bool:
    statistics = group.column(SCHEMA.get_field_index("stream_id")).statistics
    if stream_id is None or statistics is None or not statistics.has_min_max:
        return True
    low, high = (text.encode() for text in (statistics.min, statistics.max))
    return bool(low <= stream_id.encode() <= high)


def _mask(batch: Any, part: tuple[str | None, int | None], from_ms: int, to_ms: int | None) -> Any:
    times = batch.column("timestamp").cast(pa.int64())
    mask = pc.greater_equal(times, from_ms)
    if to_ms is not None:
        mask = pc.and_(mask, pc.less(times, to_ms))
    for name, value in zip(("stream_id", "partition"), part, strict=True):
        if value is not None:
            mask = pc.and_(mask, pc.equal(batch.column(name), value))
    return mask
