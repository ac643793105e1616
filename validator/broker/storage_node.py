"""The broker as a storage node of Streamr: who assigns a stream to it hears that it is stored.

Clients of Streamr call ``addToStorageNode`` and wait for a message on the node's assignment stream, one per partition
(`0xNODE/assignments`, content ``{"streamPart": "ID#PARTITION"}``). Whether a stream is stored is decided by its balance
in StoreManager and not here; the word is given once its partitions have been joined.

Assignments made while a broker is down get no word, as with Streamr's own nodes; a client that waited has given up.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from validator.broker.system_messages import SystemChain
from validator.net.chain.registries import Change, RegistryEvent, StreamrRegistries
from validator.ports.bus import MessageBus
from validator.protocol.codec.protobuf import write_protobuf
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.errors import RemoteFault, TransientError
from validator.protocol.model import Address, StreamPart

PAUSES_S = (0.0, 2.0, 5.0)
"""Before the word is given, and given again: our node, or a client that has just joined, may not be anybody's neighbour
yet. Who has heard it hears it once, since the network hands on one message of an id only."""


def assignment_stream(node: Address) -> str:
    return f"0x{node.hex()}/assignments"


async def keep_as_it_is(_parts: Sequence[StreamPart]) -> None:
    """Of a broker that joins what the chain says, whoever assigns it."""


@dataclass
class StorageNode:
    """Follows the storage registry from the block where it began. ``joins``: what is done before the word is given."""

    registries: StreamrRegistries
    key: SigningKey
    bus: MessageBus
    now_ms: Callable[[], int]
    join: Callable[[Sequence[StreamPart]], Awaitable[None]] = keep_as_it_is

    def __post_init__(self) -> None:
        self._upto: int | None = None
        self._chain = SystemChain(self.key, assignment_stream(self.key.address))
        self._under_way: set[asyncio.Task[None]] = set()
        self.assigned = 0

    async def look(self) -> None:
        """Answer what is new on the chain; what fails is read again. Raises TransientError, RemoteFault."""
        head = await asyncio.to_thread(self.registries.fetch_head)
        if self._upto is None:
            self._upto = head
        if head <= self._upto:
            return
        events = await asyncio.to_thread(self.registries.fetch_events, self._upto + 1, head)
        for event in events:
            if event.change is Change.ADDED and event.node == self.key.address:
                await self._accept(event)
        self._upto = head

    async def _accept(self, event: RegistryEvent) -> None:
        try:
            count = await asyncio.to_thread(self.registries.fetch_stream_partitions, event.stream_id)
        except RemoteFault:
            return  # deleted meanwhile, or of no form that anybody could store
        parts = [(event.stream_id, number) for number in range(count)]
        await self.join(parts)
        self.assigned += 1
        task = asyncio.create_task(self._say(parts))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _say(self, parts: Sequence[StreamPart]) -> None:
        messages = []
        for stream_id, number in parts:
            content = json.dumps({"streamPart": f"{stream_id}#{number}"}, ensure_ascii=False).encode()
            messages.append(write_protobuf(self._chain.sign(self.now_ms(), content).message))
        for pause_s in PAUSES_S:
            await asyncio.sleep(pause_s)
            with contextlib.suppress(TransientError):
                for data in messages:
                    await self.bus.publish((assignment_stream(self.key.address), 0), data)
