"""Brokers that a consumer asks in one process: real answers over certified history, changed on their way where told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from logstore.answer_check import Verify
from logstore.answers import QueryAnswer
from logstore.brokers import Brokers, Place
from tests.asgi import AsgiClient
from tests.broker_parts import BrokerParts
from tests.builders import GENESIS_MS, a_record
from tests.certified_world import BUNDLE_MS, NETWORK, STREAM, Broker, World
from validator.broker.gate import Terms
from validator.net.chain.bundles import AcceptedBundles
from validator.net.http.client import Answer as HttpAnswer
from validator.net.http.client import OpenAnswer
from validator.net.http.urls import ParsedUrl, check_url
from validator.protocol.codec.answer import Request
from validator.protocol.codec.frames import split_frames, write_frame
from validator.protocol.codec.statement import SigningContext
from validator.protocol.errors import TransientError
from validator.protocol.model import Record

END_MS = GENESIS_MS + 2 * BUNDLE_MS
SPAN = Request(STREAM, 0, GENESIS_MS, END_MS + 1_000)
CONTEXT = SigningContext(NETWORK.chain_id, NETWORK.contracts.report_manager)


def a_row(at_ms: int, number: int) -> Record:
    return a_record(
        stream_id=STREAM, timestamp_ms=GENESIS_MS + at_ms, sequence_number=number, content=b'{"n":%d}' % number
    )


LATE = [a_row(150, 700), a_row(4_100, 701)]
TAIL = [a_row(160, 800), a_row(2 * BUNDLE_MS + 5, 801)]


def fill(world: World) -> World:
    """Two bundles with signed messages."""
    world.add_bundle(([a_row(10 * n, n) for n in range(60)], [a_row(4_000 + n, n) for n in range(60)]))
    world.add_bundle(([a_row(BUNDLE_MS, 1)], []), LATE)
    return world


def everything(world: World) -> list[Record]:
    return sorted([*world.all_records, *TAIL], key=lambda r: r.order)


Change = Callable[[list[bytes]], list[bytes]]
"""What becomes of the objects of a broker's answer on their way."""


@dataclass
class Served:
    """A broker's paths, called in this process. ``changes``: for one answer each, in turn; then it is honest."""

    parts: BrokerParts
    changes: list[Change]
    is_down: bool = False
    asked: int = 0


class Loopback:
    """What ``Brokers`` asks with, without a socket. Bodies come in pieces that no frame fits."""

    def __init__(self, served: dict[str, Served]) -> None:
        self._served = served

    def _find(self, base: ParsedUrl) -> Served:
        served = self._served[base.host]
        if served.is_down:
            raise TransientError(f"{base}: no connection")
        return served

    def fetch(self, method: str, base: ParsedUrl, target: str, **more: Any) -> HttpAnswer:
        answer = AsgiClient(self._find(base).parts.app).get(target, None, dict(more.get("headers", ())))
        return HttpAnswer(answer.status_code, {}, answer.content)

    @contextmanager
    def stream(self, method: str, base: ParsedUrl, target: str, *, headers: Any, **_: Any) -> Iterator[OpenAnswer]:
        served = self._find(base)
        served.asked += 1
        answer = AsgiClient(served.parts.app).get(target, None, dict(headers))
        body = answer.content
        if answer.status_code == 200 and served.changes:
            objects = served.changes.pop(0)(list(split_frames(body, len(body))))
            body = b"".join(map(write_frame, objects))
        pieces = (body[at : at + 777] for at in range(0, len(body), 777))
        yield OpenAnswer(answer.status_code, {}, pieces, framed=True)


class Consumer:
    def __init__(self, world: World) -> None:
        self.world = world
        self.served: dict[str, Served] = {}

    def add(self, name: str, held: list[Record], *changes: Change, **options: Any) -> Served:
        broker: Broker = self.world.broker(f"{name}-{len(list(self.world.folder.iterdir()))}", held, **options)
        parts = BrokerParts(broker.folder / "parts", streams={STREAM: 3}, terms=Terms(balance=False))
        parts.broker.store, parts.broker.history = broker.store, broker.history
        parts.broker.network, parts.broker.context = NETWORK, CONTEXT
        self.served[f"{name}.test"] = served = Served(parts, list(changes))
        return served

    def query(self, verify: Verify = Verify.PROOF, request: Request = SPAN) -> QueryAnswer:
        chain: Any = self.world.chain
        places = [Place(check_url(f"https://{host}", allow_http=False)) for host in self.served]
        return QueryAnswer(
            request,
            verify,
            NETWORK,
            Brokers(places, Loopback(self.served), CONTEXT),
            lambda: AcceptedBundles(chain, NETWORK, chain.fetch_finalised()),
            pause=lambda _: None,
        )

    def close(self) -> None:
        for served in self.served.values():
            served.parts.close()
