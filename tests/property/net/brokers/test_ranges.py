"""However a broker cuts its answers, a window that counts as read holds everything, and every reading ends."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from validator.net.brokers.ranges import MAX_SEQUENCE, Ending, Page, Position, Range, Reading
from validator.protocol.model import Window

WINDOW = Window(1000, 1040)
Row = tuple[Position, int]
"""A message: where it stands, and which of those that stand there."""

ROWS = st.lists(
    st.builds(
        lambda ms, sequence, copies: [(Position(ms, sequence), copy) for copy in range(copies)],
        st.integers(1000, 1039),
        st.integers(0, 4),
        st.integers(1, 3),
    ),
    max_size=30,
).map(lambda groups: sorted({row for group in groups for row in group}))


def read(rows: list[Row], limit: int, cut: bool, heeds_sequence: bool, loses_all: bool) -> tuple[set[Row], Reading]:
    """Read all from a broker that gives the first ``limit`` rows of what it is asked for, then cuts or seems done.

    ``loses_all``: of a cut answer nothing arrives, as where a compressed body breaks.
    """
    reading, got, asked_times = Reading.of_window(WINDOW, page_rows=limit), set[Row](), 0
    while reading.todo:
        asked_times += 1
        assert asked_times <= 40 * len(rows) + 40
        asked = reading.todo.popleft()
        found = [row for row in rows if lies_in(row[0], asked, heeds_sequence)]
        given_rows, ending = found[:limit], Ending.PROVED
        if len(found) > limit and cut:
            ending = Ending.CUT
            given_rows = [] if loses_all else given_rows
        fresh = set(given_rows) - got
        got |= fresh
        last = given_rows[-1][0] if given_rows else None
        reading.accept(asked, Page(len(given_rows), len(fresh), last, ending))
    return got, reading


def lies_in(position: Position, asked: Range, heeds_sequence: bool) -> bool:
    if heeds_sequence:
        return asked.start <= position <= asked.end
    return asked.start.timestamp_ms <= position.timestamp_ms <= asked.end.timestamp_ms


@given(ROWS, st.integers(1, 8), st.booleans(), st.booleans(), st.booleans())
def test_what_counts_as_read_is_all_there_is(
    rows: list[Row], limit: int, cut: bool, heeds_sequence: bool, loses_all: bool
) -> None:
    got, reading = read(rows, limit, cut, heeds_sequence, loses_all)
    missing = set(rows) - got
    for position, _ in missing:
        assert any(gap.range.start <= position <= gap.range.end for gap in reading.gaps)
    if not reading.gaps:
        assert not missing


@given(ROWS, st.integers(4, 8), st.booleans(), st.booleans())
def test_a_broker_that_heeds_what_it_is_asked_is_read_whole_however_small_its_pages(
    rows: list[Row], limit: int, cut: bool, heeds_sequence: bool
) -> None:
    heeded = [row for row in rows if heeds_sequence or row[0].sequence_number == 0]
    got, reading = read(heeded, limit, cut, heeds_sequence, loses_all=False)
    assert got == set(heeded)
    assert not reading.gaps


@given(st.integers(1000, 1039), st.integers(0, 9), st.integers(1000, 1039), st.integers(0, 9), st.booleans())
def test_the_parts_of_a_range_are_the_range(ms: int, sequence: int, end_ms: int, end: int, apart: bool) -> None:
    start, last = sorted([Position(ms, sequence), Position(end_ms, end)])
    if start == last:
        return
    first, rest = Range(start, last, apart).split()
    assert (first.start, rest.end) == (start, last)
    assert first.start <= first.end < rest.start <= rest.end
    for position in (first.end, rest.start):
        assert start <= position <= last or position.sequence_number in (0, MAX_SEQUENCE)
