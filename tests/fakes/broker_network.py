"""Brokers in one process that mend each other: real sums, sessions, signatures; a simulated line, in virtual time.

A fault of a broker is a function between its answer and its signature, or something done to what it holds.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Any, TypeVar

from tests.builders import GENESIS_MS, a_key, a_message
from tests.fakes.message_store import MemoryMessageStore
from tests.fakes.virtual_time import START_S
from validator.broker.answers import Answers
from validator.broker.evidence import EvidenceBook, Lie
from validator.broker.heartbeat import BEAT_S, Hearing, make_heartbeat
from validator.broker.mending import Mending
from validator.broker.repair import Repair
from validator.broker.slices import SliceSums, SummedStore
from validator.broker.sum_book import SqliteSums
from validator.net.mutual import wire
from validator.net.signed import signing
from validator.net.signed.client import Spoken
from validator.net.signed.faults import Fault, encode_fault
from validator.net.signed.signing import Channel, Stamp
from validator.protocol.codec.heartbeat import Heartbeat, write_heartbeat
from validator.protocol.codec.message import make_record
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.codec.signatures import VALID, verify_message
from validator.protocol.codec.statement import SigningContext
from validator.protocol.errors import MalformedInput, RemoteFault, TransientError
from validator.protocol.hashing import keccak256
from validator.protocol.model import Address, Digest, Reason, Record, StreamPart

CONTEXT = SigningContext(31337, Address(b"\x07" * 20))
CHANNEL = Channel(wire.PURPOSE, CONTEXT, Digest(b"\x09" * 32))
SYSTEM: StreamPart = (f"0x{'44' * 20}/system", 0)
START_MS = GENESIS_MS - GENESIS_MS % 3_600_000 + 1_800_000
LATENCY_S = 0.01
HANG_S = 10.0
OVERHEAD_BYTES = 700
"""Of a request and its answer beside their bodies: heads with signatures."""

T = TypeVar("T")
Fake = Callable[[str, bytes, Callable[[], bytes]], bytes]
"""(path, what was asked, the honest answer) -> the answer."""


def now_ms() -> int:
    return START_MS + round((asyncio.get_running_loop().time() - START_S) * 1000)


async def at_once(function: Callable[..., T], /, *arguments: Any) -> T:
    return function(*arguments)


class SimulatedBroker:
    def __init__(self, network: SimulatedNetwork, key: SigningKey) -> None:
        self.network = network
        self.key = key
        self.clock_off_ms = 0
        self.raw = MemoryMessageStore()
        self.sums = SliceSums(SqliteSums(":memory:"), self.raw, from_ms=START_MS - 3_600_000)
        self.store = SummedStore(self.raw, self.sums)
        self.book = EvidenceBook()
        self.hearing = Hearing(key.address, SYSTEM, lambda: network.urls, self.book, self.now_ms)
        self.answers = Answers(self.store, self.sums, self.admit, key, CONTEXT, self.now_ms)
        self.mending = Mending(self.store, self.admit, at_once, self.now_ms, self.hearing.hear)
        self.repair = Repair(
            key.address,
            Line(network, key),
            self.store,
            self.sums,
            self.mending,
            self.hearing,
            self.book,
            lambda: network.urls,
            now_ms=self.now_ms,
            run=at_once,
            rng=random.Random(network.rng.random()),
        )
        self.loss = 0.0
        self.hangs = False
        self.fake: Fake | None = None
        self.fake_heartbeat: Callable[[Heartbeat], Heartbeat] = lambda heartbeat: heartbeat
        self.checks = True
        self.admitted = 0
        self._sequence = itertools.count()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def address(self) -> Address:
        return self.key.address

    def now_ms(self) -> int:
        return now_ms() + self.clock_off_ms

    def admit(self, records: Sequence[Record]) -> Sequence[StrEnum | None]:
        self.admitted += len(records)
        reasons: list[StrEnum | None] = [
            Reason.BAD_SIGNATURE if self.checks and verify_message(r.message) is not VALID else None for r in records
        ]
        good = [r for r, reason in zip(records, reasons, strict=True) if reason is None]
        self.store.insert(good, self.now_ms())
        return reasons

    def receive(self, records: Sequence[Record]) -> None:
        """From the network, or posted."""
        self.store.insert(records, self.now_ms())
        for record in records:
            self.hearing.hear(record)

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self.repair.run()), loop.create_task(self._beat())]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            heartbeat = self.fake_heartbeat(make_heartbeat(self.sums, self.now_ms(), ("http://127.0.0.1:1",), None))
            record = make_record(
                a_message(
                    self.key,
                    stream_id=SYSTEM[0],
                    timestamp_ms=self.now_ms(),
                    sequence_number=next(self._sequence),
                    content=write_heartbeat(heartbeat),
                )
            )
            self.receive([record])
            self.network.carry([record], but=self)

    def leaves(self) -> set[Digest]:
        return {leaf for part in self.raw.parts() for page in self.raw.keys(part, 0, 1 << 62) for _, leaf in page}

    def lies(self) -> set[tuple[Address, Lie]]:
        return set(self.book.counts)


class SimulatedNetwork:
    """``key`` of broker n is ``a_key(100 + n)``, sorted by address, so that who visits whom does not depend on n."""

    def __init__(self, brokers: int, seed: int) -> None:
        self.rng = random.Random(seed)
        self.moved: dict[str, int] = {}
        keys = sorted((a_key(100 + n) for n in range(brokers)), key=lambda key: key.address)
        self.urls = {key.address: f"http://127.0.0.1:{n + 1}" for n, key in enumerate(keys)}
        self.brokers = {key.address: SimulatedBroker(self, key) for key in keys}

    def __getitem__(self, number: int) -> SimulatedBroker:
        return list(self.brokers.values())[number]

    def carry(self, records: Sequence[Record], but: SimulatedBroker | None = None) -> None:
        """To all, each of which loses its own share."""
        for broker in self.brokers.values():
            got = [record for record in records if self.rng.random() >= broker.loss]
            if broker is not but and got:
                broker.receive(got)

    def replace(self, number: int) -> SimulatedBroker:
        """The same broker with an empty disk, not started yet."""
        old = self[number]
        self.brokers[old.address] = new = SimulatedBroker(self, old.key)
        new.loss = old.loss
        return new

    @property
    def moved_bytes(self) -> int:
        return sum(self.moved.values())


@asynccontextmanager
async def running(network: SimulatedNetwork) -> AsyncIterator[SimulatedNetwork]:
    for broker in network.brokers.values():
        broker.start()
    try:
        yield network
    finally:
        for broker in network.brokers.values():
            await broker.stop()


class Line:
    """What ``SignedClient`` and ``SignedListener`` do together, without HTTP between them."""

    def __init__(self, network: SimulatedNetwork, key: SigningKey) -> None:
        self._network = network
        self._key = key
        self._counter = itertools.count(1)

    async def ask(self, broker: Address, path: str, body: bytes) -> Spoken:
        target = self._network.brokers[broker]
        await asyncio.sleep(HANG_S if target.hangs else LATENCY_S)
        if target.hangs:
            raise TransientError("timed out")
        status, answer = self._answer(target, path, body)
        moved = self._network.moved
        moved[path] = moved.get(path, 0) + len(body) + len(answer) + OVERHEAD_BYTES
        stamp = Stamp(self._key.address, 7, next(self._counter), now_ms())
        asked = CHANNEL.request_payload(stamp, path, broker, body)
        signature = signing.sign(CHANNEL.response_payload(keccak256(asked), status, answer), target.key)
        spoken = Spoken(broker, path, body, stamp, status, answer, signature)
        spoken.verify(CHANNEL)
        if status >= 500:
            raise TransientError(f"{status}", spoken=spoken)
        if status >= 400:
            raise RemoteFault(f"{status}", spoken=spoken)
        return spoken

    def _answer(self, target: SimulatedBroker, path: str, body: bytes) -> tuple[int, bytes]:
        def honest() -> bytes:
            return target.answers.perform(path, self._key.address, body)

        try:
            answer = honest() if target.fake is None else target.fake(path, body, honest)
        except MalformedInput as error:
            return 400, encode_fault(Fault.MALFORMED, str(error))
        except RemoteFault as error:
            return 422, encode_fault(Fault.REFUSED, str(error))
        except TransientError as error:
            return 503, encode_fault(Fault.TRANSIENT, str(error))
        assert len(body) <= wire.REQUEST_BYTES[path]
        assert len(answer) <= wire.ANSWER_BYTES[path]
        return 200, answer
