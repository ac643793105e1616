"""A streamed answer: what its sets' proofs settle, and every way in which it can be short of or beyond them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conformance.__main__ import main as run_conformance
from tests.conformance.completeness import make_vectors
from tests.paths import VECTORS
from tests.proving import START_MS, STEP_MS, Proven, a_bundle, a_part, altered
from validator.protocol.codec import cbor
from validator.protocol.codec.completeness import (
    MAX_CLIMB_BYTES,
    MAX_CLIMBED,
    MAX_COMMITMENT_BYTES,
    MAX_MARKS,
    MAX_MARKS_BYTES,
    decode_climb,
    decode_commitment,
    decode_marks,
    decode_set_proof,
    encode_climb,
    encode_commitment,
    encode_marks,
    encode_set_proof,
)
from validator.protocol.codec.proof import MAX_PATH, encode_proof
from validator.protocol.completeness import CompletenessCheck, SetClimb, SetCommitment, SetProof, without_publishers
from validator.protocol.errors import InvariantError, MalformedInput
from validator.protocol.leaves import hash_publisher
from validator.protocol.merkle import range_proof
from validator.protocol.model import Digest, InstanceId, InstanceKind, PartitionEntry, Record
from validator.protocol.proof import RangeProof, build_absence

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
        check.add(instance, record.message.timestamp_ms, record.leaf, record.message.publisher_id)
    return check


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(MalformedInput) as caught:
        act()
    return str(caught.value)


def test_a_whole_answer_is_complete_and_names_the_entry() -> None:
    proven, said, chosen = an_answer()
    check = add_all(check_of(proven), said.instance, chosen)
    entry = next(e for e in proven.outcome.entries if e.stream_part == PART)
    assert check.prove(decode_set_proof(encode_set_proof(said, *SPAN), *SPAN)) == entry
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
    assert "none of the sets" in refusal(lambda: check.add(unknown, SPAN[0], chosen[0].leaf, b""))


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

    assert check().prove(decode_set_proof(encode_set_proof(absent, *SPAN), *SPAN)) is None
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


def test_what_the_message_beside_it_says_is_left_out_and_put_in_again() -> None:
    proven, said, chosen = an_answer()
    proof = said.proof
    assert isinstance(proof, RangeProof) and proof.before is not None and proof.after is not None
    publisher = proof.before.publisher_hash
    before, after = without_publishers(proof.before, proof.after, publisher, publisher)
    assert before is not None and after is not None
    assert (before.publisher_hash, after.publisher_hash) == (None, None)
    short = replace(said, proof=replace(proof, before=before, after=after))
    data = encode_set_proof(short, *SPAN)
    assert len(data) == len(encode_set_proof(said, *SPAN)) - 2 * 33
    assert decode_set_proof(data, *SPAN) == short
    assert add_all(check_of(proven), said.instance, chosen).prove(short) is not None
    check = add_all(check_of(proven), said.instance, chosen[1:])
    assert "anchor" in refusal(lambda: check.prove(short))
    check = check_of(proven)
    for record in chosen:
        check.add(said.instance, record.message.timestamp_ms, record.leaf, b"\x09" * 20)
    assert "anchor" in refusal(lambda: check.prove(short)), "the publisher beside it is another"


def test_where_there_is_no_message_one_neighbour_names_the_publisher() -> None:
    proven, _, _ = an_answer()
    span = (START_MS + 2 * STEP_MS + 1, START_MS + 3 * STEP_MS)
    full, none = proven.prove_range(PART, *span, proven.bundle)
    assert not none and full.before is not None
    before, after = without_publishers(full.before, full.after, None, None)
    assert before == full.before and after is not None and after.publisher_hash is None

    def check() -> CompletenessCheck:
        return CompletenessCheck(PART, *span, [proven.outcome.instance], lambda _: proven.root)

    said = SetProof(BUNDLE, proven.outcome.instance, replace(full, after=after))
    assert check().prove(said) is not None
    nameless = replace(said, proof=replace(full, before=replace(full.before, publisher_hash=None)))
    assert "left out, and there is no message" in refusal(lambda: check().prove(nameless))
    with pytest.raises(InvariantError):
        encode_proof(replace(full, after=after))


def a_climb(proven: Proven, first: int = 1, end: int = 4) -> SetClimb:
    return SetClimb(
        BUNDLE, first, len(proven.bundle), tuple(proven.bundle[first:end]), range_proof(proven.bundle, first, end)
    )


def test_one_climb_serves_all_proofs_of_its_bundle() -> None:
    proven, said, chosen = an_answer()
    said = replace(said, proof=replace(said.proof, bundle=None))
    data = encode_climb(a_climb(proven))
    assert decode_climb(data) == a_climb(proven)
    check = add_all(check_of(proven), said.instance, chosen)
    assert "does not go up to a bundle" in refusal(lambda: check.prove(said))
    check.climb(decode_climb(data))
    assert "does not go up" in refusal(lambda: check.prove(replace(said, bundle=BUNDLE + 1)))
    assert check.prove(said) is not None
    for first, end in ((1, 2), (3, 5)):  # none of them has this window
        check = add_all(check_of(proven), said.instance, chosen)
        check.climb(a_climb(proven, first, end))
        assert "leads to 0x" in refusal(lambda check=check: check.prove(said))  # type: ignore[misc]


def test_a_climb_that_is_not_of_the_bundles_sets_is_refused() -> None:
    proven, _, _ = an_answer()
    climb = a_climb(proven)
    check = check_of(proven)
    check.climb(climb)
    for wrong in altered(climb):
        assert "climb of bundle" in refusal(lambda wrong=wrong: check.climb(wrong))  # type: ignore[misc]
    header = a_climb(proven, 0, 2)
    assert "header" in refusal(lambda: check.climb(header))
    empty = encode_climb(replace(climb, digests=()))
    long = encode_climb(replace(climb, digests=climb.digests[:1] * (MAX_CLIMBED + 1)))
    assert "none" in refusal(lambda: decode_climb(empty))
    assert str(MAX_CLIMBED) in refusal(lambda: decode_climb(long))
    top = (1 << 64) - 1
    most = SetClimb(top, top, top, climb.digests[:1] * MAX_CLIMBED, climb.digests[:1] * MAX_PATH)
    assert len(encode_climb(most)) <= MAX_CLIMB_BYTES


def test_whatever_is_altered_in_a_proof_it_proves_nothing() -> None:
    proven, said, chosen = an_answer()
    publisher = chosen[0].message.publisher_id
    assert isinstance(said.proof, RangeProof)
    neighbours = without_publishers(said.proof.before, said.proof.after, *[Digest(hash_publisher(publisher))] * 2)
    short = replace(said.proof, before=neighbours[0], after=neighbours[1], bundle=None)
    count = 0
    for proof in altered(short):
        check = add_all(check_of(proven), said.instance, chosen)
        check.climb(a_climb(proven))
        assert refusal(lambda check=check, proof=proof: check.prove(replace(said, proof=proof)))  # type: ignore[misc]
        count += 1
    assert count > 40


def test_what_is_no_proof_of_a_set_is_refused_by_field() -> None:
    _, said, _ = an_answer()
    data = encode_set_proof(said, *SPAN)
    for at in (0, len(data) // 2, len(data) - 1):
        assert refusal(lambda at=at: decode_set_proof(data[:at], *SPAN))  # type: ignore[misc]
    kind, *fields = cbor.decode(data, max_bytes=len(data), what="proof")
    shown = fields[7]
    neighbour = shown[6]
    for at, wrong, field in (
        (0, -1, "bundle"),
        (3, fields[3][:31], "proof.window.rest_hash"),
        (3, fields[3] + b"x", "proof.window.path"),
        (4, None, "proof.window.index"),
        (5, "1", "proof.window.entries"),
        (6, [1, 2], "proof.bundle"),
        (7, shown[:7], "proof.shown"),
        (7, [1 << 63, *shown[1:5], bytes(33), *shown[6:]], "proof.entry.path"),
        (7, [*shown[:4], 255, *shown[5:]], "proof.entry.flags"),
        (7, [*shown[:6], [START_MS + STEP_MS * 3, *neighbour[1:]], None], "proof.before.ms"),
        (7, [*shown[:6], None, [(1 << 64) - 1, *neighbour[1:]]], "proof.after.ms"),
        (7, [*shown[:6], [0, 1 << 32, *neighbour[2:]], None], "proof.before.sequence_number"),
        (7, [*shown[:6], [0, 1, bytes(31), neighbour[3]], None], "proof.before.publisher_hash"),
        (7, [*shown[:6], [0, 1, None, bytes(63)], None], "proof.before.hashes"),
        (7, [[1], None], "proof.before"),
    ):
        other = cbor.encode_object(kind, *fields[:at], wrong, *fields[at + 1 :])
        assert refusal(lambda other=other: decode_set_proof(other, *SPAN)).startswith(field)  # type: ignore[misc]


def test_the_bytes_are_those_of_the_vectors() -> None:
    assert make_vectors() == json.loads((VECTORS / "completeness.json").read_text())
    assert run_conformance(["completeness", str(VECTORS / "completeness.json")]) == 0


@pytest.mark.parametrize("name", ["proof", "climb", "proof_under_climb", "absence"])
def test_a_vector_of_which_one_byte_differs_is_noticed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    vectors = make_vectors()
    (case,) = (case for case in vectors["objects"] if case["name"] == name)
    case["bytes"] = case["bytes"][:-2] + f"{int(case['bytes'][-2:], 16) ^ 1:02x}"
    (tmp_path / "forged.json").write_text(json.dumps(vectors))
    assert run_conformance(["completeness", str(tmp_path / "forged.json")]) == 1
    assert "objects/" in capsys.readouterr().out
