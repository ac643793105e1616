"""Splitting of answers: lines with a metadata line, and frames."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from validator.net.brokers.pages import MAX_RECORD_BYTES, read_frames, read_lines
from validator.net.brokers.ranges import Position
from validator.protocol.errors import MalformedInput

END = b'{"hasNext":false,"totalMessages":1,"type":"metadata"}'


def lines_of(*chunks: bytes) -> tuple[list[bytes], Position | None]:
    got: list[bytes] = []
    following = read_lines(chunks, lambda records, _form: got.extend(records))
    return got, following


def test_every_line_but_the_last_is_a_record() -> None:
    assert lines_of(b"[1]\n[2]\n" + END) == ([b"[1]", b"[2]"], None)


def test_an_empty_page_is_a_blank_line_and_the_metadata() -> None:
    assert lines_of(b"\n" + END) == ([], None)


def test_a_line_feed_after_the_metadata_line_is_tolerated() -> None:
    assert lines_of(b"[1]\n" + END + b"\n") == ([b"[1]"], None)


def test_lines_end_at_line_feeds_only() -> None:
    line = "[\u2028\u2029\u0085\r\v\f]".encode()
    assert lines_of(line + b"\n" + END) == ([line], None)


def test_the_metadata_line_says_where_the_next_page_begins() -> None:
    end = b'{"hasNext":true,"nextTimestamp":17,"nextSequenceNumber":3,"type":"metadata","requestId":"x"}'
    assert lines_of(b"[1]\n" + end) == ([b"[1]"], Position(17, 3))


def test_a_page_that_ends_in_a_message_keeps_it_and_is_refused() -> None:
    got: list[bytes] = []
    with pytest.raises(MalformedInput, match="cut"):
        read_lines([b"[1]\n[2]"], lambda records, _form: got.extend(records))
    assert got == [b"[1]", b"[2]"]


def test_of_a_line_longer_than_any_message_only_the_beginning_is_kept() -> None:
    half = MAX_RECORD_BYTES // 2
    got, _ = lines_of(b"[", b"1" * half, b"1" * half, b"1" * half, b"]\n[2]\n", END)
    assert [len(line) for line in got] == [MAX_RECORD_BYTES, 3]


def test_what_the_sink_raises_ends_the_reading() -> None:
    def sink(_records: Sequence[bytes], _form: str) -> None:
        raise KeyError("enough")

    with pytest.raises(KeyError):
        read_lines([b"[1]\n[2]\n[3]"], sink)
    with pytest.raises(KeyError):
        read_frames([b"\x00\x00\x00\x01x"], sink)


def test_no_frames_are_an_empty_page() -> None:
    got: list[bytes] = []
    read_frames([], lambda records, _form: got.extend(records))
    assert got == []
