"""Brokers that lose, restart, begin empty, hang or lie, in virtual time, with fixed seeds.

All hold the same in the end, what was moved stays near what was lost, and every liar is named with its own words.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import replace as dataclass_replace
from enum import StrEnum
from functools import cache
from typing import Any

import pytest
from msgspec.structs import replace

from tests.builders import a_message, a_record, a_stream_id
from tests.fakes.broker_network import CHANNEL, START_MS, SYSTEM, SimulatedBroker, SimulatedNetwork, now_ms, running
from tests.fakes.virtual_time import run_virtually
from validator.broker.evidence import Evidence, Lie
from validator.broker.heartbeat import make_heartbeat
from validator.broker.talk import Progress
from validator.net.mutual import wire
from validator.net.signed.client import decode_spoken
from validator.net.signed.pages import encode_page
from validator.protocol.codec import cbor
from validator.protocol.codec.heartbeat import parse_heartbeat, write_heartbeat
from validator.protocol.codec.message import decode_message, make_record
from validator.protocol.codec.signatures import VALID, verify_message
from validator.protocol.codec.slice_claim import decode_claim
from validator.protocol.model import Record, Root
from validator.protocol.omission import OmissionProof, verify_omission
from validator.protocol.slices import SLICE_MS, PartSum, cut, sum_parts

STREAMS = 3


@cache
def a_message_of(number: int, at_ms: int) -> Record:
    noise = random.Random(number).randbytes(300).hex()  # which no compression takes away
    content = f'{{"noise":"{noise}"}}'.encode()
    return a_record(stream_id=a_stream_id(1, f"s{number % STREAMS}"), timestamp_ms=at_ms, content=content)


async def publish(network: SimulatedNetwork, seconds: int, rate: int, first: int = 0) -> list[Record]:
    """So many messages a second for so many seconds, to all."""
    records = []
    for number in range(seconds * rate):
        at_ms = START_MS + first * 1000 + number * 1000 // rate
        records.append(a_message_of(first * rate + number, at_ms))
        if number % rate == rate - 1:
            await asyncio.sleep(max(0.0, (at_ms - now_ms()) / 1000))
            network.carry(records[-rate:])
    return records


async def until_equal(network: SimulatedNetwork, seconds: float, brokers: list[SimulatedBroker] | None = None) -> float:
    """Seconds until all hold what closed slices should; raises where that takes too long."""
    began_ms = now_ms()
    chosen = brokers or list(network.brokers.values())
    while True:
        held = [messages_of(broker) for broker in chosen]
        if all(leaves == held[0] for leaves in held):
            return (now_ms() - began_ms) / 1000
        assert now_ms() - began_ms < seconds * 1000, [len(leaves) for leaves in held]
        await asyncio.sleep(1)


def messages_of(broker: SimulatedBroker) -> set[bytes]:
    """Leaves of what publishers said; heartbeats go on for ever."""
    return {
        leaf
        for part in broker.raw.parts()
        if not part[0].endswith("/system")
        for page in broker.raw.keys(part, 0, 1 << 62)
        for _, leaf in page
    }


def assert_nobody_lied(network: SimulatedNetwork) -> None:
    assert [broker.lies() for broker in network.brokers.values()] == [set()] * len(network.brokers)


def progress_of(broker: SimulatedBroker, other: SimulatedBroker) -> Progress:
    return broker.repair.progress()[other.address]


@pytest.mark.parametrize("seed", [1, 2])
def test_two_brokers_that_lost_different_messages_are_equal_soon_and_moved_little_more_than_was_lost(seed: int) -> None:
    async def main() -> None:
        network = SimulatedNetwork(2, seed)
        first, second = network[0], network[1]
        first.loss = second.loss = 0.05
        async with running(network):
            moved_before = network.moved_bytes
            records = await publish(network, seconds=60, rate=40)
            seconds = await until_equal(network, 30)
            moved = network.moved_bytes - moved_before
        union = len(messages_of(first))
        assert 0.99 * len(records) < union <= len(records)  # what both have lost, nobody has
        done = [progress_of(first, second), progress_of(second, first)]
        mended = sum(p.fetched + p.offered for p in done)
        assert mended > 0.08 * len(records)
        difference = 2 * 0.05 * sum(len(record.canonical) for record in records)
        assert moved <= 3 * difference, (moved, difference)
        assert seconds <= 30
        assert_nobody_lied(network)

    run_virtually(main())


def test_a_broker_that_begins_empty_fills_from_all_others_newest_first() -> None:
    async def main() -> None:
        network = SimulatedNetwork(3, 3)
        async with running(network):
            await publish(network, seconds=340, rate=2)
            await network[1].stop()
            newcomer = network.replace(1)
            newcomer.start()
            filled = []
            while len(messages_of(newcomer)) < 680:
                await asyncio.sleep(0.05)
                filled.append(oldest_gap(newcomer))
                assert now_ms() < START_MS + 440_000, newcomer.repair.progress()
            assert filled == sorted(filled, reverse=True)
            await until_equal(network, 30)
        gave = [
            progress_of(newcomer, other).stored + progress_of(other, newcomer).offered for other in others(newcomer)
        ]
        assert min(gave) > 0
        assert_nobody_lied(network)

    run_virtually(main())


def oldest_gap(broker: SimulatedBroker) -> int:
    """Time before which nothing is here."""
    return min(
        (page[0][0] for part in broker.raw.parts() for page in broker.raw.keys(part, 0, 1 << 62)), default=1 << 62
    )


def others(broker: SimulatedBroker) -> list[SimulatedBroker]:
    return [b for b in broker.network.brokers.values() if b is not broker]


def test_a_late_message_posted_to_one_broker_reaches_all() -> None:
    async def main() -> None:
        network = SimulatedNetwork(3, 4)
        async with running(network):
            await publish(network, seconds=30, rate=4)
            await asyncio.sleep(400)
            late = a_message_of(77_777, START_MS + 5_500)
            network[2].receive([late])
            await until_equal(network, 30)
            assert all(late.leaf in broker.leaves() for broker in network.brokers.values())
        assert_nobody_lied(network)

    run_virtually(main())


def test_one_that_hangs_holds_up_nobody() -> None:
    async def main() -> None:
        network = SimulatedNetwork(4, 5)
        for broker in network.brokers.values():
            broker.loss = 0.1
        network[1].hangs = True
        sound = [network[0], network[2], network[3]]
        async with running(network):
            await publish(network, seconds=40, rate=10)
            await until_equal(network, 30, sound)
            assert any("timed out" in progress_of(broker, network[1]).error for broker in sound)
            network[1].hangs = False
            await until_equal(network, 90)
        assert_nobody_lied(network)

    run_virtually(main())


@pytest.mark.parametrize("off_ms", [-60_000, 60_000])
@pytest.mark.parametrize("number", [0, 2], ids=["lowest address", "highest address"])
def test_a_clock_that_is_off_by_a_minute_is_shown_and_is_no_lie(off_ms: int, number: int) -> None:
    async def main() -> None:
        network = SimulatedNetwork(3, 7)
        for broker in network.brokers.values():
            broker.loss = 0.1
        network[number].clock_off_ms = off_ms
        async with running(network):
            await publish(network, seconds=100, rate=6)
            await until_equal(network, 120)
            for broker in others(network[number]):
                shown = broker.hearing.newest[network[number].address].clock_off_ms
                assert abs(shown - off_ms) < 1_000
            await asyncio.sleep(60)
        assert_nobody_lied(network)

    run_virtually(main())


def test_restarts_and_losses_end_in_the_same_messages_everywhere() -> None:
    async def main() -> None:
        network = SimulatedNetwork(3, 6)
        for broker in network.brokers.values():
            broker.loss = 0.1
        async with running(network):
            traffic = asyncio.get_running_loop().create_task(publish(network, seconds=100, rate=6))
            for number in (0, 2, 1, 0):
                await asyncio.sleep(20)
                await network[number].stop()
                network.replace(number).start()
            await traffic
            await until_equal(network, 60)
        assert len(messages_of(network[0])) > 0.95 * 600
        assert_nobody_lied(network)

    run_virtually(main())


# --- liars ----------------------------------------------------------------------------------------


def forges(liar: SimulatedBroker) -> None:
    """Holds a message that its publisher never signed, and passes it on."""
    record = a_message_of(88_888, START_MS + 3_000)
    forged = replace(record.message, content=b'{"forged":true}')
    liar.checks = False
    liar.receive([make_record(forged)])


def claims_a_wrong_root(liar: SimulatedBroker) -> None:
    """Its partitions' sums are not those of what it holds."""

    def fake(path: str, body: bytes, honest: Callable[[], bytes]) -> bytes:
        answer = honest()
        if path == wire.PARTS:
            slices = wire.decode_parts(answer)
            changed = {s: [PartSum(p.part, p.count, Root(b"\x66" * 32)) for p in ps] for s, ps in slices.items()}
            return wire.encode_parts(changed)
        return answer

    liar.fake = fake
    liar.loss = 0.2


def claims_a_wrong_root_throughout(liar: SimulatedBroker) -> None:
    """Every sum that it names is wrong in the same way; it never lists what a root is of."""

    def wrong(p: PartSum) -> PartSum:
        return PartSum(p.part, p.count + 1, Root(b"\x66" * 32))

    def fake(path: str, body: bytes, honest: Callable[[], bytes]) -> bytes:
        if path == wire.SUMS:
            from_ms, until_ms = wire.decode_span(body)
            if until_ms - from_ms > SLICE_MS and any(length > SLICE_MS for _, length in cut(from_ms, until_ms)):
                return honest()
            starts = [s.start_ms for s in wire.decode_sums(honest())]
            return wire.encode_sums([sum_parts(s, map(wrong, liar.sums.parts(s))) for s in starts])
        if path == wire.PARTS:
            slices = wire.decode_parts(honest())
            return wire.encode_parts({s: [wrong(p) for p in parts] for s, parts in slices.items()})
        return honest()

    liar.fake = fake
    liar.loss = 0.2


def serves_nothing(liar: SimulatedBroker) -> None:
    """Names what it cannot serve."""

    def fake(path: str, body: bytes, honest: Callable[[], bytes]) -> bytes:
        return encode_page([]) if path == wire.BODIES else honest()

    liar.fake = fake


def copies_heartbeats(liar: SimulatedBroker) -> None:
    """Holds nothing, and claims in its heartbeats what another holds."""
    (victim, *_) = others(liar)
    liar.loss = 1.0
    liar.fake_heartbeat = lambda _own: make_heartbeat(victim.sums, now_ms(), (), None)

    def nothing(records: Sequence[Record]) -> Sequence[StrEnum | None]:
        return [None for _ in records]

    liar.admit = nothing  # type: ignore[method-assign]
    liar.answers._admit = nothing
    liar.mending._admit = nothing


def takes_and_keeps_not(liar: SimulatedBroker) -> None:
    """Says that it has stored what it is offered, and goes on without it."""
    wanted = a_stream_id(1, "s1")

    def admit(records: Sequence[Record]) -> Sequence[StrEnum | None]:
        liar.store.insert([r for r in records if r.message.stream_id != wanted], now_ms())
        return [None for _ in records]

    receive = liar.receive
    liar.receive = lambda records: receive([r for r in records if r.message.stream_id != wanted])  # type: ignore[method-assign]
    liar.answers._admit = admit
    liar.mending._admit = admit


def speaks_twice(liar: SimulatedBroker) -> None:
    """Two heartbeats of one moment."""
    honest = liar.network.carry

    def carry(records: Any, but: SimulatedBroker | None = None) -> None:
        honest(records, but)
        if but is liar:
            (record,) = records
            said = parse_heartbeat(record.message.content)
            assert said is not None
            other = write_heartbeat(dataclass_replace(said, urls=("http://127.0.0.1:2",)))
            message = a_message(liar.key, stream_id=SYSTEM[0], timestamp_ms=record.message.timestamp_ms, content=other)
            honest([make_record(message)], but)

    liar.network.carry = carry  # type: ignore[method-assign]


def answers_rubbish(liar: SimulatedBroker) -> None:
    liar.fake = lambda path, _body, honest: b"\x80" if path == wire.SUMS else honest()
    liar.loss = 0.2


LIARS: list[tuple[Callable[[SimulatedBroker], None], Lie]] = [
    (forges, Lie.FORGED),
    (claims_a_wrong_root, Lie.WRONG_ROOT),
    (claims_a_wrong_root_throughout, Lie.WRONG_ROOT),
    (serves_nothing, Lie.NOT_HELD),
    (copies_heartbeats, Lie.NOT_HELD),
    (takes_and_keeps_not, Lie.WITHHELD),
    (speaks_twice, Lie.EQUIVOCATED),
    (answers_rubbish, Lie.UNFIT),
]


@pytest.mark.parametrize("number", [0, 2], ids=["lowest address", "highest address"])
@pytest.mark.parametrize(("begin", "lie"), LIARS, ids=[begin.__name__ for begin, _ in LIARS])
def test_a_liar_is_caught_by_name_and_the_honest_are_equal(
    begin: Callable[[SimulatedBroker], None], lie: Lie, number: int
) -> None:
    async def main() -> None:
        network = SimulatedNetwork(3, 9)
        liar = network[number]
        honest = others(liar)
        for broker in honest:
            broker.loss = 0.1
        begin(liar)
        async with running(network):
            await publish(network, seconds=40, rate=6)
            deadline_ms = now_ms() + 240_000
            while not all((liar.address, lie) in broker.lies() for broker in honest):
                assert now_ms() < deadline_ms, [broker.repair.progress() for broker in honest]
                await asyncio.sleep(1)
            await until_equal(network, 60, honest)
        for broker in honest:
            assert {address for address, _ in broker.lies()} == {liar.address}
            assert lie in {what for _, what in broker.lies()}
            for evidence in broker.book.of(liar.address):
                verify_words(evidence)

    run_virtually(main())


def verify_words(evidence: Evidence) -> None:
    """A stranger can read whose words these are; where a message is withheld, that its claim has none."""
    for word in evidence.words:
        if evidence.lie is Lie.EQUIVOCATED:
            message = decode_message(word)
            assert message.publisher_id == evidence.broker
            assert verify_message(message) is VALID
            continue
        decode_spoken(word).verify(CHANNEL)
    if evidence.lie is Lie.WITHHELD:
        canonical, claim, proof = evidence.proofs[:3]
        before, after, index, path = cbor.decode_object(proof, "omission/1", 4, max_bytes=1 << 20)
        verify_omission(OmissionProof(before, after, index, tuple(path)), decode_claim(claim), canonical)
