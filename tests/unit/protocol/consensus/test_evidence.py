from __future__ import annotations

from dataclasses import replace

import pytest

from validator.protocol.consensus.evidence import Evidence, find_evidence
from validator.protocol.errors import MalformedInput
from validator.protocol.model import NIL, Address, Digest, InstanceId, InstanceKind, Statement, StatementKind

V, W = Digest(b"v" * 32), Digest(b"w" * 32)
VOTE = Statement(
    StatementKind.PREVOTE,
    Digest(b"c" * 32),
    InstanceId(InstanceKind.WINDOW, 60_000),
    3,
    V,
    Address(b"a" * 20),
    signature=b"1" * 65,
)


def test_two_values_in_one_slot_convict() -> None:
    other = replace(VOTE, value=W)
    assert find_evidence([VOTE, other]) == (Evidence.of(VOTE, other),)
    assert Evidence.of(VOTE, other) == Evidence.of(other, VOTE)


def test_a_value_and_nil_convict() -> None:
    assert find_evidence([VOTE, replace(VOTE, value=NIL)])


def test_two_valid_rounds_of_one_proposal_convict() -> None:
    proposal = replace(VOTE, kind=StatementKind.PROPOSAL)
    assert find_evidence([proposal, replace(proposal, valid_round=1)])


def test_two_signatures_over_one_content_prove_nothing() -> None:
    again = replace(VOTE, signature=b"2" * 65)
    assert find_evidence([VOTE, again]) == ()
    with pytest.raises(MalformedInput, match="equal contents"):
        Evidence.of(VOTE, again)


@pytest.mark.parametrize(
    "change",
    [
        {"round": 4},
        {"kind": StatementKind.PRECOMMIT},
        {"config_digest": Digest(b"d" * 32)},
        {"instance": InstanceId(InstanceKind.LATE, 60_000)},
        {"signer": Address(b"b" * 20)},
    ],
)
def test_different_slots_prove_nothing(change: dict[str, object]) -> None:
    other = replace(replace(VOTE, value=W), **change)  # type: ignore[arg-type]
    assert find_evidence([VOTE, other]) == ()
    with pytest.raises(MalformedInput):
        Evidence.of(VOTE, other)


def test_one_pair_per_slot_is_found() -> None:
    third = replace(VOTE, value=NIL)
    assert len(find_evidence([VOTE, replace(VOTE, value=W), third, replace(VOTE, round=9)])) == 1


def test_of_three_contents_the_first_two_convict() -> None:
    other, third = replace(VOTE, value=W), replace(VOTE, value=NIL)
    assert find_evidence([VOTE, other, third]) == (Evidence.of(VOTE, other),)
