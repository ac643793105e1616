"""Who assigns a stream to a broker hears that it is stored, for each partition, once its partitions are joined."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from tests.builders import a_key
from tests.bus_port import read_messages
from validator.broker import storage_node
from validator.broker.storage_node import StorageNode, assignment_stream
from validator.net.chain.registries import Change, RegistryEvent
from validator.net.streamr.simulated import SimulatedNetwork
from validator.protocol.codec.protobuf import read_protobuf
from validator.protocol.codec.signatures import VALID, verify_message
from validator.protocol.errors import RemoteFault, TransientError
from validator.protocol.model import Address, StreamPart

KEY, OTHER = a_key(1), a_key(2)
STREAM = "0x" + "cc" * 20 + "/größe"
PART = (assignment_stream(KEY.address), 0)


class FakeRegistries:
    """Events by block; streams have two partitions, but for one that nobody knows."""

    def __init__(self) -> None:
        self.events: dict[int, list[RegistryEvent]] = {}
        self.head = 5
        self.failures: list[Exception] = []

    def fetch_head(self) -> int:
        return self.head

    def fetch_events(self, first: int, last: int) -> list[RegistryEvent]:
        if self.failures:
            raise self.failures.pop()
        return [event for number in range(first, last + 1) for event in self.events.get(number, ())]

    def fetch_stream_partitions(self, stream_id: str) -> int:
        if stream_id != STREAM:
            raise RemoteFault("no such stream")
        return 2

    def assign(self, stream_id: str, node: Address, change: Change = Change.ADDED) -> None:
        self.head += 1
        self.events[self.head] = [RegistryEvent(change, stream_id, node)]


@pytest.fixture
def registries(monkeypatch: pytest.MonkeyPatch) -> FakeRegistries:
    monkeypatch.setattr(storage_node, "PAUSES_S", (0.0, 0.0))
    return FakeRegistries()


def a_node(registries: Any, network: SimulatedNetwork, joined: list[StreamPart]) -> StorageNode:
    async def join(parts: Sequence[StreamPart]) -> None:
        joined.extend(parts)

    return StorageNode(registries, KEY, network.open(), lambda: 1_760_000_000_000, join)


async def test_the_word_is_given_for_each_partition_signed_by_the_node(registries: FakeRegistries) -> None:
    network, joined = SimulatedNetwork(), list[StreamPart]()
    client = network.open()
    await client.join([PART])
    node = a_node(registries, network, joined)
    await node.look()  # begins here: what was assigned before is nobody's question any more
    registries.assign(STREAM, KEY.address)
    await node.look()
    assert joined == [(STREAM, 0), (STREAM, 1)]
    heard = [read_protobuf(data) for _, data in await read_messages(client, 4)]
    assert [json.loads(message.content)["streamPart"] for message in heard] == [f"{STREAM}#0", f"{STREAM}#1"] * 2
    assert {message.publisher_id for message in heard} == {KEY.address}
    assert all(verify_message(message) is VALID for message in heard)
    assert heard[:2] == heard[2:]  # given again as it was
    assert node.assigned == 1


async def test_what_does_not_concern_the_node_is_passed_over(registries: FakeRegistries) -> None:
    joined: list[StreamPart] = []
    node = a_node(registries, SimulatedNetwork(), joined)
    registries.assign(STREAM, KEY.address)  # before it began
    await node.look()
    registries.assign(STREAM, OTHER.address)
    registries.assign(STREAM, KEY.address, Change.REMOVED)
    registries.assign("0x00/unknown", KEY.address)
    await node.look()
    assert (joined, node.assigned) == ([], 0)


async def test_a_chain_that_does_not_answer_costs_nothing_but_time(registries: FakeRegistries) -> None:
    joined: list[StreamPart] = []
    node = a_node(registries, SimulatedNetwork(), joined)
    await node.look()
    registries.assign(STREAM, KEY.address)
    registries.failures.append(TransientError("away"))
    with pytest.raises(TransientError):
        await node.look()
    await node.look()
    await node.look()
    assert joined == [(STREAM, 0), (STREAM, 1)]
