"""Whatever order, repetition or interruption: the machine ends where it should, and never contradicts itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from validator.protocol.codec.certificate import build_quorum
from validator.protocol.consensus.driver import advance
from validator.protocol.consensus.events import (
    DataArrived,
    Decide,
    Event,
    Observed,
    OwnVotesRecovered,
    ProposalValidated,
    ProposeValue,
    Received,
    ReceivedQuorum,
    Resume,
    SetsHeld,
    SignAndBroadcast,
    Start,
    Tick,
)
from validator.protocol.consensus.proposal import Answer
from validator.protocol.consensus.state import InstanceState, Rules, Timeouts, encode_progress, restore
from validator.protocol.consensus.views import missing_for, summarise
from validator.protocol.consensus.votes import AHEAD, BEHIND
from validator.protocol.model import NIL, Address, Digest, InstanceId, InstanceKind, Statement, StatementKind

CONFIG = Digest(b"c" * 32)
INSTANCE = InstanceId(InstanceKind.WINDOW, 60_000)
MEMBERS = [Address(bytes([i + 1]) * 20) for i in range(4)]
LEADERS = Rules.of(INSTANCE, CONFIG, MEMBERS, None, Timeouts()).leaders
OWN = LEADERS[1]
VALUES = [NIL, Digest(b"v" * 32), Digest(b"w" * 32)]
T0 = 1_000_000
VOTES = (StatementKind.PREVOTE, StatementKind.PRECOMMIT)


def sign(s: Statement) -> Statement:
    return replace(s, signature=s.signer + bytes(45))


def an_agreement() -> InstanceState:
    return InstanceState(Rules.of(INSTANCE, CONFIG, MEMBERS, OWN, Timeouts()))


def a_statement(signer: Address, kind: StatementKind, round: int, value: Digest, valid_round: int = -1) -> Statement:
    return sign(Statement(kind, CONFIG, INSTANCE, round, value, signer, valid_round))


others = st.sampled_from([m for m in MEMBERS if m != OWN])
rounds = st.one_of(st.integers(0, 3), st.integers(0, 60))
votes = st.builds(a_statement, others, st.sampled_from(VOTES), rounds, st.sampled_from(VALUES))
observations = st.builds(
    a_statement, others, st.just(StatementKind.OBSERVATION), st.just(0), st.sampled_from(VALUES[1:])
)
proposals = rounds.filter(lambda r: LEADERS[r % 4] != OWN).flatmap(
    lambda r: st.builds(
        lambda value, valid: a_statement(LEADERS[r % 4], StatementKind.PROPOSAL, r, value, valid),
        st.sampled_from(VALUES[1:]),
        st.integers(-1, r - 1),
    )
)
quorums = st.builds(
    lambda round, value: build_quorum(
        [a_statement(m, StatementKind.PREVOTE, round, value) for m in MEMBERS if m != OWN]
    ),
    rounds,
    st.sampled_from(VALUES[1:]),
)
answers = st.sampled_from(list(Answer))
events = st.one_of(
    st.builds(Received, st.one_of(votes, votes, votes, proposals, observations)),
    st.builds(ReceivedQuorum, quorums),
    st.builds(ProposalValidated, st.sampled_from(VALUES[1:]), rounds, answers, answers),
    st.builds(ProposeValue, rounds, st.sampled_from(VALUES)),
    st.builds(SetsHeld, st.frozensets(st.sampled_from(MEMBERS)), st.frozensets(st.sampled_from(MEMBERS))),
    st.builds(OwnVotesRecovered, st.sampled_from(MEMBERS)),
    st.builds(Observed, st.sampled_from(VALUES)),
    st.sampled_from([Start(), DataArrived(), Tick(), Resume()]),
)
histories = st.lists(st.tuples(events, st.integers(0, 3_000)), max_size=60)


def play(
    a: InstanceState, history: Sequence[tuple[Event, int]], now_ms: int = T0
) -> tuple[InstanceState, list[Statement], int]:
    said: list[Statement] = []
    for event, wait_ms in history:
        now_ms += wait_ms
        a, effects = advance(a, event, now_ms, sign)
        said += [e.statement for e in effects if isinstance(e, SignAndBroadcast)]
    return a, said, now_ms


def start() -> list[tuple[Event, int]]:
    return [(Resume(), 0), *((OwnVotesRecovered(m), 0) for m in MEMBERS), (Start(), 0), (Observed(VALUES[1]), 0)]


@settings(max_examples=150, deadline=None)
@given(history=histories, started=st.booleans())
def test_every_state_has_an_answer_to_every_event_and_no_slot_is_filled_twice(
    history: list[tuple[Event, int]], started: bool
) -> None:
    _, said, _ = play(an_agreement(), [*(start() if started else []), *history])
    slots = [(s.kind, s.round) for s in said]
    assert len(set(slots)) == len(slots)
    spoken = [s.round for s in said if s.kind is not StatementKind.OBSERVATION]
    assert spoken == sorted(spoken)


@settings(max_examples=100, deadline=None)
@given(history=histories, cut=st.integers(0, 60), rest=histories)
def test_a_restart_anywhere_changes_nothing_that_is_said(
    history: list[tuple[Event, int]], cut: int, rest: list[tuple[Event, int]]
) -> None:
    whole, _, now = play(an_agreement(), [*start(), *history[:cut]])
    rows, held = whole.votes.statements(), tuple(whole.votes.quorums.values())
    again = restore(whole.rules, encode_progress(whole), whole.journal.values(), rows, held)
    assert again.round_state == whole.round_state
    _, said, _ = play(whole, rest, now)
    _, said_again, _ = play(again, rest, now)
    assert [s.content for s in said_again] == [s.content for s in said]


@settings(max_examples=100, deadline=None)
@given(history=histories)
def test_the_journal_alone_is_enough_to_keep_the_lock(history: list[tuple[Event, int]]) -> None:
    whole, said, _ = play(an_agreement(), [*start(), *history])
    again = restore(whole.rules, None, said, (), ())
    assert again.round_state.locked_round == whole.round_state.locked_round
    assert again.round_state.locked_value == whole.round_state.locked_value
    assert again.round_state.round >= max((s.round for s in said), default=0)


@settings(max_examples=100, deadline=None)
@given(history=histories)
def test_locks_never_fall_and_no_vote_goes_against_them(history: list[tuple[Event, int]]) -> None:
    a, now, lock = an_agreement(), T0, -1
    for event, wait_ms in [*start(), *history]:
        now += wait_ms
        before = a.round_state
        a, effects = advance(a, event, now, sign)
        assert a.round_state.locked_round >= lock
        lock = a.round_state.locked_round
        for effect in effects:
            if isinstance(effect, SignAndBroadcast) and effect.statement.kind is StatementKind.PREVOTE:
                value = effect.statement.value
                free = before.locked_round == -1 or value in (NIL, before.locked_value)
                newer = any(
                    k == StatementKind.PREVOTE and before.locked_round <= r < effect.statement.round and v == value
                    for k, r, v in a.votes.quorums
                )
                assert free or newer


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_order_of_arrival_never_changes_what_is_decided(data: st.DataObject) -> None:
    value = VALUES[1]
    needed: list[Event] = [Received(a_statement(LEADERS[0], StatementKind.PROPOSAL, 0, value))]
    needed += [Received(a_statement(m, kind, 0, value)) for kind in VOTES for m in MEMBERS if m != OWN]
    noise = data.draw(st.lists(st.builds(Received, observations), max_size=4))
    arrival = data.draw(st.permutations([*needed, *noise, *needed[:3]]))
    a, effects_seen = an_agreement(), 0
    for event in [e for e, _ in start()] + list(arrival):
        a, effects = advance(a, event, T0, sign)
        effects_seen += sum(isinstance(e, Decide) for e in effects)
    assert a.decided is not None
    assert (a.decided.value, a.decided.round) == (value, 0)
    assert effects_seen == 1


@settings(max_examples=100, deadline=None)
@given(history=histories)
def test_what_is_held_stays_bounded(history: list[tuple[Event, int]]) -> None:
    a, _, _ = play(an_agreement(), [*start(), *history])
    kept = BEHIND + AHEAD + 1
    assert len(a.votes.statements()) <= 2 * 4 + kept * (2 * 2 * 4 + 2) + 4
    assert all(len(statements) <= 2 for slots in a.votes.said.values() for statements in slots.values())


@settings(max_examples=100, deadline=None)
@given(one=histories, other=histories)
def test_relay_brings_a_peer_everything_that_its_bounds_let_it_keep(
    one: list[tuple[Event, int]], other: list[tuple[Event, int]]
) -> None:
    a, _, _ = play(an_agreement(), [*start(), *one])
    b, _, now = play(InstanceState(replace(an_agreement().rules, own=None)), [*start(), *other])
    ceiling = b.round + AHEAD
    statements, whole = missing_for(a, summarise(b))
    b, _, _ = play(b, [*((ReceivedQuorum(q), 0) for q in whole), *((Received(s), 0) for s in statements)], now)
    if a.decided is not None or b.decided is not None:
        assert b.decided is not None or a.decided is None
        return
    for s in a.votes.statements():
        if s.kind is not StatementKind.OBSERVATION and not b.round - BEHIND <= s.round <= ceiling:
            continue
        kept = b.votes.of(s.kind, s.round).get(s.signer, ())
        quorum = b.votes.quorums.get((s.kind, s.round, s.value))
        in_quorum = quorum is not None and s.signer in dict(quorum.signatures)
        assert in_quorum or len(kept) == 2 or s.value in [k.value for k in kept]
