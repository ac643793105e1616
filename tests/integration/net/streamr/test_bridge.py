"""The bus over real nodes of the Streamr network: the port, a node that is killed, a reader that is slow."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace

import pytest
import pytest_asyncio

from tests.bus_port import ARRIVAL_LIMIT_S, BusPort, a_part, read_messages, some_messages
from tests.streamr_network import StreamrNetwork, run_streamr_network
from validator.net.streamr.bridge import READ_AHEAD_BYTES, BridgeBus
from validator.net.streamr.frames import Kind, write_frame
from validator.net.streamr.node_process import NodeBus
from validator.ports.bus import MessageBus
from validator.protocol.errors import ConfigError

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network() -> AsyncIterator[StreamrNetwork]:
    async with run_streamr_network() as network:
        yield network


class TestBridgeToStreamr(BusPort):
    @pytest_asyncio.fixture(loop_scope="module")
    async def open_bus(  # type: ignore[override]  # a fixture, as there
        self, network: StreamrNetwork
    ) -> AsyncIterator[Callable[[], Awaitable[MessageBus]]]:
        opened: list[BridgeBus] = []

        async def open_bus() -> MessageBus:
            opened.append(await network.open(len(opened) % 2))
            return opened[-1]

        yield open_bus
        for bus in opened:
            await bus.close()

    async def meet(self, buses: Sequence[MessageBus]) -> None:
        for bus in buses:
            assert isinstance(bus, BridgeBus)
            await bus.wait_neighbours()


async def test_a_killed_node_is_started_again_and_joins_anew(network: StreamrNetwork) -> None:
    part = a_part()
    before, after = some_messages(part, 2)
    bus, other = await network.launch(), await network.open(0)
    await bus.join([part])
    await other.join([part])
    await other.wait_neighbours()
    await other.publish(part, before)
    assert await read_messages(bus, 1) == [(part, before)]

    assert bus.process.pid is not None
    os.kill(bus.process.pid, signal.SIGKILL)
    async with asyncio.timeout(ARRIVAL_LIMIT_S):
        while bus.connections < 2:
            await asyncio.sleep(0.05)
    assert (bus.process.starts, bus.process.last_status) == (2, -signal.SIGKILL)
    await bus.wait_neighbours()
    await other.publish(part, after)
    assert (part, after) in await read_messages(bus, 1)


async def test_what_is_no_message_is_complained_of_and_the_node_lives_on(network: StreamrNetwork) -> None:
    bus = await network.open(0)
    await bus.publish(a_part(), b"\xff\xff\xff")
    async with asyncio.timeout(ARRIVAL_LIMIT_S):
        while not bus.complaints:
            await bus.info()
    assert "no StreamMessage" in bus.complaint
    for wrong in (b"\xff\xff\xff\xff", b"\0\0\0\0", write_frame(Kind.STATE), write_frame(Kind.JOIN, b"\0")):
        reader, writer = await asyncio.open_unix_connection(network.sockets[0])
        writer.write(wrong)
        async with asyncio.timeout(ARRIVAL_LIMIT_S):
            answer = await reader.read()
        assert answer[4] == Kind.ERROR
        writer.close()
    assert len((await bus.info()).node) == 40


async def test_a_slow_reader_loses_messages_that_are_counted_and_then_hears_again(network: StreamrNetwork) -> None:
    part = a_part()
    bus: NodeBus = await network.launch(replace(network.program, buffer_bytes=READ_AHEAD_BYTES + 500_000))
    other = await network.open(0)
    await bus.join([part])
    await other.join([part])
    await other.wait_neighbours()
    count = 40
    messages = some_messages(part, count, size=500_000)  # 20 MB; both ends together hold less
    for data in messages:
        await other.publish(part, data)
    assert len(await read_messages(other, count)) == count
    async with asyncio.timeout(ARRIVAL_LIMIT_S):
        while not bus.dropped():  # nobody has read yet
            await bus.info()
    read = await read_messages(bus, 1)
    assert 0 < len(read) < count
    assert bus.dropped() + len(read) <= count


async def test_more_parts_than_are_joined_at_once_wait_for_their_turn_and_hold_nothing_up(
    network: StreamrNetwork,
) -> None:
    bus, other = await network.launch(), await network.open(0)
    parts = sorted(a_part() for _ in range(40))
    first, last, gone = parts[0], parts[-1], parts[-2]
    await bus.join(parts)
    assert (await bus.info()).parts == len(parts)
    await bus.leave([gone])
    await other.join([first, last])
    await other.wait_neighbours()
    async with asyncio.timeout(ARRIVAL_LIMIT_S):
        while (await bus.info()).waiting:
            await asyncio.sleep(0.05)
    for part in (first, last):
        (data,) = some_messages(part, 1)
        await other.publish(part, data)
        assert await read_messages(bus, 1) == [(part, data)]
    state = await bus.info()
    assert (state.parts, state.waiting) == (len(parts) - 1, 0)
    assert state.lonely == len(parts) - 3
    assert state.overhearing == 0  # whose each listener is, is known: a message is not shown to forty


async def test_a_node_that_does_not_start_is_an_error(network: StreamrNetwork) -> None:
    with pytest.raises(ConfigError, match="does not start"):
        await network.launch(replace(network.program, node="/nowhere/node"))
