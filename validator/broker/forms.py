"""The forms of an answer at ``/v1``. Each turns pages into bytes, and ends with the trailer.

    frames    application/vnd.logstore.frames: u32 length, then one canonical object: ``message/1`` each, where asked
              for ``set-marks/1`` before messages, ``set-proof/2`` or ``set-commitment/1`` behind a set's last and
              ``set-climb/1`` before proofs of one bundle, last ``answer/1``. Canonical bytes, since root and proofs are
              over them and our own clients need no other; who wants protobuf asks at the old paths.
    ndjson    application/x-ndjson: a line each, ``{"message": …}``; ``{"marks": …}``, ``{"climb": …}``,
              ``{"proof": …}`` and ``{"commitment": …}`` are such objects in base64url; last ``{"answer": …}``
    arrow     application/vnd.apache.arrow.stream: record batches with the columns of ``ndjson``; marks and the like as
              metadata of batches without rows, and last one whose metadata has ``answer``: canonical bytes
    events    text/event-stream: ``message`` events whose id is a cursor, last ``answer``

An answer without its trailer is cut, whatever the connection says: it goes on behind the last message that arrived.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any, Protocol

import msgspec

from validator.broker.query import Query, make_cursor
from validator.ports.message_store import Columns, SortKey
from validator.protocol.codec.answer import Answer, encode_answer, write_text
from validator.protocol.codec.frames import write_frame
from validator.protocol.codec.message import decode_message
from validator.protocol.codec.quick_reader import read_quickly
from validator.protocol.model import ContentType, EncryptionType, Flag

FRAMES = "application/vnd.logstore.frames"
NDJSON = "application/x-ndjson"
ARROW = "application/vnd.apache.arrow.stream"
EVENTS = "text/event-stream"
NAMES = {"frames": FRAMES, "ndjson": NDJSON, "arrow": ARROW, "events": EVENTS}
_encoder = msgspec.json.Encoder()
_encode = _encoder.encode


_CONTENT_TYPES = {kind: kind.name.lower() for kind in ContentType}
_ENCRYPTION_TYPES = {kind: kind.name.lower() for kind in EncryptionType}


class Readable(msgspec.Struct, gc=False):
    """A message as JSON: bytes in hex, but content, which is text where it is UTF-8 and else base64."""

    stream_id: str
    partition: int
    timestamp: int
    sequence_number: int
    publisher_id: str
    msg_chain_id: str
    previous: list[int] | None
    content_type: str
    encryption_type: str
    group_key_id: str | None
    new_group_key: list[str] | None
    content: str | None
    content_base64: str | None
    signature_type: int
    signature: str
    leaf: str


MESSAGE_FIELDS = Readable.__struct_fields__


class _Line(msgspec.Struct, gc=False):
    message: Readable


class Form(Protocol):
    """One answer's way from rows to bytes."""

    def rows(self, page: Columns) -> bytes: ...

    def said(self, name: str, data: bytes) -> bytes:
        """A canonical object of ``codec.completeness``: marks before the rows that they are about, proofs behind."""

    def end(self, answer: Answer) -> bytes: ...


class Frames:
    def rows(self, page: Columns) -> bytes:
        read = io.BytesIO(page.canonical).read  # views would be objects that the garbage collector counts
        lengths = {size: size.to_bytes(4, "big") for size in set(page.sizes)}
        pieces: list[bytes] = []
        for size in page.sizes:
            pieces.append(lengths[size])
            pieces.append(read(size))
        return b"".join(pieces)

    def said(self, name: str, data: bytes) -> bytes:
        del name  # the object names itself
        return write_frame(data)

    def end(self, answer: Answer) -> bytes:
        return write_frame(encode_answer(answer))


class Lines:
    def rows(self, page: Columns) -> bytes:
        return _encoder.encode_lines([_Line(message) for _, message in _readable(page)])

    def said(self, name: str, data: bytes) -> bytes:
        return _encode({name: write_text(data)}) + b"\n"

    def end(self, answer: Answer) -> bytes:
        return _encode({"answer": answer_data(answer)}) + b"\n"


class Events:
    def __init__(self, query: Query) -> None:
        self._query = query

    def rows(self, page: Columns) -> bytes:
        return b"".join(
            [
                b"event: message\nid: %b\ndata: %b\n\n"
                % (write_text(make_cursor(self._query, key)).encode(), _encode(message))
                for key, message in _readable(page)
            ]
        )

    def said(self, name: str, data: bytes) -> bytes:
        return b"event: %b\ndata: %b\n\n" % (name.encode(), write_text(data).encode())

    def end(self, answer: Answer) -> bytes:
        return b"event: answer\ndata: " + _encode(answer_data(answer)) + b"\n\n"

    @staticmethod
    def pulse() -> bytes:
        """Says that the broker lives, to proxies and clients that wait."""
        return b": waiting\n\n"


class Arrow:
    """pyarrow is imported when the first answer of this form is asked for."""

    def __init__(self) -> None:
        import pyarrow as pa

        self._pa = pa
        self._sink = io.BytesIO()
        text = pa.string()
        kinds = {"partition": pa.int32(), "timestamp": pa.timestamp("ms", tz="UTC"), "sequence_number": pa.int32()}
        self._schema = pa.schema([(name, kinds.get(name, text)) for name in MESSAGE_FIELDS])
        self._writer = pa.ipc.new_stream(self._sink, self._schema)

    def rows(self, page: Columns) -> bytes:
        messages = [message for _, message in _readable(page)]
        columns = []
        for field in self._schema:
            values: list[Any] = [getattr(message, field.name) for message in messages]
            if field.name in ("previous", "new_group_key", "signature_type"):  # nested, or a number without a column
                values = [None if value is None else _encode(value).decode() for value in values]
            columns.append(self._pa.array(values, field.type))
        batch = self._pa.RecordBatch.from_arrays(columns, schema=self._schema)
        self._writer.write_batch(batch)
        return self._drain()

    def said(self, name: str, data: bytes) -> bytes:
        empty = self._pa.RecordBatch.from_pylist([], schema=self._schema)
        self._writer.write_batch(empty, custom_metadata={name: data})
        return self._drain()

    def end(self, answer: Answer) -> bytes:
        empty = self._pa.RecordBatch.from_pylist([], schema=self._schema)
        self._writer.write_batch(empty, custom_metadata={"answer": encode_answer(answer)})
        self._writer.close()
        return self._drain()

    def _drain(self) -> bytes:
        """What was written since the last time; the sink begins anew, the stream goes on."""
        data = self._sink.getvalue()
        self._sink.seek(0)
        self._sink.truncate()
        return data


def _readable(page: Columns) -> Iterator[tuple[SortKey, Readable]]:
    """The store's messages were checked before they were stored, so they are read and not checked again."""
    for canonical, leaf in zip(page.messages(), page.leaf_list(), strict=True):
        m = read_quickly(canonical) or decode_message(canonical)
        key = m.new_group_key
        content, other = _text_or_base64(m.content)
        yield (
            SortKey(m.timestamp_ms, m.sequence_number, m.publisher_id, m.msg_chain_id, leaf),
            Readable(
                m.stream_id,
                m.partition,
                m.timestamp_ms,
                m.sequence_number,
                "0x" + m.publisher_id.hex(),
                m.msg_chain_id,
                None if m.prev is None else [m.prev.timestamp_ms, m.prev.sequence_number],
                _CONTENT_TYPES[m.content_type],
                _ENCRYPTION_TYPES[m.encryption_type],
                m.group_key_id,
                None if key is None else [key.id, key.data.hex()],
                content,
                other,
                int(m.signature_type),
                "0x" + m.signature.hex(),
                leaf.hex(),
            ),
        )


def _text_or_base64(content: bytes) -> tuple[str | None, str | None]:
    try:
        return content.decode(), None
    except UnicodeDecodeError:
        return None, base64.b64encode(content).decode()


def answer_data(answer: Answer) -> dict[str, Any]:
    """A trailer as JSON, all that its signature is over, and its canonical bytes for who checks that."""
    a = answer
    r = a.request
    return {
        "stream_id": r.stream_id,
        "partition": r.partition,
        "from": r.from_ms,
        "to": r.until_ms,
        "request": r.digest().hex(),
        "after": write_text(a.after) if a.after else None,
        "next": write_text(a.next) if a.next else None,
        "count": a.count,
        "signed_bytes": a.signed_bytes,
        "root": a.root.hex(),
        "as_of": a.as_of,
        "complete_to": a.complete_to,
        "flags": [flag.name.lower() for flag in Flag if flag in a.flags and flag.name],
        "brokers": {"0x" + c.broker.hex(): c.claim.hex() if c.claim else "unreachable" for c in a.claims},
        "time": a.time_ms,
        "broker": "0x" + a.broker.hex(),
        "signature": "0x" + a.signature.hex(),
        "canonical": write_text(encode_answer(a)),
    }
