"""The public listener: ``/v1``, and the paths of the brokers before us (``dialects``). Parse, call, answer.

    GET  /v1/streams/{id}/partitions/{n}/messages?from&to&cursor&limit&asOf     by Accept: ``forms``
    GET  /v1/streams/{id}/partitions/{n}/last?count      GET …/summary?from&to
    POST /v1/streams/{id}/partitions/{n}/messages        frames of protobuf or canonical objects, or lines of arrays
    POST /v1/receipts                                    GET  /v1/head

Stream ids come percent-encoded, slashes too. ``routes`` of other parts of the broker come before these.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from validator.broker import posting
from validator.broker.answering import Answering, Following, end_answer, make_form
from validator.broker.asked import (
    FOREVER_MS,
    read_form,
    read_number,
    read_place,
    read_query,
    read_span,
    require_registered,
    wants_no_history,
)
from validator.broker.core import Broker, ask_nobody
from validator.broker.dialects import Dialects
from validator.broker.forms import EVENTS
from validator.broker.query import Proof, Query, Tally
from validator.broker.reaching import read_last
from validator.broker.refusal import Refused, answer_refused, bad, busy
from validator.broker.summary import summarise
from validator.ports.certified import NotVerifiedYet
from validator.ports.message_store import NO_ROWS, Columns
from validator.protocol.codec.answer import Request as Asked
from validator.protocol.errors import RemoteFault, TransientError
from validator.protocol.model import Address, StreamPart
from validator.version import describe_version

ANSWERS = 200
"""Answers under way at once."""
FOLLOWERS = 1_000
TAGGED_SPAN_MS = 600_000
"""Longer spans have no entity tag: counting them would cost as much as their first page."""
MAX_LAST = 10_000


class Slots:
    """So many of a kind at once."""

    def __init__(self, limit: int, what: str) -> None:
        self._limit = limit
        self._what = what
        self.used = 0

    async def hold(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The same pieces; the slot that ``acquire`` took is free when they end."""
        try:
            async for piece in pieces:
                yield piece
        finally:
            self.used -= 1

    def acquire(self) -> None:
        """Raises Refused (503) with the reason."""
        if self.used >= self._limit:
            raise busy(f"{self._limit} {self._what} are under way, and no more are taken", field=self._what)
        self.used += 1


class Server:
    """The paths of ``/v1``."""

    def __init__(
        self, broker: Broker, dialects: Dialects, *, answers: int = ANSWERS, followers: int = FOLLOWERS
    ) -> None:
        self._broker = broker
        self._dialects = dialects
        self.answers = Slots(answers, "answers")
        self.followers = Slots(followers, "followers")

    async def dispatch(self, request: Request) -> Response:
        words = request.scope["raw_path"].split(b"?")[0].split(b"/")[1:]
        if words[:2] != [b"v1", b"streams"]:
            return await self._dialects.answer(request, words)
        place = read_place(words[2:])
        handlers: dict[tuple[str, str], Callable[[Request, StreamPart], object]] = {
            ("GET", "messages"): self._messages,
            ("GET", "last"): self._last,
            ("GET", "summary"): self._summary,
            ("POST", "messages"): self._post,
        }
        handler = handlers.get((request.method, place.what))
        if handler is None:
            raise Refused(404, "no such path")
        require_registered(self._broker.chain, place.part)
        return await handler(request, place.part)  # type: ignore[misc,no-any-return]

    async def _consumer(self, request: Request) -> Address | None:
        gate = self._broker.gate
        consumer = gate.consumer_of_token(request.headers.get("authorization"))
        await self._broker.read(gate.check_balance, consumer)
        await self._broker.read(gate.check_debt, consumer)
        return consumer

    # --- reading

    async def _messages(self, request: Request, part: StreamPart) -> Response:
        asked, kind = read_query(request, part), read_form(request)
        consumer = await self._consumer(request)
        is_raw = wants_no_history(request)
        query = asked if is_raw else await self._broker.read(self._certify, asked)
        if query.as_of is None and query.proof is not Proof.NONE:
            raise bad("proof", "nothing is certified here yet, or not for this cursor; only none")
        tag = await self._tag(request, query)
        if tag is not None and request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"etag": tag})
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"} | ({"etag": tag} if tag else {})
        if kind == EVENTS and query.request.until_ms == FOREVER_MS and not query.limit:
            self.followers.acquire()
            following = Following(self._broker, query, consumer)
            return StreamingResponse(self.followers.hold(following.pieces()), media_type=kind, headers=headers)
        self.answers.acquire()
        answering = Answering(
            self._broker,
            query,
            make_form(kind, query),
            consumer,
            can_do_without=asked.as_of is None,
            ask_others=ask_nobody if is_raw else self._broker.ask_others,
        )
        try:
            pieces = await answering.begin()
        except BaseException:
            self.answers.used -= 1
            raise
        return StreamingResponse(self.answers.hold(pieces), media_type=kind, headers=headers)

    def _certify(self, query: Query) -> Query:
        """With the bundle up to which history is certified: the one that was asked for, or the newest.

        Raises:
            Refused: 400; none is verified here, or not that one.
        """
        history = self._broker.history
        newest = None if history is None else history.newest()
        if query.as_of is not None:
            try:
                if history is None:
                    raise NotVerifiedYet("none is")
                history.complete_to(query.as_of)
            except NotVerifiedYet:
                raise bad("asOf", f"no such bundle is verified here; the newest is {newest}") from None
            return query
        if query.after is None and newest is not None:
            return replace(query, as_of=newest)
        return query

    async def _tag(self, request: Request, query: Query) -> str | None:
        """Over count and newest arrival of the span."""
        r = query.request
        if query.after is not None or query.limit or r.until_ms - r.from_ms > TAGGED_SPAN_MS:
            return None
        state = await self._broker.read(self._broker.store.state, r.stream_part, r.from_ms, r.until_ms)
        form = "".join(letter for letter in request.headers.get("accept", "") if letter.isalnum())[:80]
        return f'"{self._broker.boot}-{state.count}-{state.newest_arrival_ms}-{query.as_of}-{query.proof}-{form}"'

    async def _last(self, request: Request, part: StreamPart) -> Response:
        count, kind = read_number(request, "count", 1, most=MAX_LAST), read_form(request)
        consumer = await self._consumer(request)
        page = await self._broker.read(read_last, self._broker, part, count) if count else NO_ROWS
        query = Query(Asked(*part, page.times_ms[0] if page else 0, FOREVER_MS))
        body = await self._broker.read(self._whole, query, kind, page)
        if consumer is not None:
            self._broker.accounts.charge(consumer, page.signed_bytes)
            await self._broker.read(self._broker.accounts.may_read, consumer)  # so that other machines know of it
        return Response(body, media_type=kind, headers={"cache-control": "no-store"})

    def _whole(self, query: Query, kind: str, page: Columns) -> bytes:
        form, tally = make_form(kind, query), Tally()
        if not page:
            return form.end(end_answer(self._broker, query, tally, None))
        tally.add(page)
        return form.rows(page) + form.end(end_answer(self._broker, query, tally, None))

    async def _summary(self, request: Request, part: StreamPart) -> Response:
        span = read_span(request, part)
        await self._consumer(request)
        found = await self._broker.read(summarise, self._broker, span)
        return JSONResponse(found, headers={"cache-control": "no-store"})

    # --- writing

    async def _post(self, request: Request, part: StreamPart) -> Response:
        return await posting.post_messages(self._broker, request, part)

    async def receipts(self, request: Request) -> Response:
        return await posting.post_receipt(self._broker, request)

    async def head(self, _request: Request) -> Response:
        """Who this is, what it knows of chain and time; the clock shows, so that a wrong one does."""
        chain = self._broker.chain
        block = chain.block
        newest, complete_to = await self._broker.read(self._newest)
        return JSONResponse(
            {
                "broker": "0x" + self._broker.address.hex(),
                "network": self._broker.network.name,
                "time": self._broker.now_ms(),
                "block": None if block is None else {"number": block.number, "hash": "0x" + block.hash.hex()},
                "parts": len(chain.parts()),
                "newest": newest,
                "complete_to": complete_to,
                "version": describe_version("logstore-broker"),
            },
            headers={"cache-control": "no-store"},
        )

    def _newest(self) -> tuple[int | None, int | None]:
        """Number of the newest certified bundle, and up to where certificates cover time."""
        history = self._broker.history
        newest = None if history is None else history.newest()
        return newest, None if history is None or newest is None else history.complete_to(newest)


async def _not_now(_request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 503, {"retry-after": "5"})


async def _left(_request: Request, _error: Exception) -> Response:
    """Who asked is gone, or was shown out by the listener: nobody reads this."""
    return Response(status_code=400)


async def _not_ours(_request: Request, error: Exception) -> Response:
    """What lies behind us broke a rule."""
    return JSONResponse({"error": str(error)}, 502)


def build_app(server: Server, routes: Sequence[Route] = ()) -> Starlette:
    """``routes``: of other parts, by paths without stream ids."""
    return Starlette(
        routes=[
            *routes,
            Route("/v1/receipts", server.receipts, methods=["POST"]),
            Route("/receipts", server.receipts, methods=["POST"]),
            Route("/v1/head", server.head),
            Route("/{rest:path}", server.dispatch, methods=["GET", "POST"]),
        ],
        exception_handlers={
            Refused: answer_refused,
            TransientError: _not_now,
            RemoteFault: _not_ours,
            ClientDisconnect: _left,
        },
    )
