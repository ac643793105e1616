"""Words of whole columns are those that ``json.dumps`` makes of each value."""

from __future__ import annotations

import json

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from logstore.line_text import hex_words, join_lines, number_words, repeated_words, text_words, time_words
from logstore.times import MAX_MS, format_time

BYTES = st.lists(st.none() | st.binary(max_size=5), max_size=6)
CUT = st.integers(0, 6)


def words_of(values: list[object]) -> list[bytes]:
    return [json.dumps(value, ensure_ascii=False).encode() for value in values]


@given(texts=st.lists(st.none() | st.text(), max_size=6))
def test_texts_are_quoted_as_a_writer_of_json_does(texts: list[str | None]) -> None:
    assert text_words(texts).to_pylist() == words_of([*texts])
    assert repeated_words(pa.array(texts, pa.string())).to_pylist() == words_of([*texts])


@given(values=BYTES, start=CUT, size=CUT)
def test_bytes_are_quoted_hex_also_of_a_slice(values: list[bytes | None], start: int, size: int) -> None:
    column = pa.array(values, pa.binary()).slice(start, size)
    some = [None if value is None else f"0x{value.hex()}" for value in values[start : start + size]]
    assert hex_words(column, b"0x").to_pylist() == words_of([*some])


@given(times=st.lists(st.integers(0, MAX_MS - 1), max_size=6), start=CUT)
def test_times_are_those_of_people_and_numbers_are_digits(times: list[int], start: int) -> None:
    column = pa.array(times, pa.int64()).slice(start)
    assert time_words(column).to_pylist() == words_of([format_time(time) for time in times[start:]])
    assert number_words(column).to_pylist() == words_of([*times[start:]])


def test_lines_name_what_they_hold() -> None:
    words = [repeated_words(pa.array([True, False])), number_words(pa.array([1, 2]))]
    assert bytes(join_lines(["a", "b"], words)) == b'{"a": true, "b": 1}\n{"a": false, "b": 2}\n'
    assert bytes(join_lines(["a"], [number_words(pa.array([], pa.int64()))])) == b""
