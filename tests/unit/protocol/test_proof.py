"""Every proof of every small tree is accepted; none is that differs in anything, and none of what is not there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.builders import an_unsigned_message
from tests.proving import START_MS, STEP_MS, Proven, a_bundle, a_part, altered
from validator.protocol.codec.message import encode_message
from validator.protocol.codec.proof import decode_proof, encode_proof
from validator.protocol.errors import MalformedInput
from validator.protocol.leaves import bundle_leaf, entry_leaf, window_leaf
from validator.protocol.merkle import compute_root, inclusion_proof, range_proof
from validator.protocol.model import Digest, Flag, InstanceId, InstanceKind
from validator.protocol.proof import (
    AbsenceProof,
    BundleStep,
    EntryProof,
    EntryStep,
    MessageProof,
    WindowProof,
    WindowStep,
    build_absence,
    build_entry,
    build_message,
    build_range,
    build_window,
    verify_absence,
    verify_entry,
    verify_message,
    verify_range,
    verify_window,
)

PART = a_part(1)
SMALL = range(1, 21)


def refused(check: Callable[..., Any], *arguments: Any) -> bool:
    try:
        check(*arguments)
    except MalformedInput:
        return True
    return False


# --- messages, entries, windows -------------------------------------------------------------------


@pytest.mark.parametrize("size", SMALL)
def test_every_message_is_proven_up_to_the_bundle_root_and_up_to_a_certificate(size: int) -> None:
    proven = a_bundle((2, size, 3))
    for index, record in enumerate(proven.records[PART]):
        whole = build_message(proven.outcome, PART, proven.leaves(PART), index, proven.bundle)
        certified = build_message(proven.outcome, PART, proven.leaves(PART), index)
        assert verify_message(whole, record.canonical, proven.root) == record.message
        assert verify_message(certified, record.canonical, proven.digest) == record.message
        assert refused(verify_message, whole, record.canonical, proven.digest)
        assert refused(verify_message, certified, record.canonical, proven.root)
        others = [r.canonical for r in proven.records[PART] if r is not record]
        others.append(encode_message(an_unsigned_message(stream_id=PART[0], partition=PART[1])))
        assert all(refused(verify_message, whole, other, proven.root) for other in others)


@pytest.mark.parametrize("size", SMALL)
def test_no_altered_proof_of_a_message_is_accepted(size: int) -> None:
    proven = a_bundle((2, size, 3))
    for index in {0, 1, size // 2, size - 1} & set(range(size)):
        canonical = proven.records[PART][index].canonical
        whole = build_message(proven.outcome, PART, proven.leaves(PART), index, proven.bundle)
        wrong = list(altered(whole))
        assert len(wrong) > 30
        for other in wrong:
            assert refused(verify_message, other, canonical, proven.root), other


@pytest.mark.parametrize("count", SMALL)
def test_every_entry_is_proven_and_no_altered_one(count: int) -> None:
    proven = a_bundle((1,) * count)
    for entry in proven.outcome.entries:
        proof = build_entry(proven.outcome, entry.stream_part, proven.bundle)
        verify_entry(proof, entry, proven.root)
        verify_entry(build_entry(proven.outcome, entry.stream_part), entry, proven.digest)
        assert all(refused(verify_entry, proof, other, proven.root) for other in altered(entry))
        assert all(refused(verify_entry, other, entry, proven.root) for other in altered(proof))


@pytest.mark.parametrize("place", range(4))
def test_every_window_is_proven_and_no_altered_one(place: int) -> None:
    proven = a_bundle((1, 1), place)
    proof = build_window(proven.digest, proven.bundle)
    verify_window(proof, proven.digest, proven.root)
    assert all(refused(verify_window, other, proven.digest, proven.root) for other in altered(proof))
    for other in proven.bundle:
        assert other == proven.digest or refused(verify_window, proof, other, proven.root)


def test_of_what_is_not_there_no_proof_is_built() -> None:
    proven = a_bundle((2, 3))
    missing = a_part(9)
    with pytest.raises(KeyError):
        build_message(proven.outcome, missing, [], 0)
    with pytest.raises(IndexError):
        build_message(proven.outcome, PART, proven.leaves(PART), 3)
    with pytest.raises(KeyError):
        build_entry(proven.outcome, missing)
    with pytest.raises(KeyError):
        build_window(Digest(bytes(32)), proven.bundle)
    with pytest.raises(KeyError):
        build_range(proven.outcome, missing, [], [], lambda _: b"", START_MS, START_MS + 1)
    with pytest.raises(ValueError, match="has an entry"):
        build_absence(proven.outcome, PART)


# --- one level for another ------------------------------------------------------------------------


def test_a_path_that_skips_a_level_proves_nothing() -> None:
    """All hashes are genuine, the steps between them are not."""
    proven = a_bundle((1, 4, 3))
    record = proven.records[PART][2]
    whole = build_message(proven.outcome, PART, proven.leaves(PART), 2, proven.bundle)
    entry, window, bundle = whole.entry, whole.window, whole.bundle
    assert bundle is not None
    crossed = [
        MessageProof(replace(entry, path=window.path), replace(window, path=entry.path), bundle),
        MessageProof(entry, replace(window, path=(*window.path, *bundle.path)), None),
        MessageProof(
            replace(entry, path=(*entry.path, *window.path), index=2, count=16), replace(window, path=()), bundle
        ),
        MessageProof(replace(entry, index=0, count=1, path=()), window, bundle),
        MessageProof(replace(entry, index=0, count=2, path=entry.path[1:]), window, bundle),
        MessageProof(entry, replace(window, index=0, entries=1, path=()), bundle),
        MessageProof(entry, window, replace(bundle, index=0, leaves=1, path=())),
    ]
    assert all(refused(verify_message, proof, record.canonical, proven.root) for proof in crossed)


def test_the_root_below_the_bundles_leaf_is_no_anchor_and_no_window() -> None:
    proven = a_bundle((1, 4, 3))
    inner = compute_root(proven.bundle)
    proof = build_window(proven.digest, proven.bundle)
    assert refused(verify_window, proof, proven.digest, inner)
    assert bundle_leaf(len(proven.bundle), inner) == proven.root
    assert refused(verify_window, WindowProof(BundleStep(0, 1, ())), Digest(inner), proven.root)
    assert refused(verify_window, WindowProof(BundleStep(0, len(proven.bundle), ())), Digest(inner), proven.root)


def test_a_node_of_the_entries_is_no_entry() -> None:
    proven = a_bundle((1, 1, 1, 1))
    leaves = [entry_leaf(e, e.flags) for e in proven.outcome.entries]
    proof = build_entry(proven.outcome, PART, proven.bundle)
    halves = replace(proof.window, index=0, entries=2, path=(Digest(compute_root(leaves[2:])),))
    for entry in proven.outcome.entries:
        assert refused(verify_entry, EntryProof(halves, proof.bundle), entry, proven.root)


# --- ranges ---------------------------------------------------------------------------------------


def bounds(size: int) -> list[tuple[int, int]]:
    """From and until: at messages, and between them, before the first, behind the last."""
    points = [START_MS + STEP_MS // 2 * half for half in range(-1, 2 * size + 1)]
    return [(a, b) for a in points for b in points if a <= b]


@pytest.mark.parametrize("size", SMALL)
def test_every_range_is_proven_whole_also_where_it_is_empty(size: int) -> None:
    proven = a_bundle((2, size, 3))
    for from_ms, until_ms in bounds(size):
        proof, canonical = proven.prove_range(PART, from_ms, until_ms, proven.bundle)
        found = verify_range(proof, proven.outcome.instance, PART, from_ms, until_ms, canonical, proven.root)
        assert [m.timestamp_ms for m in found] == [
            START_MS + STEP_MS * at for at in range(size) if from_ms <= START_MS + STEP_MS * at < until_ms
        ]
        for at in range(len(canonical)):
            without = canonical[:at] + canonical[at + 1 :]
            assert refused(verify_range, proof, proven.outcome.instance, PART, from_ms, until_ms, without, proven.root)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 9])
def test_no_altered_range_is_accepted(size: int) -> None:
    proven = a_bundle((2, size, 3))
    instance = proven.outcome.instance
    foreign = [r.canonical for r in proven.records[a_part(0)]]
    for from_ms, until_ms in bounds(size)[::3]:
        proof, canonical = proven.prove_range(PART, from_ms, until_ms, proven.bundle)
        for other in altered(proof):
            assert refused(verify_range, other, instance, PART, from_ms, until_ms, canonical, proven.root), other
        for messages in ([*canonical, foreign[0]], [*canonical[::-1]], [*canonical, *canonical]):
            if messages != canonical:
                assert refused(verify_range, proof, instance, PART, from_ms, until_ms, messages, proven.root)


def test_a_shorter_or_longer_range_is_another() -> None:
    proven = a_bundle((2, 6, 3))
    from_ms, until_ms = START_MS + 20, START_MS + 40
    proof, canonical = proven.prove_range(PART, from_ms, until_ms, proven.bundle)
    instance = proven.outcome.instance
    assert verify_range(proof, instance, PART, from_ms - 9, until_ms + 1 - STEP_MS + 9, canonical, proven.root)
    for a, b in ((from_ms - 10, until_ms), (from_ms, until_ms + 1), (from_ms + 1, until_ms), (from_ms, until_ms - 10)):
        assert refused(verify_range, proof, instance, PART, a, b, canonical, proven.root)


def test_neighbours_that_are_not_next_to_the_range_are_none() -> None:
    """One who hides a message shows a genuine one further away."""
    proven = a_bundle((2, 8, 3))
    leaves = proven.leaves(PART)
    wide, _ = proven.prove_range(PART, START_MS + 25, START_MS + 25, proven.bundle)  # between 2 and 3
    other, _ = proven.prove_range(PART, START_MS + 35, START_MS + 35, proven.bundle)  # between 3 and 4
    for path in (range_proof(leaves, 2, 5), range_proof(leaves, 2, 4), range_proof(leaves, 3, 5)):
        for index in (2, 3):
            hidden = replace(wide, after=other.after, entry=replace(wide.entry, index=index, path=path))
            assert refused(
                verify_range, hidden, proven.outcome.instance, PART, START_MS + 21, START_MS + 39, [], proven.root
            )


def test_a_range_is_of_the_instance_and_the_partition_that_were_asked_for() -> None:
    proven = a_bundle((2, 6, 3))
    span = START_MS + 20, START_MS + 40
    proof, canonical = proven.prove_range(PART, *span, proven.bundle)
    late = InstanceId(InstanceKind.LATE, proven.outcome.instance.number)
    next_window = InstanceId(InstanceKind.WINDOW, proven.outcome.instance.number + 1)
    for instance in (late, next_window):
        with pytest.raises(MalformedInput, match=r"proof\.window\.instance"):
            verify_range(proof, instance, PART, *span, canonical, proven.root)
    assert refused(verify_range, proof, proven.outcome.instance, a_part(0), *span, canonical, proven.root)


def test_an_entry_without_messages_has_an_empty_range() -> None:
    proven = a_bundle((2, 3))
    empty = replace(proven.outcome.entries[0], stream_id="z", root=compute_root([]), count=0)
    leaves = [*(entry_leaf(e, e.flags) for e in proven.outcome.entries), entry_leaf(empty, empty.flags)]
    proof, _ = proven.prove_range(PART, START_MS, START_MS)
    step = EntryStep(0, 0, empty.signed_bytes, empty.canonical_bytes, empty.flags, ())
    window = replace(proof.window, index=2, entries=3, path=inclusion_proof(leaves, 2))
    anchor = window_leaf(proof.window.instance, compute_root(leaves), 3, proof.window.rest_hash)
    nothing = replace(proof, before=None, after=None, entry=step, window=window)
    assert verify_range(nothing, window.instance, ("z", empty.partition), 0, 1 << 50, [], anchor) == []
    for other in altered(nothing):
        assert refused(verify_range, other, window.instance, ("z", empty.partition), 0, 1 << 50, [], anchor)


# --- absence --------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, *SMALL])
def test_every_gap_between_entries_is_proven_and_no_altered_one(count: int) -> None:
    proven = a_bundle((1,) * count)
    instance = proven.outcome.instance
    gaps = [(stream, partition - 1) for stream, partition in map(a_part, range(count))]
    gaps += [("a", 0), ("zz", 0), (a_part(0)[0], 6), ("stream-000x", 5)]
    for part in gaps:
        proof = build_absence(proven.outcome, part, proven.bundle)
        verify_absence(proof, instance, part, proven.root)
        verify_absence(build_absence(proven.outcome, part), instance, part, proven.digest)
        for other in altered(proof):
            assert refused(verify_absence, other, instance, part, proven.root), other


def test_an_entry_that_is_there_cannot_be_shown_absent() -> None:
    proven = a_bundle((1,) * 6)
    entries = proven.outcome.entries
    leaves = [entry_leaf(e, e.flags) for e in entries]
    there = entries[3].stream_part
    genuine = build_absence(proven.outcome, ("a", 0), proven.bundle)
    for start in range(6):
        for end in range(start, 6):
            for before in (None, *entries):
                for after in (None, *entries):
                    path = range_proof(leaves, start, end + 1)
                    proof = AbsenceProof(replace(genuine.window, index=start, path=path), before, after, genuine.bundle)
                    assert refused(verify_absence, proof, proven.outcome.instance, there, proven.root)


def test_absence_is_of_the_instance_that_was_asked_for() -> None:
    proven = a_bundle((1, 1))
    proof = build_absence(proven.outcome, ("a", 0), proven.bundle)
    with pytest.raises(MalformedInput, match=r"proof\.window\.instance"):
        verify_absence(proof, InstanceId(InstanceKind.LATE, 7), ("a", 0), proven.root)


# --- refusals and bytes ---------------------------------------------------------------------------


def all_kinds(proven: Proven) -> list[Any]:
    ranges = [
        proven.prove_range(PART, START_MS + a, START_MS + b, proven.bundle)[0] for a, b in ((0, 1), (15, 15), (25, 99))
    ]
    return [
        build_message(proven.outcome, PART, proven.leaves(PART), 1, proven.bundle),
        build_message(proven.outcome, PART, proven.leaves(PART), 1),
        build_entry(proven.outcome, PART, proven.bundle),
        build_entry(proven.outcome, PART),
        build_window(proven.digest, proven.bundle),
        *ranges,
        build_absence(proven.outcome, ("a", 0), proven.bundle),
        build_absence(proven.outcome, ("stream-001", 3)),
    ]


@pytest.mark.parametrize("at", range(10))
def test_a_proof_survives_its_bytes(at: int) -> None:
    proof = all_kinds(a_bundle((2, 3, 1, 2)))[at]
    data = encode_proof(proof)
    assert decode_proof(data) == proof
    assert encode_proof(decode_proof(data)) == data
    for other in altered(proof):
        assert decode_proof(encode_proof(other)) == other != proof


@pytest.mark.parametrize(
    ("field", "reason", "change"),
    [
        ("entry.path", "does not fit message 1 of 3", lambda p: replace(p, entry=replace(p.entry, path=()))),
        ("window.path", "does not fit entry 1 of 4", lambda p: replace(p, window=replace(p.window, path=()))),
        ("bundle.path", "does not fit leaf 2 of 6", lambda p: replace(p, bundle=replace(p.bundle, path=()))),
        ("anchor", "leads to 0x", lambda p: replace(p, entry=replace(p.entry, flags=Flag.FULL))),
    ],
)
def test_a_refusal_names_the_step_and_the_reason(field: str, reason: str, change: Callable[[Any], Any]) -> None:
    proven = a_bundle((2, 3, 1, 2))
    proof = build_message(proven.outcome, PART, proven.leaves(PART), 1, proven.bundle)
    with pytest.raises(MalformedInput, match=reason) as caught:
        verify_message(change(proof), proven.records[PART][1].canonical, proven.root)
    assert caught.value.field == f"proof.{field}"


def test_one_message_of_a_million_is_proven_in_less_than_two_kilobytes() -> None:
    node = Digest(b"\x77" * 32)
    proof = MessageProof(
        EntryStep(999_999, 1_000_000, 1 << 30, 1 << 30, Flag.FULL, (node,) * 20),
        WindowStep(InstanceId(InstanceKind.WINDOW, START_MS), node, 999, 1000, (node,) * 10),
        BundleStep(59, 62, (node,) * 6),
    )
    assert len(encode_proof(proof)) < 2000
