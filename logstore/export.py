"""Messages out of bundles, in one order over all of them (``merging``), column by column.

ndjson    an object a line (``line_text``); content as text, or content_hex where it is none
csv       the same fields; content as it is, with ' before a cell that begins with = + - @ (tab, return)
arrow     an Arrow stream; content as text or null, content_bytes for what is no text
raw       canonical bytes, a CBOR sequence (RFC 8742): what leaves commit to, for who verifies with his own program
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from typing import Any, BinaryIO

import pyarrow as pa

from logstore.csv_text import write_cell
from logstore.line_text import hex_words, join_lines, number_words, repeated_words, text_words, time_words
from logstore.merging import Part, read_merged
from logstore.selection import BundleFile
from logstore.stored_message import decode_text
from logstore.times import format_time
from validator.protocol.codec.bundle_columns import plain_column
from validator.protocol.codec.bundle_plain import read_canonical

COLUMNS = (
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
"""What all formats but ``raw`` show of a row; the bundle's number comes behind it."""
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
MESSAGE_SCHEMA = pa.schema(
    {
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
    }
)
"""A message's own columns, whoever was asked for it."""
_SCHEMA = MESSAGE_SCHEMA.append(pa.field("late", pa.bool_())).append(pa.field("bundle", pa.int64()))

_REPEATED = (
    "stream_id",
    "partition",
    "publisher_id",
    "msg_chain_id",
    "encryption_type",
    "group_key_id",
    "signature_type",
    "late",
)
"""Columns few of whose values differ."""
_SAMPLE = 64

Batch = tuple[Any, list[int]]
"""Rows, and the number of each one's bundle."""
Write = Callable[[Iterable[Batch], BinaryIO], int]
"""Writes all rows; how many."""


def export_messages(
    form: str, files: Sequence[BundleFile], part: Part, from_ms: int | None, to_ms: int, out: BinaryIO
) -> int:
    """All messages of the span in one of ``FORMATS``; how many."""
    if form == RAW:
        return write_raw(read_merged(files, part, from_ms, to_ms), out)
    return WRITERS[form](read_merged(files, part, from_ms, to_ms, COLUMNS), out)


def _read_fields(batch: Batch) -> dict[str, Sequence[Any]]:
    """The values of ``FIELDS``, none of them bytes."""
    rows, numbers = batch
    columns = {name: plain_column(rows.column(name)).to_pylist() for name in COLUMNS}
    contents = _join_contents(columns["content"], columns["content_bytes"])
    texts = list(map(decode_text, contents))
    times = columns["timestamp"]
    values = columns | {
        "timestamp": list(map(format_time, times)),
        "timestamp_ms": times,
        "content": texts,
        "content_hex": [c.hex() if text is None else None for c, text in zip(contents, texts, strict=True)],
        "signature": [f"0x{signature.hex()}" for signature in columns["signature"]],
        "bundle": numbers,
    }
    return {name: values[name] for name in FIELDS}


def _join_contents(texts: Sequence[bytes | None], others: Sequence[bytes | None]) -> list[bytes]:
    return [(other or b"") if text is None else text for text, other in zip(texts, others, strict=True)]


def write_ndjson(batches: Iterable[Batch], out: BinaryIO) -> int:
    count = 0
    for rows, numbers in batches:
        words = _find_words(rows, numbers)
        out.write(join_lines(FIELDS, [words[name] for name in FIELDS]))
        count += rows.num_rows
    return count


def _find_words(rows: Any, numbers: Sequence[int]) -> dict[str, Any]:
    """Columns of the words of ``FIELDS``."""
    columns = {name: rows.column(name) for name in COLUMNS}
    texts, others = _split_contents(columns["content"], columns["content_bytes"])
    times = plain_column(columns["timestamp"])
    return {
        **{name: repeated_words(columns[name]) for name in _REPEATED},
        "timestamp": time_words(times),
        "timestamp_ms": number_words(times),
        "sequence_number": number_words(columns["sequence_number"]),
        "content": text_words(texts.to_pylist()),
        "content_hex": hex_words(others),
        "signature": hex_words(columns["signature"], b"0x"),
        "bundle": repeated_words(pa.array(numbers, pa.int64())),
    }


def _map_values(values: Sequence[Any], make: Callable[[Any], Any]) -> Iterable[Any]:
    """Each value in its form; of equal ones, as most columns have, it is made once."""
    if len(set(values[:_SAMPLE])) * 2 > len(values[:_SAMPLE]):
        return map(make, values)
    return map({value: make(value) for value in set(values)}.__getitem__, values)


def write_csv(batches: Iterable[Batch], out: BinaryIO) -> int:
    text = io.TextIOWrapper(out, encoding="utf-8", newline="")
    writer = csv.writer(text)
    writer.writerow(FIELDS)
    count = 0
    try:
        for batch in batches:
            cells = [_map_values(column, write_cell) for column in _read_fields(batch).values()]
            writer.writerows(zip(*cells, strict=True))
            count += batch[0].num_rows
        return count
    finally:
        text.detach()


def write_arrow(batches: Iterable[Batch], out: BinaryIO) -> int:
    """An Arrow stream (IPC), in batches."""
    count = 0
    with pa.ipc.new_stream(out, _SCHEMA) as writer:
        for rows, numbers in batches:
            columns = {name: rows.column(name) for name in COLUMNS}
            columns["content"], columns["content_bytes"] = _split_contents(columns["content"], columns["content_bytes"])
            columns["bundle"] = pa.array(numbers, pa.int64())
            writer.write_batch(pa.record_batch([columns[name] for name in _SCHEMA.names], schema=_SCHEMA))
            count += rows.num_rows
    return count


def _split_contents(contents: Any, others: Any) -> tuple[Any, Any]:
    """Texts, whether they are JSON or not, and what is no text."""
    if not contents.null_count:
        return contents.storage, others
    joined = _join_contents(plain_column(contents).to_pylist(), others.to_pylist())
    texts = list(map(decode_text, joined))
    kept = [content if text is None else None for content, text in zip(joined, texts, strict=True)]
    return pa.array(texts, pa.string()), pa.array(kept, pa.binary())


def write_raw(batches: Iterable[Batch], out: BinaryIO) -> int:
    """Canonical bytes."""
    count = 0
    for rows, _ in batches:
        for some in read_canonical(rows):
            out.write(b"".join(some))
            count += len(some)
    return count


RAW = "raw"
WRITERS: dict[str, Write] = {"ndjson": write_ndjson, "csv": write_csv, "arrow": write_arrow}
FORMATS = (*WRITERS, RAW)
