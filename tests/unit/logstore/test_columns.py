"""An answer as columns is the same as message by message, and what has another form is not guessed at."""

from __future__ import annotations

from typing import Any

import pytest

from logstore.answer_check import Row
from logstore.answer_export import make_batch
from logstore.columns import OtherForm, read_page, split_frames
from tests.builders import GENESIS_MS, a_key, a_record
from validator.protocol.codec.frames import write_frame
from validator.protocol.errors import MalformedInput
from validator.protocol.model import EncryptionType, MessageRef, Record, SignatureType

MOST = 1 << 20
EVM = SignatureType.ECDSA_SECP256K1_EVM


def framed(records: list[Record]) -> bytes:
    return b"".join(write_frame(record.canonical) for record in records)


def read(records: list[Record]) -> Any:
    data = framed(records)
    starts, ends, rest = split_frames(data, MOST)
    assert rest == len(data)
    return read_page(data, starts, ends, records[0].message.stream_id, records[0].message.partition)


RECORDS = [
    a_record(
        a_key(n % 3 + 1),
        timestamp_ms=GENESIS_MS + n // 4,
        sequence_number=(0, 23, 300, 70_000)[n % 4],
        msg_chain_id="x" * (n % 30),
        prev=None if n % 3 else MessageRef(GENESIS_MS - 1 - n, n * 100),
        content=(b"{}", '{"ä":"東"}'.encode(), b'"' + b"x" * (n * 40) + b'"')[n % 3],
        signature_type=(SignatureType.ECDSA_SECP256K1_LEGACY, SignatureType.ECDSA_SECP256K1_EVM)[n % 2],
    )
    for n in range(60)
]


def test_columns_are_those_of_the_messages() -> None:
    page = read(RECORDS)
    expected = make_batch([Row(record, None) for record in RECORDS])
    for name, column in zip(expected.schema.names, page.columns, strict=False):
        column.validate(full=True)
        assert column.equals(expected.column(name)), name
    assert (page.count, page.first, page.is_ordered) == (60, (GENESIS_MS, 0), True)
    assert page.last == RECORDS[-1].canonical
    assert not read(RECORDS[::-1]).is_ordered


def test_contents_that_are_no_text_have_a_column_of_their_own() -> None:
    records = [a_record(content=content, signature_type=EVM) for content in (b"{}", b"\xff\x00", b"\x80", b"")]
    page = read(records)
    assert page.columns[6].to_pylist() == ["{}", None, None, ""]
    assert page.columns[7].to_pylist() == [None, b"\xff\x00", b"\x80", None]


def test_a_letter_cut_in_two_makes_no_text_of_its_halves() -> None:
    page = read([a_record(content=content, signature_type=EVM) for content in (b"\xc3", b"\xa4")])
    assert page.columns[6].to_pylist() == [None, None]


@pytest.mark.parametrize(
    "other",
    [
        a_record(partition=1),
        a_record(stream_id="0x" + "ee" * 20 + "/other"),
        a_record(content=b"\x01" * 40, encryption_type=EncryptionType.AES, group_key_id="key"),
    ],
)
def test_what_is_no_ordinary_message_of_the_partition_is_left_to_others(other: Record) -> None:
    with pytest.raises(OtherForm):
        read([RECORDS[0], other])


@pytest.mark.parametrize("at", range(0, len(RECORDS[3].canonical), 7))
def test_spoilt_bytes_never_reach_beyond_their_message(at: int) -> None:
    spoilt = bytearray(RECORDS[3].canonical)
    spoilt[at] ^= 0xFF
    data = len(spoilt).to_bytes(4, "big") + bytes(spoilt)
    starts, ends, _ = split_frames(data, MOST)
    try:
        m = RECORDS[3].message
        page = read_page(data, starts, ends, m.stream_id, m.partition)
    except OtherForm:
        return
    assert page.count == 1
    for column in page.columns:
        column.validate()


def test_frames_that_are_cut_wait_and_frames_too_long_are_refused() -> None:
    data = framed(RECORDS[:2])
    assert split_frames(data[:-1], MOST)[2] == len(RECORDS[0].canonical) + 4
    assert split_frames(b"\0\0", MOST) == ([], [], 0)
    with pytest.raises(MalformedInput, match="exceed the limit"):
        split_frames((MOST + 1).to_bytes(4, "big"), MOST)
