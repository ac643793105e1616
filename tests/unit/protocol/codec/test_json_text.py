"""What counts as JSON in a bundle is what every reader can parse, and is told in time that grows with its size only."""

from __future__ import annotations

import pytest

from validator.protocol.codec.json_text import MAX_DEPTH, is_json


@pytest.mark.parametrize(
    "content",
    [
        b"{}",
        b'{"a":1,"a":2}',
        b" [1 ,\t2]\r\n",
        b"-0.0e-0",
        b"1E+5",
        b"1e-999",
        b"true",
        b'"\\ud83d\\ude00\\u0000\\/"',
        '"ä\u2028\U0010ffff"'.encode(),
        b"9" * 308,
        b"1e308",
        b"[" * MAX_DEPTH + b"]" * MAX_DEPTH,
        b"[" + b",".join([b"[]", b'{"[[[[":{}}'] * 500) + b"]",
        b'["1e999", "' + b"9" * 400 + b'", "\\"", 1]',
    ],
)
def test_json_that_everybody_reads_is_json(content: bytes) -> None:
    assert is_json(content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b" ",
        b"text",
        b"{'a':1}",
        b"[1,]",
        b"[1 2]",
        b"1 2",
        b"01",
        b"1.",
        b".5",
        b"+1",
        b"-",
        b"0x1",
        b"NaN",
        b"-Infinity",
        b"[1]//",
        b"[1]\x00",
        b"\x0c1",
        b'"\x01"',
        b'"\\v"',
        b'"\\u12"',
        b'"open',
        b"\xef\xbb\xbf{}",
        b'"\xff"',
        b'"\xc0\xaf"',
        b'"\xed\xa0\x80"',
        b'"\\ud800"',
        b'"\\ud800\\u0041"',
        b'"\\udc00\\ud800"',
        b"1e999",
        b'{"a":[-1E+0400]}',
        b"9" * 310,
        b"9" * 250 + b"e60",
        b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
        b'{"":' * MAX_DEPTH + b"[]" + b"}" * MAX_DEPTH,
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
    ],
)
def test_what_one_reader_would_refuse_is_none(content: bytes) -> None:
    assert not is_json(content)
