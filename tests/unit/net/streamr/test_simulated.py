"""The network without a network, in one process: the bus port, and what a slow reader loses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.bus_port import BusPort, a_part, read_messages, some_messages
from validator.net.streamr.inbox import OVERHEAD_BYTES
from validator.net.streamr.simulated import SimulatedBus, SimulatedNetwork
from validator.ports.bus import MessageBus


class TestSimulatedBus(BusPort):
    @pytest.fixture
    async def open_bus(self) -> AsyncIterator[Callable[[], Awaitable[MessageBus]]]:
        network, opened = SimulatedNetwork(), []

        async def open_bus() -> MessageBus:
            opened.append(network.open())
            return opened[-1]

        yield open_bus
        for bus in opened:
            await bus.close()


async def test_what_a_slow_reader_cannot_hold_is_dropped_and_counted() -> None:
    network = SimulatedNetwork()
    part = a_part()
    messages = some_messages(part, 5)
    slow: SimulatedBus = network.open(max_bytes=3 * (len(messages[0]) + OVERHEAD_BYTES))
    await slow.join([part])
    for data in messages:
        await network.open().publish(part, data)
    assert slow.dropped() == 2
    assert await read_messages(slow, 3) == [(part, data) for data in messages[:3]]
    await network.open().publish(part, messages[4])
    assert await read_messages(slow, 1) == [(part, messages[4])]
    assert slow.dropped() == 2
