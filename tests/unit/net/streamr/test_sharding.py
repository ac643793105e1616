"""Several buses as one: the bus port, and that parts are spread and stay where they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.bus_port import BusPort, a_part, read_messages, some_messages
from validator.net.streamr.sharding import PARTS_PER_BRIDGE, ShardedBus
from validator.net.streamr.simulated import SimulatedNetwork
from validator.ports.bus import MessageBus


class TestShardedBus(BusPort):
    @pytest.fixture
    async def open_bus(self) -> AsyncIterator[Callable[[], Awaitable[MessageBus]]]:
        network, opened = SimulatedNetwork(), []

        async def open_bus() -> MessageBus:
            opened.append(ShardedBus([network.open() for _ in range(3)]))
            return opened[-1]

        yield open_bus
        for bus in opened:
            await bus.close()


async def test_parts_are_spread_evenly_and_each_stays_on_one_bridge() -> None:
    network = SimulatedNetwork()
    bus = ShardedBus([network.open() for _ in range(4)])
    parts = [(f"0x{number:040x}/a", 0) for number in range(3 * PARTS_PER_BRIDGE)]
    counts = Counter(id(bus.shard_of(part)) for part in parts)
    assert len(counts) == 4
    assert max(counts.values()) < PARTS_PER_BRIDGE
    assert all(bus.shard_of(part) is bus.shard_of(part) for part in parts[:10])
    await bus.close()


async def test_what_the_shards_drop_counts_together() -> None:
    network = SimulatedNetwork()
    bus = ShardedBus([network.open(max_bytes=1) for _ in range(2)])
    parts = [a_part() for _ in range(6)]
    await bus.join(parts)
    for part in parts:
        await bus.publish(part, some_messages(part, 1)[0])
    assert bus.dropped() == 6
    await bus.close()


async def test_messages_of_all_shards_arrive() -> None:
    network = SimulatedNetwork()
    bus = ShardedBus([network.open() for _ in range(3)])
    parts = [a_part() for _ in range(12)]
    await bus.join(parts)
    wanted = {(part, some_messages(part, 1)[0]) for part in parts}
    for part, data in wanted:
        await bus.publish(part, data)
    assert set(await read_messages(bus, len(wanted))) == wanted
    await bus.close()
