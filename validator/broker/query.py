"""One query: pages of rows in canonical order over all tiers, and the statement that ends the answer.

    pages     the store's, or where history is certified that of all tiers together; each its own short read, so that
              nothing is open while an answer is written
    Tally     what was given so far: count, bytes, running root, flags
    Answer    signed at the end (``protocol.codec.answer``)

Memory does not depend on the size of the query: a page and the next, and 32 bytes per 4 096 messages for the root.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise

from validator.ports.certified import CertifiedHistory
from validator.ports.message_store import NO_ROWS, Columns, MessageStore, SortKey
from validator.protocol.codec.answer import Answer, Claim, Cursor, Request, encode_cursor
from validator.protocol.codec.message import record_from_canonical
from validator.protocol.codec.quick_reader import message_id_bytes
from validator.protocol.merkle import RunningRoot
from validator.protocol.model import Address, Digest, Flag

FIRST_ROWS = 256
"""Of the first page: little, so that the first byte is there at once; then each has four times as many."""
PAGE_ROWS = 8192
PAGE_BYTES = 2 << 20
"""Canonical bytes that a page is meant to have, by what the last one's rows had."""


class Proof(StrEnum):
    """What an answer says of the certified sets in its span."""

    NONE = "none"
    COMMITMENT = "commitment"
    """Each set's root and totals."""
    FULL = "full"
    """And a proof, up to the root that the contract holds, that its messages are all."""


@dataclass(frozen=True, slots=True)
class Query:
    """``after``: the cursor it goes on from. ``limit``: messages of the answer at most, 0 for all."""

    request: Request
    after: Cursor | None = None
    as_of: int | None = None
    limit: int = 0
    proof: Proof = Proof.NONE

    @property
    def start(self) -> SortKey | None:
        c = self.after
        if c is None:
            return None
        return SortKey(c.timestamp_ms, c.sequence_number, c.publisher_id, c.msg_chain_id, c.leaf)


_Page = tuple[Columns, list[tuple[Digest, int | None]]]


class Pages:
    """The rows of a query, page by page. Synchronous; one thread at a time."""

    def __init__(
        self,
        store: MessageStore,
        query: Query,
        history: CertifiedHistory | None = None,
        ahead: Executor | None = None,
    ) -> None:
        """``history``: asked where the query says up to which bundle (``as_of``). ``ahead``: its threads read the page
        behind the one that is given; none of them may wait for who reads pages."""
        self._store = store
        self._query = query
        self._history = history if query.as_of is not None else None
        self._ahead = ahead
        self._reading: Future[_Page] | None = None
        self.marks: list[tuple[Digest, int | None]] = []
        """Of the last page: rows that are not in the window of their time, and whose late set has them."""
        self._after = query.start
        self._rows = FIRST_ROWS
        self._given = 0

    def following(self) -> Columns:
        """The next page; empty at the end. Raises TransientError."""
        rows = self._wanted()
        if not rows:
            return NO_ROWS
        page, self.marks = self._next(rows)
        if page:
            self._after = page.last_key
            self._rows = min(4 * self._rows, PAGE_ROWS, max(1, PAGE_BYTES * len(page) // len(page.canonical)))
            self._given += len(page)
            if self._ahead is not None and (rows := self._wanted()):
                self._reading = self._ahead.submit(self._read, rows, self._after)
        return page

    def has_more(self) -> bool:
        """Whether a row follows the last page."""
        return bool(self._next(1)[0])

    def _wanted(self) -> int:
        """Rows of the next page at most."""
        limit = self._query.limit
        return min(self._rows, limit - self._given) if limit else self._rows

    def _next(self, rows: int) -> _Page:
        if self._reading is None:
            return self._read(rows, self._after)
        reading, self._reading = self._reading, None
        return reading.result()

    def _read(self, limit: int, after: SortKey | None) -> _Page:
        r, as_of = self._query.request, self._query.as_of
        if self._history is None or as_of is None:
            return self._store.page(r.stream_part, r.from_ms, r.until_ms, after=after, limit=limit), []
        page = self._history.page(r.stream_part, r.from_ms, r.until_ms, as_of, after=after, limit=limit)
        marks = [
            (page.columns.leaf(place), None if instance is None else instance.number)
            for place, instance in page.exceptions
        ]
        return page.columns, marks

    @property
    def last(self) -> SortKey | None:
        return self._after


@dataclass(slots=True)
class Tally:
    """What an answer has given so far."""

    count: int = 0
    signed_bytes: int = 0
    flags: Flag = Flag(0)
    root: RunningRoot = field(default_factory=RunningRoot)
    _last: bytes = b""
    _last_ms: int = -1

    def add(self, page: Columns) -> None:
        self.count += len(page)
        self.signed_bytes += page.signed_bytes
        self.root.add_joined(page.leaves)
        times = page.times_ms
        if times[0] == self._last_ms:
            self._compare(self._last, page.message(0))
        if len(set(times)) < len(times) and self.flags != _ALL_DOUBLES:
            self._look_for_doubles(page)
        self._last, self._last_ms = page.message(len(page) - 1), times[-1]

    def _look_for_doubles(self, page: Columns) -> None:
        messages = page.messages()
        for place, (ms, next_ms) in enumerate(pairwise(page.times_ms)):
            if ms == next_ms:
                self._compare(messages[place], messages[place + 1])

    def _compare(self, one: bytes, other: bytes) -> None:
        """Two neighbours of one time: where they have one id they are variants, or what was signed differs too."""
        if message_id_bytes(one) == message_id_bytes(other):
            same = record_from_canonical(one).signed_digest == record_from_canonical(other).signed_digest
            self.flags |= Flag.VARIANTS if same else Flag.EQUIVOCATION


_ALL_DOUBLES = Flag.VARIANTS | Flag.EQUIVOCATION


def make_cursor(query: Query, key: SortKey) -> bytes:
    """What continues a query behind a message."""
    return encode_cursor(Cursor(query.as_of, *key, query.request.digest()))


def make_answer(
    query: Query,
    tally: Tally,
    *,
    following: SortKey | None,
    complete_to: int,
    flags: Flag,
    claims: Sequence[Claim],
    time_ms: int,
    broker: Address,
) -> Answer:
    """The trailer, unsigned. ``following``: where the rest goes on from; None where nothing is left."""
    return Answer(
        query.request,
        b"" if query.after is None else encode_cursor(query.after),
        b"" if following is None else make_cursor(query, following),
        tally.count,
        tally.signed_bytes,
        tally.root.root(),
        query.as_of,
        complete_to,
        tally.flags | flags,
        tuple(claims),
        time_ms,
        broker,
    )
