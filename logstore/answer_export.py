"""Messages of an answer for other programs: columns and forms as ``export`` has them of bundles, as far as they fit.

``set`` stands for ``late`` and ``bundle``: the window or late set that the message is certified in, null for the tail.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from logstore.csv_text import write_cell
from logstore.stored_message import decode_text
from logstore.times import format_time
from validator.protocol.codec.publisher_text import format_publisher

if TYPE_CHECKING:
    import pyarrow as pa

    from logstore.answer_check import AnswerCheck, Row
    from logstore.answers import QueryAnswer

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


def write_arrow(batches: Iterable[pa.RecordBatch], out: BinaryIO) -> None:
    """An Arrow stream (IPC)."""
    import pyarrow as pa

    with pa.ipc.new_stream(out, make_schema()) as writer:
        for batch in batches:
            writer.write_batch(batch)


def write_parquet(batches: Iterable[pa.RecordBatch], out: BinaryIO) -> int:
    """A Parquet file; how many messages."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    count = 0
    with pq.ParquetWriter(out, make_schema(), compression="zstd") as writer:
        waiting: list[pa.RecordBatch] = []
        for batch in batches:
            waiting.append(batch)
            count += batch.num_rows
            if sum(each.num_rows for each in waiting) >= ROW_GROUP:
                writer.write_table(pa.Table.from_batches(waiting))
                waiting = []
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting))
    return count


def make_schema() -> pa.Schema:
    import pyarrow as pa

    from logstore.export import MESSAGE_SCHEMA

    return MESSAGE_SCHEMA.append(pa.field("set", pa.string()))


def make_batch(rows: list[Row]) -> pa.RecordBatch:
    import pyarrow as pa

    schema = make_schema()
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


def read_columns(check: AnswerCheck, chunks: Iterable[bytes]) -> Iterator[pa.RecordBatch]:
    """An answer that nobody verifies, as columns; what has no ordinary message's form is read one by one.

    Raises:
        Refused: something is not as it must be.
    """
    buffer = bytearray()
    for chunk in chunks:
        buffer += chunk
        if len(buffer) >= PIECE_BYTES:
            data = bytes(buffer)
            rest = yield from _read_piece(check, data)
            buffer = bytearray(data[rest:])
    yield from _read_piece(check, bytes(buffer))


def _read_piece(check: AnswerCheck, data: bytes) -> Generator[pa.RecordBatch, None, int]:
    """Where the last, incomplete frame begins."""
    import pyarrow as pa

    from logstore.answers import MAX_OBJECT_BYTES
    from logstore.columns import OtherForm, is_message, read_page, split_frames

    r, schema = check.request, make_schema()
    starts, ends, rest = split_frames(data, MAX_OBJECT_BYTES)
    for first in range(0, len(starts), PAGE):
        some, until = starts[first : first + PAGE], ends[first : first + PAGE]
        ordinary = len(some)
        while ordinary and not is_message(data, some[ordinary - 1]):
            ordinary -= 1
        try:
            if not ordinary:
                raise OtherForm
            page = read_page(data, some[:ordinary], until[:ordinary], r.stream_id, r.partition)
        except OtherForm:
            ordinary = 0
        else:
            check.pass_page(page.count, page.first, page.is_ordered, page.last)
            yield pa.record_batch([*page.columns, pa.nulls(page.count, pa.string())], schema=schema)
        rows = check.read([data[a:b] for a, b in zip(some[ordinary:], until[ordinary:], strict=True)])
        if rows:
            yield make_batch(rows)
    return rest


PAGE = 8_192
PIECE_BYTES = 4 << 20
ROW_GROUP = 65_536
RAW = "raw"
ARROW, PARQUET = "arrow", "parquet"
WRITERS: dict[str, Callable[[Batches, BinaryIO], None]] = {"ndjson": write_ndjson, "csv": write_csv, RAW: write_raw}
FORMS = (*WRITERS, ARROW, PARQUET)


def write_answer(form: str, answer: QueryAnswer, out: BinaryIO) -> None:
    """All of it in one of ``FORMS``. Raises as ``QueryAnswer.batches``."""
    if form == PARQUET:
        write_parquet(answer.arrow_batches(), out)
    elif form == ARROW:
        write_arrow(answer.arrow_batches(), out)
    else:
        WRITERS[form](answer.batches(), out)
