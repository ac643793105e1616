"""Messages of an answer for other programs: columns and forms as ``export`` has them of bundles, as far as they fit.

``set`` stands for ``late`` and ``bundle``: the window or late set that the message is certified in, null for the tail.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, BinaryIO

from logstore.csv_text import write_cell
from logstore.stored_message import decode_text
from logstore.times import format_time
from validator.protocol.codec.publisher_text import format_publisher

if TYPE_CHECKING:
    import pyarrow as pa

    from logstore.answer_check import Row

Batches = Iterable[list["Row"]]


def _fields(row: Row) -> dict[str, Any]:
    """None of them bytes."""
    m = row.record.message
    text = decode_text(m.content)
    return {
        "stream_id": m.stream_id,
        "partition": m.partition,
        "timestamp": format_time(m.timestamp_ms),
        "timestamp_ms": m.timestamp_ms,
        "sequence_number": m.sequence_number,
        "publisher_id": format_publisher(m.publisher_id),
        "msg_chain_id": m.msg_chain_id,
        "content": text,
        "content_hex": None if text is not None else m.content.hex(),
        "encryption_type": int(m.encryption_type),
        "group_key_id": m.group_key_id,
        "signature_type": int(m.signature_type),
        "signature": f"0x{m.signature.hex()}",
        "set": None if row.instance is None else str(row.instance),
    }


def write_ndjson(batches: Batches, out: BinaryIO) -> None:
    for rows in batches:
        out.write("".join(json.dumps(_fields(row), ensure_ascii=False) + "\n" for row in rows).encode())
        out.flush()


def write_csv(batches: Batches, out: BinaryIO) -> None:
    text = io.TextIOWrapper(out, encoding="utf-8", newline="")
    writer = csv.writer(text)
    has_head = False
    try:
        for rows in batches:
            values = [_fields(row) for row in rows]
            if not has_head:
                writer.writerow(values[0])
                has_head = True
            writer.writerows([write_cell(cell) for cell in each.values()] for each in values)
            text.flush()
    finally:
        text.detach()


def write_raw(batches: Batches, out: BinaryIO) -> None:
    """Canonical bytes, a CBOR sequence."""
    for rows in batches:
        out.write(b"".join(row.record.canonical for row in rows))


def write_arrow(batches: Batches, out: BinaryIO) -> None:
    """An Arrow stream (IPC)."""
    import pyarrow as pa

    schema = _schema()
    with pa.ipc.new_stream(out, schema) as writer:
        for rows in batches:
            writer.write_batch(_batch(rows, schema))


def read_table(batches: Batches) -> pa.Table:
    import pyarrow as pa

    schema = _schema()
    return pa.Table.from_batches([_batch(rows, schema) for rows in batches], schema=schema)


def _schema() -> pa.Schema:
    import pyarrow as pa

    from logstore.export import MESSAGE_SCHEMA

    return MESSAGE_SCHEMA.append(pa.field("set", pa.string()))


def _batch(rows: list[Row], schema: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa

    messages = [row.record.message for row in rows]
    texts = [decode_text(m.content) for m in messages]
    columns: list[list[Any]] = [
        [m.stream_id for m in messages],
        [m.partition for m in messages],
        [m.timestamp_ms for m in messages],
        [m.sequence_number for m in messages],
        [format_publisher(m.publisher_id) for m in messages],
        [m.msg_chain_id for m in messages],
        texts,
        [m.content if text is None else None for m, text in zip(messages, texts, strict=True)],
        [int(m.encryption_type) for m in messages],
        [m.group_key_id for m in messages],
        [int(m.signature_type) for m in messages],
        [m.signature for m in messages],
        [None if row.instance is None else str(row.instance) for row in rows],
    ]
    arrays = [pa.array(values, kind.type) for values, kind in zip(columns, schema, strict=True)]
    return pa.record_batch(arrays, schema=schema)


RAW = "raw"
WRITERS: dict[str, Callable[[Batches, BinaryIO], None]] = {
    "ndjson": write_ndjson,
    "csv": write_csv,
    "arrow": write_arrow,
    RAW: write_raw,
}
