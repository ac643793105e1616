"""Rules by which requests go wrong, and the connections that they can cut."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from validator.protocol.errors import MalformedInput

FAULT_KINDS = ("answer", "cut_before", "cut_after", "slow", "wrong_bytes", "endless")


@dataclass(slots=True)
class Fault:
    """One rule: requests with this method whose path matches the pattern (from its start) go wrong.

    Kinds: ``answer`` (status, body and headers instead of the truth), ``cut_before`` and ``cut_after`` (the connection
    ends without an answer, before or after the request took effect), ``slow`` (waits ``seconds`` first),
    ``wrong_bytes`` (the last byte of the body is another one), ``endless`` (a body without end).
    The first ``skip`` matching requests are spared, the next ``times`` are hit.
    """

    path: str
    kind: str
    method: str = ""
    skip: int = 0
    times: int = 1
    status: int = 500
    body: str = "<html><body>Internal Server Error</body></html>"
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 1.0

    def hits(self, method: str, path: str) -> bool:
        if self.times <= 0 or (self.method and self.method != method) or not re.match(self.path, path):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= 1
        return True


def decode_fault(body: Mapping[str, Any]) -> Fault:
    """A rule from JSON. Raises MalformedInput."""
    try:
        fault = Fault(**body)
        re.compile(fault.path)
    except (TypeError, re.error) as error:
        raise MalformedInput("fault", str(error)) from error
    if fault.kind not in FAULT_KINDS:
        raise MalformedInput("fault.kind", f"none of {', '.join(FAULT_KINDS)}")
    return fault


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
    def cut(cls, scope: Scope) -> None:
        transport = cls.transports.get(tuple(scope["client"]))
        if transport is not None:
            transport.abort()


class Faults:
    """Middleware that applies the first rule that hits; /devnet itself never fails."""

    def __init__(self, app: ASGIApp, rules: list[Fault]) -> None:
        self.app = app
        self.rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        rule = None
        if scope["type"] == "http" and not scope["path"].startswith("/devnet/"):
            rule = next((r for r in self.rules if r.hits(scope["method"], scope["path"])), None)
        if rule is None:
            await self.app(scope, receive, send)
        else:
            await self._fail(rule, scope, receive, send)

    async def _fail(self, rule: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        if rule.kind == "answer":
            await Response(rule.body, rule.status, rule.headers, media_type="text/html")(scope, receive, send)
        elif rule.kind == "cut_before":
            AbortableProtocol.cut(scope)
        elif rule.kind == "cut_after":
            await self.app(scope, receive, _swallow)
            AbortableProtocol.cut(scope)
        elif rule.kind == "slow":
            await asyncio.sleep(rule.seconds)
            await self.app(scope, receive, send)
        elif rule.kind == "wrong_bytes":
            await self.app(scope, receive, _flip_last_byte(send))
        else:
            await self._stream_for_ever(scope, send)

    async def _stream_for_ever(self, scope: Scope, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        while AbortableProtocol.is_open(scope):
            await send({"type": "http.response.body", "body": b"1" * 65536, "more_body": True})
            await asyncio.sleep(0.001)


async def _swallow(_: Message) -> None:
    """Take an answer that nobody will see."""


def _flip_last_byte(send: Send) -> Send:
    async def altered(message: Message) -> None:
        body = message.get("body", b"")
        if message["type"] == "http.response.body" and body:
            message = {**message, "body": body[:-1] + bytes([body[-1] ^ 1])}
        await send(message)

    return altered
