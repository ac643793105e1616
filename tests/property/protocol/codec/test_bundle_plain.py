"""Reading rows many at a time gives what reading them one by one gives, or the same refusal."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pyarrow as pa
from hypothesis import example, given
from hypothesis import strategies as st

from tests.builders import GENESIS_MS, a_key, a_message, a_record, a_stream_id
from validator.protocol.codec.bundle_columns import FOLDED_SCHEMA, SCHEMA, make_table, plain_column, read_batch
from validator.protocol.codec.bundle_plain import SMALL_ROWS, Rows, read_rows, rows_of
from validator.protocol.codec.message import make_record
from validator.protocol.codec.payload import HALF_K1
from validator.protocol.errors import MalformedInput
from validator.protocol.model import ContentType, EncryptionType, MessageRef, Record, StreamPart

EDGES_MS = (0, 1, 9_999, (1 << 32) - 1, 1 << 32, 999_999_999_999, GENESIS_MS, (1 << 53) - 1)
EDGES = (0, 9, 10, 255, 256, 1023, 1024, 65_536, 2**31 - 1)
TIMES, NUMBERS = st.sampled_from(EDGES_MS), st.sampled_from(EDGES)
CONTENTS = st.sampled_from(
    [b"{}", b"", b"text", b'{"a":"\xc3\xa4"}', b"[" * 65 + b"]" * 65, b"1e999", b" 1 ", b'"%b"' % (b"x" * 5_000)]
)


@st.composite
def records(draw: st.DrawFn) -> Record:
    timestamp, number = draw(TIMES), draw(NUMBERS)
    prev = draw(st.none() | st.builds(MessageRef, TIMES, NUMBERS))
    fields: dict[str, Any] = {
        "stream_id": a_stream_id(draw(st.integers(1, 2)), draw(st.sampled_from(["a", "b/ü"]))),
        "partition": draw(st.sampled_from([0, 7, 99])),
        "timestamp_ms": timestamp,
        "sequence_number": number,
        "prev": prev if prev is not None and prev < MessageRef(timestamp, number) else None,
        "msg_chain_id": draw(st.sampled_from(["", "chain", "ü" * 128])),
        "content": draw(CONTENTS),
    }
    if draw(st.integers(0, 9)) == 0:
        fields |= {"encryption_type": EncryptionType.AES, "group_key_id": "key"}
    if draw(st.integers(0, 9)) == 0:
        fields |= {"content_type": ContentType.BINARY}
    return make_record(a_message(a_key(draw(st.integers(1, 2))), **fields))


def joined(pieces: list[Rows]) -> list[tuple[Any, ...]]:
    return [
        row
        for p in pieces
        for row in zip(
            parts_of(p),
            p.timestamps_ms,
            p.late,
            p.orders,
            p.leaves,
            [end - start for start, end in pairwise(p.signed_ends)],
            [end - start for start, end in pairwise(p.canonical_ends)],
            strict=True,
        )
    ]


def parts_of(rows: Rows) -> list[StreamPart]:
    starts = [0, *(end for _, end in rows.parts)]
    return [part for start, (part, end) in zip(starts, rows.parts, strict=False) for _ in range(start, end)]


def outcome(read: Any) -> Any:
    try:
        return joined(list(read()))
    except MalformedInput as error:
        return str(error)


def assert_same(table: Any) -> None:
    (batch,) = table.combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], schema=SCHEMA)]
    one_by_one = outcome(lambda: [rows_of(read_batch(batch))])
    assert outcome(lambda: read_rows(batch)) == one_by_one
    folded = batch.cast(FOLDED_SCHEMA)
    assert outcome(lambda: read_rows(folded)) == one_by_one
    halves = [table.slice(at, size).combine_chunks() for at, size in halve(len(table))]
    joined_again = pa.concat_batches([half.to_batches()[0].cast(FOLDED_SCHEMA) for half in halves] or [folded])
    assert outcome(lambda: read_rows(joined_again)) == one_by_one


def halve(size: int) -> list[tuple[int, int]]:
    """Where two parts begin, and their sizes; none where one would be empty."""
    return [(0, size // 2), (size // 2, size - size // 2)] if size > 1 else []


@given(rows=st.lists(st.tuples(st.booleans(), records()), max_size=8))
def test_any_rows_are_read_as_their_records(rows: list[tuple[bool, Record]]) -> None:
    assert_same(make_table(rows))


def test_rows_at_the_edges_of_encodings_are_read_as_their_records_one_by_one_and_together() -> None:
    refs = [MessageRef(time, number) for time in EDGES_MS for number in EDGES]
    rows = [
        (False, a_record(timestamp_ms=ref.timestamp_ms, sequence_number=ref.sequence_number, prev=prev))
        for prev, ref in [*pairwise(refs), *((None, ref) for ref in refs)]
    ]
    for row in rows:
        assert_same(make_table([row]))
    for start in range(0, len(rows), SMALL_ROWS // 4):
        assert_same(make_table(rows[start : start + SMALL_ROWS // 4]))


CHANGES = st.sampled_from(
    [
        ("partition", 100),
        ("sequence_number", -1),
        ("timestamp", 1 << 53),
        ("timestamp", -1),
        ("publisher_id", "0x" + "AB" * 20),
        ("publisher_id", "key:" + "02" * 33),
        ("stream_id", ""),
        ("stream_id", "s" * 257),
        ("msg_chain_id", "c" * 257),
        ("message_type", 1),
        ("message_type", 9),
        ("content_type", 1),
        ("encryption_type", 1),
        ("signature_type", 2),
        ("signature_type", 32),
        ("prev_timestamp", None),
        ("prev_sequence_number", None),
        ("prev_sequence_number", -1),
        ("prev_sequence_number", 5),
        ("group_key_id", "key"),
        ("new_group_key_id", "key"),
        ("new_group_key", b"key"),
        ("content", None),
        ("content", b"text"),
        ("content", b" " * (1 << 20) + b"1"),
        ("content_bytes", b"text"),
        ("signature", b"short"),
        ("signature", bytes(32) + b"\xff" * 33),
        ("signature", bytes(32) + (int.from_bytes(HALF_K1) + 1).to_bytes(32) + b"\x1b"),
    ]
)


@given(change=CHANGES, row=st.integers(0, 2), prev=st.sampled_from([None, MessageRef(GENESIS_MS, 4)]))
@example(("prev_sequence_number", 5), 0, MessageRef(GENESIS_MS, 4))
@example(("sequence_number", -1), 0, None)
@example(("timestamp", 1 << 53), 0, None)
def test_a_value_that_no_message_has_is_refused_alike(
    change: tuple[str, Any], row: int, prev: MessageRef | None
) -> None:
    table = make_table([(False, a_record(timestamp_ms=GENESIS_MS, sequence_number=5 + n, prev=prev)) for n in range(3)])
    name, value = change
    field = table.schema.field(name)
    old = plain_column(table.column(name).combine_chunks())
    column = pa.array([value if n == row else v for n, v in enumerate(old.to_pylist())], old.type)
    if name == "content":
        column = pa.ExtensionArray.from_storage(field.type, column.cast(pa.string()))
    assert_same(table.set_column(table.schema.get_field_index(name), field, column.cast(field.type)))


def test_plain_rows_come_in_one_piece_and_an_odd_one_leaves_the_others_plain() -> None:
    plain = [(False, a_record(timestamp_ms=GENESIS_MS + n)) for n in range(4 * SMALL_ROWS)]
    (batch,) = make_table(plain).to_batches()
    assert [len(rows.leaves) for rows in read_rows(batch)] == [4 * SMALL_ROWS]
    odd = [*plain[:-1], (True, a_record(timestamp_ms=GENESIS_MS + 10_000, content=b"text"))]
    (batch,) = make_table(odd).to_batches()
    assert [len(rows.leaves) for rows in read_rows(batch)] == [2 * SMALL_ROWS, SMALL_ROWS, SMALL_ROWS]
