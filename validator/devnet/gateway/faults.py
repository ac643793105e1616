"""Rules by which requests go wrong, and the connections that they can cut."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, ClassVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from validator.protocol.errors import MalformedInput

Count = Annotated[int, msgspec.Meta(ge=0)]

SILENT_S = 600.0
"""For so long a silent fault holds a connection whose client does not hang up."""
LOOK_S = 0.05
_SCOPE_KEY = "devnet.fault"


class FaultKind(StrEnum):
    """What goes wrong. The second half is told to the routes, which alone can lie that well (``fault_of``)."""

    ANSWER = "answer"
    """Status, body and headers of the rule instead of the truth, which is not asked."""
    STATUS = "status"
    """The true answer under the rule's status."""
    CUT_BEFORE = "cut_before"
    """The connection ends without an answer, and the request has no effect."""
    CUT_AFTER = "cut_after"
    """The connection ends without an answer after the request took effect."""
    CUT_WITHIN = "cut_within"
    """The connection ends after half of the body."""
    SILENT = "silent"
    """The request is not read, and no answer comes."""
    SLOW = "slow"
    """``seconds`` pass first."""
    DRIP = "drip"
    """The body comes in bytes, ``seconds`` apart."""
    WRONG_BYTES = "wrong_bytes"
    """The last byte of each piece of the body is another one."""
    ENDLESS = "endless"
    """A body without end."""
    STALE = "stale"
    """The chain of ``amount`` blocks ago: height and newest block."""
    LYING_PRICE = "lying_price"
    """``amount`` per cent of the price."""
    FORGET = "forget"
    """A header or a chunk is answered like a good one, and not kept."""
    DUPLICATE_ROWS = "duplicate_rows"
    """GraphQL: each row twice."""
    FORGED_ROWS = "forged_rows"
    """GraphQL: each row once more with an id that is nothing, first."""


class Fault(msgspec.Struct, forbid_unknown_fields=True):
    """One rule: requests with this method whose path matches the pattern (from its start) go wrong.

    The first ``skip`` matching requests are spared; each of the next goes wrong with ``probability``, drawn from
    ``seed`` so that a run can be repeated, until ``times`` have. ``times`` counts down.
    """

    path: str
    kind: FaultKind
    method: str = ""
    skip: Count = 0
    times: Count = 1
    probability: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    seed: int = 0
    status: Annotated[int, msgspec.Meta(ge=200, le=599)] = 500
    body: str = "<html><body>Internal Server Error</body></html>"
    headers: dict[str, str] = {}
    seconds: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    amount: Count = 50


def decode_fault(body: bytes) -> Fault:
    """A rule from JSON. Raises MalformedInput."""
    try:
        fault = msgspec.json.decode(body, type=Fault)
        re.compile(fault.path)
    except (msgspec.MsgspecError, re.error) as error:
        raise MalformedInput("fault", str(error)) from error
    return fault


class Rules:
    """The rules in force, in the order in which they came, and what was counted."""

    def __init__(self) -> None:
        self._rules: list[tuple[Fault, random.Random]] = []
        self.requests: Counter[str] = Counter()
        """By method and first part of the path."""
        self.struck: Counter[str] = Counter()
        """By kind."""

    def add(self, fault: Fault) -> None:
        self._rules.append((fault, random.Random(fault.seed)))

    def clear(self) -> None:
        self._rules.clear()

    @property
    def faults(self) -> list[Fault]:
        return [fault for fault, _ in self._rules]

    def choose(self, method: str, path: str) -> Fault | None:
        """Count a request; the first rule that hits it."""
        self.requests[f"{method} /{path.split('/')[1]}"] += 1
        fault = next((f for f, draws in self._rules if _hits(f, draws, method, path)), None)
        if fault is not None:
            self.struck[fault.kind] += 1
        return fault


def _hits(fault: Fault, draws: random.Random, method: str, path: str) -> bool:
    if fault.times == 0 or (fault.method and fault.method != method) or not re.match(fault.path, path):
        return False
    if fault.skip:
        fault.skip -= 1
        return False
    if draws.random() >= fault.probability:
        return False
    fault.times -= 1
    return True


def fault_of(request: Request, kind: FaultKind) -> Fault | None:
    """The rule that this request is to be answered by, if it is one of this kind."""
    fault: Fault | None = request.scope.get(_SCOPE_KEY)
    return fault if fault is not None and fault.kind is kind else None


class AbortableProtocol(H11Protocol):
    """HTTP connections that a fault can cut: open transports by the client's address."""

    transports: ClassVar[dict[tuple[str, int], asyncio.Transport]] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.name = transport.get_extra_info("peername")
        self.transports[self.name] = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.transports.pop(self.name, None)
        super().connection_lost(exc)

    @classmethod
    def is_open(cls, scope: Scope) -> bool:
        return tuple(scope["client"]) in cls.transports

    @classmethod
    def cut(cls, scope: Scope, *, sends_rest: bool = False) -> None:
        """End the connection; what was written before is sent only where ``sends_rest``."""
        transport = cls.transports.get(tuple(scope["client"]))
        if transport is not None and sends_rest:
            transport.close()
        elif transport is not None:
            transport.abort()


class Faults:
    """Middleware that applies the first rule that hits; /devnet itself never fails."""

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        self.app = app
        self.rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = None
        if scope["type"] == "http" and not scope["path"].startswith("/devnet/"):
            fault = self.rules.choose(scope["method"], scope["path"])
        if fault is None:
            await self.app(scope, receive, send)
            return
        match fault.kind:
            case FaultKind.ANSWER:
                answer = Response(fault.body, fault.status, fault.headers, media_type="text/html")
                await answer(scope, receive, send)
            case FaultKind.CUT_BEFORE:
                AbortableProtocol.cut(scope)
            case FaultKind.CUT_AFTER:
                await self.app(scope, receive, _swallow)
                AbortableProtocol.cut(scope)
            case FaultKind.SILENT:
                await _hold(scope)
            case FaultKind.SLOW:
                await asyncio.sleep(fault.seconds)
                await self.app(scope, receive, send)
            case FaultKind.ENDLESS:
                await _stream_for_ever(scope, send)
            case _:
                altered = _ALTERED.get(fault.kind, _leave)(scope, send, fault)
                await self.app({**scope, _SCOPE_KEY: fault}, receive, altered)


async def _hold(scope: Scope) -> None:
    for _ in range(int(SILENT_S / LOOK_S)):
        if not AbortableProtocol.is_open(scope):
            return
        await asyncio.sleep(LOOK_S)
    AbortableProtocol.cut(scope)


async def _stream_for_ever(scope: Scope, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    while AbortableProtocol.is_open(scope):
        await send({"type": "http.response.body", "body": b"1" * 65536, "more_body": True})
        await asyncio.sleep(0.001)


async def _swallow(_: Message) -> None:
    """Take an answer that nobody will see."""


def _leave(_scope: Scope, send: Send, _fault: Fault) -> Send:
    """The routes lie by themselves."""
    return send


def _change_status(_scope: Scope, send: Send, fault: Fault) -> Send:
    async def altered(message: Message) -> None:
        await send({**message, "status": fault.status} if message["type"] == "http.response.start" else message)

    return altered


def _flip_last_byte(_scope: Scope, send: Send, _fault: Fault) -> Send:
    async def altered(message: Message) -> None:
        body = message.get("body", b"")
        if message["type"] == "http.response.body" and body:
            message = {**message, "body": body[:-1] + bytes([body[-1] ^ 1])}
        await send(message)

    return altered


def _cut_within(scope: Scope, send: Send, _fault: Fault) -> Send:
    is_cut = False

    async def altered(message: Message) -> None:
        nonlocal is_cut
        body = message.get("body", b"")
        if message["type"] == "http.response.body" and body and not is_cut:
            is_cut = True
            await send({**message, "body": body[: len(body) // 2], "more_body": True})
            AbortableProtocol.cut(scope, sends_rest=True)
        elif not is_cut:
            await send(message)

    return altered


def _drip(scope: Scope, send: Send, fault: Fault) -> Send:
    async def altered(message: Message) -> None:
        body = message.get("body", b"")
        for at in range(len(body)):
            if not AbortableProtocol.is_open(scope):
                return
            await send({"type": "http.response.body", "body": body[at : at + 1], "more_body": True})
            await asyncio.sleep(fault.seconds)
        await send({**message, "body": b""} if body else message)

    return altered


_ALTERED: dict[FaultKind, Callable[[Scope, Send, Fault], Send]] = {
    FaultKind.STATUS: _change_status,
    FaultKind.WRONG_BYTES: _flip_last_byte,
    FaultKind.CUT_WITHIN: _cut_within,
    FaultKind.DRIP: _drip,
}
