"""A real Streamr network on loopback: an entry point and nodes, some in programs of their own, to be killed; and the
indexer of its registries, which its SDK asks."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.servers import running
from validator.net.chain.registries import Registry
from validator.net.streamr.bridge import BridgeBus
from validator.net.streamr.node_process import Node, NodeBus, NodeProcess, Peer, Program, make_node_id
from validator.protocol.model import Address
from validator.setup.binaries import find_streamr

START_LIMIT_S = 60.0


def a_peer() -> Peer:
    """A node on a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return Peer(make_node_id(), "127.0.0.1", probe.getsockname()[1])


@dataclass(slots=True)
class StreamrNetwork:
    """Entry point and two nodes in one process; ``launch`` gives a node in its own."""

    folder: Path
    program: Program
    sockets: list[Path]
    process: NodeProcess
    buses: list[BridgeBus] = field(default_factory=list)

    async def open(self, number: int) -> BridgeBus:
        """A new connection to one of the two nodes."""
        bus = await BridgeBus.open(self.sockets[number], call_limit_s=START_LIMIT_S)
        self.buses.append(bus)
        return bus

    async def launch(self, program: Program | None = None) -> NodeBus:
        home = Path(tempfile.mkdtemp(dir=self.folder))
        bus = await NodeBus.launch(
            program or self.program, Node(a_peer(), home / "s"), home, call_limit_s=START_LIMIT_S
        )
        self.buses.append(bus)
        return bus


@asynccontextmanager
async def run_streamr_network() -> AsyncIterator[StreamrNetwork]:
    node, packages = find_streamr()
    with tempfile.TemporaryDirectory(prefix="logstore-") as name:
        folder = Path(name)
        entry = a_peer()
        program = Program(node, packages, [entry])
        sockets = [folder / "one", folder / "two"]
        program.write_config(folder / "c.json", [Node(entry), *(Node(a_peer(), path) for path in sockets)])
        process = await NodeProcess.start(program.words(folder / "c.json"), folder / "log")
        network = StreamrNetwork(folder, program, sockets, process)
        try:
            yield network
        finally:
            await asyncio.gather(*(bus.close() for bus in network.buses))
            await process.close()


@contextmanager
def run_indexer(folder: Path, rpc_url: str, registries: Mapping[Registry, Address]) -> Iterator[str]:
    """What stands for The Graph, over these registries; yields its URL."""
    names = {"stream_registry": Registry.STREAMS, "node_registry": Registry.NODES}
    names["storage_registry"] = Registry.STORAGE
    port = folder / "indexer.port"
    config = {"port_file": str(port), "rpc_url": rpc_url}
    config |= {name: f"0x{registries[registry].hex()}" for name, registry in names.items()}
    (folder / "indexer.json").write_text(json.dumps(config))
    words = [sys.executable, "-m", "validator.devnet.indexer", "--config", str(folder / "indexer.json")]
    log = folder / "indexer.log"
    with running(words, log) as child:
        end = time.monotonic() + START_LIMIT_S
        while not port.exists():
            assert child.poll() is None and time.monotonic() < end, log.read_text(errors="replace")
            time.sleep(0.02)
        yield f"http://127.0.0.1:{int(port.read_text())}"
