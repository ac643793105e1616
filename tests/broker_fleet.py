"""Real broker processes on a chain and a hub that stands for Streamr's network: started, killed and looked into."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.builders import a_key
from tests.paths import ROOT
from tests.servers import running, short_folder
from validator.broker.store import SqliteMessageStore
from validator.devnet.contracts import WEI, DevChain, NodeSetup, StreamSetup
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.model import Digest
from validator.protocol.parameters import Network, ParameterSet, format_network

OWNER = a_key(1)
STREAM = f"0x{OWNER.address.hex()}/load"
PART = (STREAM, 0)
LIMIT_S = 60.0
ASK_S = 5.0
"""For one answer: a process that does not run leaves the socket that outlives it silent."""


@dataclass
class Place:
    """Of one process: its sockets, which outlive it, its folder and its settings."""

    name: str
    key: SigningKey
    folder: Path
    public: socket.socket
    operator: socket.socket
    settings: dict[str, Any]
    pid: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.public.getsockname()[1]}"

    def ask(self, path: str) -> Any:
        """Of the operator's listener."""
        url = f"http://127.0.0.1:{self.operator.getsockname()[1]}{path}"
        return httpx.get(url, timeout=ASK_S, trust_env=False).json()

    def held(self) -> set[Digest]:
        """Leaves that lie in its day files, whether it runs or not."""
        store = SqliteMessageStore(self.folder / "messages")
        try:
            return {leaf for page in store.keys(PART, 0, 1 << 62) for _, leaf in page}
        finally:
            store.close()


@dataclass
class Fleet:
    """Start and end go through one process that forks, a command and its answer at a time."""

    folder: Path
    hub: Path
    places: list[Place]
    chain: DevChain
    _forks: subprocess.Popen[str]
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def start(self, place: Place) -> None:
        """And wait until it has joined what the chain names."""
        place.pid = self._say({"start": place.settings, "log": str(self.folder / f"{place.name}.log")})["pid"]
        self.wait_until(lambda: place.ask("/status.json")["block"] is not None)
        if place.settings.get("role") != "serve":
            self.wait_until(lambda: place.ask("/status.json")["parts"]["joined"] > 0)

    def end(self, place: Place, number: signal.Signals) -> int:
        status: int = self._say({"end": place.pid, "signal": int(number)})["status"]
        return status

    def wait_until(self, holds: Callable[[], bool]) -> None:
        """A process that does not answer yet is asked again until the time is up; then the logs are shown."""
        end = time.monotonic() + LIMIT_S
        while not self._is_so(holds):
            assert time.monotonic() < end, "\n".join(p.read_text()[-2000:] for p in self.folder.glob("*.log"))
            time.sleep(0.05)

    def _is_so(self, holds: Callable[[], bool]) -> bool:
        try:
            return holds()
        except httpx.TransportError:
            return False

    def _say(self, command: dict[str, Any]) -> Any:
        assert self._forks.stdin is not None
        assert self._forks.stdout is not None
        with self._turn:
            self._forks.stdin.write(json.dumps(command) + "\n")
            self._forks.stdin.flush()
            return json.loads(self._forks.stdout.readline())


@contextlib.contextmanager
def run_fleet(
    folder: Path, rpc_url: str, keys: Sequence[SigningKey], roles: Sequence[str] = (), database_url: str = ""
) -> Iterator[Fleet]:
    """Places for a process per key; those with one key share a folder, or else a database and each has a folder of its
    own, as on machines of their own. The last of them has the URL on the chain. Nobody is started."""
    chain = DevChain(rpc_url, OWNER)
    with contextlib.ExitStack() as stack:
        stack.callback(chain.close)
        deployment = chain.deploy()
        sets = (ParameterSet(first_epoch=0, epoch_windows=10),)
        network = Network("test", 31337, deployment.block, deployment.parent_hash, deployment.contracts, 0, sets)
        (folder / "network.toml").write_text(format_network(network))
        hub = stack.enter_context(short_folder("hub")) / "socket"
        words = [sys.executable, "-m", "validator.net.streamr.simulated", "--socket", str(hub)]
        stack.enter_context(running(words, folder / "hub.log"))
        places = [_make_place(stack, folder, rpc_url, hub, n, key) for n, key in enumerate(keys)]
        for place, role in zip(places, roles, strict=False):
            place.settings["role"] = role
        for place in places if database_url else ():
            place.folder = folder / place.name
            place.settings |= {"database_url": database_url, "data_dir": str(place.folder)}
        urls = {place.key.address: place for place in places}
        chain.register_nodes(
            [NodeSetup(p.key, a_key(900 + n), WEI, http_url=p.url) for n, p in enumerate(urls.values())]
        )
        chain.create_streams([StreamSetup(STREAM, WEI, 1, public=True)])
        chain.start_mining(1)
        sockets = [s.fileno() for place in places for s in (place.public, place.operator)]
        forks = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "tests.broker_forks"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                pass_fds=sockets,
            )
        )
        yield Fleet(folder, hub, places, chain, forks)
        forks.kill()


def _make_place(
    stack: contextlib.ExitStack, folder: Path, rpc_url: str, hub: Path, number: int, key: SigningKey
) -> Place:
    sockets = []
    for _ in range(2):
        listener = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP))
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        sockets.append(listener)
    own = folder / key.address.hex()
    settings = {
        "network_file": str(folder / "network.toml"),
        "data_dir": str(own),
        "rpc_urls": rpc_url,
        "key": key.secret_hex(),
        "fd": sockets[0].fileno(),
        "operator_fd": sockets[1].fileno(),
        "bridge_sockets": str(hub),
        "allow_nets": "127.0.0.0/8",
        "allow_http": True,
        "disk_floor": "1MiB",
        "chain_every_s": 1.0,
        "balance": False,
    }
    return Place(f"process-{number}", key, own, sockets[0], sockets[1], settings)
