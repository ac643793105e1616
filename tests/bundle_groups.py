"""A bundle's file with row groups of chosen rows, as another program might write it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.builders import GENESIS_MS, a_record, a_stream_id
from tests.bundle_builder import WINDOW_MS, a_manifest, rows_of
from validator.protocol.codec.bundle_file import write_bundle
from validator.protocol.codec.bundle_front import MANIFEST_KEY
from validator.protocol.model import Record


def write_streams(path: Path, counts: tuple[int, ...]) -> None:
    """A bundle of two windows with so many messages in each of several streams, some of the first one's late."""
    streams = sorted(a_stream_id(n) for n in range(1, len(counts) + 1))
    late: list[Record] = []
    windows: list[list[Record]] = [[], []]
    for stream, count in zip(streams, counts, strict=True):
        for n in range(count):
            window = 2 * n >= count
            time = GENESIS_MS + window * WINDOW_MS + n
            is_late = stream == streams[0] and n % 3 == 1
            (late if is_late else windows[window]).append(a_record(stream_id=stream, timestamp_ms=time))
    manifest = a_manifest(windows, late)
    write_bundle(path, manifest, rows_of(manifest, windows, late))


def write_groups(path: Path, table: Any, like: Path, group_rows: int) -> None:
    """The rows in groups of so many, under the manifest of another file."""
    with pq.ParquetWriter(path, table.schema, compression="zstd", store_schema=False, write_statistics=False) as writer:
        writer.write_table(table, row_group_size=group_rows)
        writer.add_key_value_metadata({MANIFEST_KEY: pq.ParquetFile(like).metadata.metadata[MANIFEST_KEY]})
