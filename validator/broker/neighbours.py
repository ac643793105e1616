"""The broker among others, put together: sums behind the store, heartbeats, answers to others, visits to them.

Everything that is stored goes through ``store``, so nothing is held that no sum knows. Heartbeats are heard there too:
whichever way one came, from the network, by post or by repair, it was checked and kept first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

from starlette.routing import Route

from validator.broker.admission import Admission
from validator.broker.answers import DOOR, Answers
from validator.broker.chain_view import ChainView
from validator.broker.claims import Claims
from validator.broker.evidence import EvidenceBook
from validator.broker.heartbeat import Hearing, make_heartbeat
from validator.broker.mending import Mending
from validator.broker.repair import Repair
from validator.broker.slices import SliceSums, SummedStore
from validator.log import get_logger
from validator.metrics import Sample
from validator.net.http.client import BoundedClient
from validator.net.http.urls import IPNetwork, check_url
from validator.net.mutual import wire
from validator.net.mutual.client import HttpLine
from validator.net.signed.listener import Limits, SignedListener
from validator.net.signed.signing import Channel, network_digest
from validator.ports.broker_state import SumBook
from validator.ports.message_store import MessageStore
from validator.protocol.codec.answer import Claim, Request
from validator.protocol.codec.heartbeat import Heartbeat, is_fit_url, write_heartbeat
from validator.protocol.codec.received import CANONICAL
from validator.protocol.codec.secp256k1 import Signer
from validator.protocol.codec.statement import SigningContext
from validator.protocol.model import Address, Record, Root
from validator.protocol.parameters import Network

log = get_logger(__name__)

ADMITTED = 1024
"""Messages that are checked at once; live ones come between."""


def say_as_it_is(heartbeat: Heartbeat) -> Heartbeat:
    """Of an honest broker."""
    return heartbeat


class Neighbours:
    """``perform``, ``say``: what others are answered, and told each second, before it is signed; a development network
    puts its liar here.

    ``settles``: this process sums what is stored, and mends; of several that share a folder, one does."""

    def __init__(
        self,
        store: MessageStore,
        sums: SumBook,
        book: EvidenceBook,
        key: Signer,
        network: Network,
        chain: ChainView,
        *,
        from_ms: int,
        now_ms: Callable[[], int],
        nets: Sequence[IPNetwork],
        allow_http: bool,
        settles: bool = True,
    ) -> None:
        self._me = key.address
        self._key = key
        self._chain = chain
        self._now_ms = now_ms
        self._settles = settles
        self._context = SigningContext(network.chain_id, network.contracts.report_manager)
        self._channel = Channel(wire.PURPOSE, self._context, network_digest(network))
        self._nets = nets
        self._loop: asyncio.AbstractEventLoop | None = None
        self._admission: Admission | None = None
        self.sums = SliceSums(sums, store, from_ms=from_ms, settles=settles)
        self.store: MessageStore = SummedStore(store, self.sums, self._overhear)
        self.book = book
        self.hearing = Hearing(key.address, chain.system_part, self.find_others, self.book, now_ms)
        answers = Answers(self.store, self.sums, self._admit, key, self._context, now_ms)
        self.perform: Callable[[str, Address | None, bytes], bytes] = answers.perform
        self.say: Callable[[Heartbeat], Heartbeat] = say_as_it_is
        self._mending = Mending(self.store, self._admit, asyncio.to_thread, now_ms, self.hearing.hear)
        self._line = HttpLine(
            self._channel,
            key,
            BoundedClient(allow_nets=nets),
            self.find_others,
            lambda url: check_url(url, allow_http=allow_http, allow_nets=nets),
            now_ms=now_ms,
        )
        self._claims = Claims(self._line, self._context)
        self.repair = Repair(
            self._me,
            self._line,
            self.store,
            self.sums,
            self._mending,
            self.hearing,
            self.book,
            self.find_others,
            now_ms=now_ms,
        )
        self._listener: SignedListener | None = None

    def close(self) -> None:
        self._line.close()
        self.sums.close()

    def find_others(self) -> Mapping[Address, str]:
        """URLs of the other staked nodes that are brokers, by the newest block that was read."""
        return {n.address: n.http_url for n in self._chain.brokers if n.http_url is not None and n.address != self._me}

    def attach(self, admission: Admission) -> None:
        """The checks that what others bring goes through."""
        self._admission = admission

    # --- what others ask

    def routes(self) -> list[Route]:
        """To be mounted before paths with stream ids. Belongs to the running event loop."""
        limits = Limits(allow_nets=self._nets)
        self._listener = SignedListener(
            DOOR, self.find_others, self.perform, self._key, self._channel, limits, now_ms=self._now_ms
        )
        return [Route(path, self._listener.handle, methods=["GET", "POST"]) for path in wire.REQUEST_BYTES]

    # --- loops

    async def mend(self) -> None:
        """For ever. Others' heartbeats are heard meanwhile."""
        self._loop = asyncio.get_running_loop()
        try:
            await self.repair.run()
        finally:
            self._loop = None

    async def beat(self, publish: Callable[[bytes], Awaitable[bool]], bundle: tuple[int, Root] | None) -> None:
        """Once: say what is held. The caller does so every ``heartbeat.BEAT_S``."""
        own = [n.http_url for n in self._chain.brokers if n.address == self._me]
        urls = [url for url in own if url is not None and is_fit_url(url)]
        heartbeat = await asyncio.to_thread(make_heartbeat, self.sums, self._now_ms(), urls, bundle)
        await publish(write_heartbeat(self.say(heartbeat)))

    def _overhear(self, records: Sequence[Record]) -> None:
        """In the thread that has stored them."""
        said = [r for r in records if r.message.stream_part == self._chain.system_part]
        loop = self._loop
        if said and loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._hear, said)

    def _hear(self, records: Sequence[Record]) -> None:
        for record in records:
            self.hearing.hear(record)

    def _admit(self, records: Sequence[Record]) -> Sequence[StrEnum | None]:
        assert self._admission is not None
        reasons: list[StrEnum | None] = []
        for at in range(0, len(records), ADMITTED):
            items = [(r.message.stream_part, r.canonical) for r in records[at : at + ADMITTED]]
            reasons += [judged.why for judged in self._admission.admit(items, CANONICAL, paced=False)]
        return reasons

    # --- what others say of a span

    async def ask_others(self, request: Request) -> Sequence[Claim]:
        """Of each other broker its signed claim, or nothing where it does not answer in time."""
        return await self._claims.ask(sorted(self.find_others()), request)

    # --- what the operator sees

    def status(self) -> dict[str, Any]:
        """By broker: what it last said, what was done with it, what it was caught at."""
        now_ms = self._now_ms()
        progress = self.repair.progress()
        shown = {}
        for broker in sorted(self.find_others()):
            p, heard = progress.get(broker), self.hearing.newest.get(broker)
            shown["0x" + broker.hex()] = {
                "silent": self.hearing.is_silent(broker),
                "heard_s_ago": None if heard is None else round((now_ms - heard.heard_ms) / 1000),
                "clock_off_ms": 0 if heard is None else heard.clock_off_ms,
                "equal_s_ago": None if p is None or not p.equal_ms else round((now_ms - p.equal_ms) / 1000),
                "visits": 0 if p is None else p.visits,
                "sessions": 0 if p is None else p.sessions,
                "rounds": 0 if p is None else p.rounds,
                "fetched": 0 if p is None else p.fetched,
                "stored": 0 if p is None else p.stored,
                "offered": 0 if p is None else p.offered,
                "bytes": 0 if p is None else p.sent_bytes + p.received_bytes,
                "refused": 0 if p is None else p.refused.total(),
                "error": "" if p is None else p.error,
                "lies": {str(lie): count for (whose, lie), count in self.book.counts.items() if whose == broker},
            }
        return shown

    def samples(self) -> Iterator[Sample]:
        for broker, shown in self.status().items():
            labels = {"broker": broker}
            yield Sample("logstore_broker_silent", "Whether a broker has gone silent", int(shown["silent"]), labels)
            for name in ("fetched", "stored", "offered", "bytes", "refused"):
                yield Sample(f"logstore_broker_repair_{name}", "Mended with a broker", shown[name], labels)
            for lie, count in shown["lies"].items():
                yield Sample("logstore_broker_lies", "What a broker was caught at", count, {**labels, "lie": lie})
