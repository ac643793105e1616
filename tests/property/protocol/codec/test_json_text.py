"""JSON in a bundle's file is JSON to those who read it: one value that is none would end everybody's query."""

from __future__ import annotations

import json

import duckdb
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from validator.protocol.codec.json_text import are_json, is_json

PIECES = st.sampled_from(
    [
        *'{}[],:"\\ \t\n-+.eE0123456789ux/',
        "null",
        "true",
        "false",
        "\\u",
        "d83d",
        "de00",
        '"a"',
        "1e30",
        "ä",
        "\ud7ff",
        "\0",
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.fixture(scope="module")
def database() -> duckdb.DuckDBPyConnection:
    return duckdb.connect()


@given(
    content=st.lists(PIECES, max_size=12).map("".join) | st.text() | st.from_regex(r"-?[0-9.eE+-]{1,9}", fullmatch=True)
)
@example('"\\ud800"')
@example("[1e400]")
def test_what_counts_as_json_is_read_by_python_and_duckdb(database: duckdb.DuckDBPyConnection, content: str) -> None:
    if is_json(content.encode(errors="surrogatepass")):
        json.loads(content)
        assert database.execute("select (?::JSON)->>'$.a', json_valid(?)", [content, content]).fetchall()[0][1]


@given(value=VALUES, indent=st.none() | st.integers(0, 3), escape=st.booleans())
def test_what_programs_write_counts_as_json(value: object, indent: int | None, escape: bool) -> None:
    assert is_json(json.dumps(value, indent=indent, ensure_ascii=escape).encode())


CONTENTS = st.sampled_from(
    [
        b"{}",
        b"[1e999]",
        b'{"a":1E+0400}',
        b"1e308",
        b'"1e999"',
        b'["0e000", 1e-999]',
        b"9" * 308,
        b"9" * 310,
        b'"%b"' % (b"9" * 400),
        b"[" * 40 + b"]" * 40,
        b"[" * 65 + b"]" * 65,
        b"",
        b"1",
        b"e000",
        b'"\xff"',
        '"ä"'.encode(),
        b"\0",
        b"[1",
        b"2]",
    ]
)


@given(contents=st.lists(CONTENTS, max_size=5) | st.lists(VALUES.map(lambda value: json.dumps(value).encode())))
@example([b"1", b"e999"])
@example([b'"0e000"', b"[1e999]", b"{}"])
@example([b'"0e000"', b"[0e000]", b'"1e999"'])
def test_many_contents_are_json_if_each_is(contents: list[bytes]) -> None:
    assert are_json(contents) == all(map(is_json, contents))
