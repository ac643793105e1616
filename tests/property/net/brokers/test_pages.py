"""However the network cuts a body into pieces, the same records come out."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from validator.net.brokers.pages import read_frames, read_lines
from validator.net.brokers.ranges import Position
from validator.protocol.errors import MalformedInput

BOM = b"\xef\xbb\xbf"
LINES = st.lists(
    st.binary(min_size=1, max_size=40).filter(lambda line: b"\n" not in line and not line.startswith(BOM)), max_size=12
)
CUTS = st.lists(st.integers(min_value=0, max_value=600), max_size=12)


def cut(body: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(min(place, len(body)) for place in cuts), len(body)]
    return [body[start:end] for start, end in itertools.pairwise(places)]


@given(LINES, CUTS, st.booleans(), st.sampled_from([b"", BOM]))
def test_lines_do_not_depend_on_how_the_body_arrives(
    lines: list[bytes], cuts: list[int], more: bool, mark: bytes
) -> None:
    end = b'{"hasNext":true,"nextTimestamp":5,"nextSequenceNumber":6,"type":"metadata"}'
    if not more:
        end = b'{"hasNext":false,"type":"metadata"}'
    got: list[bytes] = []
    following = read_lines(cut(mark + b"\n".join([*lines, end]), cuts), lambda records, _form: got.extend(records))
    assert got == lines
    assert following == (Position(5, 6) if more else None)


@given(st.lists(st.binary(max_size=60), max_size=12), CUTS)
def test_frames_do_not_depend_on_how_the_body_arrives(bodies: list[bytes], cuts: list[int]) -> None:
    got: list[bytes] = []
    whole = b"".join(len(body).to_bytes(4, "big") + body for body in bodies)
    read_frames(cut(whole, cuts), lambda records, _form: got.extend(records))
    assert got == bodies


@given(st.lists(st.binary(max_size=200), max_size=8))
def test_any_bytes_are_read_or_refused_by_name(chunks: list[bytes]) -> None:
    for read in (read_lines, read_frames):
        kept: list[bytes] = []
        try:
            read(chunks, lambda records, _form, kept=kept: kept.extend(records))  # type: ignore[misc]
        except MalformedInput as error:
            assert error.field in ("metadata", "frame")
        assert sum(map(len, kept)) <= sum(map(len, chunks))
