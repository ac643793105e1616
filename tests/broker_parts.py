"""A broker for tests: real store, fake chain, and its public listener on loopback where one is needed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn

from tests.builders import a_key
from tests.fakes.chain_source import FakeChainSource
from validator.broker.accounts import SqliteAccounts
from validator.broker.admission import Admission, Limits
from validator.broker.chain_view import ChainView
from validator.broker.core import Broker
from validator.broker.dialects import Dialects
from validator.broker.gate import Gate, Terms
from validator.broker.serve import Server, build_app
from validator.broker.store import SqliteMessageStore
from validator.net.http.listening import listener_config
from validator.protocol.codec.login import Login, sign_login, write_login
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.codec.statement import SigningContext
from validator.protocol.model import Address, Digest, Node
from validator.protocol.parameters import Contracts, Network, ParameterSet

NOW_MS = 1_760_000_000_000
STREAM = "0x" + "cc" * 20 + "/sensors/ä b?%#"
PART = (STREAM, 1)
BROKER_KEY = a_key(77)
CONSUMER = a_key(78)


def a_network() -> Network:
    addresses = [Address(bytes([0xA0 + n]) * 20) for n in range(6)]
    parameters = ParameterSet(first_epoch=0, epoch_windows=10)
    return Network("test", 31337, 0, Digest(bytes(32)), Contracts(*addresses), 0, (parameters,))


class BrokerParts:
    """Parts by name; ``now_ms`` may be set."""

    def __init__(
        self,
        folder: Path,
        *,
        streams: dict[str, int] | None = None,
        terms: Terms | None = None,
        limits: Limits | None = None,
        unpaid_limit: int = 0,
        page_rows: int = 5_000,
        answers: int = 50,
        followers: int = 5,
    ) -> None:
        self.now_ms = NOW_MS
        node = Node(BROKER_KEY.address, 1, "http://127.0.0.1:1", None)
        self.source = FakeChainSource(streams or {STREAM: 3}, [node])
        self.chain = ChainView(self.source)
        self.chain.refresh()
        self.store = SqliteMessageStore(folder / "messages")
        self.network = a_network()
        self.accounts = SqliteAccounts(folder / "accounts.sqlite", unpaid_limit=unpaid_limit)
        self.admission = Admission(self.store, self.chain, limits or Limits(), now_ms=self._clock)
        self.context = SigningContext(self.network.chain_id, self.network.contracts.report_manager)
        self.gate = Gate(
            BROKER_KEY.address, self.context, self.chain, self.accounts, terms or Terms(), now_ms=self._clock
        )
        self.broker = Broker(
            BROKER_KEY, self.network, self.store, self.chain, self.admission, self.accounts, self.gate, self._clock
        )
        self.server = Server(
            self.broker, Dialects(self.broker, page_rows=page_rows), answers=answers, followers=followers
        )
        self.app = build_app(self.server)

    def _clock(self) -> int:
        return self.now_ms

    def token(self, key: SigningKey = CONSUMER, *, life_ms: int = 60_000, broker: Address | None = None) -> str:
        login = Login(key.address, broker or BROKER_KEY.address, self.now_ms + life_ms, bytes(32))
        return write_login(sign_login(login, key, self.context))

    def close(self) -> None:
        self.broker.close(wait=True)
        self.accounts.close()
        self.store.close()


@contextlib.contextmanager
def serving(app: Any, **listener: Any) -> Iterator[str]:
    """URL of the app, served by a thread with an event loop of its own."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(128)
    port = sock.getsockname()[1]
    server = uvicorn.Server(listener_config(app, "127.0.0.1", port, graceful_s=1, **listener))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[sock])))
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
