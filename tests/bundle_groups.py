"""A bundle's file with row groups of chosen rows, as another program might write it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.builders import GENESIS_MS, a_stream_id, some_records
from tests.bundle_builder import a_manifest, rows_of
from validator.protocol.codec.bundle_file import write_bundle
from validator.protocol.codec.bundle_front import MANIFEST_KEY


def write_streams(path: Path, counts: tuple[int, ...]) -> None:
    """A bundle of so many messages in each of several streams, some of the first one's late."""
    streams = sorted(a_stream_id(n) for n in range(1, len(counts) + 1))
    records = [
        some_records(count, stream_id=stream, timestamp_ms=GENESIS_MS + 1_000)
        for stream, count in zip(streams, counts, strict=True)
    ]
    late = records[0][::3]
    windows = [[record for some in records for record in some if record not in late]]
    manifest = a_manifest(windows, late)
    write_bundle(path, manifest, rows_of(manifest, windows, late))


def write_groups(path: Path, table: Any, like: Path, group_rows: int) -> None:
    """The rows in groups of so many, under the manifest of another file."""
    with pq.ParquetWriter(path, table.schema, compression="zstd", store_schema=False, write_statistics=False) as writer:
        writer.write_table(table, row_group_size=group_rows)
        writer.add_key_value_metadata({MANIFEST_KEY: pq.ParquetFile(like).metadata.metadata[MANIFEST_KEY]})
