"""Messages out of bundles, in one order over all of them: stream, partition, time, sequence number, publisher, chain.

    ndjson    an object a line; content as text, or content_hex where it is none
    csv       the same fields; content as it is, with ' before a cell that begins with = + - @ (tab, return)
    arrow     an Arrow stream; content as text or null, content_bytes for what is no text
    raw       canonical bytes, a CBOR sequence (RFC 8742): what leaves commit to, for who verifies with his own program

Files are merged row by row, so memory is bounded by one batch a bundle, whatever the span of time.
"""

from __future__ import annotations

import heapq
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO

from logstore.csv_text import write_csv_rows
from logstore.rows import scan
from logstore.selection import BundleFile
from logstore.stored_message import decode_text
from logstore.times import format_time
from validator.protocol.codec.publisher_text import read_publisher

BATCH_ROWS = 4_096

FIELDS = (
    "stream_id",
    "partition",
    "timestamp",
    "timestamp_ms",
    "sequence_number",
    "publisher_id",
    "msg_chain_id",
    "content",
    "content_hex",
    "encryption_type",
    "group_key_id",
    "signature_type",
    "signature",
    "late",
    "bundle",
)
_COLUMNS = (
    "stream_id",
    "partition",
    "timestamp",
    "sequence_number",
    "publisher_id",
    "msg_chain_id",
    "content",
    "content_bytes",
    "encryption_type",
    "group_key_id",
    "signature_type",
    "signature",
    "late",
)
Part = tuple[str | None, int | None]
"""A stream and a partition; None: any."""
Line = dict[str, Any]
Write = Callable[[Iterable[Line], BinaryIO], int]
"""Writes all lines; how many."""


def read_lines(files: Sequence[BundleFile], part: Part, from_ms: int | None, to_ms: int) -> Iterator[Line]:
    """All messages of the span, in order; values as ``FIELDS``, but content and signature as bytes."""
    every = [_read_file(file, part, from_ms, to_ms) for file in files]
    for _, line in heapq.merge(*every, key=lambda item: item[0]):
        yield line


def _read_file(file: BundleFile, part: Part, from_ms: int | None, to_ms: int) -> Iterator[tuple[Any, Line]]:
    from validator.protocol.codec.bundle_columns import plain_column

    for batch in scan(file.path, part, from_ms or 0, to_ms):
        columns = [plain_column(batch.column(name)) for name in _COLUMNS]
        for values in zip(*(column.to_pylist() for column in columns), strict=True):
            stream_id, partition, timestamp_ms, sequence, publisher, chain, content, other, *rest = values
            key = read_publisher(publisher)
            order = (stream_id.encode(), partition, timestamp_ms, sequence, key, chain.encode())
            encryption, group_key_id, signature_type, signature, late = rest
            yield (
                order,
                {
                    "stream_id": stream_id,
                    "partition": partition,
                    "timestamp_ms": timestamp_ms,
                    "sequence_number": sequence,
                    "publisher_id": publisher,
                    "msg_chain_id": chain,
                    "content": other if content is None else content,
                    "encryption_type": encryption,
                    "group_key_id": group_key_id,
                    "signature_type": signature_type,
                    "signature": signature,
                    "late": late,
                    "bundle": file.bundle.number,
                },
            )


def _texts(line: Line) -> Line:
    """The values of ``FIELDS``, none of them bytes."""
    text = decode_text(line["content"])
    values = {
        **line,
        "timestamp": format_time(line["timestamp_ms"]),
        "content": text,
        "content_hex": None if text is not None else line["content"].hex(),
        "signature": f"0x{line['signature'].hex()}",
    }
    return {name: values[name] for name in FIELDS}


def write_ndjson(lines: Iterable[Line], out: BinaryIO) -> int:
    count = 0
    for line in lines:
        out.write(json.dumps(_texts(line), ensure_ascii=False).encode() + b"\n")
        count += 1
    return count


def write_csv(lines: Iterable[Line], out: BinaryIO) -> int:
    text = io.TextIOWrapper(out, encoding="utf-8", newline="", write_through=True)
    try:
        return write_csv_rows(text, FIELDS, ([*_texts(line).values()] for line in lines))
    finally:
        text.detach()


def write_arrow(lines: Iterable[Line], out: BinaryIO) -> int:
    """An Arrow stream (IPC), in batches."""
    import pyarrow as pa

    kinds = {
        "stream_id": pa.string(),
        "partition": pa.uint8(),
        "timestamp": pa.timestamp("ms", tz="UTC"),
        "sequence_number": pa.int32(),
        "publisher_id": pa.string(),
        "msg_chain_id": pa.string(),
        "content": pa.string(),
        "content_bytes": pa.binary(),
        "encryption_type": pa.uint8(),
        "group_key_id": pa.string(),
        "signature_type": pa.uint8(),
        "signature": pa.binary(),
        "late": pa.bool_(),
        "bundle": pa.int64(),
    }
    schema = pa.schema(list(kinds.items()))
    count = 0
    with pa.ipc.new_stream(out, schema) as writer:
        for group in _grouped(lines):
            columns: dict[str, list[Any]] = {name: [line.get(name) for line in group] for name in kinds}
            columns["timestamp"] = [line["timestamp_ms"] for line in group]
            texts = [decode_text(line["content"]) for line in group]
            columns["content"] = texts
            pairs = zip(group, texts, strict=True)
            columns["content_bytes"] = [line["content"] if text is None else None for line, text in pairs]
            arrays = [
                pa.array(columns[name], pa.int64()).cast(kind) if name == "timestamp" else pa.array(columns[name], kind)
                for name, kind in kinds.items()
            ]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
            count += len(group)
    return count


def _grouped(lines: Iterable[Line]) -> Iterator[list[Line]]:
    group: list[Line] = []
    for line in lines:
        group.append(line)
        if len(group) == BATCH_ROWS:
            yield group
            group = []
    if group:
        yield group


def write_raw(files: Sequence[BundleFile], part: Part, from_ms: int | None, to_ms: int, out: BinaryIO) -> int:
    """Canonical bytes of all messages of the span, in order; how many."""
    from validator.protocol.codec.bundle_columns import read_batch

    def read_file(file: BundleFile) -> Iterator[tuple[Any, bytes]]:
        for batch in scan(file.path, part, from_ms or 0, to_ms):
            for _, record in read_batch(batch):
                yield record.order, record.canonical

    count = 0
    for _, canonical in heapq.merge(*map(read_file, files), key=lambda item: item[0]):
        out.write(canonical)
        count += 1
    return count


WRITERS: dict[str, Write] = {"ndjson": write_ndjson, "csv": write_csv, "arrow": write_arrow}
FORMATS = (*WRITERS, "raw")
