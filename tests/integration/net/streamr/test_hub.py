"""The simulated network for several processes: the bus port over its socket, and both sides against hostile bytes."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests.bus_port import ARRIVAL_LIMIT_S, BusPort, a_part, read_messages, some_messages
from validator.net.streamr.bridge import BridgeBus
from validator.net.streamr.frames import Kind, write_count, write_frame, write_message
from validator.net.streamr.simulated import Hub
from validator.ports.bus import MessageBus
from validator.protocol.errors import TransientError


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="logstore-") as folder:  # short: a socket's path has 108 bytes
        yield Path(folder, "hub")


class TestBridgeToHub(BusPort):
    @pytest.fixture
    async def open_bus(self, path: Path) -> AsyncIterator[Callable[[], Awaitable[MessageBus]]]:
        hub, opened = Hub(), []
        await hub.start(path)

        async def open_bus() -> MessageBus:
            opened.append(await BridgeBus.open(path))
            return opened[-1]

        yield open_bus
        for bus in opened:
            await bus.close()
        await hub.close()


async def test_a_bus_outlives_its_hub_and_joins_anew(path: Path) -> None:
    part = a_part()
    (data,) = some_messages(part, 1)
    hub = Hub()
    await hub.start(path)
    bus = await BridgeBus.open(path)
    await bus.join([part])
    await hub.close()
    async with asyncio.timeout(ARRIVAL_LIMIT_S):
        while True:
            try:
                await bus.info()
            except TransientError:
                break
    with pytest.raises(TransientError):
        await bus.publish(part, data)
    other = a_part()
    with pytest.raises(TransientError):
        await bus.join([other])  # and yet it is joined once the hub is back

    path.unlink(missing_ok=True)
    hub = Hub()
    await hub.start(path)
    await bus.wait_connected()
    assert bus.connections == 2
    publisher = await BridgeBus.open(path)
    await bus.info()
    for wanted in (part, other):
        (data,) = some_messages(wanted, 1)
        await publisher.publish(wanted, data)
        assert await read_messages(bus, 1) == [(wanted, data)]
    await publisher.close()
    await bus.close()
    await hub.close()


async def test_nobody_at_the_socket_is_an_error_in_time(path: Path) -> None:
    with pytest.raises(TransientError, match="no network node within"):
        await BridgeBus.open(path, call_limit_s=0.2)


@pytest.mark.parametrize(
    "sent", [b"\xff\xff\xff\xff", b"\0\0\0\0", write_frame(Kind.STATE), write_frame(Kind.JOIN, b"\0")]
)
async def test_the_hub_names_what_is_wrong_and_ends_that_connection_only(path: Path, sent: bytes) -> None:
    hub = Hub()
    await hub.start(path)
    bus = await BridgeBus.open(path)
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(sent)
    async with asyncio.timeout(ARRIVAL_LIMIT_S):
        answer = await reader.read()
    assert answer[4] == Kind.ERROR
    writer.close()
    assert (await bus.info()).node == "simulated"
    await bus.close()
    await hub.close()


async def test_a_bus_counts_what_the_other_side_says_it_dropped_and_survives_nonsense(path: Path) -> None:
    part = a_part()
    (data,) = some_messages(part, 1)
    said = [
        write_count(5) + write_count(7) + b"\xff\xff\xff\xff",  # then a frame that is too long: the connection ends
        write_count(2) + write_frame(Kind.ERROR, b"full") + write_message(Kind.MESSAGE, part, data),
    ]

    connected = []

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.append(writer)
        writer.write(said.pop(0))

    server = await asyncio.start_unix_server(answer, path)
    bus = await BridgeBus.open(path)
    assert await read_messages(bus, 1) == [(part, data)]
    assert (bus.dropped(), bus.connections) == (9, 2)
    assert (bus.complaints, bus.complaint) == (2, "full")
    await bus.close()
    for writer in connected:
        writer.close()
    server.close()


async def test_neighbours_are_awaited_and_their_absence_is_an_error(path: Path) -> None:
    hub = Hub()
    await hub.start(path)
    one, other = await BridgeBus.open(path), await BridgeBus.open(path)
    part = a_part()
    await one.join([part])
    with pytest.raises(TransientError, match="without neighbours"):
        await one.wait_neighbours(limit_s=0.2)
    await other.join([part])
    await one.wait_neighbours(limit_s=ARRIVAL_LIMIT_S)
    assert (await one.info()).parts == 1
    assert (await one.info()).buffered == 0
    for bus in (one, other):
        await bus.close()
    await hub.close()
