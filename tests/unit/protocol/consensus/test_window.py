"""What a window holds: one record per identity, a funded prefix per partition, equivocations marked."""

from __future__ import annotations

import pytest
from msgspec import structs

from tests.builders import GENESIS_MS, a_key, a_record, a_stream_id, some_records
from tests.columns import cut_to_budget, find_equivocations, may_be_full
from validator.protocol.codec.message import make_record
from validator.protocol.codec.variants import ServeCounts
from validator.protocol.columns import make_entry
from validator.protocol.consensus.window import (
    Budget,
    group_by_part,
    make_entries,
    partition_budget,
    unite,
)
from validator.protocol.hashing import EMPTY_ROOT
from validator.protocol.merkle import compute_root
from validator.protocol.model import MIB, EncryptionType, Flag, Record, SignatureType
from validator.protocol.parameters import ParameterSet

PUBLIC = SignatureType.ECDSA_SECP256K1_EVM
PARAMETERS = ParameterSet(
    first_epoch=0, epoch_windows=100, price_default=8, price_max=8, budget_windows=10, partition_limit=5 * MIB
)


def a_variant(record: Record, group_key_id: str = "any") -> Record:
    """The same signed bytes with another field that the signature does not cover."""
    return make_record(structs.replace(record.message, encryption_type=EncryptionType.AES, group_key_id=group_key_id))


# --- budgets --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("balance", "partitions", "expected"),
    [
        (80, 1, MIB),  # 80 x 2^20 / (8 x 1 x 10)
        (81, 1, MIB * 81 // 80),
        (80, 3, MIB // 3),  # one division, rounded down once
        (10**9, 1, 5 * MIB),
        (0, 1, 0),
    ],
)
def test_a_partition_may_hold_what_its_balance_pays_for_in_all_unsettled_windows(
    balance: int, partitions: int, expected: int
) -> None:
    assert partition_budget(PARAMETERS, balance, partitions) == expected


def test_an_entry_is_the_longest_prefix_within_the_budget_and_full_if_something_was_cut() -> None:
    records = some_records(4)
    sizes = [r.signed_bytes for r in records]
    assert cut_to_budget(records, Budget(sum(sizes))) == (records, False)
    assert cut_to_budget(records, Budget(sum(sizes) - 1)) == (records[:3], True)
    assert cut_to_budget(records, Budget(0)) == ([], True)
    assert cut_to_budget([], Budget(0)) == ([], False)


def test_nothing_behind_a_message_that_is_too_large_slips_into_the_prefix() -> None:
    small, large, last = (
        a_record(timestamp_ms=GENESIS_MS + i, content=b'"%s"' % (b"x" * n)) for i, n in enumerate((1, 500, 1))
    )
    kept, full = cut_to_budget([small, large, last], Budget(small.signed_bytes + last.signed_bytes))
    assert (kept, full) == ([small], True)


def test_the_system_streams_prefix_is_each_publishers_own() -> None:
    loud = [a_record(a_key(2), timestamp_ms=GENESIS_MS + i) for i in range(3)]
    quiet = a_record(a_key(3), timestamp_ms=GENESIS_MS + 9)
    budget = Budget(2 * loud[0].signed_bytes, per_publisher=True)
    assert cut_to_budget([*loud, quiet], budget) == ([*loud[:2], quiet], True)
    assert cut_to_budget([*loud[:2], quiet], budget) == ([*loud[:2], quiet], False)


def test_an_entry_may_be_full_only_where_a_message_of_the_largest_size_would_not_fit() -> None:
    records = some_records(2)
    used = sum(r.signed_bytes for r in records)
    assert not may_be_full(records, Budget(used + 100, message_limit=100))
    assert may_be_full(records, Budget(used + 99, message_limit=100))
    assert may_be_full([], Budget(99, message_limit=100))
    assert not may_be_full([], Budget(100, message_limit=100))


def test_per_publisher_one_full_publisher_is_enough_and_sums_do_not_count() -> None:
    records = [a_record(a_key(n)) for n in (2, 3, 4)]
    size = records[0].signed_bytes
    assert not may_be_full(records, Budget(size + 100, per_publisher=True, message_limit=100))
    twice = sorted([*records, a_record(a_key(2), sequence_number=1)], key=lambda r: r.order)
    assert may_be_full(twice, Budget(2 * size + 99, per_publisher=True, message_limit=100))
    assert not may_be_full(records, Budget(2 * size + 99, per_publisher=True, message_limit=100))


# --- union ----------------------------------------------------------------------------------------


def test_a_union_holds_each_identity_once_in_canonical_order_and_names_what_varied() -> None:
    first, second = some_records(2, signature_type=PUBLIC)
    other = a_variant(first)
    union = unite([second, other, first, second], {})
    assert [r.identity for r in union.records] == [first.identity, second.identity]
    assert union.varied == {first.identity}
    assert unite([second, second], {}).varied == frozenset()


def test_sightings_decide_between_variants() -> None:
    record = a_record(signature_type=PUBLIC)
    other = a_variant(record)
    for favourite in (record, other):
        assert unite([record, other], {favourite.leaf: ServeCounts(served=2)}).records == (favourite,)
        assert unite([record, other], {favourite.leaf: ServeCounts(observers=1)}).records == (favourite,)


# --- entries and equivocations --------------------------------------------------------------------


def test_entries_are_ordered_by_utf8_of_the_stream_and_partition_and_total_their_records() -> None:
    streams = ["a.eth/\U0001f600", "a.eth/～", "a.eth/a"]
    records = [a_record(stream_id=s, partition=p) for s in streams for p in (11, 2)]
    entries = make_entries(records)
    assert [e.stream_part for e in entries] == [
        (s, p) for s in sorted(streams, key=lambda s: s.encode()) for p in (2, 11)
    ]
    assert sum(e.signed_bytes for e in entries) == sum(r.signed_bytes for r in records)
    assert sum(e.canonical_bytes for e in entries) == sum(len(r.canonical) for r in records)


def test_the_root_of_an_entry_is_over_the_leaves_in_canonical_order() -> None:
    records = some_records(5)
    part = (a_stream_id(), 0)
    grouped = group_by_part(records[::-1])
    assert grouped == {part: records}
    entry = make_entry(part, grouped[part], Flag.FULL)
    assert entry.root == compute_root([r.leaf for r in records])
    assert (entry.count, entry.flags) == (5, Flag.FULL)
    assert make_entry(part, []).root == EMPTY_ROOT


def test_two_identities_under_one_message_id_are_evidence_and_repeats_are_not() -> None:
    one, two = a_record(content=b'"yes"'), a_record(content=b'"no"')
    later = a_record(content=b'"no"', sequence_number=1)
    elsewhere = a_record(content=b'"no"', partition=1)
    evidence, count, parts = find_equivocations([one, two, later, elsewhere], 10)
    assert [(e.first, e.second) for e in evidence] == [tuple(sorted((one.leaf, two.leaf)))]
    assert (count, parts) == (1, {(a_stream_id(), 0)})
    assert find_equivocations([one, later, elsewhere], 10) == ((), 0, set())


def test_evidence_lists_two_leaves_per_id_up_to_the_limit_and_counts_on() -> None:
    records = [a_record(sequence_number=i, content=b'"%d"' % j) for i in range(4) for j in range(3)]
    evidence, count, parts = find_equivocations(records, 2)
    assert (len(evidence), count, len(parts)) == (2, 4, 1)
    again, _, _ = find_equivocations(records[::-1], 2)
    assert again == evidence


def test_who_once_exceeded_its_prefix_gets_nothing_behind_it() -> None:
    small, large, last = (
        a_record(a_key(2), timestamp_ms=GENESIS_MS + i, content=b'"%s"' % (b"x" * n)) for i, n in enumerate((1, 500, 1))
    )
    budget = Budget(small.signed_bytes + last.signed_bytes, per_publisher=True)
    assert cut_to_budget([small, large, last], budget) == ([small], True)
