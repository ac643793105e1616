"""Each kind of liar by name: what a consumer refuses, what brokers call it, and the evidence that a restart finds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from logstore.answer_check import Verify
from logstore.errors import Refused
from tests.asked_brokers import CONTEXT, Consumer, everything, fill
from tests.broker_parts import BROKER_KEY
from tests.builders import a_key, a_record, a_stream_id
from tests.certified_world import World
from tests.fakes.broker_network import CHANNEL, SimulatedBroker, SimulatedNetwork, now_ms, running
from tests.fakes.broker_network import CONTEXT as MUTUAL
from tests.fakes.virtual_time import run_virtually
from validator.broker.evidence import EvidenceBook, FolderShelf, Lie
from validator.devnet.lying import CAUGHT, Liar
from validator.devnet.plan import LyingKind
from validator.net.signed.client import decode_spoken
from validator.protocol.codec.message import decode_message
from validator.protocol.codec.signatures import VALID, verify_message
from validator.protocol.model import Record

SECONDS, RATE = 40, 6


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return fill(World(tmp_path_factory.mktemp("world")))


@pytest.fixture
def consumer(world: World) -> Iterator[Consumer]:
    consumer = Consumer(world)
    yield consumer
    consumer.close()


def test_every_kind_is_in_the_table() -> None:
    assert set(CAUGHT) == set(LyingKind)


@pytest.mark.parametrize("kind", LyingKind)
def test_a_consumer_refuses_each_kind_by_name(world: World, consumer: Consumer, kind: LyingKind) -> None:
    liar = Liar(kind, BROKER_KEY, CONTEXT, lambda: [a_key(5).address])
    consumer.add("liar", everything(world), liar.change_answer)
    honest = consumer.add("honest", everything(world))
    with pytest.raises(Refused) as refused:
        list(consumer.query(Verify.PROOF))
    assert refused.value.fields["field"].startswith(CAUGHT[kind].field)
    assert "liar.test" in str(refused.value)
    assert honest.asked == 0


def a_message_of(number: int, at_ms: int) -> Record:
    return a_record(stream_id=a_stream_id(1, f"s{number % 3}"), timestamp_ms=at_ms, content=b'{"n":%d}' % number)


def put_in(kind: LyingKind, broker: SimulatedBroker) -> None:
    """The liar in all places where it is put in a real broker."""
    liar = Liar(kind, broker.key, MUTUAL, lambda: [a for a in broker.network.urls if a != broker.address])
    broker.checks = kind is not LyingKind.ADDS
    broker.fake = lambda path, body, honest: liar.perform(path, body, honest, broker.store, broker.sums)
    broker.fake_heartbeat = liar.say
    insert: Callable[[Any, int], int] = broker.store.insert

    def own_or_kept(records: Any, arrived_ms: int) -> int:
        own = [r for r in records if r.message.publisher_id == broker.address]
        return insert([*own, *liar.kept([r for r in records if r not in own])], arrived_ms)

    broker.store.insert = own_or_kept  # type: ignore[method-assign]


@pytest.mark.parametrize("kind", LyingKind)
def test_brokers_catch_each_kind_by_name_and_keep_the_words(kind: LyingKind, tmp_path: Path) -> None:
    async def main() -> None:
        network = SimulatedNetwork(3, 11)
        liar, *honest = network.brokers.values()
        for number, broker in enumerate(honest):
            broker.loss = 0.05
            broker.book = EvidenceBook(FolderShelf(tmp_path / str(number)))
            broker.hearing._book = broker.repair._book = broker.book
        put_in(kind, liar)
        async with running(network):
            for number in range(SECONDS * RATE):
                if number % RATE == 0:
                    await asyncio.sleep(1)
                network.carry([a_message_of(number, now_ms())])
            end_ms = now_ms() + 300_000
            while not all((liar.address, CAUGHT[kind].lie) in broker.lies() for broker in honest):
                assert now_ms() < end_ms, [(broker.lies(), broker.repair.progress()) for broker in honest]
                await asyncio.sleep(1)
        for number, broker in enumerate(honest):
            assert {address for address, _ in broker.lies()} == {liar.address}
            again = EvidenceBook(FolderShelf(tmp_path / str(number)))
            assert list(again.all()) == list(broker.book.all()) != []
            for evidence in again.of(liar.address):
                assert evidence.words
                for word in evidence.words:
                    if evidence.lie in (Lie.STALE, Lie.EQUIVOCATED):
                        message = decode_message(word)
                        assert (message.publisher_id, verify_message(message)) == (liar.address, VALID)
                    else:
                        decode_spoken(word).verify(CHANNEL)

    run_virtually(main())
