"""What every message bus does; the simulated ones and the real network pass these alike.

A module of tests subclasses ``BusPort`` and says how buses of one network are opened.
"""

from __future__ import annotations

import asyncio
import itertools
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence

import pytest

from tests.builders import a_message
from validator.ports.bus import MAX_BATCH, MessageBus
from validator.protocol.codec.protobuf import write_protobuf
from validator.protocol.errors import MalformedInput, TransientError
from validator.protocol.model import StreamPart

ARRIVAL_LIMIT_S = 30.0
_numbers = itertools.count(1)


def a_part(partition: int = 0) -> StreamPart:
    """A part that no other test has used."""
    return (f"0x{next(_numbers):040x}/größe", partition)


def some_messages(part: StreamPart, count: int, size: int = 100) -> list[bytes]:
    """Messages of one chain without predecessors, in order."""
    return [
        write_protobuf(
            a_message(
                stream_id=part[0],
                partition=part[1],
                timestamp_ms=1_700_000_000_000 + number,
                content=b'"' + b"x" * size + b'"',
            )
        )
        for number in range(count)
    ]


async def read_messages(bus: MessageBus, count: int) -> list[tuple[StreamPart, bytes]]:
    """The next ``count`` messages or more, in the order of arrival."""
    read: list[tuple[StreamPart, bytes]] = []
    async with asyncio.timeout(ARRIVAL_LIMIT_S):
        async for batch in bus.batches():
            assert 0 < len(batch) <= MAX_BATCH
            read += [(one.part, one.data) for one in batch]
            if len(read) >= count:
                break
    return read


class BusPort(ABC):
    """The tests. ``meet`` waits until buses that have joined the same parts hear each other."""

    @pytest.fixture
    @abstractmethod
    def open_bus(self) -> Callable[[], Awaitable[MessageBus]]:
        """Opens one more bus of one network; all are closed at the end of the test."""

    async def meet(self, _buses: Sequence[MessageBus]) -> None:
        return None

    async def test_all_who_have_joined_receive_what_is_published_byte_for_byte(
        self, open_bus: Callable[[], Awaitable[MessageBus]]
    ) -> None:
        one, other = await open_bus(), await open_bus()
        part = a_part()
        for bus in (one, other):
            await bus.join([part])
        await self.meet([one, other])
        messages = some_messages(part, 300)
        for data in messages:
            await one.publish(part, data)
        wanted = [(part, data) for data in messages]
        assert await read_messages(other, 300) == wanted
        assert await read_messages(one, 300) == wanted
        assert (one.dropped(), other.dropped()) == (0, 0)

    async def test_parts_are_told_apart_and_a_part_that_was_left_is_silent(
        self, open_bus: Callable[[], Awaitable[MessageBus]]
    ) -> None:
        one, other = await open_bus(), await open_bus()
        kept, left = a_part(7), a_part(99)
        for bus in (one, other):
            await bus.join([kept, left])
            await bus.join([kept])
        await self.meet([one, other])
        (data,), (unwanted,) = some_messages(left, 1), some_messages(left, 1, size=200)
        await one.publish(left, data)
        assert await read_messages(other, 1) == [(left, data)]
        await other.leave([left])
        await one.publish(left, unwanted)
        (last,) = some_messages(kept, 1)
        await one.publish(kept, last)
        assert await read_messages(other, 1) == [(kept, last)]

    async def test_who_has_not_joined_may_publish(self, open_bus: Callable[[], Awaitable[MessageBus]]) -> None:
        reader, writer = await open_bus(), await open_bus()
        part = a_part()
        await reader.join([part])
        (data,) = some_messages(part, 1)
        await writer.publish(part, data)
        assert await read_messages(reader, 1) == [(part, data)]

    async def test_batches_end_when_the_bus_is_closed_and_then_nothing_is_taken(
        self, open_bus: Callable[[], Awaitable[MessageBus]]
    ) -> None:
        bus = await open_bus()
        part = a_part()
        await bus.join([part])
        (data,) = some_messages(part, 1)
        await bus.publish(part, data)
        batches = aiter(bus.batches())
        async with asyncio.timeout(ARRIVAL_LIMIT_S):
            assert [one.data for one in await anext(batches)] == [data]
            ending = asyncio.ensure_future(anext(batches, None))
            await bus.close()
            await bus.close()
            assert await ending is None
        with pytest.raises(TransientError):
            await bus.publish(part, data)

    @pytest.mark.parametrize("part", [("", 0), ("x" * 5000, 0), ("a/b", -1), ("a/b", 100), ("\ud800", 0)])
    async def test_parts_that_nobody_can_have_are_refused(
        self, open_bus: Callable[[], Awaitable[MessageBus]], part: StreamPart
    ) -> None:
        bus = await open_bus()
        with pytest.raises(MalformedInput):
            await bus.join([part])
        with pytest.raises(MalformedInput):
            await bus.publish(part, b"data")

    async def test_a_message_above_what_the_network_carries_is_refused_at_once(
        self, open_bus: Callable[[], Awaitable[MessageBus]]
    ) -> None:
        bus = await open_bus()
        for data in (b"", bytes((1 << 20) + 1)):
            with pytest.raises(MalformedInput):
                await bus.publish(a_part(), data)
