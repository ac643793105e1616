"""The Node program as our child: started with its config, seen when it ends, started again.

It ends when its standard input does, so it never outlives us, however we end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from validator.net.streamr.bridge import CALL_LIMIT_S, BridgeBus
from validator.net.streamr.inbox import MAX_BUFFER_BYTES
from validator.protocol.errors import ConfigError

PROGRAM = Path(__file__).parent / "node" / "bridge.mjs"
NODE_ID_BYTES = 20
HEAP_MB = 512
"""What V8 may hold: a thousand idle parts with a neighbour each take 250 MB resident, all told."""
YOUNG_MB = 8
"""The space in which V8 makes what is new. A smaller one is full sooner, and more is copied out of it: with 4 a bridge
takes 9 % more CPU, with 16 it takes 7 % less and 16 MB more."""
STOP_LIMIT_S = 5.0
RESTART_PAUSES_S = (0.2, 1.0, 5.0, 15.0)
"""Between an end and the next start; the last one repeats."""
HEALTHY_S = 60.0
"""Who ran this long starts again at once."""


def make_node_id() -> str:
    """A random place in the network, as 40 hex digits."""
    return secrets.token_hex(NODE_ID_BYTES)


@dataclass(frozen=True, slots=True)
class Peer:
    """Where a node of the network is reached: its id (40 hex digits), host and websocket port."""

    id: str
    host: str
    port: int
    tls: bool = False


@dataclass(frozen=True, slots=True)
class Node:
    """A node of ours. ``socket`` is where we talk to it; an entry point needs none. Host and port are what others
    dial; the certificate (PEM files) is needed where they dial with TLS and nothing before it speaks that."""

    peer: Peer
    socket: Path | None = None
    certificate: Path | None = None
    certificate_key: Path | None = None


@dataclass(frozen=True, slots=True)
class Program:
    """What starts the Node program: Node's binary, the folder of its packages, who is asked for the network first."""

    node: str
    packages: Path
    entry_points: Sequence[Peer]
    buffer_bytes: int = MAX_BUFFER_BYTES

    def words(self, config_file: Path) -> list[str]:
        """The command line; standard input must be a pipe that ends with whoever started it."""
        memory = [f"--max-old-space-size={HEAP_MB}", f"--max-semi-space-size={YOUNG_MB}"]
        return [self.node, *memory, str(PROGRAM), str(config_file)]

    def write_config(self, config_file: Path, nodes: Sequence[Node]) -> None:
        """Raises OSError."""
        config = {
            "packages": str(self.packages),
            "bufferBytes": self.buffer_bytes,
            "entryPoints": [_describe(peer) for peer in self.entry_points],
            "nodes": [_describe(node.peer) | _local(node) for node in nodes],
        }
        config_file.write_text(json.dumps(config, indent=1))


def _describe(peer: Peer) -> dict[str, object]:
    return {"id": peer.id, "host": peer.host, "port": peer.port, "tls": peer.tls}


def _local(node: Node) -> dict[str, object]:
    certificate = None
    if node.certificate is not None:
        certificate = {"cert": str(node.certificate), "key": str(node.certificate_key)}
    return {"socket": None if node.socket is None else str(node.socket), "certificate": certificate}


@dataclass(slots=True)
class NodeProcess:
    """One running Node program, kept running. Made by ``start``."""

    words: Sequence[str]
    log: Path
    starts: int = 0
    last_status: int | None = None
    _process: asyncio.subprocess.Process | None = None
    _task: asyncio.Task[None] | None = field(default=None, repr=False)

    @classmethod
    async def start(cls, words: Sequence[str], log: Path) -> NodeProcess:
        """Raises ConfigError where it does not start at all."""
        self = cls(words, log)
        await self._spawn()
        self._task = asyncio.create_task(self._watch())
        return self

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def close(self) -> None:
        """End it, and wait for its end."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        process = self._process
        if process is None or process.returncode is not None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), STOP_LIMIT_S)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _spawn(self) -> None:
        environment = {**os.environ, "NODE_ENV": "production"}
        try:
            with self.log.open("ab") as sink:
                self._process = await asyncio.create_subprocess_exec(
                    *self.words, stdin=asyncio.subprocess.PIPE, stdout=sink, stderr=sink, env=environment
                )
        except OSError as error:
            raise ConfigError(f"{self.words[0]} does not start: {error.strerror}", field="node") from error
        self.starts += 1

    async def _watch(self) -> None:
        loop, failures = asyncio.get_running_loop(), 0
        while True:
            assert self._process is not None
            began = loop.time()
            self.last_status = await self._process.wait()
            failures = 0 if loop.time() - began > HEALTHY_S else failures + 1
            await asyncio.sleep(RESTART_PAUSES_S[min(max(failures - 1, 0), len(RESTART_PAUSES_S) - 1)])
            await self._spawn()


class NodeBus(BridgeBus):
    """The bus over a node of our own, whose program is started, watched and ended with it."""

    process: NodeProcess

    @classmethod
    async def launch(cls, program: Program, node: Node, folder: Path, *, call_limit_s: float = CALL_LIMIT_S) -> NodeBus:
        """Start the program with its config and log in ``folder``, and connect.

        Raises:
            ConfigError: it does not start.
            TransientError: it does not listen in time; its log says why.
        """
        assert node.socket is not None
        config_file = folder / "bridge.json"
        program.write_config(config_file, [node])
        process = await NodeProcess.start(program.words(config_file), folder / "bridge.log")
        bus = cls(node.socket, max_bytes=program.buffer_bytes, call_limit_s=call_limit_s)
        bus.process = process
        try:
            await bus.wait_connected()
        except BaseException:
            await bus.close()
            raise
        return bus

    async def close(self) -> None:
        await super().close()
        await self.process.close()
