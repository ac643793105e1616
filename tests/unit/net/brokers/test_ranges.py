"""What is asked next, and what counts as read."""

from __future__ import annotations

import pytest

from validator.net.brokers.ranges import MAX_SEQUENCE, PAGE_ROWS, Ending, NoProgress, Page, Position, Range, Reading
from validator.protocol.model import Window

WINDOW = Window(1000, 2000)
END = Position(1999, MAX_SEQUENCE)


def accept(reading: Reading, page: Page) -> Range:
    asked = reading.todo.popleft()
    reading.accept(asked, page)
    return asked


def proved(rows: int, fresh: int, last: Position | None) -> Page:
    return Page(rows, fresh, last, Ending.PROVED)


def test_a_window_is_asked_for_from_its_first_to_its_last_millisecond() -> None:
    assert Reading.of_window(WINDOW).todo[0] == Range(Position(1000, 0), END)


def test_an_answer_with_a_trailer_is_its_own_evidence() -> None:
    reading = Reading.of_window(WINDOW)
    accept(reading, Page(7, 7, None, Ending.LAST_PAGE))
    assert not reading.todo
    assert not reading.gaps


def test_an_answer_without_a_trailer_is_asked_on_from_its_last_message_until_nothing_new_comes() -> None:
    reading = Reading.of_window(WINDOW)
    accept(reading, proved(7, 7, Position(1500, 3)))
    assert list(reading.todo) == [Range(Position(1500, 3), END)]
    accept(reading, proved(1, 0, Position(1500, 3)))
    assert not reading.todo
    assert not reading.gaps


def test_an_empty_answer_whose_end_is_proved_says_that_there_is_nothing() -> None:
    reading = Reading.of_window(WINDOW)
    accept(reading, proved(0, 0, None))
    assert not reading.todo
    assert not reading.gaps


@pytest.mark.parametrize("rows", [0, 7])
def test_an_answer_whose_end_nothing_proves_leaves_a_gap(rows: int) -> None:
    reading = Reading.of_window(WINDOW)
    accept(reading, Page(rows, 0, None, Ending.OPEN))
    assert [gap.range for gap in reading.gaps] == [Range(Position(1000, 0), END)]


def test_a_cut_answer_is_asked_on_from_its_last_message() -> None:
    reading = Reading.of_window(WINDOW)
    accept(reading, Page(7, 7, Position(1500, 3), Ending.CUT))
    assert list(reading.todo) == [Range(Position(1500, 3), END)]


def test_a_full_page_that_repeats_itself_is_no_end() -> None:
    reading = Reading.of_window(WINDOW)
    accept(reading, proved(PAGE_ROWS, PAGE_ROWS, Position(1500, 3)))
    accept(reading, proved(PAGE_ROWS, 0, Position(1500, 3)))
    assert [str(r) for r in reading.todo] == [f"1500/3 to 1500/{MAX_SEQUENCE}", f"1501/0 to {END}"]


def test_a_millisecond_that_cannot_be_read_costs_only_itself() -> None:
    reading = Reading.of_window(WINDOW)
    accept(reading, proved(PAGE_ROWS, PAGE_ROWS, Position(1500, 3)))
    while reading.todo[0].start.timestamp_ms == 1500:
        accept(reading, proved(PAGE_ROWS, 0, Position(1500, 3)))
    accept(reading, proved(4, 4, Position(1800, 0)))
    accept(reading, proved(1, 0, Position(1800, 0)))
    assert not reading.todo
    (gap,) = reading.gaps
    assert gap.range == Range(Position(1500, 3), Position(1500, MAX_SEQUENCE))
    assert "the same 5000 messages" in str(gap)


def test_a_broker_that_cuts_everything_is_left_alone_soon_and_what_is_missing_is_one_gap() -> None:
    reading = Reading.of_window(WINDOW)
    asked = 0
    while reading.todo:
        accept(reading, Page(3, 3 if asked == 0 else 0, Position(1500, 3), Ending.CUT, reason="gone"))
        asked += 1
    assert asked < 15
    assert [str(gap) for gap in reading.gaps] == [f"1500/3 to {END}: gone"]


@pytest.mark.parametrize(
    "following", [Position(1000, 0), Position(999, 9), Position(2000, 0), Position(1500, -1), Position(1500, 2**31)]
)
def test_a_next_page_must_lie_further_on_in_the_range(following: Position) -> None:
    reading = Reading.of_window(WINDOW)
    with pytest.raises(NoProgress):
        accept(reading, Page(3, 3, None, Ending.NEXT_PAGE, following=following))


@pytest.mark.parametrize(("ending", "evidence"), [(Ending.PROVED, False), (Ending.MEASURED, True)])
def test_an_answer_that_does_not_heed_the_question_is_evidence_only_by_its_length(
    ending: Ending, evidence: bool
) -> None:
    reading = Reading.of_window(WINDOW)
    first, last = Position(1100, 0), Position(1500, 3)
    accept(reading, Page(7, 7, last, ending))
    while reading.todo:
        accept(reading, Page(7, 0, last, ending, first))
    assert [str(gap.range) for gap in reading.gaps] == ([] if evidence else [f"1500/3 to {END}"])


def test_an_answer_may_repeat_the_millisecond_that_it_is_asked_from() -> None:
    reading = Reading.of_window(WINDOW)
    accept(reading, proved(7, 7, Position(1500, 3)))
    accept(reading, Page(4, 0, Position(1500, 3), Ending.PROVED, Position(1500, 0)))
    assert not reading.todo
    assert not reading.gaps
