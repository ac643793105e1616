"""One question to one broker, signed; its signed answer, with the question."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from validator.net.http.client import BoundedClient
from validator.net.http.urls import ParsedUrl
from validator.net.mutual import wire
from validator.net.signed.client import SignedClient, Spoken
from validator.net.signed.signing import Channel
from validator.protocol.codec.secp256k1 import Signer
from validator.protocol.errors import MalformedInput, RemoteFault, TransientError
from validator.protocol.model import Address

DEADLINE_S = 10.0
_THREADS = 32
_SHORT = frozenset({wire.SUMS, wire.CLAIM})


class Line(Protocol):
    """To other brokers, whoever they are. Never waits beyond a deadline of its own."""

    async def ask(self, broker: Address, path: str, body: bytes) -> Spoken:
        """The signed answer.

        Raises:
            TransientError: no answer in time, none that is signed, or one that says to come back later.
            RemoteFault: the broker refuses, in signed words, or broke a rule of HTTP.
        """


class HttpLine:
    """``Line`` over HTTP. ``endpoints`` gives each broker's URL as its metadata has it now; ``check`` is the rule for
    URLs of this network (http.urls). Threads wait for answers: a broker that hangs takes some for its deadline, at most
    as many as the client allows connections to one address."""

    def __init__(
        self,
        channel: Channel,
        key: Signer,
        client: BoundedClient,
        endpoints: Callable[[], Mapping[Address, str]],
        check: Callable[[str], ParsedUrl],
        *,
        now_ms: Callable[[], int] | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self._asking = SignedClient(channel, key, client, now_ms)
        self._client = client
        self._endpoints = endpoints
        self._check = check
        self._deadline_s = deadline_s
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="mutual")

    async def ask(self, broker: Address, path: str, body: bytes) -> Spoken:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self.ask_now, broker, path, body)

    def ask_now(self, broker: Address, path: str, body: bytes) -> Spoken:
        """The same for who has no event loop."""
        text = self._endpoints().get(broker)
        if text is None:
            raise TransientError(f"0x{broker.hex()}: no endpoint", member=broker)
        try:
            base = self._check(text)
        except MalformedInput as error:
            raise RemoteFault(f"0x{broker.hex()}: endpoint: {error}", member=broker) from error
        deadline_s = self._deadline_s if path in _SHORT else 3 * self._deadline_s
        return self._asking.ask(broker, base, path, body, max_bytes=wire.ANSWER_BYTES[path], deadline_s=deadline_s)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()
