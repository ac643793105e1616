"""What is kept of what others say, by round and signer, and what a peer lacks."""

from __future__ import annotations

import pytest

from validator.protocol.codec.certificate import build_quorum
from validator.protocol.consensus.votes import (
    EMPTY,
    Votes,
    add,
    add_quorum,
    summarise_votes,
    trim,
    unformed,
    votes_missing,
    why_dropped,
)
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

OBSERVATION, PROPOSAL = StatementKind.OBSERVATION, StatementKind.PROPOSAL
PREVOTE, PRECOMMIT = StatementKind.PREVOTE, StatementKind.PRECOMMIT
CONFIG = Digest(b"c" * 32)
INSTANCE = InstanceId(InstanceKind.WINDOW, 60_000)
V, W = Digest(b"v" * 32), Digest(b"w" * 32)
A, B, C, D = (Address(bytes([i + 1]) * 20) for i in range(4))
FLOOR, CEILING = 4, 9


def say(kind: StatementKind, value: Digest, round: int, signer: Address = A, valid_round: int = -1) -> Statement:
    return Statement(kind, CONFIG, INSTANCE, round, value, signer, valid_round, signer + bytes(45))


def quorum(kind: StatementKind, value: Digest, round: int, *signers: Address) -> VoteQuorum:
    return build_quorum([say(kind, value, round, signer) for signer in signers])


def holding(*statements: Statement, quorums: tuple[VoteQuorum, ...] = ()) -> Votes:
    votes = EMPTY
    for s in statements:
        votes = add(votes, s, CEILING)
    for q in quorums:
        votes = add_quorum(votes, q)
    return votes


@pytest.mark.parametrize(
    ("round", "reason"), [(FLOOR - 1, "round long past"), (FLOOR, ""), (CEILING, ""), (CEILING + 1, "")]
)
def test_the_bounds_themselves_are_kept(round: int, reason: str) -> None:
    assert why_dropped(EMPTY, say(PREVOTE, V, round), FLOOR, CEILING) == reason
    if not reason:
        votes = holding(say(PREVOTE, V, round))
        assert bool(votes.ahead) == (round > CEILING)
        assert bool(votes.said) == (round <= CEILING)


def test_observations_know_no_bounds() -> None:
    assert why_dropped(EMPTY, say(OBSERVATION, V, 0), FLOOR, CEILING) == ""
    votes = holding(say(OBSERVATION, V, 0), say(OBSERVATION, V, 0, B))
    assert votes.newest == {}
    assert add(EMPTY, say(OBSERVATION, V, 0), -1).said  # whatever the ceiling
    assert trim(votes, 20, 30).statements() == votes.statements()


def test_of_rounds_far_ahead_only_a_newer_one_of_the_signer_is_kept() -> None:
    votes = holding(say(PREVOTE, V, 20))
    far = "round far ahead and not the signer's newest"
    assert [why_dropped(votes, say(PREVOTE, W, r), FLOOR, CEILING) for r in (19, 20, 21)] == [far, far, ""]
    assert why_dropped(votes, say(PREVOTE, W, 20, B), FLOOR, CEILING) == ""
    assert add(votes, say(PREVOTE, W, 21), CEILING).ahead == {A: say(PREVOTE, W, 21)}


def test_a_signers_newest_round_never_falls() -> None:
    votes = holding(say(PREVOTE, V, 8), say(PREVOTE, V, 6))
    assert votes.newest == {A: 8}
    votes = add_quorum(votes, quorum(PREVOTE, V, 7, A, B))
    assert votes.newest == {A: 8, B: 7}


def test_two_proposals_that_differ_in_the_valid_round_are_two() -> None:
    votes = holding(say(PROPOSAL, V, 6, A, 3))
    assert why_dropped(votes, say(PROPOSAL, V, 6, A, 3), FLOOR, CEILING) == "known"
    assert why_dropped(votes, say(PROPOSAL, V, 6, A, 4), FLOOR, CEILING) == ""
    votes = add(votes, say(PROPOSAL, V, 6, A, 4), CEILING)
    assert why_dropped(votes, say(PROPOSAL, V, 6, A, 5), FLOOR, CEILING) == "two kept already"


def test_a_value_is_proven_below_a_round_by_a_polka_of_an_earlier_one_for_it() -> None:
    votes = holding(quorums=(quorum(PREVOTE, V, 5, A, B, C), quorum(PRECOMMIT, W, 5, A, B, C)))
    assert votes.has_polka_below(6, V)
    assert not votes.has_polka_below(5, V)
    assert not votes.has_polka_below(6, W)


def test_quorums_in_single_votes_are_found_by_round_prevotes_first_and_once() -> None:
    prevotes = [say(PREVOTE, V, 6, m) for m in (A, B, C)]
    precommits = [say(PRECOMMIT, V, 5, m) for m in (A, B, C)]
    others = [say(PREVOTE, NIL, 7, m) for m in (A, B, C)] + [say(PREVOTE, V, 8, m) for m in (A, B)]
    others += [say(OBSERVATION, V, 0, m) for m in (A, B, C)] + [say(PREVOTE, V, 9, A), say(PREVOTE, W, 9, B)]
    others += [say(PREVOTE, V, 9, C)]
    votes = holding(*prevotes, *precommits, *others)
    assert unformed(votes, 3) == [(PRECOMMIT, 5, V), (PREVOTE, 6, V)]
    votes = add_quorum(votes, quorum(PREVOTE, V, 6, A, B, C))
    assert unformed(votes, 3) == [(PRECOMMIT, 5, V)]


def test_trimming_forgets_what_lies_below_the_floor_but_the_newest_polka_and_certificates() -> None:
    kept = [say(PREVOTE, V, FLOOR), say(OBSERVATION, V, 0)]
    polkas = [quorum(PREVOTE, V, round, A, B, C) for round in (1, 3, 2)]
    certificate = quorum(PRECOMMIT, V, 1, A, B, C)
    votes = trim(holding(*kept, say(PREVOTE, V, FLOOR - 1), quorums=(*polkas, certificate)), FLOOR, CEILING)
    assert set(votes.statements()) == set(kept)
    assert set(votes.quorums.values()) == {polkas[1], certificate}
    within = quorum(PREVOTE, W, FLOOR, A, B, C)
    newer = quorum(PREVOTE, W, FLOOR + 1, A, B, C)
    assert set(trim(holding(quorums=(within, newer)), FLOOR, CEILING).quorums.values()) == {within, newer}


def test_what_was_ahead_comes_in_with_the_ceiling() -> None:
    near, far = say(PREVOTE, V, CEILING + 1), say(PREVOTE, V, CEILING + 2, B)
    votes = trim(holding(near, far), FLOOR + 1, CEILING + 1)
    assert votes.of(PREVOTE, CEILING + 1) == {A: (near,)}
    assert votes.ahead == {B: far}
    assert votes.of(PREVOTE, CEILING + 2) == {}


def test_what_was_ahead_and_is_long_past_by_now_is_forgotten() -> None:
    votes = trim(holding(say(PREVOTE, V, CEILING + 1)), 40, 50)
    assert votes.statements() == ()


def test_a_summary_names_the_signers_of_quorums_too() -> None:
    votes = holding(say(PREVOTE, V, 6, D), quorums=(quorum(PREVOTE, V, 6, A, B, C),))
    assert summarise_votes(votes) == ((PREVOTE, 6, V, (A, B, C, D)),)


def test_a_quorum_goes_to_who_holds_less_than_one_and_single_votes_to_who_lacks_them() -> None:
    polka = quorum(PREVOTE, V, 6, A, B, C)
    votes = holding(say(PREVOTE, V, 6, D), say(PREVOTE, V, 6, A), quorums=(polka,))
    assert votes_missing(votes, ((PREVOTE, 6, V, (A, B, C)),), 3) == ((say(PREVOTE, V, 6, D),), ())
    assert votes_missing(votes, ((PREVOTE, 6, V, (A, D)),), 3) == ((), (polka,))
    assert votes_missing(votes, (), 3) == ((say(PREVOTE, V, 6, D),), (polka,))
