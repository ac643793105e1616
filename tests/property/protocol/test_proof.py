"""Trees of any shape: what is proven is accepted, one thing altered is not; bytes are ours or are refused."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.proving import START_MS, STEP_MS, a_bundle, a_part, altered
from validator.protocol.codec.proof import decode_proof, encode_proof
from validator.protocol.errors import MalformedInput
from validator.protocol.proof import (
    Proof,
    build_absence,
    build_entry,
    build_message,
    build_window,
    verify_message,
    verify_range,
)

sizes = st.lists(st.integers(0, 70), min_size=1, max_size=12).filter(any).map(tuple)


@given(sizes=sizes, place=st.integers(0, 3), data=st.data())
@settings(max_examples=60)
def test_a_message_of_any_bundle_is_proven_and_no_altered_proof_holds(
    sizes: tuple[int, ...], place: int, data: st.DataObject
) -> None:
    proven = a_bundle(sizes, place)
    part = data.draw(st.sampled_from(sorted(proven.records)))
    index = data.draw(st.integers(0, len(proven.records[part]) - 1))
    canonical = proven.records[part][index].canonical
    proof = build_message(proven.outcome, part, proven.leaves(part), index, proven.bundle)
    verify_message(proof, canonical, proven.root)
    wrong = data.draw(st.sampled_from(list(altered(proof))))
    with pytest.raises(MalformedInput):
        verify_message(wrong, canonical, proven.root)


@given(sizes=sizes, data=st.data())
@settings(max_examples=60)
def test_a_range_of_any_entry_is_proven_and_no_altered_proof_holds(sizes: tuple[int, ...], data: st.DataObject) -> None:
    proven = a_bundle(sizes)
    part = data.draw(st.sampled_from(sorted(proven.records)))
    points = st.integers(START_MS - STEP_MS, START_MS + STEP_MS * (len(proven.records[part]) + 1))
    from_ms, until_ms = sorted((data.draw(points), data.draw(points)))
    proof, canonical = proven.prove_range(part, from_ms, until_ms, proven.bundle)
    asked = (proven.outcome.instance, part, from_ms, until_ms)
    verify_range(proof, *asked, canonical, proven.root)
    wrong = data.draw(st.sampled_from(list(altered(proof))))
    with pytest.raises(MalformedInput):
        verify_range(wrong, *asked, canonical, proven.root)
    if canonical:
        at = data.draw(st.integers(0, len(canonical) - 1))
        with pytest.raises(MalformedInput):
            verify_range(proof, *asked, canonical[:at] + canonical[at + 1 :], proven.root)


@cache
def proofs() -> list[Proof]:
    proven = a_bundle((2, 9, 1, 2))
    part = a_part(1)
    return [
        build_message(proven.outcome, part, proven.leaves(part), 4, proven.bundle),
        build_message(proven.outcome, part, proven.leaves(part), 4),
        build_entry(proven.outcome, part, proven.bundle),
        build_window(proven.digest, proven.bundle),
        proven.prove_range(part, START_MS + 25, START_MS + 45, proven.bundle)[0],
        build_absence(proven.outcome, ("a", 0), proven.bundle),
    ]


@given(which=st.integers(0, 5), at=st.integers(0, 5_000), change=st.integers(1, 255), cut=st.booleans())
@settings(max_examples=300)
def test_changed_bytes_are_refused_or_another_proof(which: int, at: int, change: int, cut: bool) -> None:
    proof = proofs()[which]
    data = encode_proof(proof)
    at %= len(data)
    changed = data[:at] + (b"" if cut else bytes([data[at] ^ change])) + data[at + 1 :]
    try:
        other = decode_proof(changed)
    except MalformedInput:
        return
    assert other != proof
    assert encode_proof(other) == changed


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_by_name(data: bytes) -> None:
    with pytest.raises(MalformedInput):
        decode_proof(data)


def test_a_proof_beyond_its_limits_is_refused_unread() -> None:
    with pytest.raises(MalformedInput, match="exceed"):
        decode_proof(bytes(20_000))
