"""A development gateway as a real process, and a storage over it."""

from __future__ import annotations

import http.server
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import paths
from tests.arlocal import run_arlocal, what_is_missing
from tests.gateway_process import GatewayProcess, run_gateway
from validator.net.arweave.gateway import Limits
from validator.net.arweave.storage import ArweaveStorage
from validator.net.arweave.wallet import ArweaveWallet
from validator.protocol.codec.arweave_text import encode_base64url

VECTORS = paths.VECTORS / "arweave.json"
FAST = Limits(connect_s=5, read_s=20, request_s=20, call_s=60, download_s=60, attempts=3, first_wait_s=0.01, open_s=0.2)
"""Its waits between requests are short; its deadlines strike in no test, on a loaded machine either."""
AR = 10**12


@pytest.fixture(scope="session")
def gateway_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with run_gateway(tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


@pytest.fixture
def gateway(gateway_process: GatewayProcess) -> Iterator[GatewayProcess]:
    """The gateway, with no faults before and after."""
    gateway_process.control("faults", method="DELETE")
    yield gateway_process
    gateway_process.control("faults", method="DELETE")


@pytest.fixture(scope="session")
def arlocal_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running arlocal; who asks for it is skipped where it is not installed."""
    missing = what_is_missing()
    if missing is not None:
        pytest.skip(missing)
    with run_arlocal(tmp_path_factory.mktemp("arlocal")) as url:
        yield url


@pytest.fixture(scope="session")
def wallet() -> ArweaveWallet:
    return ArweaveWallet.from_jwk(json.loads(VECTORS.read_text())["keys"]["rsa"])


@pytest.fixture
def funded(gateway: GatewayProcess, wallet: ArweaveWallet) -> GatewayProcess:
    gateway.control(f"mint/{encode_base64url(wallet.address)}/{AR}")
    return gateway


@pytest.fixture
def build_storage(wallet: ArweaveWallet) -> Iterator[Callable[..., ArweaveStorage]]:
    built: list[ArweaveStorage] = []

    def build(*urls: str, **options: Any) -> ArweaveStorage:
        settings = {"reward_cap": AR, "limits": FAST, "root_wait_s": 0.01, "wallet": wallet, **options}
        storage = ArweaveStorage(urls, **settings)
        built.append(storage)
        return storage

    yield build
    for storage in built:
        storage.close()


@pytest.fixture
def storage(funded: GatewayProcess, build_storage: Callable[..., ArweaveStorage]) -> ArweaveStorage:
    return build_storage(funded.url)


@dataclass(frozen=True)
class Bundle:
    """A file of random bytes and the tags it goes under; the root is as good as unique."""

    path: Path
    root: str
    content: bytes

    @property
    def tags(self) -> list[tuple[str, str]]:
        return [
            ("App-Name", "LogStore"),
            ("Content-Type", "application/vnd.apache.parquet"),
            ("Bundle-Root", self.root),
        ]


@pytest.fixture
def build_bundle(tmp_path: Path) -> Callable[[int], Bundle]:
    def build(size: int) -> Bundle:
        root = os.urandom(32).hex()
        path = tmp_path / f"{root}.parquet"
        content = os.urandom(size)
        path.write_bytes(content)
        return Bundle(path, root, content)

    return build


@pytest.fixture
def bundle(build_bundle: Callable[[int], Bundle]) -> Bundle:
    return build_bundle(600_000)


class QuietServer(http.server.ThreadingHTTPServer):
    """Its clients hang up on it, which is what the tests want."""

    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing."""


Handler = Callable[[http.server.BaseHTTPRequestHandler], None]


@pytest.fixture
def serve_lies() -> Iterator[Callable[[Handler], str]]:
    """Start a server that answers every request by the given function; its URL."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def start(answer: Handler) -> str:
        class Liar(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer(self)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", "0")))
                answer(self)

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        server = QuietServer(("127.0.0.1", 0), Liar)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
