"""What stands between a broker and the network: the same for one seed, late for all brokers alike, and nothing new."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest

from tests.bus_port import a_part, some_messages
from validator.devnet.bus import FaultsConfig, FaultyBus
from validator.net.streamr.simulated import SimulatedNetwork
from validator.ports.bus import Delivered
from validator.protocol.model import StreamPart

COUNT = 1500


@dataclass
class Run:
    part: StreamPart
    sent: list[bytes]

    async def read(self, seed: str, loss: float) -> tuple[list[bytes], FaultyBus]:
        """What a reader hears of everything that was sent, in order, and its bus."""
        network = SimulatedNetwork()
        bus = network.open()
        faulty = FaultyBus(bus, FaultsConfig("run", seed, loss, max_delay_ms=400), batch_ms=5)
        await faulty.join([self.part])
        for data in self.sent:
            await network.open().publish(self.part, data)
        await faulty.publish(self.part, self.sent[0])
        await faulty.leave([self.part])
        await faulty.close()  # the inner bus ends; what is under way still comes
        return [one.data async for batch in faulty.batches() for one in batch], faulty


@pytest.fixture(scope="module")
def run() -> Run:
    part = a_part()
    return Run(part, some_messages(part, COUNT))


async def test_messages_are_lost_repeated_and_reordered_and_none_is_made_up(run: Run) -> None:
    heard, bus = await run.read("a", 0.1)
    counts = Counter(heard)
    assert set(counts) < set(run.sent)
    assert COUNT * 0.05 < bus.lost < COUNT * 0.2
    assert max(counts.values()) > 1
    first_heard = list(counts)
    assert first_heard != sorted(first_heard, key=run.sent.index)
    assert bus.dropped() == 0


async def test_readers_lose_different_messages_and_none_where_nothing_is_lost(run: Run) -> None:
    one, _ = await run.read("a", 0.1)
    again, _ = await run.read("a", 0.1)
    other, _ = await run.read("b", 0.1)
    assert set(one) == set(again) != set(other)
    every, bus = await run.read("a", 0.0)
    assert (set(every), bus.lost) == (set(run.sent), 0)


def test_what_is_late_for_one_broker_by_the_message_is_late_for_all(run: Run) -> None:
    delays = []
    for seed in ("a", "b"):
        bus = FaultyBus(SimulatedNetwork().open(), FaultsConfig("run", seed, 0.0, max_delay_ms=100_000))
        for data in run.sent:
            bus.draw(Delivered(run.part, data), 0)
        late: dict[bytes, int] = {}
        for due_ms, delivered in bus.under_way():
            late[delivered.data] = min(due_ms, late.get(delivered.data, due_ms))
        delays.append({data for data, due_ms in late.items() if due_ms > 20_000})
    both = delays[0] & delays[1]
    assert COUNT * 0.003 < len(both) < COUNT * 0.03
    assert delays[0] != delays[1]
