"""Columns of a bundle file: a record as a row, and rows as records again.

    stream_id             text                     new_group_key_id      text, null if there is none
    partition             uint8                    new_group_key         bytes, null if there is none
    timestamp             timestamp, ms, UTC       content               JSON, null if it is none
    sequence_number       int32                    content_bytes         what is no JSON, else null
    publisher_id          text, 0x… or key:…       signature_type        uint8
    msg_chain_id          text                     signature             bytes, low s
    prev_timestamp        timestamp, null if none  late                  bool: of the late set, not of its window
    prev_sequence_number  int32, null if none
    message_type          uint8
    content_type          uint8
    encryption_type       uint8
    group_key_id          text, null if none

They are typed as people compare them, and each value has one form, so that a row is its record again, byte for byte:
an address is ``0x`` and 40 lower-case digits, any other publisher's key ``key:`` and lower-case hex. ``content`` holds
the very bytes that were signed, where they are JSON by the rule of ``json_text``, whatever the message says of its
content type; it has Parquet's JSON type. Readers parse that column while they read it (DuckDB refuses the whole query
for one value that is no JSON, hyparquet and fastparquet make objects), so a text that is no JSON, as a ciphertext,
stands in ``content_bytes``. Polars takes the type for bytes: ``pl.col("content").cast(pl.String)``.

A row that is not late belongs to the window in which its timestamp lies, so ``late`` is all a reader needs to rebuild
the root of every entry. Rows are in canonical order over the whole bundle. Only stream id, partition and timestamp
have statistics: they are what queries select by. There is no index and no declaration of an order.

Encodings and pages are those that DuckDB, Polars, pyarrow, fastparquet and hyparquet all read. fastparquet has no
DELTA_LENGTH_BYTE_ARRAY and no BYTE_STREAM_SPLIT (the latter would bring little), and reads deltas with nulls in pages
of version 1 only.

Decided against (docs/decisions): contents in columns of their values, and shorter signatures and references (0029).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import accumulate, count
from operator import attrgetter
from typing import Any

import pyarrow as pa

from validator.protocol.codec.bundle_schema import COLUMNS, NULLABLE, TYPES, Kind
from validator.protocol.codec.json_text import are_json, is_json
from validator.protocol.codec.message import record_of_read
from validator.protocol.codec.message_rules import check_message
from validator.protocol.codec.publisher_text import format_publisher, read_publisher
from validator.protocol.errors import MalformedInput, require
from validator.protocol.model import (
    ContentType,
    EncryptionType,
    Message,
    MessageRef,
    MessageType,
    NewGroupKey,
    Record,
    SignatureType,
)

_TIME = pa.timestamp("ms", tz="UTC")
_JSON = pa.json_(pa.string())
_ARROW = {
    Kind.BOOL: pa.bool_(),
    Kind.UINT8: pa.uint8(),
    Kind.INT32: pa.int32(),
    Kind.TIME: _TIME,
    Kind.TEXT: pa.string(),
    Kind.JSON: _JSON,
    Kind.BINARY: pa.binary(),
}
_TYPES: dict[str, Any] = {name: _ARROW[kind] for name, kind in TYPES.items()}
SCHEMA = pa.schema([pa.field(name, kind, nullable=name in NULLABLE) for name, kind in _TYPES.items()])
FOLDED = ("stream_id", "publisher_id", "msg_chain_id")
"""Texts that stay indices into a dictionary while a file is verified: few differ, and each is looked at once."""
FOLDED_SCHEMA = pa.schema(
    [f.with_type(pa.dictionary(pa.int32(), f.type)) if f.name in FOLDED else f for f in SCHEMA],
)
ENCODINGS = {
    "timestamp": "DELTA_BINARY_PACKED",
    "prev_timestamp": "DELTA_BINARY_PACKED",
    "content": "PLAIN",
    "content_bytes": "PLAIN",
    "signature": "PLAIN",
}
"""Columns whose values do not repeat; all others but ``late`` are dictionary-encoded."""
DICTIONARY = tuple(name for name in COLUMNS if name not in ENCODINGS and name != "late")
PAGE_VERSION = "1.0"

_NUMBERS = {pa.uint8(): "B", pa.int32(): "i", _TIME: "q"}
"""Codes of ``array`` for columns of numbers."""

_FIELDS = Message.__struct_fields__
_read_fields = attrgetter(*_FIELDS)

Row = tuple[bool, Record]
"""(late, record)."""


def make_table(rows: Sequence[Row]) -> Any:
    """An Arrow table of the rows, in their order."""
    read = zip(*[_read_fields(record.message) for _, record in rows], strict=True)  # a message's at once: it lies apart
    columns: dict[str, Sequence[Any]] = dict(zip(_FIELDS, list(read) or [()] * len(_FIELDS), strict=True))
    publishers = {key: format_publisher(key) for key in set(columns["publisher_id"])}
    references, keys, contents = columns["prev"], columns["new_group_key"], columns["content"]
    texts = contents if are_json(contents) else [content if is_json(content) else None for content in contents]
    columns |= {
        "timestamp": columns["timestamp_ms"],
        "publisher_id": list(map(publishers.__getitem__, columns["publisher_id"])),
        "prev_timestamp": [None if prev is None else prev.timestamp_ms for prev in references],
        "prev_sequence_number": [None if prev is None else prev.sequence_number for prev in references],
        "new_group_key_id": [None if key is None else key.id for key in keys],
        "new_group_key": [None if key is None else key.data for key in keys],
        "content": texts,
        "content_bytes": [None] * len(rows) if texts is contents else _where_none(texts, contents),
        "late": [late for late, _ in rows],
    }
    arrays = [(_repeated_array if name in DICTIONARY else _array)(columns[name], kind) for name, kind in _TYPES.items()]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def _where_none(texts: Sequence[bytes | None], contents: Sequence[bytes]) -> list[bytes | None]:
    return [content if text is None else None for content, text in zip(contents, texts, strict=True)]


def _repeated_array(values: Sequence[Any], kind: Any) -> Any:
    """The same as ``_array``; of equal values, as most of such a column are, one is put there and repeated."""
    size = len(values)
    if size and values.count(values[0]) == size:
        distinct, places = values[:1], array("i", bytes(4 * size))
    else:
        found = dict(zip(dict.fromkeys(values), count(), strict=False))
        distinct, places = list(found), array("i", map(found.__getitem__, values))
    return _array(distinct, kind).take(pa.Array.from_buffers(pa.int32(), size, [None, pa.py_buffer(places)]))


def _array(values: Sequence[Any], kind: Any) -> Any:
    """An array of these values. ``pyarrow.array`` would import pandas, where it is installed: 25 MiB in the process."""
    size, nulls = len(values), values.count(None)
    if nulls == size and kind != _JSON:
        return pa.nulls(size, kind)
    known = _bits([value is not None for value in values]) if nulls else None
    if kind == pa.bool_():
        return pa.Array.from_buffers(kind, size, [known, _bits(values)])
    code = _NUMBERS.get(kind)
    if code is not None:
        numbers = array(code, [value or 0 for value in values] if nulls else values)
        return pa.Array.from_buffers(kind, size, [known, pa.py_buffer(numbers)])
    present = [value or b"" for value in values] if nulls else values
    texts = [text.encode() if isinstance(text, str) else text for text in present] if kind == pa.string() else present
    ends = array("i", accumulate(map(len, texts), initial=0))
    stored = kind.storage_type if kind == _JSON else kind
    found = pa.Array.from_buffers(stored, size, [known, pa.py_buffer(ends), pa.py_buffer(b"".join(texts))])
    return pa.ExtensionArray.from_storage(kind, found) if kind == _JSON else found


def _bits(flags: Sequence[bool]) -> Any:
    """A bit for each, as a buffer."""
    return (
        pa.Array.from_buffers(pa.uint8(), len(flags), [None, pa.py_buffer(bytes(flags))]).cast(pa.bool_()).buffers()[1]
    )


def read_content(text: bytes | None, other: bytes | None) -> bytes:
    """The content of a row, from its two columns. Raises MalformedInput unless it stands in the one it belongs to."""
    if text is None:
        if other is None:
            raise MalformedInput("column content", "null, and content_bytes too")
        require(not is_json(other), "column content_bytes", "holds JSON, whose column is content")
        return other
    require(other is None, "column content_bytes", "not null beside a content")
    require(is_json(text), "column content", "holds what is no JSON, whose column is content_bytes")
    return text


def plain_column(column: Any) -> Any:
    """A column without Parquet's type of its texts, with times as numbers, JSON as bytes, and no dictionary."""
    if isinstance(column, pa.DictionaryArray):
        return column.dictionary_decode()
    if isinstance(column, pa.ExtensionArray):
        return column.storage.cast(pa.binary())
    return column.cast(pa.int64()) if column.type == _TIME else column


def read_batch(batch: Any) -> Iterator[Row]:
    """The rows of one Arrow batch of ``SCHEMA``, folded or not, each field checked as any message from outside.

    Raises:
        MalformedInput: names the column or the message's field.
    """
    columns = []
    for name in COLUMNS:
        column = plain_column(batch.column(name))
        if name not in NULLABLE and column.null_count:
            raise MalformedInput(f"column {name}", "holds null")
        try:
            columns.append(column.to_pylist())
        except UnicodeDecodeError as error:
            raise MalformedInput(f"column {name}", "not UTF-8") from error
    for values in zip(*columns, strict=True):
        message = _message(values)
        check_message(message)
        yield values[-1], record_of_read(message)


def _message(values: tuple[Any, ...]) -> Message:
    prev_timestamp, prev_sequence = values[6], values[7]
    key_id, key = values[12], values[13]
    if (prev_timestamp is None) is not (prev_sequence is None):
        raise MalformedInput("column prev_timestamp", "null without prev_sequence_number, or the other way round")
    if (key_id is None) is not (key is None):
        raise MalformedInput("column new_group_key", "null without new_group_key_id, or the other way round")
    try:
        kinds = MessageType(values[8]), ContentType(values[9]), EncryptionType(values[10]), SignatureType(values[16])
    except ValueError as error:
        raise MalformedInput("column type", str(error)) from error
    return Message(
        stream_id=values[0],
        partition=values[1],
        timestamp_ms=values[2],
        sequence_number=values[3],
        publisher_id=read_publisher(values[4]),
        msg_chain_id=values[5],
        prev=None if prev_timestamp is None else MessageRef(prev_timestamp, prev_sequence),
        message_type=kinds[0],
        content_type=kinds[1],
        encryption_type=kinds[2],
        group_key_id=values[11],
        new_group_key=None if key is None else NewGroupKey(key_id, key),
        content=read_content(values[14], values[15]),
        signature_type=kinds[3],
        signature=values[17],
    )
