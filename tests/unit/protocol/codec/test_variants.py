from __future__ import annotations

import itertools
from typing import Any

import pytest
from msgspec.structs import replace

from tests.builders import CHAIN_ID, GENESIS_MS, a_message, a_record
from validator.protocol.codec.message import make_record
from validator.protocol.codec.payload import signature_payload
from validator.protocol.codec.signatures import VALID, verify_message
from validator.protocol.codec.variants import (
    ServeCounts,
    choose_variant,
    has_client_chain_id,
    rank_variants,
    ranks_worse,
    variant_rank,
)
from validator.protocol.errors import InvariantError, MalformedInput
from validator.protocol.model import EncryptionType, Message, MessageRef, NewGroupKey, Record, SignatureType

EVM = SignatureType.ECDSA_SECP256K1_EVM


def an_original(**fields: Any) -> Message:
    return a_message(signature_type=EVM, prev=MessageRef(GENESIS_MS - 40, 1), sequence_number=12, **fields)


def forge_variants(m: Message) -> list[Record]:
    """Readings of the same signed bytes: digits and text moved between neighbours, unsigned fields changed."""
    assert m.prev is not None
    time, sequence = str(m.prev.timestamp_ms), str(m.prev.sequence_number)
    chain, content = m.msg_chain_id, m.content
    readings: list[dict[str, Any]] = [
        {"prev": None, "msg_chain_id": chain + time + sequence},
        {"encryption_type": EncryptionType.AES, "group_key_id": "any"},
        {"group_key_id": "any"},
        {"signature_type": SignatureType.ECDSA_SECP256K1_LEGACY},
    ]
    readings += [
        {"prev": MessageRef(int(digits[:-1]), int(digits[-1])), "msg_chain_id": chain + time[:cut]}
        for cut in range(1, 12)
        if (digits := time[cut:] + sequence)[0] != "0"
    ]
    readings += [
        {"content": content[:cut], "new_group_key": NewGroupKey(content[cut:].decode(), b"")} for cut in (0, 5)
    ]
    readings += [{"content": content[:cut], "new_group_key": NewGroupKey("", content[cut:])} for cut in (0, 5)]
    readings += [{"prev": None, "msg_chain_id": chain + time + sequence + "{", "content": content[1:]}]
    variants = []
    for reading in readings:
        try:
            variants.append(make_record(replace(m, **reading)))
        except MalformedInput:
            continue
    return variants


def test_sliding_fields_leave_signature_and_identity_as_they_are() -> None:
    original = make_record(an_original())
    variants = forge_variants(original.message)
    assert len({variant.leaf for variant in variants} - {original.leaf}) > 15
    for variant in variants:
        assert signature_payload(variant.message) == signature_payload(original.message)
        assert verify_message(variant.message) is VALID
        assert variant.identity == original.identity


def test_what_two_and_most_brokers_served_is_kept_against_every_sliding_field() -> None:
    original = make_record(an_original())
    for variant in forge_variants(original.message):
        candidates = [(variant, ServeCounts(served=1, observers=4)), (original, ServeCounts(served=2, observers=1))]
        assert choose_variant(candidates) == choose_variant(reversed(candidates)) == original
        assert ranks_worse(*candidates)


def test_one_brokers_word_loses_to_the_chain_id_of_clients() -> None:
    original = make_record(an_original())
    slid = [v for v in forge_variants(original.message) if not has_client_chain_id(v)]
    assert slid
    for variant in slid:
        assert choose_variant([(variant, ServeCounts(1, 4)), (original, ServeCounts(0, 1))]) == original


def test_the_forger_of_a_client_shaped_chain_id_must_still_be_shown_by_most() -> None:
    original = make_record(an_original(msg_chain_id="abc1234"))
    time, sequence = str(GENESIS_MS - 40), "1"
    shaped = make_record(replace(original.message, prev=None, msg_chain_id="abc1234" + time))
    assert signature_payload(shaped.message) != signature_payload(original.message)  # the sequence must go as well
    shaped = make_record(replace(original.message, prev=None, msg_chain_id="abc1234" + time + sequence))
    assert shaped.identity == original.identity
    assert choose_variant([(shaped, ServeCounts(1, 3)), (original, ServeCounts(2, 1))]) == original


def test_equal_brokers_and_shape_leave_it_to_observers_and_then_to_the_leaf() -> None:
    one = a_record(signature_type=EVM, group_key_id="a")
    two = a_record(signature_type=EVM, group_key_id="b")
    assert choose_variant([(one, ServeCounts(2, 1)), (two, ServeCounts(2, 3))]) == two
    assert choose_variant([(one, ServeCounts(2, 3)), (two, ServeCounts(2, 1))]) == one
    smaller = min(one, two, key=lambda record: record.leaf)
    assert choose_variant([(one, ServeCounts(2, 3)), (two, ServeCounts(2, 3))]) == smaller


def test_more_brokers_win_over_shape_observers_and_leaf() -> None:
    odd = make_record(replace(an_original(), prev=None, msg_chain_id=f"{CHAIN_ID}{GENESIS_MS - 40}1"))
    shaped = make_record(an_original())
    assert odd.identity == shaped.identity
    assert choose_variant([(odd, ServeCounts(3, 0)), (shaped, ServeCounts(2, 9))]) == odd


def test_the_order_is_total_and_the_same_whoever_lists_first() -> None:
    records = [make_record(an_original()), *forge_variants(an_original())][:5]
    sightings = [
        ServeCounts(served % 4, observers % 3) for served, observers in zip(range(5), range(5, 10), strict=True)
    ]
    candidates = list(zip(records, sightings, strict=True))
    expected = rank_variants(candidates)
    for order in itertools.permutations(candidates):
        assert rank_variants(order) == expected
    for (a, one), (b, two) in itertools.combinations(candidates, 2):
        assert ranks_worse((a, one), (b, two)) != ranks_worse((b, two), (a, one))


def test_one_and_no_broker_weigh_the_same() -> None:
    record = a_record()
    assert variant_rank(record, ServeCounts(1, 2)) == variant_rank(record, ServeCounts(0, 2))
    assert variant_rank(record, ServeCounts(2, 2)) < variant_rank(record, ServeCounts(1, 2))


def test_a_record_is_never_worse_than_itself() -> None:
    record = a_record()
    assert not ranks_worse((record, ServeCounts(0, 0)), (record, ServeCounts(9, 9)))
    assert rank_variants([(record, ServeCounts(0, 0)), (record, ServeCounts(9, 9))]) == (record,)


def test_records_of_two_identities_or_none_are_no_variants() -> None:
    with pytest.raises(InvariantError):
        choose_variant([(a_record(), ServeCounts()), (a_record(content=b"{}"), ServeCounts())])
    with pytest.raises(InvariantError):
        choose_variant([])
