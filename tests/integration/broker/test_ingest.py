"""From the bus to the store: what is good arrives, what is not is counted by its reason and keeps nobody waiting."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.broker_parts import NOW_MS, PART, STREAM, BrokerParts
from tests.builders import a_key, a_record, flip_s
from validator.broker.admission import FEW, Fate, Judged, Limits, Refusal
from validator.broker.ingest import Ingest
from validator.net.streamr.simulated import SimulatedNetwork
from validator.ports.bus import Delivered
from validator.protocol.codec.protobuf import write_protobuf
from validator.protocol.codec.received import PROTOBUF
from validator.protocol.codec.signatures import Verdict, Verify
from validator.protocol.errors import TransientError
from validator.protocol.model import Message, Reason, Record, SignatureType, StreamPart


def a_part_record(number: int, **fields: Any) -> Record:
    return a_record(stream_id=STREAM, partition=1, timestamp_ms=NOW_MS - 5_000 + number, **fields)


def a_wire(record: Record) -> bytes:
    return write_protobuf(record.message)


async def run_ingest(parts: BrokerParts, sent: Sequence[tuple[StreamPart, bytes]], **more: Any) -> Ingest:
    """Publish all, and read until the bus is closed."""
    network = SimulatedNetwork()
    bus, publisher = network.open(), network.open()
    ingest = Ingest(bus, parts.admission, parts.chain, max_parts=more.pop("max_parts", 100), **more)
    await ingest.follow_registry()
    for part, data in sent:
        await publisher.publish(part, data)
    await bus.close()
    await ingest.run()
    return ingest


async def test_all_that_is_delivered_is_stored_once(tmp_path: Path) -> None:
    parts = BrokerParts(tmp_path)
    records = [a_part_record(n) for n in range(700)]
    told: list[Judged] = []

    def on_judged(_delivered: Sequence[Delivered], judged: Sequence[Judged]) -> None:
        told.extend(judged)

    await run_ingest(parts, [(PART, a_wire(r)) for r in records + records[:50]], on_judged=on_judged)
    assert [row.key.leaf for row in parts.store.scan(PART, 0, NOW_MS, limit=1000)] == [r.leaf for r in records]
    assert (parts.admission.stored, parts.admission.known, len(told)) == (700, 50, 750)
    parts.close()


class OneByOne:
    """A bus that hands over each message by itself, and behind the first waits until it is judged."""

    def __init__(self, delivered: Sequence[Delivered]) -> None:
        self._delivered = delivered
        self._is_judged = threading.Event()
        self.sizes: list[int] = []

    async def batches(self) -> AsyncIterator[Sequence[Delivered]]:
        for message in self._delivered:
            yield [message]
            await asyncio.to_thread(self._is_judged.wait, 30.0)

    def on_judged(self, delivered: Sequence[Delivered], _judged: Sequence[Judged]) -> None:
        self.sizes.append(len(delivered))
        self._is_judged.set()


async def test_the_first_message_is_judged_at_once_and_those_close_behind_it_together(tmp_path: Path) -> None:
    parts = BrokerParts(tmp_path)
    bus = OneByOne([Delivered(PART, a_wire(a_part_record(n))) for n in range(100)])
    await Ingest(bus, parts.admission, parts.chain, max_parts=9, on_judged=bus.on_judged).run()  # type: ignore[arg-type]
    assert parts.admission.stored == sum(bus.sizes) == 100
    assert bus.sizes[0] == 1
    assert len(bus.sizes) < 50
    parts.close()


def test_each_fault_has_its_reason_and_no_other_message_suffers(tmp_path: Path) -> None:
    parts = BrokerParts(tmp_path, limits=Limits(message_bytes=10_000))
    good = a_part_record(1)
    barred = a_key(5)
    parts.source.barred.add(barred.address)
    m = good.message
    items = [
        ((STREAM + "x", 0), a_wire(good), Refusal.NOT_REGISTERED),
        ((STREAM, 9), a_wire(good), Reason.PARTITION_OUT_OF_RANGE),
        (PART, b"\xff\xff", Reason.MALFORMED),
        (PART, b"x" * 30_000, Reason.TOO_LARGE),
        (PART, a_wire(a_part_record(2, content=b'"' + b"x" * 10_000 + b'"')), Reason.TOO_LARGE),
        ((STREAM, 2), a_wire(good), Reason.WRONG_STREAM),
        (PART, a_wire(a_part_record(3, publisher_id=a_key(8).address)), Reason.BAD_SIGNATURE),
        (PART, a_wire(a_part_record(4, key=barred)), Reason.NOT_PERMITTED),
        (PART, a_wire(a_part_record(-31 * 86_400_000)), Refusal.TOO_OLD),
        (PART, a_wire(a_part_record(400_000)), Refusal.IN_THE_FUTURE),
    ]
    judged = parts.admission.admit([(part, data) for part, data, _ in items] + [(PART, a_wire(good))], PROTOBUF)
    assert [answer.why for answer in judged] == [why for _, _, why in items] + [None]
    assert [row.key.leaf for row in parts.store.scan(PART, 0, NOW_MS, limit=10)] == [good.leaf]
    assert parts.admission.refused[Reason.TOO_LARGE] == 2
    assert flip_s(m.signature) != m.signature
    parts.close()


def test_contract_signatures_are_the_contracts_affair(tmp_path: Path) -> None:
    parts = BrokerParts(tmp_path)
    signed = a_part_record(1, signature_type=SignatureType.ERC_1271, publisher_id=b"\x07" * 20)
    assert parts.admission.admit([(PART, a_wire(signed))], PROTOBUF)[0].fate is Fate.STORED
    parts.source.contracts_accept = False
    other = a_part_record(2, signature_type=SignatureType.ERC_1271, publisher_id=b"\x07" * 20)
    assert parts.admission.admit([(PART, a_wire(other))], PROTOBUF)[0].why is Reason.BAD_SIGNATURE
    parts.close()


def test_two_messages_with_one_id_are_both_kept(tmp_path: Path) -> None:
    parts = BrokerParts(tmp_path)
    first, second = a_part_record(1, content=b'"a"'), a_part_record(1, content=b'"b"')
    assert first.message.message_id == second.message.message_id
    parts.admission.admit([(PART, a_wire(first)), (PART, a_wire(second))], PROTOBUF)
    assert {row.key.leaf for row in parts.store.scan(PART, 0, NOW_MS, limit=10)} == {first.leaf, second.leaf}
    parts.close()


def test_a_flood_in_one_part_costs_no_other_its_messages(tmp_path: Path) -> None:
    parts = BrokerParts(tmp_path, limits=Limits(part_per_s=0.001, burst_s=10_000))
    flood = [((STREAM, 2), b"\xff")] * 500
    judged = parts.admission.admit([*flood, (PART, a_wire(a_part_record(1)))], PROTOBUF)
    assert judged[-1].fate is Fate.STORED
    assert parts.admission.refused[Refusal.PART_RATE] == 490
    parts.close()


def test_one_publishers_flood_counts_only_what_it_signed(tmp_path: Path) -> None:
    parts = BrokerParts(tmp_path, limits=Limits(publisher_per_s=0.001, burst_s=5_000))
    victim = a_key(1)
    forged = [a_part_record(n, key=a_key(8), publisher_id=victim.address) for n in range(50)]
    own = [a_part_record(100 + n) for n in range(7)]
    judged = parts.admission.admit([(PART, a_wire(r)) for r in forged + own], PROTOBUF)
    assert [answer.fate for answer in judged[50:]] == [Fate.STORED] * 5 + [Fate.REFUSED] * 2
    assert parts.admission.refused == {Reason.BAD_SIGNATURE: 50, Refusal.PUBLISHER_RATE: 2}
    parts.close()


def test_while_the_chain_is_away_what_is_known_still_counts(tmp_path: Path) -> None:
    parts = BrokerParts(tmp_path)
    parts.admission.admit([(PART, a_wire(a_part_record(1)))], PROTOBUF)
    parts.source.is_away = True
    judged = parts.admission.admit(
        [(PART, a_wire(a_part_record(2))), (PART, a_wire(a_part_record(3, key=a_key(6))))], PROTOBUF
    )
    assert [answer.why for answer in judged] == [None, Refusal.CHAIN_UNKNOWN]
    parts.close()


def test_a_disk_that_is_full_refuses_and_nothing_else_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from validator.broker.keeping import DiskFloor, GuardedStore

    parts = BrokerParts(tmp_path)
    floor = DiskFloor(tmp_path, "100%")
    parts.admission._store = GuardedStore(parts.store, floor)
    assert parts.admission.admit([(PART, a_wire(a_part_record(1)))], PROTOBUF)[0].why is Refusal.DISK
    monkeypatch.setattr(floor, "_floor", "0%")
    monkeypatch.setattr(floor, "_looked_s", -10.0)
    assert parts.admission.admit([(PART, a_wire(a_part_record(1)))], PROTOBUF)[0].fate is Fate.STORED
    parts.close()


class Meeting:
    """A way to check signatures that tells whether several threads do it at once."""

    def __init__(self, verify: Verify, wait_s: float) -> None:
        self._verify = verify
        self._wait_s = wait_s
        self._both = threading.Barrier(2)
        self.inside = threading.Event()
        self.met = 0

    def verify(self, messages: Sequence[Message] | Sequence[Record]) -> list[Verdict]:
        self.inside.set()
        try:
            self._both.wait(self._wait_s)
            self.met += 1
        except threading.BrokenBarrierError:
            pass
        return self._verify(messages)


@pytest.mark.parametrize(("second", "wait_s", "met"), [(FEW + 1, 0.3, 0), (FEW, 30.0, 2)])
def test_of_large_batches_one_is_checked_at_a_time_and_a_small_one_waits_for_none(
    tmp_path: Path, second: int, wait_s: float, met: int
) -> None:
    parts = BrokerParts(tmp_path)
    items = [(PART, a_wire(a_part_record(n))) for n in range(FEW + 1)]
    meeting = Meeting(parts.admission.verifier.verify, wait_s)
    parts.admission.verifier.verify = meeting.verify  # type: ignore[method-assign]
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(parts.admission.admit, items, PROTOBUF)
        assert meeting.inside.wait(30.0)
        judged = parts.admission.admit(items[:second], PROTOBUF)
        assert not [answer for answer in first.result() + judged if answer.why is not None]
    assert (meeting.met, parts.admission.stored) == (met, FEW + 1)
    parts.close()


async def test_parts_beyond_the_limit_are_refused_and_counted(tmp_path: Path) -> None:
    parts = BrokerParts(tmp_path, streams={f"0x{n:040x}/s": 100 for n in range(1_000)})
    ingest = await run_ingest(parts, [], max_parts=50)
    assert (ingest.joined, ingest.refused_parts) == (50, 100_000 + 1 - 50)
    parts.close()


class BusyNode:
    """Gives no answer to every second request to join."""

    def __init__(self) -> None:
        self.asked: list[list[StreamPart]] = []

    async def join(self, parts: Sequence[StreamPart]) -> None:
        self.asked.append(list(parts))
        if len(self.asked) % 2 == 0:
            raise TransientError("no answer within 30 s")


async def test_what_a_busy_node_has_joined_is_not_asked_for_again(tmp_path: Path) -> None:
    parts = BrokerParts(tmp_path, streams={STREAM: 99})
    bus: Any = BusyNode()
    ingest = Ingest(bus, parts.admission, parts.chain, max_parts=100)
    calls = 0
    while ingest.joined < 100:
        await ingest.follow_registry()
        calls += 1
    assert calls == 4
    assert sorted(part for asked in bus.asked[::2] for part in asked) == sorted(parts.chain.parts())
    parts.close()


async def test_parts_are_joined_and_left_as_the_registry_says(tmp_path: Path) -> None:
    parts = BrokerParts(tmp_path)
    network = SimulatedNetwork()
    bus, publisher = network.open(), network.open()
    ingest = Ingest(bus, parts.admission, parts.chain, max_parts=100)
    await ingest.follow_registry()
    assert ingest.joined == 1 + 3
    running = asyncio.create_task(ingest.run())
    parts.source.streams = {"0x" + "dd" * 20 + "/new": 1}
    parts.source.height += 1
    parts.chain.refresh()
    await ingest.follow_registry()
    assert ingest.joined == 1 + 1
    new = a_record(stream_id="0x" + "dd" * 20 + "/new", timestamp_ms=NOW_MS)
    await publisher.publish(new.message.stream_part, a_wire(new))
    await bus.close()
    await running
    assert parts.admission.stored == 1
    parts.close()
