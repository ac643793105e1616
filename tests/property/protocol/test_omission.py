"""Any set and any message: exactly one of *held* and *omitted* can be proven, and no altered proof holds."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import GENESIS_MS, a_record, a_stream_id
from tests.proving import altered
from validator.protocol.codec.slice_claim import SliceClaim
from validator.protocol.errors import MalformedInput
from validator.protocol.merkle import compute_root
from validator.protocol.model import Address, Record, Root
from validator.protocol.omission import build_held, build_omission, verify_held, verify_omission

MANY = 40


@cache
def some() -> list[Record]:
    """Of few timestamps, so that neighbours differ in sequence number, chain or leaf alone."""
    records = [
        a_record(timestamp_ms=GENESIS_MS + i // 7, sequence_number=i % 3, content=b'{"i":%d}' % (i % 20))
        for i in range(MANY)
    ]
    return sorted({record.leaf: record for record in records}.values(), key=lambda r: r.order)


def claim_of(records: list[Record]) -> SliceClaim:
    root = compute_root([r.leaf for r in records])
    return SliceClaim(Address(bytes(20)), (a_stream_id(), 0), GENESIS_MS, GENESIS_MS + 100, len(records), root, 0)


@given(held=st.sets(st.integers(0, MANY - 1)), number=st.integers(0, MANY - 1), data=st.data())
@settings(max_examples=150)
def test_a_message_is_proven_held_or_omitted_and_never_both(held: set[int], number: int, data: st.DataObject) -> None:
    known = some()
    records = [record for i, record in enumerate(known) if i in held]
    record = known[number % len(known)]
    claim = claim_of(records)
    leaves = [r.leaf for r in records]
    if record in records:
        proof = build_held(leaves, records.index(record))
        assert verify_held(proof, claim, record.canonical) == record.message
        with pytest.raises(ValueError, match="is there"):
            build_omission(leaves, lambda i: records[i].canonical, record.canonical)
        for wrong in altered(proof):
            with pytest.raises(MalformedInput):
                verify_held(wrong, claim, record.canonical)
        return
    omission = build_omission(leaves, lambda i: records[i].canonical, record.canonical)
    assert verify_omission(omission, claim, record.canonical) == record.message
    for other in records:
        with pytest.raises(MalformedInput):
            verify_omission(omission, claim, other.canonical)
    changes = [
        *({"index": omission.index + by} for by in (-1, 1)),
        {"before": None} if omission.before else {"before": record.canonical},
        {"after": None} if omission.after else {"after": record.canonical},
        {"path": (*omission.path, leaves[0] if leaves else bytes(32))},
        *({"path": omission.path[:-1]} for _ in omission.path[:1]),
    ]
    wrong_omission = replace(omission, **data.draw(st.sampled_from(changes)))
    with pytest.raises(MalformedInput):
        verify_omission(wrong_omission, claim, record.canonical)
    with pytest.raises(MalformedInput):
        verify_omission(omission, replace(claim, root=Root(bytes(32))), record.canonical)


def test_what_does_not_belong_into_the_range_is_not_missing_from_it() -> None:
    records = some()[:4]
    claim = claim_of(records)
    for foreign in (a_record(timestamp_ms=GENESIS_MS + 100), a_record(timestamp_ms=GENESIS_MS, partition=1)):
        omission = build_omission([r.leaf for r in records], lambda i: records[i].canonical, foreign.canonical)
        with pytest.raises(MalformedInput, match="range"):
            verify_omission(omission, claim, foreign.canonical)
