"""Unions, cuts and evidence over records in any order."""

from __future__ import annotations

from functools import cache

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.builders import GENESIS_MS, a_key, a_record
from tests.columns import cut_to_budget, find_equivocations, may_be_full
from validator.protocol.codec.message import make_record
from validator.protocol.codec.variants import ServeCounts
from validator.protocol.consensus.window import (
    Budget,
    make_entries,
    unite,
)
from validator.protocol.model import EncryptionType, Record, SignatureType


@cache
def the_records() -> tuple[Record, ...]:
    """Two publishers, two partitions, equivocations, and a variant of every other record."""
    originals = [
        a_record(
            a_key(2 + i % 2),
            partition=i % 2,
            timestamp_ms=GENESIS_MS + i // 3,
            content=b'"%s"' % (b"x" * (7 * i)),
            signature_type=SignatureType.ECDSA_SECP256K1_EVM,
        )
        for i in range(12)
    ]
    variants = [
        make_record(replace(r.message, encryption_type=EncryptionType.AES, group_key_id="any")) for r in originals[::2]
    ]
    return (*originals, *variants)


indices = st.lists(st.integers(0, 17), max_size=30)


@given(chosen=indices, data=st.data())
def test_the_order_and_number_of_arrivals_never_change_a_union(chosen: list[int], data: st.DataObject) -> None:
    records = [the_records()[i] for i in chosen]
    sightings = {
        r.leaf: ServeCounts(data.draw(st.integers(0, 3)), data.draw(st.integers(0, 3))) for r in dict.fromkeys(records)
    }
    union = unite(records, sightings)
    assert unite(data.draw(st.permutations(records)), sightings) == union
    assert unite([*records, *records], sightings) == union
    assert [r.order for r in union.records] == sorted(r.order for r in union.records)
    assert {r.identity for r in union.records} == {r.identity for r in records}
    assert len({r.identity for r in union.records}) == len(union.records)
    assert make_entries(records) == make_entries(records[::-1])


@given(chosen=indices, limit=st.integers(0, 3_000), per_publisher=st.booleans())
def test_a_cut_is_the_longest_funded_prefix_and_a_full_mark_is_always_warranted(
    chosen: list[int], limit: int, per_publisher: bool
) -> None:
    records = list(unite([the_records()[i] for i in chosen], {}).records)
    largest = max((r.signed_bytes for r in records), default=0)
    budget = Budget(limit, per_publisher, message_limit=largest)
    kept, full = cut_to_budget(records, budget)
    assert full == (len(kept) < len(records))
    assert not full or may_be_full(kept, budget)
    groups = {r.message.publisher_id for r in records} if per_publisher else {b""}
    for publisher in groups:
        own = [r for r in records if not per_publisher or r.message.publisher_id == publisher]
        held = [r for r in kept if not per_publisher or r.message.publisher_id == publisher]
        assert held == own[: len(held)]
        assert sum(r.signed_bytes for r in held) <= limit
        if len(held) < len(own):
            assert sum(r.signed_bytes for r in own[: len(held) + 1]) > limit
    assert cut_to_budget(kept, budget) == (kept, False)


@given(chosen=indices, limit=st.integers(0, 5), data=st.data())
def test_evidence_does_not_depend_on_order_and_never_exceeds_its_limit(
    chosen: list[int], limit: int, data: st.DataObject
) -> None:
    records = list(unite([the_records()[i] for i in chosen], {}).records)
    found = find_equivocations(records, limit)
    assert find_equivocations(data.draw(st.permutations(records)), limit) == found
    assert len(found[0]) == min(limit, found[1])
