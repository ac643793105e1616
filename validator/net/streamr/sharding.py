"""Several buses as one: each part lives on one of them, always the same while their number is.

A bridge is one thread. A thousand parts with a neighbour each take half of it when nobody speaks, and those with more
neighbours more, so more parts want more bridges. Where the machine gives it less than it needs, answers take longer
than the library's five seconds, and parts lose their neighbours until it has caught up.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence

from validator.ports.bus import Delivered, MessageBus
from validator.protocol.errors import InvariantError
from validator.protocol.model import StreamPart

PARTS_PER_BRIDGE = 1000


class ShardedBus:
    """Fulfils ``MessageBus`` over others, which it closes with itself."""

    def __init__(self, shards: Sequence[MessageBus]) -> None:
        if not shards:
            raise InvariantError("a bus needs a shard")
        self._shards = tuple(shards)

    def shard_of(self, part: StreamPart) -> MessageBus:
        """By CRC-32 of the id and the partition: no secret, and even enough."""
        stream_id, partition = part
        return self._shards[zlib.crc32(f"{stream_id}#{partition}".encode(errors="replace")) % len(self._shards)]

    async def join(self, parts: Sequence[StreamPart]) -> None:
        await asyncio.gather(*(shard.join(own) for shard, own in self._by_shard(parts)))

    async def leave(self, parts: Sequence[StreamPart]) -> None:
        await asyncio.gather(*(shard.leave(own) for shard, own in self._by_shard(parts)))

    async def publish(self, part: StreamPart, data: bytes) -> None:
        await self.shard_of(part).publish(part, data)

    async def batches(self) -> AsyncIterator[Sequence[Delivered]]:
        """One batch of each shard is held at most; where one shard fails, all end."""
        queue: asyncio.Queue[Sequence[Delivered] | None] = asyncio.Queue(len(self._shards))

        async def pump(shard: MessageBus) -> None:
            async for batch in shard.batches():
                await queue.put(batch)

        async def pump_all() -> None:
            async with asyncio.TaskGroup() as group:
                for shard in self._shards:
                    group.create_task(pump(shard))

        pumps = asyncio.create_task(pump_all())
        pumps.add_done_callback(lambda _: wake())

        def wake() -> None:
            if queue.empty():
                queue.put_nowait(None)

        try:
            while not (pumps.done() and queue.empty()):
                batch = await queue.get()
                if batch is not None:
                    yield batch
        finally:
            pumps.cancel()
            await asyncio.gather(pumps, return_exceptions=True)

    def dropped(self) -> int:
        return sum(shard.dropped() for shard in self._shards)

    async def close(self) -> None:
        for shard in self._shards:
            await shard.close()

    def _by_shard(self, parts: Sequence[StreamPart]) -> list[tuple[MessageBus, list[StreamPart]]]:
        own: defaultdict[MessageBus, list[StreamPart]] = defaultdict(list)
        for part in parts:
            own[self.shard_of(part)].append(part)
        return list(own.items())
