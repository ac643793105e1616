"""A streamed answer: what its sets' proofs settle, and every way in which it can be short of or beyond them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from tests.proving import START_MS, STEP_MS, Proven, a_bundle, a_part
from validator.protocol.codec import cbor
from validator.protocol.codec.completeness import (
    MAX_COMMITMENT_BYTES,
    MAX_MARKS,
    MAX_MARKS_BYTES,
    decode_commitment,
    decode_marks,
    decode_set_proof,
    encode_commitment,
    encode_marks,
    encode_set_proof,
)
from validator.protocol.codec.proof import encode_proof
from validator.protocol.completeness import CompletenessCheck, SetCommitment, SetProof
from validator.protocol.errors import MalformedInput
from validator.protocol.model import Digest, InstanceId, InstanceKind, PartitionEntry, Record
from validator.protocol.proof import build_absence, build_window

PART = a_part(1)
NOBODYS = ("nobody", 0)
SPAN = (START_MS + 2 * STEP_MS, START_MS + 6 * STEP_MS)
BUNDLE = 7
OTHER = InstanceId(InstanceKind.LATE, BUNDLE)


def an_answer() -> tuple[Proven, SetProof, list[Record]]:
    proven = a_bundle((2, 9, 1, 2))
    proof, _ = proven.prove_range(PART, *SPAN, proven.bundle)
    chosen = [r for r in proven.records[PART] if SPAN[0] <= r.message.timestamp_ms < SPAN[1]]
    return proven, SetProof(BUNDLE, proven.outcome.instance, proof), chosen


def check_of(proven: Proven, *more: InstanceId) -> CompletenessCheck:
    return CompletenessCheck(PART, *SPAN, [proven.outcome.instance, *more], {BUNDLE: proven.root}.__getitem__)


def add_all(check: CompletenessCheck, instance: InstanceId, records: list[Record]) -> CompletenessCheck:
    for record in records:
        check.add(instance, record.message.timestamp_ms, record.leaf)
    return check


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(MalformedInput) as caught:
        act()
    return str(caught.value)


def test_a_whole_answer_is_complete_and_names_the_entry() -> None:
    proven, said, chosen = an_answer()
    check = add_all(check_of(proven), said.instance, chosen)
    entry = next(e for e in proven.outcome.entries if e.stream_part == PART)
    assert check.prove(decode_set_proof(encode_set_proof(said))) == entry
    check.finish()


def test_a_message_left_out_added_or_moved_is_noticed() -> None:
    proven, said, chosen = an_answer()
    beyond = next(r for r in proven.records[PART] if r.message.timestamp_ms >= SPAN[1])
    for rows in (chosen[1:], chosen[:-1], [*chosen[:1], *chosen[2:]], [*chosen, chosen[-1]], chosen[::-1], []):
        text = refusal(lambda rows=rows: add_all(check_of(proven), said.instance, rows).prove(said))  # type: ignore[misc]
        assert text.startswith(f"answer {said.instance}: proof.")
    text = refusal(lambda: add_all(check_of(proven), said.instance, [*chosen, beyond]))
    assert "outside the range" in text


def test_every_set_must_be_proven_once_and_no_other_is_heard() -> None:
    proven, said, chosen = an_answer()
    check = add_all(check_of(proven, OTHER), said.instance, chosen)
    check.prove(said)
    assert refusal(check.finish) == f"answer {OTHER}: not proven"
    assert "proven already" in refusal(lambda: check.prove(said))
    assert "proven already" in refusal(lambda: add_all(check, said.instance, chosen))
    unknown = InstanceId(InstanceKind.WINDOW, 1)
    assert "none of the sets" in refusal(lambda: check.prove(replace(said, instance=unknown)))
    assert "none of the sets" in refusal(lambda: check.add(unknown, SPAN[0], chosen[0].leaf))


def test_sets_are_looked_up_no_further_than_the_answer_has_come() -> None:
    """So a span of years costs no memory before its windows come."""
    proven, said, chosen = an_answer()
    looked_up: list[InstanceId] = []

    def sets() -> Iterator[InstanceId]:
        for number in itertools.chain([said.instance.number], itertools.count(1)):
            looked_up.append(InstanceId(said.instance.kind, number))
            yield looked_up[-1]

    check = CompletenessCheck(PART, *SPAN, sets(), lambda _: proven.root)
    assert add_all(check, said.instance, chosen).prove(said) is not None
    assert looked_up == [said.instance]
    assert refusal(check.finish) == f"answer {looked_up[-1]}: not proven"
    assert len(looked_up) == 2


def test_a_proof_must_lead_to_the_root_that_the_contract_holds_of_its_bundle() -> None:
    proven, said, chosen = an_answer()
    for wrong, reason in (
        (replace(said, bundle=8), "the contract holds no bundle 8"),
        (replace(said, proof=replace(said.proof, bundle=None)), "does not go up to a bundle"),
    ):
        assert reason in refusal(lambda w=wrong: add_all(check_of(proven), said.instance, chosen).prove(w))  # type: ignore[misc]
    other = CompletenessCheck(PART, *SPAN, [said.instance], lambda _: b"\x01" * 32)
    assert "anchor" in refusal(lambda: add_all(other, said.instance, chosen).prove(said))
    late = CompletenessCheck(PART, *SPAN, [OTHER], lambda _: proven.root)
    assert "window.instance" in refusal(lambda: late.prove(SetProof(BUNDLE, OTHER, said.proof)))
    assert "no late set of another" in refusal(lambda: late.prove(SetProof(8, OTHER, said.proof)))


def test_a_partition_without_entry_is_proven_to_be_absent_and_has_no_messages() -> None:
    proven, said, chosen = an_answer()
    absent = SetProof(BUNDLE, said.instance, build_absence(proven.outcome, NOBODYS, proven.bundle))

    def check() -> CompletenessCheck:
        return CompletenessCheck(NOBODYS, *SPAN, [said.instance], lambda _: proven.root)

    assert check().prove(decode_set_proof(encode_set_proof(absent))) is None
    assert "proven to be none" in refusal(lambda: add_all(check(), said.instance, chosen).prove(absent))
    assert refusal(lambda: add_all(check_of(proven), said.instance, []).prove(absent))


def test_commitments_are_read_as_they_were_written_and_bounded() -> None:
    largest = PartitionEntry(*PART, b"\xff" * 32, *[(1 << 64) - 1] * 3)  # type: ignore[arg-type]
    instance = InstanceId(InstanceKind.LATE, (1 << 64) - 1)
    for said in (SetCommitment((1 << 64) - 1, instance, largest), SetCommitment(0, instance, None)):
        data = encode_commitment(said)
        assert decode_commitment(data, PART) == said
        assert len(data) <= MAX_COMMITMENT_BYTES


def test_marks_name_each_message_once() -> None:
    marks = [(Digest(number.to_bytes(32, "big")), None if number % 2 else (1 << 64) - 1) for number in range(MAX_MARKS)]
    data = encode_marks(marks)
    assert decode_marks(data) == dict(marks)
    assert len(data) <= MAX_MARKS_BYTES
    assert "twice" in refusal(lambda: decode_marks(encode_marks([*marks[:2], marks[0]])))


def test_another_kind_of_proof_is_none_of_an_answers() -> None:
    proven, said, _ = an_answer()
    data = encode_set_proof(said)
    inner = encode_proof(build_window(proven.digest, proven.bundle))
    foreign = cbor.encode_object("set-proof/1", BUNDLE, 1, START_MS, inner)
    assert "not that of a span" in refusal(lambda: decode_set_proof(foreign))
    for at in (0, len(data) // 2, len(data) - 1):
        assert refusal(lambda at=at: decode_set_proof(data[:at]))  # type: ignore[misc]
