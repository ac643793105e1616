"""Answers as they stream: page after page from a reader's thread, the next read while the last is written.

Two pages are held at most, whatever the size of the query. A reader that stalls is the listener's to end; a broker that
stalls is the client's to leave, with the cursor of the last message it has.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from validator.broker.core import Broker
from validator.broker.forms import ARROW, EVENTS, FRAMES, Arrow, Events, Form, Frames, Lines
from validator.broker.query import Pages, Query, Tally, make_answer
from validator.ports.message_store import SortKey, StoredRow
from validator.protocol.codec.answer import Answer, Claim, sign_answer
from validator.protocol.model import Address, Flag

SETTLE_MS = 2_000
"""How far behind the clock a follower reads: what comes later than that has missed it, and is there when asked for."""
POLL_S = 0.5
PULSE_S = 15.0
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

    def __init__(self, broker: Broker, query: Query, form: Form, consumer: Address | None) -> None:
        self._broker = broker
        self._query = query
        self._form = form
        self._consumer = consumer
        self._pages = Pages(broker.store, query)
        self._tally = Tally()
        self._charged = 0

    async def pieces(self) -> AsyncIterator[bytes]:
        """The whole answer, trailer last. What was given is charged, however it ends."""
        others = asyncio.create_task(self._ask_others())
        pending = asyncio.create_task(self._broker.read(self._step))
        try:
            while (piece := await pending) is not None:
                self._charge()
                if self._may_go_on():
                    pending = asyncio.create_task(self._broker.read(self._step))
                    yield piece
                    continue
                yield piece
                break
            yield self._form.end(await self._broker.read(self._end, await others))
        finally:
            others.cancel()
            pending.cancel()
            self._charge()

    def _step(self) -> bytes | None:
        """The next page as bytes; None at the end."""
        rows = self._pages.following()
        if not rows:
            return None
        self._tally.add(rows)
        return self._form.rows(rows)

    def _may_go_on(self) -> bool:
        return self._consumer is None or self._broker.accounts.may_read(self._consumer)

    def _charge(self) -> None:
        if self._consumer is not None:
            given = self._tally.signed_bytes
            self._broker.accounts.charge(self._consumer, given - self._charged)
            self._charged = given

    def _end(self, claims: Sequence[Claim]) -> Answer:
        following = self._pages.last if self._tally.count and self._pages.has_more() else None
        return end_answer(self._broker, self._query, self._tally, following, claims)

    async def _ask_others(self) -> Sequence[Claim]:
        try:
            async with asyncio.timeout(OTHERS_S):
                return await self._broker.ask_others(self._query.request)
        except TimeoutError:
            return ()


def end_answer(
    broker: Broker, query: Query, tally: Tally, following: SortKey | None, claims: Sequence[Claim] = ()
) -> Answer:
    """The signed trailer."""
    answer = make_answer(
        query,
        tally,
        following=following,
        complete_to=0,
        flags=Flag(0),
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
            rows: list[StoredRow] = []
            if until_ms > r.from_ms:
                rows = await self._broker.read(self._scan, until_ms)
            if rows:
                silent_s = 0.0
                self._tally.add(rows)
                yield self._form.rows(rows)
                if self._consumer is not None:
                    self._broker.accounts.charge(self._consumer, sum(row.signed_bytes for row in rows))
                    if not self._broker.accounts.may_read(self._consumer):
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

    def _scan(self, until_ms: int) -> list[StoredRow]:
        r = self._query.request
        rows = self._broker.store.scan(r.stream_part, r.from_ms, until_ms, after=self._after, limit=512)
        if rows:
            self._after = rows[-1].key
        return rows
