"""How a window is read from one broker, page after page: what to ask next, and what stays unread. Pure.

Rule: a range counts as read only by evidence. An answer with a trailer is its own; any other is read once the broker,
asked again from the last message it gave, gives nothing new and the transport proves the end of that answer. A broker
that then gives what lies before that place does not heed the question, so its answer is no evidence: only a length that
it named beforehand is, since an end in chunks is written by whoever noticed an end. Where an answer is cut, by whoever,
the rest is asked for from the last message that came. Where that brings nothing new either ("a stall"), the range is
shrunk: the millisecond where it begins is asked for apart, since there may be more in it than a broker gives, and what
follows is halved, since two answers may bring what one cannot. What cannot be read in the end is a gap, by name; what
lies behind it is read nevertheless, unless that stalls, too.

Decided against (docs/decisions): believing a well-formed end alone (0024).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum

from validator.protocol.model import Window

MAX_SEQUENCE = 2**31 - 1
PAGE_ROWS = 5000
"""A broker's answer holds at most so many messages; one of frames that has as many is cut, whatever its end says."""
STALLS_IN_MS = 6
"""After so many in a row the rest of a millisecond is given up,"""
STALLS_IN_ALL = 10
"""and after so many the rest of the window."""
_SEQUENCE_STEP = 4096
"""Sequence numbers begin at 0 in each millisecond: the first half of an open span of them is no larger."""


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where a message stands in a partition. Several messages may stand at one."""

    timestamp_ms: int
    sequence_number: int

    def __str__(self) -> str:
        return f"{self.timestamp_ms}/{self.sequence_number}"


@dataclass(frozen=True, slots=True)
class Range:
    """Both ends inclusive, as brokers are asked. ``apart``: the place where it begins was asked for apart."""

    start: Position
    end: Position
    apart: bool = field(default=False, compare=False)

    @property
    def one_ms(self) -> bool:
        return self.start.timestamp_ms == self.end.timestamp_ms

    def split(self) -> tuple[Range, Range]:
        """What lies where it begins, and the rest; the halves of a range that is such a rest. Not of one position."""
        first, then = self._first_ms() if not self.one_ms else self._first_sequences()
        return Range(self.start, first, self.apart), Range(then, self.end, True)

    def _first_ms(self) -> tuple[Position, Position]:
        start_ms = self.start.timestamp_ms
        until_ms = (start_ms + self.end.timestamp_ms) // 2 if self.apart else start_ms
        return Position(until_ms, MAX_SEQUENCE), Position(until_ms + 1, 0)

    def _first_sequences(self) -> tuple[Position, Position]:
        start_ms, start = self.start.timestamp_ms, self.start.sequence_number
        until = start + min(_SEQUENCE_STEP, (self.end.sequence_number - start) // 2) if self.apart else start
        return Position(start_ms, until), Position(start_ms, until + 1)

    def __str__(self) -> str:
        return f"{self.start} to {self.end}"


class Ending(Enum):
    """What is known of an answer's end."""

    LAST_PAGE = "a trailer says that nothing follows"
    NEXT_PAGE = "a trailer says where more follows"
    MEASURED = "the answer is as long as it was to be"
    PROVED = "the transport saw the end"
    OPEN = "nothing proves that the answer is whole"
    CUT = "the answer is cut"


@dataclass(frozen=True, slots=True)
class Page:
    """One answer: how many messages, how many of them new, the position of the last that can be read, and its end.

    ``first``: that of the first message, where it can be read and the answer is not the first one.
    """

    rows: int
    fresh: int
    last: Position | None
    ending: Ending
    first: Position | None = None
    following: Position | None = None
    """Of NEXT_PAGE."""
    reason: str = ""
    """Of CUT."""
    blank: bool = False
    """Neither a type nor a byte: how newer brokers say that there is nothing, and others that they know no better."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A range that could not be read whole."""

    range: Range
    page: Page

    def __str__(self) -> str:
        if self.page.ending in (Ending.MEASURED, Ending.PROVED):
            return f"{self.range}: asked on, the broker gives the same {self.page.rows} messages"
        return f"{self.range}: {self.page.reason or self.page.ending.value}"


class NoProgress(Exception):
    """A trailer names a next page that does not lie further on in the range."""


@dataclass(slots=True)
class Reading:
    """What is still to be asked for, in order, and what could not be read."""

    todo: deque[Range]
    gaps: list[Gap] = field(default_factory=list)
    stalls: int = 0
    """In a row."""
    page_rows: int = PAGE_ROWS

    @classmethod
    def of_window(cls, window: Window, page_rows: int = PAGE_ROWS) -> Reading:
        whole = Range(Position(window.start_ms, 0), Position(window.end_ms - 1, MAX_SEQUENCE))
        return cls(deque([whole]), page_rows=page_rows)

    def accept(self, asked: Range, page: Page) -> None:
        """Note the answer to ``asked``, which was taken from ``todo``.

        Raises:
            NoProgress: the broker leads astray.
        """
        if page.ending is Ending.NEXT_PAGE:
            self.todo.appendleft(Range(_following(asked, page), asked.end))
        elif page.ending is not Ending.LAST_PAGE:
            reached = asked.start if page.last is None else min(page.last, asked.end)
            whole = _is_evidence(asked, page) and page.rows < self.page_rows
            if page.fresh and reached > asked.start:
                self.todo.appendleft(Range(reached, asked.end))
            elif not whole:
                self._shrink(asked, page)
                return
        self.stalls = 0

    def _shrink(self, asked: Range, page: Page) -> None:
        self.stalls += 1
        if page.ending is Ending.OPEN or asked.start == asked.end:  # a smaller range would not end in another way
            self._give_up(asked, page)
        elif asked.one_ms and self.stalls >= STALLS_IN_MS:
            self._give_up(asked, page)
            while self.todo and self.todo[0].end.timestamp_ms == asked.end.timestamp_ms and self.todo[0].one_ms:
                self._give_up(self.todo.popleft(), page)
        elif self.stalls > STALLS_IN_ALL:
            self._give_up(asked, page)
            while self.todo:
                self._give_up(self.todo.popleft(), page)
        else:
            self.todo.extendleft(reversed(asked.split()))

    def _give_up(self, unread: Range, page: Page) -> None:
        """Adjoining gaps are one."""
        last = self.gaps[-1] if self.gaps else None
        if last is not None and last.range.end < unread.start and _adjoin(last.range.end, unread.start):
            self.gaps[-1] = Gap(Range(last.range.start, unread.end), last.page)
        else:
            self.gaps.append(Gap(unread, page))


def _is_evidence(asked: Range, page: Page) -> bool:
    heeded = page.first is None or page.first.timestamp_ms >= asked.start.timestamp_ms
    return page.ending is Ending.MEASURED or (page.ending is Ending.PROVED and heeded)


def _adjoin(end: Position, start: Position) -> bool:
    if end.timestamp_ms == start.timestamp_ms:
        return end.sequence_number + 1 == start.sequence_number
    return (
        end.sequence_number == MAX_SEQUENCE
        and start.sequence_number == 0
        and end.timestamp_ms + 1 == start.timestamp_ms
    )


def _following(asked: Range, page: Page) -> Position:
    following = page.following
    assert following is not None
    if not 0 <= following.sequence_number <= MAX_SEQUENCE:
        raise NoProgress(f"sequence number {following.sequence_number} is out of range")
    if following <= asked.start:
        raise NoProgress(f"the page after {asked.start} would begin at {following}")
    if following > asked.end:
        raise NoProgress(f"the next page would begin at {following}, after {asked.end}")
    return following
