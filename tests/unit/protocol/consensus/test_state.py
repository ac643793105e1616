"""What is saved comes back, and what the journal knows better counts more."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec.structs import replace as changed

from validator.protocol.codec import cbor
from validator.protocol.codec.certificate import build_quorum
from validator.protocol.codec.statement import MAX_ROUND
from validator.protocol.consensus.proposal import Answer
from validator.protocol.consensus.state import (
    Eligibility,
    InstanceState,
    Judgement,
    RoundState,
    Rules,
    Step,
    Timeouts,
    encode_progress,
    restore,
    why_foreign,
)
from validator.protocol.consensus.votes import AHEAD, BEHIND, EMPTY, add
from validator.protocol.errors import InvariantError, MalformedInput
from validator.protocol.model import NIL, Address, Digest, InstanceId, InstanceKind, Statement, StatementKind
from validator.protocol.parameters import ParameterSet

OBSERVATION, PROPOSAL = StatementKind.OBSERVATION, StatementKind.PROPOSAL
PREVOTE, PRECOMMIT = StatementKind.PREVOTE, StatementKind.PRECOMMIT
CONFIG = Digest(b"c" * 32)
INSTANCE = InstanceId(InstanceKind.WINDOW, 60_000)
V, W, U = Digest(b"v" * 32), Digest(b"w" * 32), Digest(b"u" * 32)
MEMBERS = [Address(bytes([i + 1]) * 20) for i in range(4)]
OWN, A, B, C = MEMBERS
RULES = Rules.of(INSTANCE, CONFIG, MEMBERS, OWN, Timeouts())
SAVED = RoundState(
    round=7,
    step=Step.PRECOMMIT,
    locked_value=V,
    locked_round=3,
    valid_value=W,
    valid_round=5,
    started_ms=11,
    prevote_at=12,
    precommit_at=13,
)
ELIGIBILITY = Eligibility(
    started=True,
    recovered=True,
    answers=frozenset([A]),
    halted=True,
    observation=U,
    observed=frozenset([A, B]),
    reproduced=frozenset([A, B, C]),
    value_asked=6,
    recover_at=14,
    relay_at=15,
)


def say(kind: StatementKind, value: Digest, round: int = 0, signer: Address = OWN, valid_round: int = -1) -> Statement:
    return Statement(kind, CONFIG, INSTANCE, round, value, signer, valid_round, signer + bytes(45))


def rebuilt(rs: RoundState, *journal: Statement) -> RoundState:
    return restore(RULES, encode_progress(InstanceState(RULES, round_state=rs)), journal, (), ()).round_state


# --- what is saved ----------------------------------------------------------------------------------


def test_every_field_of_the_progress_comes_back() -> None:
    judgements = {V: Judgement(Answer.YES, Answer.NO, 4), W: Judgement(Answer.NO, Answer.NOT_YET, -1)}
    judgements[U] = Judgement(Answer.NOT_YET, Answer.YES, 7)
    votes = EMPTY
    for s in (say(PREVOTE, V, 30, A), say(PRECOMMIT, W, 20, B)):
        votes = add(votes, s, SAVED.round + AHEAD)
    saved = InstanceState(RULES, votes, SAVED, ELIGIBILITY, judgements, wake_ms=16)
    again = restore(RULES, encode_progress(saved), (), (), ())
    assert again.round_state == SAVED
    assert again.eligibility == ELIGIBILITY
    assert again.judgements == judgements
    assert again.wake_ms == 16
    assert again.votes == votes
    assert not again.foreign


def test_statements_quorums_journal_and_decision_come_back_from_their_rows() -> None:
    certificate = build_quorum([say(PRECOMMIT, V, 7, m) for m in (A, B, C)])
    polka = build_quorum([say(PREVOTE, V, 7, m) for m in (A, B, C)])
    decided = encode_progress(InstanceState(RULES, round_state=changed(SAVED, step=Step.DECIDED)))
    own, theirs = say(PREVOTE, V, 7), say(PREVOTE, W, 7, A)
    again = restore(RULES, decided, [own], [theirs], [polka, certificate])
    assert again.decided == certificate
    assert set(again.votes.quorums.values()) == {polka, certificate}
    assert set(again.votes.statements()) == {own, theirs}
    assert again.journal == {(PREVOTE, 7): own}
    assert again.loaded
    undecided = restore(RULES, encode_progress(InstanceState(RULES, round_state=SAVED)), (), (), [polka, certificate])
    assert undecided.decided is None  # the first event looks at it, and says so
    assert restore(RULES, decided, (), (), [polka]).decided is None


def test_only_what_belongs_here_and_lies_within_the_bounds_is_read_from_rows() -> None:
    progress = encode_progress(InstanceState(RULES, round_state=changed(SAVED, round=BEHIND + 10)))
    floor, ceiling = 10, BEHIND + 10 + AHEAD
    inside = [say(PREVOTE, V, floor, A), say(PREVOTE, V, ceiling, A)]
    outside = [say(PREVOTE, V, floor - 1, A), replace(say(PREVOTE, V, floor, B), config_digest=U)]
    again = restore(RULES, progress, (), [*inside, *outside], ())
    assert set(again.votes.statements()) == set(inside)
    assert not again.votes.ahead
    assert restore(RULES, progress, (), [say(PREVOTE, V, ceiling + 1, A)], ()).votes.ahead.keys() == {A}


def test_progress_of_another_form_is_refused() -> None:
    lists = ([0, 9, NIL, -1, NIL, -1], [0, None, None, None, None, None], [False, False, False, None, -1])
    with pytest.raises(MalformedInput, match="fields do not fit"):
        restore(RULES, cbor.encode_object("progress/1", *lists, [[], [], []], [], []), (), (), ())


# --- what the journal knows better ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kinds", "step"),
    [
        ((PROPOSAL,), Step.PROPOSE),
        ((PROPOSAL, PREVOTE), Step.PREVOTE),
        ((PREVOTE, PRECOMMIT), Step.PRECOMMIT),
        ((PRECOMMIT,), Step.PRECOMMIT),
    ],
)
def test_a_journal_ahead_of_the_progress_gives_round_and_step_and_starts_no_timer(
    kinds: tuple[StatementKind, ...], step: Step
) -> None:
    rs = rebuilt(SAVED, say(PREVOTE, NIL, 2), *(say(kind, NIL if kind != PROPOSAL else V, 9) for kind in kinds))
    assert (rs.round, rs.step, rs.prevote_at, rs.precommit_at) == (9, step, None, None)
    assert (rs.locked_value, rs.locked_round) == (V, 3)


def test_a_journal_of_the_same_round_raises_the_step_and_leaves_the_timers() -> None:
    waiting = changed(SAVED, step=Step.PROPOSE)
    assert rebuilt(waiting, say(PREVOTE, NIL, 7)) == changed(waiting, step=Step.PREVOTE)
    assert rebuilt(SAVED, say(PREVOTE, NIL, 7)) == SAVED
    assert rebuilt(SAVED, say(PREVOTE, NIL, 2)) == SAVED


def test_an_observation_alone_says_nothing_of_rounds() -> None:
    a = restore(RULES, None, [say(OBSERVATION, U)], (), ())
    assert (a.round_state, a.eligibility) == (RoundState(), Eligibility(observation=U))


def test_what_is_decided_is_not_reopened_by_the_journal() -> None:
    decided = changed(SAVED, step=Step.DECIDED)
    assert rebuilt(decided, say(PREVOTE, NIL, 9)) == decided


def test_the_lock_is_that_of_the_newest_precommit_for_a_value() -> None:
    journal = [say(PRECOMMIT, U, 4), say(PRECOMMIT, W, 6), say(PRECOMMIT, NIL, 7), say(PREVOTE, U, 8)]
    rs = rebuilt(SAVED, *journal)
    assert (rs.locked_value, rs.locked_round) == (W, 6)
    rs = rebuilt(SAVED, *reversed(journal))
    assert (rs.locked_value, rs.locked_round) == (W, 6)


def test_an_older_precommit_does_not_lower_the_lock() -> None:
    rs = rebuilt(SAVED, say(PRECOMMIT, U, 2))
    assert (rs.locked_value, rs.locked_round) == (V, 3)
    other = rebuilt(SAVED, say(PRECOMMIT, U, 3))  # never: one precommit per round is journaled
    assert other.locked_value == V


# --- who takes part, and what fits ------------------------------------------------------------------


def test_a_member_that_stands_twice_in_a_committee_is_our_own_mistake() -> None:
    with pytest.raises(InvariantError):
        Rules.of(INSTANCE, CONFIG, [A, B, A], A, Timeouts())


def test_who_has_no_seat_is_an_observer() -> None:
    assert Rules.of(INSTANCE, CONFIG, [A, B], A, Timeouts()).own == A
    assert Rules.of(INSTANCE, CONFIG, [A, B], C, Timeouts()).own is None
    assert (RULES.quorum, RULES.one_honest) == (3, 2)


def test_timeouts_are_those_of_the_parameters() -> None:
    p = ParameterSet(
        first_epoch=0,
        epoch_windows=10,
        timeout_propose_ms=1_100,
        timeout_prevote_ms=1_200,
        timeout_precommit_ms=1_300,
        timeout_delta_ms=140,
        timeout_max_ms=15_000,
    )
    assert Timeouts.of(p) == Timeouts(1_100, 1_200, 1_300, 140, 15_000)


def test_a_base_above_the_maximum_stays() -> None:
    t = Timeouts(max_ms=1_000, delta_ms=10)
    assert [t.grown(900, round) for round in (0, 5, 10, 11)] == [900, 950, 1_000, 1_000]
    assert t.grown(1_500, 3) == 1_500


def test_the_last_round_fits_and_the_next_does_not() -> None:
    assert why_foreign(RULES, say(PREVOTE, V, MAX_ROUND, A)) == ""
    assert why_foreign(RULES, say(PREVOTE, V, MAX_ROUND + 1, A)) == "no such round"
    assert why_foreign(RULES, say(PREVOTE, V, -1, A)) == "no such round"


def test_an_equal_instance_need_not_be_the_same_object() -> None:
    twin = InstanceId(InstanceKind.WINDOW, 60_000)
    assert twin is not INSTANCE
    assert why_foreign(RULES, replace(say(PREVOTE, V, 0, A), instance=twin)) == ""
    other = InstanceId(InstanceKind.WINDOW, 60_001)
    assert why_foreign(RULES, replace(say(PREVOTE, V, 0, A), instance=other)) == "another instance"


@pytest.mark.parametrize("kind", [PREVOTE, PRECOMMIT, OBSERVATION])
def test_only_a_proposal_has_a_valid_round(kind: StatementKind) -> None:
    assert why_foreign(RULES, say(kind, V, 0, A, valid_round=0)) != ""
    assert why_foreign(RULES, say(kind, V, 0, A)) == ""


def test_a_proposal_comes_back_with_any_earlier_round() -> None:
    leader = RULES.leader(5)
    assert leader is not None
    reasons = [why_foreign(RULES, say(PROPOSAL, V, 5, leader, valid)) for valid in (-2, -1, 0, 4, 5)]
    wrong = "valid round not below the round"
    assert reasons == [wrong, "", "", "", wrong]


def test_own_words_far_ahead_that_the_journal_lacks_bar_and_count_for_nothing() -> None:
    unknown = say(PREVOTE, V, 40)
    a = restore(RULES, encode_progress(InstanceState(RULES, round_state=SAVED)), (), [unknown], ())
    assert a.foreign == (unknown,)
    assert not a.votes.ahead
    assert not a.votes.newest


def test_own_words_of_another_instance_or_epoch_are_nothing_unknown() -> None:
    elsewhere = replace(say(PREVOTE, V, 7), config_digest=U)
    assert restore(RULES, None, (), [elsewhere], ()).foreign == ()
