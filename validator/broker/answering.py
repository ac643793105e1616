"""Answers as they stream: page after page from a reader's thread, the next read while the last is written.

Three pages are held at most, whatever the size of the query. A reader that stalls is the listener's to end; a broker
that stalls is the client's to leave, with the cursor of the last message it has.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from itertools import islice

from validator.broker.core import AskOthers, Broker, ask_nobody
from validator.broker.forms import ARROW, EVENTS, FRAMES, Arrow, Events, Form, Frames, Lines
from validator.broker.proving import Proving
from validator.broker.query import Pages, Proof, Query, Tally, make_answer
from validator.broker.reaching import read_page
from validator.log import get_logger
from validator.ports.message_store import NO_ROWS, Columns, SortKey
from validator.protocol.codec.answer import Answer, Claim, sign_answer
from validator.protocol.errors import RemoteFault, TransientError
from validator.protocol.model import Address, Flag

log = get_logger(__name__)

SETTLE_MS = 2_000
"""How far behind the clock a follower reads: what comes later than that has missed it, and is there when asked for."""
POLL_S = 0.5
PULSE_S = 15.0
PROOFS = 64
"""Sets that are proven at once."""
OTHERS_S = 3.0
"""How long an answer's end waits for what other brokers say."""


def make_form(kind: str, query: Query) -> Form:
    if kind == FRAMES:
        return Frames()
    if kind == ARROW:
        return Arrow()
    return Events(query) if kind == EVENTS else Lines()


class Answering:
    """One answer of one broker."""

    def __init__(
        self,
        broker: Broker,
        query: Query,
        form: Form,
        consumer: Address | None,
        *,
        can_do_without: bool = False,
        ask_others: AskOthers = ask_nobody,
    ) -> None:
        """``can_do_without``: nobody asked for certified history, so what the store has will do where it fails.
        ``ask_others``: what they claim to hold of the span, for the trailer."""
        self._broker = broker
        self._query = query
        self._form = form
        self._consumer = consumer
        self._can_do_without = can_do_without and query.proof is Proof.NONE
        self._ask = ask_others
        self._pages = Pages(broker.store, query, broker.history, broker.ahead)
        self._proving: Proving | None = None
        self._tally = Tally()
        self._charged = 0

    async def begin(self) -> AsyncIterator[bytes]:
        """Read the first page; the whole answer, trailer last, is what is returned.

        Raises:
            TransientError, RemoteFault: what was asked for cannot be given now, and nothing was.
        """
        return self._pieces(await self._broker.read(self._begin))

    async def _pieces(self, first: bytes | None) -> AsyncIterator[bytes]:
        """What was given is charged, however it ends."""
        others = asyncio.create_task(self._ask_others())
        pending: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        pending.set_result(first)
        try:
            while (piece := await pending) is not None:
                self._charge()
                if await self._may_go_on():
                    pending = asyncio.create_task(self._broker.read(self._step))
                    yield piece
                    continue
                yield piece
                break
            following = await self._broker.read(self._following)
            if following is None:
                while piece := await self._broker.read(self._prove):
                    yield piece
            yield self._form.end(await self._broker.read(self._end, following, await others))
        finally:
            others.cancel()
            pending.cancel()
            self._charge()

    def _step(self) -> bytes | None:
        """The next page as bytes; None at the end."""
        assert self._proving is not None
        return self._read(self._proving)

    def _begin(self) -> bytes | None:
        try:
            self._proving = Proving(self._broker.history, self._query, self._form)
            return self._read(self._proving)
        except (TransientError, RemoteFault) as error:
            if not self._can_do_without or self._query.as_of is None:
                raise
            log.warning("answer.without_history", reason=str(error))
        self._query = replace(self._query, as_of=None)
        self._pages, self._tally = Pages(self._broker.store, self._query, None, self._broker.ahead), Tally()
        self._proving = Proving(None, self._query, self._form)
        return self._read(self._proving)

    def _read(self, proving: Proving) -> bytes | None:
        page = self._pages.following()
        if not page:
            return None
        self._tally.add(page)
        marks = proving.mark(self._pages.marks)
        return b"".join((marks, self._form.rows(page), proving.passed(page.times_ms[-1])))

    async def _may_go_on(self) -> bool:
        return self._consumer is None or await self._broker.read(self._broker.accounts.may_read, self._consumer)

    def _charge(self) -> None:
        if self._consumer is not None:
            given = self._tally.signed_bytes
            self._broker.accounts.charge(self._consumer, given - self._charged)
            self._charged = given

    def _following(self) -> SortKey | None:
        """Where the rest goes on from; None where nothing is left."""
        return self._pages.last if self._tally.count and self._pages.has_more() else None

    def _prove(self) -> bytes:
        """What is said of some more sets; nothing at the end."""
        assert self._proving is not None
        return b"".join(islice(self._proving.rest(), PROOFS))

    def _end(self, following: SortKey | None, claims: Sequence[Claim]) -> Answer:
        return end_answer(self._broker, self._query, self._tally, following, claims, self._proving)

    async def _ask_others(self) -> Sequence[Claim]:
        try:
            async with asyncio.timeout(OTHERS_S):
                return await self._ask(self._query.request)
        except TimeoutError:
            return ()


def end_answer(
    broker: Broker,
    query: Query,
    tally: Tally,
    following: SortKey | None,
    claims: Sequence[Claim] = (),
    proving: Proving | None = None,
) -> Answer:
    """The signed trailer."""
    answer = make_answer(
        query,
        tally,
        following=following,
        complete_to=0 if proving is None else proving.complete_to,
        flags=Flag(0) if proving is None else proving.flags,
        claims=claims,
        time_ms=broker.now_ms(),
        broker=broker.address,
    )
    return sign_answer(answer, broker.key, broker.context)


class Following:
    """Server-sent events without an end of their own: what is there, then what comes."""

    def __init__(self, broker: Broker, query: Query, consumer: Address | None) -> None:
        self._broker = broker
        self._query = query
        self._form = Events(query)
        self._consumer = consumer
        self._after = query.start
        self._tally = Tally()

    async def pieces(self) -> AsyncIterator[bytes]:
        r = self._query.request
        silent_s = 0.0
        while True:
            until_ms = min(r.until_ms, self._broker.now_ms() - SETTLE_MS)
            page = NO_ROWS
            if until_ms > r.from_ms:
                page = await self._broker.read(self._read, until_ms)
            if page:
                silent_s = 0.0
                self._tally.add(page)
                yield self._form.rows(page)
                if self._consumer is not None:
                    self._broker.accounts.charge(self._consumer, page.signed_bytes)
                    if not await self._broker.read(self._broker.accounts.may_read, self._consumer):
                        break
                continue
            if until_ms == r.until_ms:
                break
            await asyncio.sleep(POLL_S)
            silent_s += POLL_S
            if silent_s >= PULSE_S:
                silent_s = 0.0
                yield self._form.pulse()
        yield self._form.end(end_answer(self._broker, self._query, self._tally, self._after))

    def _read(self, until_ms: int) -> Columns:
        r = self._query.request
        page = read_page(self._broker, r.stream_part, r.from_ms, until_ms, after=self._after, limit=512)
        if page:
            self._after = page.last_key
        return page
