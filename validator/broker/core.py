"""A broker without its sockets: the parts that all its listeners and loops share."""

from __future__ import annotations

import asyncio
import functools
import secrets
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from validator.broker.admission import Admission
from validator.broker.chain_view import ChainView
from validator.broker.gate import Gate
from validator.broker.system_messages import SystemChain
from validator.ports.broker_state import Accounts
from validator.ports.bus import MessageBus
from validator.ports.certified import CertifiedHistory
from validator.ports.message_store import MessageStore
from validator.protocol.codec.answer import Claim, Request
from validator.protocol.codec.protobuf import write_protobuf
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.codec.statement import SigningContext
from validator.protocol.errors import TransientError
from validator.protocol.model import Address, Record
from validator.protocol.parameters import Network

AHEAD = 2
"""Threads that read the next page of an answer while its last is hashed; they wait for the disk alone."""
READERS = 4
"""Threads that read the store for answers; ingest has others."""
P = ParamSpec("P")
T = TypeVar("T")
AskOthers = Callable[[Request], Awaitable[Sequence[Claim]]]
"""What other responsible brokers say of a span; ends by its own deadline, names who did not answer, raises nothing."""


async def ask_nobody(_request: Request) -> Sequence[Claim]:
    """Of a broker without neighbours."""
    return ()


@dataclass
class Broker:
    """Everything that an answer needs. ``boot``: in entity tags, so that none outlives the process that gave it."""

    key: SigningKey
    network: Network
    store: MessageStore
    chain: ChainView
    admission: Admission
    accounts: Accounts
    gate: Gate
    now_ms: Callable[[], int]
    bus: MessageBus | None = None
    history: CertifiedHistory | None = None
    retained_from_ms: Callable[[], int] = lambda: 0
    """From when on this broker keeps messages."""
    ask_others: AskOthers = ask_nobody
    on_signed: Callable[[Record], None] | None = None
    """Told of a message of its own before anybody can have it, and on a thread of its own."""
    on_published: Callable[[Record], None] | None = None
    boot: str = field(default_factory=lambda: secrets.token_hex(4))

    def __post_init__(self) -> None:
        self.readers = ThreadPoolExecutor(READERS, thread_name_prefix="read")
        self.ahead = ThreadPoolExecutor(AHEAD, thread_name_prefix="ahead")
        self.system = SystemChain(self.key, self.chain.system_part[0])
        self.context = SigningContext(self.network.chain_id, self.network.contracts.report_manager)

    @property
    def address(self) -> Address:
        return self.key.address

    async def read(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Call on a reader's thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.readers, functools.partial(function, *arguments, **named))

    def close(self, *, wait: bool = False) -> None:
        """Let the threads go; what they read is nobody's any more."""
        self.readers.shutdown(wait=wait, cancel_futures=True)
        self.ahead.shutdown(wait=wait, cancel_futures=True)

    def begin_chain(self) -> None:
        """What is published from now on stands in a chain of its own: whoever listens takes a chain that goes on behind
        another's for a second process with one key, and this one was silent while another spoke."""
        self.system = SystemChain(self.key, self.chain.system_part[0])

    async def publish_on_system_stream(self, content: bytes) -> bool:
        """Sign, keep and hand to the network; whether that took it. What it did not take, repair brings others."""
        record = await asyncio.to_thread(self._keep_own, content)
        if self.on_published is not None:
            self.on_published(record)
        if self.bus is None:
            return False
        try:
            await self.bus.publish(self.chain.system_part, write_protobuf(record.message))
        except TransientError:
            return False
        return True

    def _keep_own(self, content: bytes) -> Record:
        now_ms = self.now_ms()
        record = self.system.sign(now_ms, content)
        if self.on_signed is not None:
            self.on_signed(record)
        self.store.insert([record], now_ms)
        return record
