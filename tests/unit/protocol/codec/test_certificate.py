from __future__ import annotations

from dataclasses import replace

import pytest

from tests.builders import a_key
from validator.protocol.codec.certificate import build_quorum, check_quorum, verify_certificate, verify_quorum
from validator.protocol.codec.statement import SigningContext, sign_statement
from validator.protocol.errors import InvariantError, MalformedInput
from validator.protocol.model import (
    NIL,
    Address,
    Digest,
    InstanceId,
    InstanceKind,
    Statement,
    StatementKind,
    VoteQuorum,
)

KEYS = [a_key(i) for i in range(1, 5)]
COMMITTEE = tuple(sorted(k.address for k in KEYS))
CONFIG = Digest(b"c" * 32)
INSTANCE = InstanceId(InstanceKind.WINDOW, 60_000)
CONTEXT = SigningContext(137, Address(b"m" * 20))


def a_vote(
    i: int, kind: StatementKind = StatementKind.PRECOMMIT, round: int = 2, value: bytes = b"v" * 32
) -> Statement:
    unsigned = Statement(kind, CONFIG, INSTANCE, round, Digest(value), KEYS[i].address)
    return sign_statement(unsigned, KEYS[i], CONTEXT)


def a_certificate(*, members: tuple[int, ...] = (0, 1, 2)) -> VoteQuorum:
    return build_quorum([a_vote(i) for i in members])


def refuse(certificate: VoteQuorum, match: str) -> None:
    with pytest.raises(MalformedInput, match=match):
        verify_certificate(certificate, CONFIG, INSTANCE, COMMITTEE, CONTEXT)


def test_three_of_four_precommits_decide() -> None:
    verify_certificate(a_certificate(), CONFIG, INSTANCE, COMMITTEE, CONTEXT)
    assert [s for s, _ in a_certificate().signatures] == sorted(KEYS[i].address for i in (0, 1, 2))


def test_two_of_four_do_not() -> None:
    refuse(a_certificate(members=(0, 1)), "2 signers where 3 are needed")


def test_prevotes_do_not_decide() -> None:
    refuse(build_quorum([a_vote(i, StatementKind.PREVOTE) for i in range(3)]), "precommits")


def test_a_certificate_decides_the_outcome_that_is_asked_for() -> None:
    certificate = a_certificate()
    verify_certificate(certificate, CONFIG, INSTANCE, COMMITTEE, CONTEXT, certificate.value)
    with pytest.raises(MalformedInput, match="another outcome"):
        verify_certificate(certificate, CONFIG, INSTANCE, COMMITTEE, CONTEXT, Digest(b"w" * 32))


def test_a_quorum_with_a_wrong_signature_is_none() -> None:
    certificate = a_certificate()
    (first, _), *others = certificate.signatures
    with pytest.raises(MalformedInput, match="signature"):
        verify_quorum(
            replace(certificate, signatures=((first, others[0][1]), *others)), CONFIG, INSTANCE, COMMITTEE, CONTEXT
        )


def test_nil_is_never_decided() -> None:
    refuse(build_quorum([a_vote(i, value=NIL) for i in range(3)]), "nil")


def test_votes_of_different_rounds_cannot_be_joined() -> None:
    with pytest.raises(InvariantError):
        build_quorum([a_vote(0, round=0), a_vote(1, round=2), a_vote(2, round=9)])


def test_a_vote_of_another_round_inside_is_a_wrong_signature() -> None:
    old = a_vote(2, round=0)
    mixed = tuple((s, old.signature if s == old.signer else sig) for s, sig in a_certificate().signatures)
    refuse(replace(a_certificate(), signatures=mixed), "signature")


def test_one_member_twice_is_refused() -> None:
    first, second, _ = a_certificate().signatures
    refuse(replace(a_certificate(), signatures=(first, first, second)), "distinct")
    with pytest.raises(InvariantError):
        build_quorum([a_vote(0), a_vote(0), a_vote(1)])


def test_a_stranger_is_refused() -> None:
    with pytest.raises(MalformedInput, match="not in the committee"):
        check_quorum(a_certificate(), CONFIG, INSTANCE, COMMITTEE[:1])


def test_another_digest_or_instance_is_refused() -> None:
    with pytest.raises(MalformedInput, match="config digest"):
        verify_certificate(a_certificate(), Digest(b"d" * 32), INSTANCE, COMMITTEE, CONTEXT)
    late = InstanceId(InstanceKind.LATE, 60_000)
    with pytest.raises(MalformedInput, match="instance"):
        verify_certificate(a_certificate(), CONFIG, late, COMMITTEE, CONTEXT)


def test_an_empty_committee_has_no_certificate() -> None:
    empty = VoteQuorum(StatementKind.PRECOMMIT, CONFIG, INSTANCE, 0, Digest(b"v" * 32), ())
    with pytest.raises(MalformedInput, match="0 signers where 1 are needed"):
        check_quorum(empty, CONFIG, INSTANCE, ())


@pytest.mark.parametrize("kind", [StatementKind.OBSERVATION, StatementKind.PROPOSAL])
def test_only_votes_make_quorums(kind: StatementKind) -> None:
    with pytest.raises(MalformedInput, match="neither prevotes nor precommits"):
        check_quorum(replace(a_certificate(), kind=kind), CONFIG, INSTANCE, COMMITTEE)
    check_quorum(replace(a_certificate(), kind=StatementKind.PREVOTE), CONFIG, INSTANCE, COMMITTEE)


def test_a_round_below_zero_is_refused_and_round_zero_is_not() -> None:
    with pytest.raises(MalformedInput, match="negative"):
        check_quorum(replace(a_certificate(), round=-1), CONFIG, INSTANCE, COMMITTEE)
    check_quorum(replace(a_certificate(), round=0), CONFIG, INSTANCE, COMMITTEE)


def test_signers_stand_in_ascending_order_each_once() -> None:
    first, second, third = a_certificate().signatures
    for wrong in ((second, first, third), (first, second, second, third)):
        with pytest.raises(MalformedInput, match="distinct and ascending"):
            check_quorum(replace(a_certificate(), signatures=wrong), CONFIG, INSTANCE, COMMITTEE)
