"""Certified history: the same rows, marks and proofs whatever a broker holds, and nothing that failed a check."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders import GENESIS_MS
from tests.bundle_builder import WINDOW_MS
from tests.certified_world import BUNDLE_MS, LATE_REACH_MS, NETWORK, PART, Broker, World, a_row, read_marked
from validator.ports.certified import MarkedRow, NotVerifiedYet
from validator.protocol.codec.completeness import MAX_SET_PROOF_BYTES, encode_set_proof
from validator.protocol.completeness import CompletenessCheck
from validator.protocol.errors import MalformedInput
from validator.protocol.model import InstanceId, InstanceKind, StreamPart

END_MS = GENESIS_MS + 3 * BUNDLE_MS
OTHER = ("other", 3)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Three bundles; the last one's late set reaches back into the first, and a window of the second is empty."""
    world = World(tmp_path)
    world.add_bundle(
        ([a_row(100 * n, n) for n in range(30)], [a_row(4_000 + n, 100 + n) for n in range(600)]),
    )
    world.add_bundle(([a_row(8_000 + 10 * n, n) for n in range(20)], []))
    world.add_bundle(
        ([a_row(16_000, 1)], [a_row(20_000 + n, n, *OTHER) for n in range(3)]),
        [a_row(150, 700), a_row(4_100, 701), a_row(4_100, 702), a_row(8_005, 703)],
    )
    return world


def read(
    broker: Broker, from_ms: int, until_ms: int, as_of: int, limit: int = 70, part: StreamPart = PART
) -> list[MarkedRow]:
    return read_marked(broker.history, part, from_ms, until_ms, as_of, limit=limit)


def check(broker: Broker, from_ms: int, until_ms: int, as_of: int, part: StreamPart = PART) -> bytes:
    """The certified part of an answer, after a consumer's check of it; messages and proofs in one string of bytes."""
    rows = read(broker, from_ms, until_ms, as_of, part=part)
    assert [m.row.key for m in rows] == sorted({m.row.key for m in rows}), "in order, each once"
    complete_ms = broker.history.complete_to(as_of)
    wanted = [
        *(
            InstanceId(InstanceKind.WINDOW, window.start_ms)
            for window in NETWORK.windows_between(from_ms, min(until_ms, complete_ms))
        ),
        *(
            InstanceId(InstanceKind.LATE, number)
            for number in range(max(0, from_ms - GENESIS_MS) // BUNDLE_MS, as_of + 1)
            if GENESIS_MS + (number + 1) * BUNDLE_MS - LATE_REACH_MS < until_ms
        ),
    ]
    consumer = CompletenessCheck(part, from_ms, until_ms, wanted, broker.world.root_of)
    certified = [marked for marked in rows if marked.instance is not None]
    for row, instance in certified:
        assert instance is not None
        consumer.add(instance, row.key.timestamp_ms, row.key.leaf, row.key.publisher_id)
    proofs = [
        encode_set_proof(said, from_ms, until_ms) for said in _proven(broker, consumer, part, from_ms, until_ms, as_of)
    ]
    consumer.finish()
    assert all(len(proof) < 1_024 < MAX_SET_PROOF_BYTES for proof in proofs)
    return b"".join([m.row.canonical for m in certified] + proofs)


def _proven(broker: Broker, consumer: CompletenessCheck, part: StreamPart, from_ms: int, until_ms: int, as_of: int):  # type: ignore[no-untyped-def]
    for said in broker.prove(part, from_ms, until_ms, as_of):
        consumer.prove(said)
        yield said


SPANS = [
    (GENESIS_MS, END_MS),
    (GENESIS_MS + 150, GENESIS_MS + 151),
    (GENESIS_MS + 2_900, GENESIS_MS + 4_300),
    (GENESIS_MS + 8_190, GENESIS_MS + 16_000),
    (GENESIS_MS + 13_000, GENESIS_MS + 13_500),
    (GENESIS_MS + 15_000, END_MS + 5_000),
    (GENESIS_MS - 5_000, GENESIS_MS + 1),
]


def test_brokers_with_everything_a_part_and_nothing_give_the_same_bytes(world: World) -> None:
    records = world.all_records
    whole = world.broker("whole", records)
    holes = world.broker("holes", [*records[::3], a_row(2_050, 900), a_row(4_200, 901), a_row(30_000, 902)])
    behind = world.broker("behind", [], retained_from_ms=END_MS + 1)
    partly = world.broker("partly", records[::2], retained_from_ms=GENESIS_MS + BUNDLE_MS + 1)
    assert holes.comparing.filled == len(set(records)) - len(set(records[::3]))
    assert behind.comparing.filled == 0
    for span in SPANS:
        for as_of in (0, 1, 2):
            answers = {check(broker, *span, as_of) for broker in (whole, holes, behind, partly)}
            assert len(answers) == 1, (span, as_of)


def test_an_empty_broker_is_filled_from_bundles_and_then_asks_nobody(world: World) -> None:
    empty = world.broker("empty")
    assert empty.comparing.filled == len(world.all_records)
    world.gateways.is_down = True
    assert check(empty, GENESIS_MS, END_MS, 2) == check(empty, GENESIS_MS, END_MS, 2)
    assert [m.row.canonical for m in read(empty, GENESIS_MS, END_MS, 2)] == [
        r.canonical for r in sorted(world.all_records, key=lambda r: r.order) if r.message.stream_part == PART
    ]


def test_what_is_held_and_in_no_set_is_tail_until_a_later_late_set_holds_it(world: World) -> None:
    late = a_row(4_100, 701)
    broker = world.broker("late", [*world.all_records, a_row(4_100, 999)])
    marks = {as_of: {m.row.key.sequence_number: m.instance for m in read(broker, *SPANS[2], as_of)} for as_of in (1, 2)}
    assert marks[1][701] is None and marks[2][701] == InstanceId(InstanceKind.LATE, 2)
    assert marks[1][999] is None and marks[2][999] is None
    assert marks[2][100] == InstanceId(InstanceKind.WINDOW, GENESIS_MS + WINDOW_MS)
    assert late.leaf in {m.row.key.leaf for m in read(broker, *SPANS[2], 2)}


def test_a_message_that_arrives_after_its_window_was_compared_is_not_taken_for_certified(world: World) -> None:
    broker = world.broker("arrivals", world.all_records)
    before = check(broker, GENESIS_MS, END_MS, 2)
    for number in range(3):
        broker.hold([a_row(4_050, 950 + number), a_row(110, 950 + number)])
        assert check(broker, GENESIS_MS, END_MS, 2) == before
    world.gateways.is_down = True
    broker.hold([a_row(4_055, 990)])
    assert check(broker, GENESIS_MS, END_MS, 2) == before, "the newest are left out without asking anybody"
    assert sum(m.instance is None for m in read(broker, GENESIS_MS, END_MS, 2)) == 7


def test_after_a_restart_the_same_is_known_and_after_a_lost_index_it_is_read_anew(world: World) -> None:
    broker = world.broker("restarted", [*world.all_records, a_row(4_100, 999)])
    before = check(broker, GENESIS_MS, END_MS, 2)
    asked = world.gateways.asked_bytes
    broker.open()
    assert check(broker, GENESIS_MS, END_MS, 2) == before
    assert world.gateways.asked_bytes == asked
    broker.index.drop_from(0)
    broker.open()
    assert broker.history.newest() is None
    broker.follow()
    assert check(broker, GENESIS_MS, END_MS, 2) == before


def test_an_as_of_that_is_not_verified_is_refused_by_name(world: World) -> None:
    broker = world.broker("ahead", world.all_records)
    for act in (
        lambda: broker.history.complete_to(3),
        lambda: broker.history.sets(PART, GENESIS_MS, END_MS, 3),
        lambda: broker.history.page(PART, GENESIS_MS, END_MS, 7, limit=1),
    ):
        with pytest.raises(NotVerifiedYet, match=r"asOf: bundle [37] is not verified here, 0 to 2 are") as caught:
            act()
        assert caught.value.newest == 2
    with pytest.raises(NotVerifiedYet, match="none is"):
        world.broker("nothing", follow=False).history.complete_to(0)


def test_another_stream_is_proven_present_where_it_is_and_absent_elsewhere(world: World) -> None:
    broker = world.broker("other", world.all_records)
    check(broker, GENESIS_MS, END_MS, 2, part=OTHER)
    assert len(read(broker, GENESIS_MS, END_MS, 2, part=OTHER)) == 3
    entries = [found.entry is None for found in broker.history.sets(OTHER, GENESIS_MS, END_MS, 2)]
    assert entries == [True] * 5 + [False] + [True] * 3


def test_a_row_that_a_broker_adds_or_leaves_out_fails_the_consumers_check(world: World) -> None:
    broker = world.broker("liar", world.all_records)
    span = SPANS[2]
    rows = [m for m in read(broker, *span, 0) if m.instance == InstanceId(InstanceKind.WINDOW, GENESIS_MS + WINDOW_MS)]
    said = next(p for p in broker.prove(PART, *span, 0) if p.instance == rows[0].instance)
    for wrong in (rows[1:], rows[:-1], [*rows, rows[-1]]):
        consumer = CompletenessCheck(PART, *span, [said.instance], world.root_of)
        for row, _ in wrong:
            consumer.add(said.instance, row.key.timestamp_ms, row.key.leaf, row.key.publisher_id)
        with pytest.raises(MalformedInput, match=r"answer window:.*proof"):
            consumer.prove(said)
