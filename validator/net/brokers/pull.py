"""One pull under way: what it has read, what it may still read, and by name why it ended."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b

from validator.net.brokers.pages import position_of
from validator.net.brokers.ranges import PAGE_ROWS, Position
from validator.ports.sources import Broker, Pull, TakeRecords
from validator.protocol.errors import ValidatorError
from validator.protocol.model import Address, StreamPart, Window

MAX_REMEMBERED = 4 * PAGE_ROWS
"""Records of earlier pages that are known again when the next page repeats them."""


class PullFault(StrEnum):
    """Why a pull is not complete: the first word of ``Pull.error``, a label in metrics."""

    URL = "url"
    CONNECTION = "connection"
    DEADLINE = "deadline"
    TOO_SLOW = "too slow"
    LOGIN = "login"
    BALANCE = "balance"
    STATUS = "status"
    REDIRECT = "redirect"
    CUT = "cut"
    BODY = "body"
    SHAPE = "shape"
    PAGING = "paging"
    LIMIT = "limit"
    THROTTLED = "throttled"


@dataclass(frozen=True, slots=True)
class PullMetrics:
    """What one pull cost: handed to ``on_pull`` once per broker and stream partition."""

    broker: Address
    stream_part: StreamPart
    messages: int
    bytes: int
    pages: int
    seconds: float
    fault: PullFault | None
    unchanged: bool


class PullFailed(Exception):
    """Ends a pull."""

    def __init__(self, fault: PullFault, reason: str) -> None:
        super().__init__(reason)
        self.fault = fault
        self.reason = reason


class Room:
    """Bytes and rows left, counted by several threads; ``parent`` is what all brokers share."""

    def __init__(self, name: str, size: int, rows: int, parent: Room | None = None) -> None:
        self._name = name
        self._bytes = size
        self._rows = rows
        self._parent = parent
        self._lock = threading.Lock()

    def spend(self, size: int, rows: int) -> None:
        """Raises PullFailed, and takes nothing here, if so much is not left."""
        with self._lock:
            if size > self._bytes or rows > self._rows:
                what = "bytes" if size > self._bytes else "records"
                raise PullFailed(PullFault.LIMIT, f"more {what} than are taken from {self._name} in one window")
            self._bytes -= size
            self._rows -= rows
        if self._parent is not None:
            self._parent.spend(size, rows)


@dataclass(slots=True)
class RunningPull:
    """One pull under way."""

    broker: Broker
    part: StreamPart
    window: Window
    etag: str | None
    room: Room
    until: float
    take: TakeRecords
    count: int = 0
    rows: int = 0
    """Records of the page under way, ``fresh`` of them in no earlier page."""
    fresh: int = 0
    last: Position | None = None
    """Of its last record that can be read: where the next page begins."""
    form: str = ""
    first: bytes | None = None
    """Its first record."""
    earlier: deque[bytes] = field(default_factory=deque)
    repeated: set[bytes] = field(default_factory=set)
    """Digests of the newest records of earlier pages, in order and for look-up."""
    of_page: list[bytes] = field(default_factory=list)
    own_error: ValidatorError | None = None
    """Ours, not the broker's: raised when all pulls have ended."""
    size: int = 0
    pages: int = 0
    new_etag: str | None = None
    unchanged: bool = False
    complete: bool = False
    fault: PullFault | None = None
    reason: str = ""
    stopped: bool = False
    reported: bool = False

    def begin_page(self) -> None:
        """What the last page held is from now on known again."""
        new = [digest for digest in dict.fromkeys(self.of_page) if digest not in self.repeated]
        self.earlier.extend(new)
        self.repeated.update(new)
        while len(self.earlier) > MAX_REMEMBERED:
            self.repeated.discard(self.earlier.popleft())
        self.of_page.clear()
        self.first = None
        self.last = None
        self.rows = self.fresh = 0

    def accept_page(self, records: Sequence[bytes], form: str) -> None:
        """Keep what no earlier page held: a page begins with what the one before ended with."""
        self.form = form
        if self.first is None:
            self.first = records[0]
        self.rows += len(records)
        self.last = last_position(records, form) or self.last  # the records themselves are kept by ``take``, or nobody
        digests = [blake2b(data, digest_size=16).digest() for data in records]
        self.of_page += digests
        del self.of_page[:-MAX_REMEMBERED]
        if self.repeated:
            records = [data for data, digest in zip(records, digests, strict=True) if digest not in self.repeated]
        if records:
            self.fresh += len(records)
            self.keep(records, form)

    def forget_pages(self) -> None:
        """The pull has ended: what would be known again takes no room until the others have."""
        self.begin_page()
        self.earlier.clear()
        self.repeated.clear()

    def keep(self, records: Sequence[bytes], form: str) -> None:
        if self.stopped:
            raise PullFailed(PullFault.DEADLINE, "the time for this window is over")
        try:
            self.room.spend(0, len(records))
        except PullFailed:
            if len(records) > 1:  # those for which there is room, until the first for which there is none
                for data in records:
                    self.keep([data], form)
            raise
        position = self.count
        self.count += len(records)
        try:
            self.take(self.broker.address, self.part, position, records, form)
        except ValidatorError as error:  # a full disk is not the broker's fault
            self.own_error = error
            raise PullFailed(PullFault.LIMIT, "what was served could not be kept") from error

    def fail(self, fault: PullFault, reason: str) -> None:
        self.fault = fault
        self.reason = reason

    def result(self) -> Pull:
        complete = self.complete and self.fault is None
        return Pull(
            self.broker.address,
            self.part,
            complete,
            self.unchanged and complete,
            self.new_etag if complete else None,
            "" if self.fault is None else f"{self.fault}: {self.reason}",
        )


def last_position(records: Sequence[bytes], form: str) -> Position | None:
    """Of the last one that can be read."""
    positions = (position_of(data, form) for data in reversed(records))
    return next((position for position in positions if position is not None), None)
