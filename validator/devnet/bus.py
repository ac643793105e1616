"""A part's way to the network of a run: its bus, and behind it what the network of the world would do to messages.

Loopback loses nothing; ``FaultyBus`` stands between a bus and its reader and loses, repeats, reorders and delays, as
``network.LinkFaults`` says, from a seeded generator. What is late for everybody is drawn from the message itself,
so that all brokers of a run draw the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from heapq import heappop, heappush
from pathlib import Path
from random import Random

import msgspec

from validator.devnet.network import LinkFaults
from validator.devnet.process import now_ms
from validator.net.streamr.bridge import BridgeBus
from validator.net.streamr.node_process import Node, NodeBus, Peer, Program
from validator.ports.bus import MAX_BATCH, Delivered, MessageBus
from validator.protocol.hashing import hash_labelled
from validator.protocol.model import StreamPart

LATE_SCALE = 1 << 32


class PeerConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A node of the network on this machine."""

    id: str
    port: int
    host: str = "127.0.0.1"

    def peer(self) -> Peer:
        return Peer(self.id, self.host, self.port)


class NodeConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A node of one's own: Node's binary, its packages, whom to ask first, where to be reached, and the folder of its
    config and log."""

    node: str
    packages: Path
    entry_points: list[PeerConfig]
    peer: PeerConfig
    folder: Path


class BusConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How a part reaches the network: the socket of somebody's node, or of its own where ``node`` is given."""

    socket: Path
    node: NodeConfig | None = None


class FaultsConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Fields of ``LinkFaults`` that a run chooses, and the seeds: of the run, and of this reader."""

    run_seed: str
    seed: str
    loss: float
    max_delay_ms: int


async def open_bus(config: BusConfig) -> BridgeBus:
    """Connect, to a node of one's own too. Raises TransientError, ConfigError."""
    if config.node is None:
        return await BridgeBus.open(config.socket)
    program = Program(config.node.node, config.node.packages, [peer.peer() for peer in config.node.entry_points])
    return await NodeBus.launch(program, Node(config.node.peer.peer(), config.socket), config.node.folder)


class FaultyBus:
    """Fulfils ``MessageBus`` over another one, badly."""

    def __init__(self, bus: MessageBus, config: FaultsConfig, *, batch_ms: int = 50) -> None:
        self._bus = bus
        self._faults = LinkFaults(loss=config.loss, max_delay_ms=config.max_delay_ms)
        self._chance = Random(config.seed)
        self._run_seed = config.run_seed.encode()
        self._batch_ms = batch_ms
        self._due: list[tuple[int, int, Delivered]] = []
        self._number = 0
        self.lost = 0

    async def join(self, parts: Sequence[StreamPart]) -> None:
        await self._bus.join(parts)

    async def leave(self, parts: Sequence[StreamPart]) -> None:
        await self._bus.leave(parts)

    async def publish(self, part: StreamPart, data: bytes) -> None:
        await self._bus.publish(part, data)

    def dropped(self) -> int:
        return self._bus.dropped()

    async def close(self) -> None:
        await self._bus.close()

    async def batches(self) -> AsyncIterator[Sequence[Delivered]]:
        """What is due, until the bus has ended and nothing is under way."""
        reading = asyncio.create_task(self._read())
        try:
            while not reading.done() or self._due:
                await asyncio.sleep(self._batch_ms / 1000)
                while batch := self._pop_due(now_ms()):
                    yield batch
        finally:
            reading.cancel()
        await reading  # raises what ended it

    async def _read(self) -> None:
        async for batch in self._bus.batches():
            arrived_ms = now_ms()
            for delivered in batch:
                self.draw(delivered, arrived_ms)

    def draw(self, delivered: Delivered, arrived_ms: int) -> None:
        """Decide what becomes of a message."""
        delays = self._faults.draw(self._chance, self._batch_ms, self._is_late_everywhere(delivered.data))
        self.lost += not delays
        for delay in delays:
            self._number += 1
            heappush(self._due, (arrived_ms + delay, self._number, delivered))

    def under_way(self) -> list[tuple[int, Delivered]]:
        """What is still to come, and when it is due, Unix ms."""
        return [(due_ms, delivered) for due_ms, _, delivered in self._due]

    def _is_late_everywhere(self, data: bytes) -> bool:
        digest = hash_labelled("logstore/devnet/late", self._run_seed, data)
        return int.from_bytes(digest[:4], "big") < self._faults.late_everywhere * LATE_SCALE

    def _pop_due(self, until_ms: int) -> list[Delivered]:
        batch: list[Delivered] = []
        while self._due and self._due[0][0] <= until_ms and len(batch) < MAX_BATCH:
            batch.append(heappop(self._due)[2])
        return batch
