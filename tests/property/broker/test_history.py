"""Whatever brokers hold: with one ``asOf`` the certified part of their answers is the same bytes, and proven."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import GENESIS_MS
from tests.bundle_builder import WINDOW_MS
from tests.certified_world import BUNDLE_MS, NETWORK, PART, Broker, World, a_row, read_marked
from validator.protocol.codec.completeness import encode_set_proof
from validator.protocol.completeness import CompletenessCheck
from validator.protocol.model import InstanceId, InstanceKind, Record

BUNDLES = 3
SPAN_MS = BUNDLES * BUNDLE_MS


def _certified(broker: Broker, from_ms: int, until_ms: int, as_of: int, limit: int) -> bytes:
    marked = read_marked(broker.history, PART, from_ms, until_ms, as_of, limit=limit)
    assert [m.row.key for m in marked] == sorted({m.row.key for m in marked})
    end_ms = min(until_ms, broker.history.complete_to(as_of))
    sets = [InstanceId(InstanceKind.WINDOW, w.start_ms) for w in NETWORK.windows_between(from_ms, end_ms)]
    sets += [InstanceId(InstanceKind.LATE, n) for n in range(max(0, from_ms - GENESIS_MS) // BUNDLE_MS, as_of + 1)]
    consumer = CompletenessCheck(PART, from_ms, until_ms, sets, broker.world.root_of)
    for row, instance in marked:
        if instance is not None:
            consumer.add(instance, row.key.timestamp_ms, row.key.leaf, row.key.publisher_id)
    proofs = list(broker.prove(PART, from_ms, until_ms, as_of))
    for said in proofs:
        consumer.prove(said)
    consumer.finish()
    return b"".join(
        [m.row.canonical + str(m.instance).encode() for m in marked if m.instance is not None]
        + [encode_set_proof(said, from_ms, until_ms) for said in proofs]
    )


def _world(folder: Path, records: Sequence[Record], late: Sequence[int]) -> World:
    """Every message in its window, but for those in the late set of the bundle that is named, or of none."""
    world = World(folder)
    for number in range(BUNDLES):
        windows: list[list[Record]] = [[], []]
        own: list[Record] = []
        for record, at in zip(records, late, strict=True):
            place = (record.message.timestamp_ms - GENESIS_MS) // WINDOW_MS
            if at == -1 and place // 2 == number:
                windows[place % 2].append(record)
            elif at == number and place // 2 <= number:
                own.append(record)
        world.add_bundle(windows, own)
    return world


@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_two_brokers_with_different_holes_and_one_that_keeps_nothing_answer_alike(data: st.DataObject) -> None:
    times = data.draw(st.lists(st.integers(0, SPAN_MS // 50 - 1), min_size=1, max_size=40))
    records = [a_row(50 * at, number) for number, at in enumerate(times)]
    late = data.draw(st.lists(st.sampled_from([-1, -1, -1, 0, 1, 2]), min_size=len(records), max_size=len(records)))
    held = st.lists(st.sampled_from(records), max_size=len(records))
    tails = st.lists(st.integers(0, SPAN_MS + 5_000), max_size=6)
    with tempfile.TemporaryDirectory() as folder:
        world = _world(Path(folder), records, late)
        brokers = [
            world.broker(
                name,
                [*data.draw(held), *(a_row(at, 500 + n) for n, at in enumerate(data.draw(tails)))],
                retained_from_ms=GENESIS_MS + data.draw(st.sampled_from([0, 0, WINDOW_MS + 1, 2 * BUNDLE_MS, SPAN_MS])),
            )
            for name in ("one", "two")
        ]
        brokers.append(world.broker("nothing", retained_from_ms=GENESIS_MS + SPAN_MS))
        brokers[0].hold([a_row(at, 600 + n) for n, at in enumerate(data.draw(tails))])  # behind the comparison
        for _ in range(4):
            from_ms, until_ms = sorted(GENESIS_MS + data.draw(st.integers(-50, SPAN_MS + 50)) for _ in range(2))
            as_of = data.draw(st.integers(0, BUNDLES - 1))
            limit = data.draw(st.sampled_from([1, 7, 1_000]))
            assert len({_certified(broker, from_ms, until_ms + 1, as_of, limit) for broker in brokers}) == 1
