"""The machine, one event at a time and in small committees without loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from msgspec.structs import replace as changed

from validator.protocol.codec.certificate import build_quorum
from validator.protocol.consensus.driver import advance
from validator.protocol.consensus.events import (
    DataArrived,
    Decide,
    Effect,
    Event,
    FetchValue,
    GetValue,
    Halt,
    Ignore,
    Observed,
    OwnVotesRecovered,
    ProposalValidated,
    ProposeValue,
    Received,
    ReceivedQuorum,
    RecoverOwnVotes,
    Resend,
    Resume,
    SendQuorum,
    SetsHeld,
    SignAndBroadcast,
    Start,
    StoreEvidence,
    StoreQuorum,
    StoreStatement,
    SyncVotes,
    Tick,
    ValidateProposal,
    WakeAt,
)
from validator.protocol.consensus.proposal import Answer
from validator.protocol.consensus.round import on_event
from validator.protocol.consensus.state import InstanceState, Judgement, Rules, Step, Timeouts, encode_progress, restore
from validator.protocol.consensus.views import describe_wait, missing_for, summarise, why_ignored
from validator.protocol.consensus.votes import add
from validator.protocol.errors import InvariantError
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
V, W, U = Digest(b"v" * 32), Digest(b"w" * 32), Digest(b"u" * 32)
T0 = 1_000_000
YES, NO, NOT_YET = Answer.YES, Answer.NO, Answer.NOT_YET


def member(i: int) -> Address:
    return Address(bytes([i + 1]) * 20)


def sign(s: Statement) -> Statement:
    return replace(s, signature=s.signer + bytes(45))


def some_rules(n: int = 4, own: int | None = 0, **timeouts: int) -> Rules:
    committee = [member(i) for i in range(n)]
    return Rules.of(INSTANCE, CONFIG, committee, None if own is None else member(own), Timeouts(**timeouts))


class Seat:
    """One member's machine with what it did; ``seat`` counts along the leaders' order, so seat r leads round r."""

    def __init__(self, n: int = 4, seat: int | None = 0, **timeouts: int) -> None:
        leaders = some_rules(n).leaders
        own = None if seat is None else leaders[seat]
        self.leaders = leaders
        self.a = InstanceState(replace(some_rules(n, 0, **timeouts), own=own))
        self.now = T0
        self.done: list[Effect] = []

    def tell(self, *events: Event) -> list[Effect]:
        new: list[Effect] = []
        for event in events:
            self.a, effects = advance(self.a, event, self.now, sign)
            new += effects
        self.done += new
        return new

    def wait(self, ms: int) -> list[Effect]:
        self.now += ms
        return self.tell(Tick())

    def begin(self, observed: bool = True) -> list[Effect]:
        """Past the cut-off, own statements recovered, observed."""
        effects = self.tell(Resume(), *(OwnVotesRecovered(m) for m in self.leaders if m != self.a.rules.own), Start())
        return effects + (self.tell(Observed(U)) if observed else [])

    def vote(self, seat: int, kind: StatementKind, value: Digest, round: int = 0, valid_round: int = -1) -> Statement:
        return sign(Statement(kind, CONFIG, INSTANCE, round, value, self.leaders[seat], valid_round=valid_round))

    def hear(self, seats: str, kind: StatementKind, value: Digest, round: int = 0) -> list[Effect]:
        """Votes of the seats named by digits."""
        return self.tell(*(Received(self.vote(int(i), kind, value, round)) for i in seats))

    def hear_proposal(self, value: Digest, round: int = 0, valid_round: int = -1) -> list[Effect]:
        seat = round % len(self.leaders)
        return self.tell(Received(self.vote(seat, PROPOSAL, value, round, valid_round)))

    def quorum(self, seats: str, kind: StatementKind, value: Digest, round: int = 0) -> VoteQuorum:
        return build_quorum([self.vote(int(i), kind, value, round) for i in seats])

    def judge(self, value: Digest, validity: Answer = YES, acceptable: Answer = YES) -> list[Effect]:
        return self.tell(ProposalValidated(value, self.a.round, validity, acceptable))

    def lose_round(self, seats: str, round: int = 0) -> list[Effect]:
        """A quorum precommits nil and the wait for more passes."""
        return self.hear(seats, PRECOMMIT, NIL, round) + self.wait(1_000 + 500 * round)

    def said(self, kind: StatementKind, round: int = 0) -> list[Digest]:
        return [
            e.statement.value
            for e in self.done
            if isinstance(e, SignAndBroadcast) and e.statement.kind is kind and e.statement.round == round
        ]

    def lock_on(self, value: Digest, round: int = 0) -> None:
        """A polka of the current round for ``value``, judged valid."""
        others = "".join(str(i) for i, m in enumerate(self.leaders) if m != self.a.rules.own)
        self.hear(others, PREVOTE, value, round)
        self.judge(value)


def reasons(effects: list[Effect]) -> list[str]:
    return [e.reason for e in effects if isinstance(e, Ignore)]


def kinds(effects: list[Effect]) -> list[str]:
    return [type(e).__name__ for e in effects]


class Table:
    """n members, every effect performed at once, everybody holds everything."""

    def __init__(self, n: int) -> None:
        self.seats = {m: Seat(n, i) for i, m in enumerate(some_rules(n).leaders)}
        self.decided: dict[Address, VoteQuorum] = {}

    def run(self, alive: Callable[[Address], bool] = lambda m: True) -> None:
        inbox: list[tuple[Address, Event]] = []
        names = [m for m in self.seats if alive(m)]
        for m in names:
            inbox += [(m, Resume()), (m, Start()), (m, Observed(Digest(m + bytes(12))))]
        for _ in range(200):
            while inbox:
                m, event = inbox.pop(0)
                seat = self.seats[m]
                for effect in seat.tell(event):
                    inbox += self.perform(m, effect, names)
            if len(self.decided) == len(names):
                return
            for m in names:
                self.seats[m].now += 100
                inbox.append((m, Tick()))

    def perform(self, m: Address, effect: Effect, names: list[Address]) -> list[tuple[Address, Event]]:
        others = [o for o in names if o != m]
        if isinstance(effect, SignAndBroadcast):
            heard: list[tuple[Address, Event]] = [(o, Received(effect.statement)) for o in others]
            if effect.statement.kind is OBSERVATION:
                told = SetsHeld(frozenset([m]), frozenset([m]))
                heard += [(o, told) for o in names]
            return heard
        if isinstance(effect, SendQuorum):
            return [(o, ReceivedQuorum(effect.quorum)) for o in others]
        if isinstance(effect, RecoverOwnVotes):
            return [(m, OwnVotesRecovered(o)) for o in others]
        if isinstance(effect, GetValue):
            return [(m, ProposeValue(effect.round, V))]
        if isinstance(effect, ValidateProposal):
            return [(m, ProposalValidated(effect.value, effect.round, YES, YES))]
        if isinstance(effect, Decide):
            self.decided[m] = effect.certificate
        return []


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 13])
def test_a_committee_without_faults_decides_in_round_0_at_once(n: int) -> None:
    table = Table(n)
    table.run()
    assert {(c.value, c.round) for c in table.decided.values()} == {(V, 0)}
    assert len(table.decided) == n
    assert {s.now for s in table.seats.values()} == {T0}


def test_with_the_first_leader_down_round_1_decides() -> None:
    table = Table(4)
    down = some_rules(4).leaders[0]
    table.run(lambda m: m != down)
    assert {(c.value, c.round) for c in table.decided.values()} == {(V, 1)}


def test_an_empty_committee_decides_nothing_and_breaks_nothing() -> None:
    a = InstanceState(Rules.of(INSTANCE, CONFIG, [], None, Timeouts()))
    for event in (Resume(), Start(), Observed(U), Tick(), DataArrived()):
        a, _ = on_event(a, event, T0)
    assert a.decided is None
    assert a.leader is None


# --- observation, start -----------------------------------------------------------------------------


def test_nothing_is_said_before_the_cut_off() -> None:
    seat = Seat(seat=1)
    seat.tell(Resume(), OwnVotesRecovered(seat.leaders[2]), Observed(U))
    seat.hear_proposal(V)
    seat.hear("023", PREVOTE, V)
    assert not any(isinstance(e, SignAndBroadcast) for e in seat.done)
    seat.tell(Start())
    assert seat.said(OBSERVATION) == [U]


def test_nothing_is_said_before_peers_told_what_they_know_of_us() -> None:
    seat = Seat()
    effects = seat.tell(Resume(), Start(), Observed(U))
    assert any(isinstance(e, RecoverOwnVotes) for e in effects)
    assert not any(isinstance(e, SignAndBroadcast) for e in effects)
    assert seat.said(OBSERVATION) == []
    seat.tell(OwnVotesRecovered(seat.leaders[1]))
    assert seat.said(OBSERVATION) == [U]


def test_after_five_seconds_without_an_answer_we_speak() -> None:
    seat = Seat()
    seat.tell(Resume(), Start(), Observed(U))
    assert seat.a.wake_ms == T0 + 5_000
    seat.wait(4_999)
    assert seat.said(OBSERVATION) == []
    seat.wait(1)
    assert seat.said(OBSERVATION) == [U]


def test_an_own_statement_that_the_journal_lacks_bars_us() -> None:
    seat = Seat(seat=1)
    seat.tell(Resume())
    unknown = seat.vote(1, PREVOTE, W)
    effects = seat.tell(Received(unknown))
    assert Halt(unknown) in effects
    seat.tell(OwnVotesRecovered(seat.leaders[2]), Start(), Observed(U))
    seat.wait(60_000)
    assert not any(isinstance(e, SignAndBroadcast) for e in seat.done)
    assert seat.a.eligibility.halted


def test_a_barred_member_still_follows_to_the_decision() -> None:
    seat = Seat(seat=1)
    seat.begin()
    seat.tell(Received(seat.vote(1, PRECOMMIT, W, round=2)))
    effects = seat.tell(ReceivedQuorum(seat.quorum("023", PRECOMMIT, V)))
    assert any(isinstance(e, Decide) for e in effects)


def an_own_quorum_statement(seat: Seat) -> list[Event]:
    return [ReceivedQuorum(seat.quorum("123", PREVOTE, W))]


def an_own_quorum_of_a_round_long_past(seat: Seat) -> list[Event]:
    seat.hear("23", PREVOTE, NIL, round=40)
    assert seat.a.round == 40
    return [ReceivedQuorum(seat.quorum("123", PRECOMMIT, W, round=3))]


def an_own_vote_of_a_round_long_past(seat: Seat) -> list[Event]:
    seat.hear("23", PREVOTE, NIL, round=40)
    return [Received(seat.vote(1, PREVOTE, W, round=3))]


def an_own_vote_far_ahead(seat: Seat) -> list[Event]:
    return [Received(seat.vote(1, PREVOTE, W, round=30))]


def another_observation_of_ours(seat: Seat) -> list[Event]:
    return [Received(seat.vote(1, OBSERVATION, W))]


def an_own_proposal(seat: Seat) -> list[Event]:
    return [Received(seat.vote(1, PROPOSAL, W, round=1))]


def an_own_third_vote(seat: Seat) -> list[Event]:
    """Two of ours are kept already, one of them our own indeed."""
    seat.hear_proposal(V)
    seat.judge(V)
    assert seat.said(PREVOTE) == [V]
    a = replace_votes(seat, seat.vote(1, PREVOTE, U))
    assert len(a.votes.of(PREVOTE, 0)[seat.leaders[1]]) == 2
    seat.a = a
    return [Received(seat.vote(1, PREVOTE, W))]


def replace_votes(seat: Seat, s: Statement) -> InstanceState:
    return changed(seat.a, votes=add(seat.a.votes, s, seat.a.round + 2))


def an_own_vote_after_the_decision(seat: Seat) -> list[Event]:
    seat.tell(ReceivedQuorum(seat.quorum("023", PRECOMMIT, V)))
    return [Received(seat.vote(1, PRECOMMIT, W))]


def an_own_quorum_after_the_decision(seat: Seat) -> list[Event]:
    seat.tell(ReceivedQuorum(seat.quorum("023", PRECOMMIT, V)))
    return [ReceivedQuorum(seat.quorum("123", PRECOMMIT, V))]


def a_quorum_that_is_held_with_other_signers(seat: Seat) -> list[Event]:
    seat.tell(ReceivedQuorum(seat.quorum("023", PREVOTE, W)))
    return [ReceivedQuorum(seat.quorum("012", PREVOTE, W))]


FOREIGN = [
    an_own_quorum_statement,
    an_own_quorum_of_a_round_long_past,
    an_own_vote_of_a_round_long_past,
    an_own_vote_far_ahead,
    another_observation_of_ours,
    an_own_proposal,
    an_own_third_vote,
    an_own_vote_after_the_decision,
    an_own_quorum_after_the_decision,
    a_quorum_that_is_held_with_other_signers,
]


@pytest.mark.parametrize("comes", FOREIGN, ids=lambda f: f.__name__)
def test_a_statement_of_ours_that_the_journal_lacks_bars_us_however_it_comes(
    comes: Callable[[Seat], list[Event]],
) -> None:
    seat = Seat(seat=1)
    seat.begin()
    events = comes(seat)
    said = len([e for e in seat.done if isinstance(e, SignAndBroadcast)])
    assert not seat.a.eligibility.halted
    assert kinds(seat.tell(*events)).count("Halt") == 1
    assert "Halt" not in kinds(seat.tell(*events))
    reload(seat)
    seat.tell(Tick(), Resume(), *(OwnVotesRecovered(m) for m in seat.leaders))
    for _ in range(8):
        seat.hear_proposal(U, round=seat.a.round)
        seat.wait(10_000)
    assert seat.a.eligibility.halted
    assert len([e for e in seat.done if isinstance(e, SignAndBroadcast)]) == said


def test_own_words_that_come_back_bar_nobody_however_old_they_are() -> None:
    seat = Seat(seat=1)
    seat.begin()
    seat.hear_proposal(V)
    seat.judge(V)
    own = [e.statement for e in seat.done if isinstance(e, SignAndBroadcast)]
    seat.hear("23", PREVOTE, NIL, round=40)
    reload(seat)
    again = [replace(s, signature=s.signature[:20] + b"x" * 45) for s in own]
    seat.tell(*(Received(s) for s in (*own, *again)), ReceivedQuorum(seat.quorum("123", PREVOTE, V)))
    assert not seat.a.eligibility.halted


@pytest.mark.parametrize("within", ["statement", "quorum"])
def test_a_statement_of_ours_that_only_the_store_holds_bars_us_at_the_first_look(within: str) -> None:
    """It was received while nobody looked, or before the instance was opened: it is no part of the journal."""
    rules = Seat(seat=1).a.rules
    seat = Seat(seat=1)
    foreign = seat.vote(1, PRECOMMIT, W)
    rows = [foreign] if within == "statement" else []
    quorums = [seat.quorum("123", PREVOTE, W)] if within == "quorum" else []
    seat.a = restore(rules, None, (), rows, quorums)
    assert (seat.a.round_state.locked_round, seat.a.round_state.step) == (-1, Step.WAITING)
    effects = seat.tell(Resume(), *(OwnVotesRecovered(m) for m in seat.leaders), Start(), Observed(U))
    assert kinds(effects).count("Halt") == 1
    seat.wait(60_000)
    assert not any(isinstance(e, SignAndBroadcast) for e in seat.done)
    assert describe_wait(seat.a).startswith("halted: ")


def test_an_observation_is_frozen_once() -> None:
    seat = Seat()
    seat.begin()
    assert reasons(seat.tell(Observed(V))) == ["observed something else before"]
    assert seat.said(OBSERVATION) == [U]


# --- leader -----------------------------------------------------------------------------------------


def sets_of(seat: Seat, seats: str, reproduced: str | None = None) -> SetsHeld:
    names = frozenset(seat.leaders[int(i)] for i in seats)
    return SetsHeld(names, names if reproduced is None else frozenset(seat.leaders[int(i)] for i in reproduced))


def test_the_leader_builds_at_once_with_the_sets_of_all() -> None:
    seat = Seat()
    seat.begin()
    assert not any(isinstance(e, GetValue) for e in seat.tell(sets_of(seat, "012")))
    assert GetValue(0) in seat.tell(sets_of(seat, "0123"))


def test_the_leader_waits_a_third_of_the_timeout_for_a_silent_observer() -> None:
    seat = Seat()
    seat.begin()
    seat.tell(sets_of(seat, "012"))
    assert GetValue(0) not in seat.wait(499)
    assert GetValue(0) in seat.wait(1)


def test_the_leader_waits_half_the_timeout_for_sets_that_do_not_come() -> None:
    seat = Seat()
    seat.begin()
    seat.tell(sets_of(seat, "0123", reproduced="01"))
    assert GetValue(0) not in seat.wait(749)
    assert GetValue(0) in seat.wait(1)


def test_the_leader_never_builds_from_less_than_a_quorum_of_observations() -> None:
    seat = Seat()
    seat.begin()
    seat.tell(sets_of(seat, "01"))
    seat.wait(500)
    seat.wait(250)
    seat.wait(749)
    assert not any(isinstance(e, GetValue) for e in seat.done)


def test_the_leader_proposes_once_per_round() -> None:
    seat = Seat()
    seat.begin()
    seat.tell(sets_of(seat, "0123"), ProposeValue(0, V))
    assert reasons(seat.tell(ProposeValue(0, W))) == ["not our turn to propose, or proposed already"]
    assert seat.said(PROPOSAL) == [V]


def test_a_member_that_does_not_lead_proposes_nothing() -> None:
    seat = Seat(seat=1)
    seat.begin()
    seat.tell(sets_of(seat, "0123"), ProposeValue(0, V))
    assert seat.said(PROPOSAL) == []
    assert not any(isinstance(e, GetValue) for e in seat.done)


def test_a_leader_without_own_observation_builds_nothing() -> None:
    seat = Seat()
    seat.begin(observed=False)
    seat.tell(sets_of(seat, "0123"), ProposeValue(0, V))
    seat.wait(1_000)
    assert seat.said(PROPOSAL) == []


def test_a_leader_that_holds_a_polka_proposes_its_value_again_with_it() -> None:
    seat = Seat(seat=1)
    seat.begin()
    polka = seat.quorum("023", PREVOTE, V)
    seat.tell(ReceivedQuorum(polka))
    seat.lose_round("023")
    assert seat.a.round == 1
    said = [e.statement for e in seat.done if isinstance(e, SignAndBroadcast) and e.statement.kind is PROPOSAL]
    assert [(s.value, s.valid_round) for s in said] == [(V, 0)]
    assert SendQuorum(polka) in seat.done


# --- prevote ----------------------------------------------------------------------------------------


def test_a_fresh_proposal_is_prevoted_when_valid_and_acceptable() -> None:
    seat = Seat(seat=1)
    seat.begin()
    assert ValidateProposal(V, 0, fresh=True) in seat.hear_proposal(V)
    seat.judge(V)
    assert seat.said(PREVOTE) == [V]


@pytest.mark.parametrize(("validity", "acceptable"), [(NO, YES), (YES, NO), (NOT_YET, NO), (NO, NOT_YET)])
def test_a_no_is_a_prevote_for_nil_at_once(validity: Answer, acceptable: Answer) -> None:
    seat = Seat(seat=1)
    seat.begin()
    seat.hear_proposal(V)
    seat.judge(V, validity, acceptable)
    assert seat.said(PREVOTE) == [NIL]


@pytest.mark.parametrize(("validity", "acceptable"), [(NOT_YET, YES), (YES, NOT_YET), (NOT_YET, NOT_YET)])
def test_not_yet_is_asked_again_when_data_arrives_and_nil_at_the_timeout(validity: Answer, acceptable: Answer) -> None:
    seat = Seat(seat=1)
    seat.begin()
    seat.hear_proposal(V)
    effects = seat.judge(V, validity, acceptable)
    assert any(isinstance(e, FetchValue) and e.sources == (seat.leaders[0],) for e in effects) == (validity is NOT_YET)
    assert seat.said(PREVOTE) == []
    assert ValidateProposal(V, 0, fresh=True) in seat.tell(DataArrived())
    seat.wait(1_499)
    assert seat.said(PREVOTE) == []
    seat.wait(1)
    assert seat.said(PREVOTE) == [NIL]


def test_a_validity_once_given_stays() -> None:
    seat = Seat(seat=1)
    seat.begin()
    seat.hear_proposal(V)
    seat.judge(V, YES, NOT_YET)
    seat.judge(V, NOT_YET, YES)
    assert seat.said(PREVOTE) == [V]


def test_a_fresh_proposal_waits_for_the_own_observation() -> None:
    seat = Seat(seat=1)
    seat.begin(observed=False)
    assert not any(isinstance(e, ValidateProposal) for e in seat.hear_proposal(V))
    assert ValidateProposal(V, 0, fresh=True) in seat.tell(Observed(U))


def test_an_answer_nobody_asked_for_is_ignored() -> None:
    seat = Seat(seat=1)
    seat.begin()
    assert reasons(seat.judge(V)) == ["not asked"]


def test_acceptability_is_asked_anew_in_every_round() -> None:
    seat = Seat(seat=3)
    seat.begin()
    seat.hear_proposal(V)
    seat.judge(V, YES, NO)
    seat.hear("012", PREVOTE, NIL)
    seat.lose_round("012")
    assert ValidateProposal(V, 1, fresh=True) in seat.hear_proposal(V, round=1)
    seat.tell(ProposalValidated(V, 0, YES, YES))
    assert seat.said(PREVOTE, 1) == []
    seat.tell(ProposalValidated(V, 1, YES, YES))
    assert seat.said(PREVOTE, 1) == [V]


def test_a_proposal_with_a_polka_is_not_asked_for_acceptability() -> None:
    seat = Seat(seat=3)
    seat.begin()
    seat.tell(ReceivedQuorum(seat.quorum("012", PREVOTE, V)))
    seat.lose_round("012")
    seat.hear_proposal(V, round=1, valid_round=0)
    asked = [e for e in seat.done if isinstance(e, ValidateProposal)]
    assert asked
    assert not any(e.fresh for e in asked)
    seat.tell(ProposalValidated(V, 1, YES, NO))
    assert seat.said(PREVOTE, 1) == [V]


def test_a_reproposal_waits_for_its_polka() -> None:
    seat = Seat(seat=3)
    seat.begin()
    seat.lose_round("012")
    seat.hear_proposal(V, round=1, valid_round=0)
    assert seat.said(PREVOTE, 1) == []
    seat.tell(ReceivedQuorum(seat.quorum("012", PREVOTE, V)))
    seat.judge(V)
    assert seat.said(PREVOTE, 1) == [V]


def test_a_locked_member_refuses_a_fresh_other_value() -> None:
    seat = Seat(seat=3)
    seat.begin()
    seat.lock_on(V)
    assert seat.a.round_state.locked_round == 0
    seat.lose_round("012")
    seat.hear_proposal(W, round=1)
    assert seat.said(PREVOTE, 1) == [NIL]


def test_a_locked_member_takes_its_own_value_back() -> None:
    seat = Seat(seat=3)
    seat.begin()
    seat.lock_on(V)
    seat.lose_round("012")
    seat.hear_proposal(V, round=1, valid_round=0)
    assert seat.said(PREVOTE, 1) == [V]


def test_a_polka_as_new_as_the_lock_frees_a_locked_member_and_an_older_one_does_not() -> None:
    seat = Seat(seat=3)
    seat.begin()
    seat.tell(ReceivedQuorum(seat.quorum("012", PREVOTE, W)))  # a polka that this member did not lock on
    seat.lose_round("012")
    seat.hear("012", PREVOTE, V, round=1)
    seat.judge(V)
    assert (seat.a.round_state.locked_value, seat.a.round_state.locked_round) == (V, 1)
    seat.lose_round("012", 1)
    seat.hear_proposal(W, round=2, valid_round=0)
    assert seat.said(PREVOTE, 2) == [NIL]


def test_two_proposals_of_a_lying_leader_are_both_considered_and_kept_as_evidence() -> None:
    seat = Seat(seat=1)
    seat.begin()
    seat.hear_proposal(V)
    effects = seat.hear_proposal(W)
    assert any(isinstance(e, StoreEvidence) for e in effects)
    seat.judge(V, NO)
    assert seat.said(PREVOTE) == []
    seat.judge(W)
    assert seat.said(PREVOTE) == [W]


# --- precommit --------------------------------------------------------------------------------------


def test_a_polka_locks_and_precommits() -> None:
    seat = Seat(seat=1)
    seat.begin()
    seat.hear_proposal(V)
    seat.judge(V)
    effects = seat.hear("02", PREVOTE, V)
    polka = next(e.quorum for e in effects if isinstance(e, SendQuorum))
    assert (polka.kind, polka.value, polka.round) == (PREVOTE, V, 0)
    assert StoreQuorum(polka) in effects
    assert seat.said(PRECOMMIT) == [V]
    assert (seat.a.round_state.locked_value, seat.a.round_state.locked_round) == (V, 0)
    assert (seat.a.round_state.valid_value, seat.a.round_state.valid_round) == (V, 0)


def test_a_polka_for_a_value_that_is_not_here_is_fetched_from_its_signers() -> None:
    seat = Seat(seat=1)
    seat.begin()
    effects = seat.tell(ReceivedQuorum(seat.quorum("023", PREVOTE, V)))
    assert ValidateProposal(V, 0, fresh=False) in effects
    assert seat.said(PREVOTE) == [NIL]
    assert FetchValue(V, tuple(sorted(seat.leaders[i] for i in (0, 2, 3)))) in seat.judge(V, NOT_YET)
    assert seat.said(PRECOMMIT) == []
    seat.judge(V)
    assert seat.said(PRECOMMIT) == [V]


def test_prevotes_for_nothing_in_common_end_in_nil_after_the_timeout() -> None:
    seat = Seat(seat=1)
    seat.begin()
    seat.hear_proposal(V)
    seat.judge(V)
    seat.hear("0", PREVOTE, W)
    seat.hear("2", PREVOTE, NIL)
    seat.wait(999)
    assert seat.said(PRECOMMIT) == []
    seat.wait(1)
    assert seat.said(PRECOMMIT) == [NIL]


def test_a_lost_round_gives_polkas_time_to_spread_before_the_next_begins() -> None:
    seat = Seat(seat=1)
    seat.begin()
    seat.hear("023", PRECOMMIT, NIL)
    seat.wait(999)
    assert seat.a.round == 0
    seat.wait(1)
    assert (seat.a.round, seat.a.step) == (1, Step.PROPOSE)


def test_mixed_precommits_end_the_round_after_the_timeout() -> None:
    seat = Seat(seat=1)
    seat.begin()
    seat.hear("02", PRECOMMIT, V)
    seat.hear("3", PRECOMMIT, NIL)
    seat.wait(999)
    assert seat.a.round == 0
    seat.wait(1)
    assert seat.a.round == 1


def test_timeouts_grow_up_to_their_maximum() -> None:
    seat = Seat(seat=1, max_ms=2_200)
    seat.begin()
    for round, timeout in [(0, 1_500), (1, 2_000), (2, 2_200), (3, 2_200)]:
        assert seat.a.round == round
        began = seat.now
        while not seat.said(PREVOTE, round):
            assert seat.a.wake_ms is not None
            seat.wait(seat.a.wake_ms - seat.now)
        assert seat.now - began == timeout
        seat.hear("023", PRECOMMIT, NIL, round)
        seat.wait(min(1_000 + 500 * round, 2_200))


# --- rounds -----------------------------------------------------------------------------------------


def test_messages_of_f_plus_one_members_of_a_higher_round_pull_us_there() -> None:
    seat = Seat(seat=1)
    seat.begin()
    seat.hear("2", PREVOTE, NIL, round=7)
    assert seat.a.round == 0
    seat.hear("3", PREVOTE, NIL, round=5)
    assert seat.a.round == 5


def test_a_flood_of_rounds_keeps_one_statement_per_signer() -> None:
    seat = Seat(seat=1)
    seat.begin()
    for round in range(10, 500):
        seat.hear("2", PREVOTE, V, round)
    assert seat.a.round == 0
    assert len(seat.a.votes.statements()) <= 3
    assert reasons(seat.hear("2", PREVOTE, W, round=498)) == ["round far ahead and not the signer's newest"]


def test_what_was_ahead_counts_once_we_are_there() -> None:
    seat = Seat(seat=1)
    seat.begin()
    seat.hear("2", PREVOTE, V, round=9)
    seat.hear("3", PREVOTE, V, round=9)
    assert seat.a.round == 9
    assert seat.a.votes.count(PREVOTE, 9, V) == 2


def test_old_rounds_are_forgotten_but_for_the_newest_polka() -> None:
    seat = Seat(seat=3)
    seat.begin()
    polka = seat.quorum("012", PREVOTE, V)
    seat.tell(ReceivedQuorum(polka))
    for round in range(60):
        seat.lose_round("012", round)
    assert seat.a.round == 60
    assert seat.a.votes.polka(0, V) == polka
    assert min(round for kind, round in seat.a.votes.said if kind != OBSERVATION) >= 60 - 16
    assert reasons(seat.hear("2", PREVOTE, W, round=3)) == ["round long past"]


# --- decision ---------------------------------------------------------------------------------------


def test_a_certificate_decides_before_the_cut_off_and_before_the_value_is_here() -> None:
    seat = Seat(seat=1)
    certificate = seat.quorum("023", PRECOMMIT, V, round=4)
    effects = seat.tell(ReceivedQuorum(certificate))
    assert Decide(certificate, tuple(sorted(seat.leaders[i] for i in (0, 2, 3)))) in effects
    assert seat.a.wake_ms is None


def test_precommits_of_a_round_long_left_still_decide() -> None:
    seat = Seat(seat=1)
    seat.begin()
    seat.hear("02", PRECOMMIT, V)
    seat.hear("02", PREVOTE, NIL, round=3)
    assert seat.a.round == 3
    seat.hear("3", PRECOMMIT, V)
    assert seat.a.decided is not None
    assert seat.a.decided.round == 0


def test_precommits_of_different_rounds_decide_nothing() -> None:
    seat = Seat(seat=1)
    seat.begin()
    for i, round in (("0", 0), ("2", 1), ("3", 2)):
        seat.hear(i, PRECOMMIT, V, round)
    assert seat.a.decided is None


def test_nil_is_not_an_outcome() -> None:
    seat = Seat(seat=1)
    seat.begin()
    seat.hear("023", PRECOMMIT, NIL)
    assert seat.a.decided is None
    seat.tell(ReceivedQuorum(seat.quorum("023", PRECOMMIT, NIL, round=1)))
    assert seat.a.decided is None


def test_both_votes_of_a_liar_count_and_a_third_is_ignored() -> None:
    seat = Seat(seat=1)
    seat.begin()
    seat.hear("0", PREVOTE, W)
    assert any(isinstance(e, StoreEvidence) for e in seat.hear("0", PREVOTE, V))
    assert reasons(seat.hear("0", PREVOTE, NIL)) == ["two kept already"]
    seat.hear("23", PREVOTE, V)
    assert seat.a.votes.polka(0, V) is not None


def test_a_polka_counts_as_a_whole_although_its_signers_third_vote_is_not_kept() -> None:
    seat = Seat(seat=1)
    seat.begin()
    seat.hear("0", PREVOTE, W)
    seat.hear("0", PREVOTE, NIL)
    seat.hear("2", PREVOTE, V)
    seat.tell(ReceivedQuorum(seat.quorum("023", PREVOTE, V)))
    seat.judge(V)
    assert seat.said(PRECOMMIT) == [V]


def test_a_resend_changes_nothing() -> None:
    seat = Seat(seat=1)
    seat.begin()
    seat.hear_proposal(V)
    before = seat.a
    assert seat.hear_proposal(V) == []
    assert seat.a is before


def test_after_the_decision_everything_is_ignored_with_a_reason() -> None:
    seat = Seat(seat=1)
    seat.tell(ReceivedQuorum(seat.quorum("023", PRECOMMIT, V)))
    for event in (
        Start(),
        Observed(U),
        DataArrived(),
        ProposeValue(0, V),
        ProposalValidated(V, 0, YES, YES),
        sets_of(seat, "0"),
    ):
        assert reasons(seat.tell(event)) == ["decided"]
    assert reasons(seat.hear("0", PREVOTE, W)) == ["decided"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"config_digest": Digest(b"d" * 32)}, "another config digest"),
        ({"instance": InstanceId(InstanceKind.LATE, 60_000)}, "another instance"),
        ({"signer": Address(b"x" * 20)}, "not in the committee"),
        ({"round": -1}, "no such round"),
        ({"round": 1 << 31}, "no such round"),
        ({"valid_round": 0}, "a vote has no valid round"),
        ({"kind": OBSERVATION, "round": 1}, "not an observation"),
        ({"kind": OBSERVATION, "value": NIL}, "not an observation"),
        ({"kind": PROPOSAL, "value": NIL}, "nil proposed"),
        ({"kind": PROPOSAL, "round": 1}, "not the leader of its round"),
        ({"kind": PROPOSAL, "valid_round": 0}, "valid round not below the round"),
    ],
)
def test_a_foreign_or_impossible_statement_is_ignored_with_its_reason(change: dict[str, object], reason: str) -> None:
    seat = Seat(seat=1)
    seat.begin()
    bad = replace(seat.vote(0, PREVOTE, V), **change)  # type: ignore[arg-type]
    assert why_ignored(seat.a, bad) == reason
    before = seat.a
    assert reasons(seat.tell(Received(bad))) == [reason]
    assert seat.a == before


def test_a_quorum_too_small_is_ignored() -> None:
    seat = Seat(seat=1)
    seat.begin()
    small = seat.quorum("02", PRECOMMIT, V)
    assert reasons(seat.tell(ReceivedQuorum(small))) == ["quorum.signatures: 2 signers where 3 are needed"]
    assert seat.a.decided is None


def test_an_observer_without_a_seat_decides_and_says_nothing() -> None:
    seat = Seat(seat=None)
    seat.begin()
    seat.hear_proposal(V)
    seat.judge(V)
    seat.hear("012", PREVOTE, V)
    seat.hear("012", PRECOMMIT, V)
    assert seat.a.decided is not None
    assert not any(isinstance(e, SignAndBroadcast) for e in seat.done)


# --- relay ------------------------------------------------------------------------------------------


def test_relay_gives_what_the_other_lacks_whoever_signed_it() -> None:
    one, other = Seat(seat=1), Seat(seat=2)
    one.begin()
    other.begin()
    one.hear("03", PREVOTE, W)
    statements, quorums = missing_for(one.a, summarise(other.a))
    assert not quorums
    assert {(s.signer, s.value) for s in statements} >= {(one.leaders[0], W), (one.leaders[3], W)}
    other.tell(*(Received(s) for s in statements))
    one.tell(*(Received(s) for s in missing_for(other.a, summarise(one.a))[0]))
    assert missing_for(one.a, summarise(other.a)) == ((), ())


def test_relay_gives_a_polka_as_a_whole() -> None:
    one, other = Seat(seat=1), Seat(seat=2)
    polka = one.quorum("013", PREVOTE, V)
    one.begin(observed=False)
    one.tell(ReceivedQuorum(polka))
    other.begin(observed=False)
    statements, quorums = missing_for(one.a, summarise(other.a))
    assert quorums == (polka,)
    assert not [s for s in statements if s.value == V]


def test_the_decided_give_the_certificate_only() -> None:
    one, other = Seat(seat=1), Seat(seat=2)
    certificate = one.quorum("013", PRECOMMIT, V)
    one.tell(ReceivedQuorum(certificate))
    assert missing_for(one.a, summarise(other.a)) == ((), (certificate,))


def test_votes_are_compared_at_a_steady_pace_while_undecided() -> None:
    seat = Seat(seat=1)
    seat.begin()
    assert [SyncVotes() in seat.wait(250) for _ in range(6)] == [False, True] * 3


# --- restart ----------------------------------------------------------------------------------------


def reload(seat: Seat, *, progress: bool = True) -> None:
    """As a new worker would: from rows."""
    rows, quorums = seat.a.votes.statements(), tuple(seat.a.votes.quorums.values())
    saved = encode_progress(seat.a) if progress else None
    seat.a = restore(seat.a.rules, saved, seat.a.journal.values(), rows, quorums)


def test_saved_and_restored_state_is_the_same_state() -> None:
    seat = Seat(seat=1)
    seat.begin()
    seat.hear_proposal(V)
    seat.judge(V)
    seat.hear("03", PREVOTE, V)
    seat.hear("2", PREVOTE, W, round=9)
    before = changed(seat.a, loaded=True)
    reload(seat)
    assert seat.a == before
    assert not any(isinstance(e, SignAndBroadcast) for e in seat.tell(Tick()))


def test_the_lock_is_rebuilt_from_the_journal_alone() -> None:
    seat = Seat(seat=3)
    seat.begin()
    seat.lock_on(V)
    reload(seat, progress=False)
    place = seat.a.round_state
    assert (place.locked_value, place.locked_round, place.round, place.step) == (V, 0, 0, Step.PRECOMMIT)
    seat.begin()
    seat.lose_round("012")
    seat.hear_proposal(W, round=1)
    assert seat.said(PREVOTE, 1) == [NIL]


def test_no_vote_below_the_highest_journaled_round() -> None:
    seat = Seat(seat=3)
    seat.begin()
    seat.hear("12", PREVOTE, NIL, round=6)
    seat.wait(10_000)
    assert seat.said(PREVOTE, 6) == [NIL]
    reload(seat, progress=False)
    seat.begin()
    assert seat.a.round == 6
    seat.hear_proposal(V, round=6)
    assert len(seat.said(PREVOTE, 6)) == 1


def test_resume_says_again_what_was_said_and_nothing_new() -> None:
    seat = Seat(seat=1)
    seat.begin()
    seat.hear_proposal(V)
    seat.judge(V)
    reload(seat)
    effects = seat.tell(Resume())
    resent = next(e.statements for e in effects if isinstance(e, Resend))
    assert [(s.kind, s.value) for s in resent] == [(OBSERVATION, U), (PREVOTE, V)]
    assert RecoverOwnVotes() in effects
    assert not any(isinstance(e, SignAndBroadcast) for e in effects)


def test_statements_that_came_while_nobody_looked_are_looked_at() -> None:
    seat = Seat(seat=1)
    seat.begin()
    rows = [*seat.a.votes.statements(), *(seat.vote(i, PRECOMMIT, V) for i in (0, 2, 3))]
    rows += [seat.vote(0, PREVOTE, V), seat.vote(0, PREVOTE, W)]
    seat.a = restore(seat.a.rules, encode_progress(seat.a), seat.a.journal.values(), rows, ())
    effects = seat.tell(Tick())
    assert any(isinstance(e, Decide) for e in effects)
    assert any(isinstance(e, StoreEvidence) for e in effects)


def test_state_with_an_unsigned_statement_cannot_be_saved() -> None:
    seat = Seat(n=1)
    a, effects = on_event(seat.a, Start(), T0)
    a, effects = on_event(a, Observed(U), T0)
    assert kinds(list(effects))[0] == "SignAndBroadcast"
    with pytest.raises(InvariantError, match="sign, then save"):
        encode_progress(a)


@pytest.mark.parametrize("by_ms", [10_000, 3_600_000])
def test_a_clock_set_back_does_not_stretch_a_timeout(by_ms: int) -> None:
    seat = Seat(seat=1)
    seat.begin()
    seat.now -= by_ms
    seat.tell(Tick())
    seat.wait(1_500)
    assert seat.said(PREVOTE) == [NIL]


def test_the_status_page_can_tell_what_an_instance_waits_for() -> None:
    seat = Seat(seat=1)
    assert describe_wait(seat.a) == "cut-off"
    seat.tell(Resume(), Start())
    assert describe_wait(seat.a) == "peers' word on own statements"
    seat.begin()
    assert describe_wait(seat.a) == "a proposal, or data to judge it"
    seat.hear_proposal(V)
    seat.judge(V)
    assert describe_wait(seat.a) == "1/3 prevotes of round 0"
    seat.tell(ReceivedQuorum(seat.quorum("023", PRECOMMIT, V)))
    assert describe_wait(seat.a) == "decided"


# --- what is not heeded, and why --------------------------------------------------------------------


def test_a_second_start_and_a_nil_observation_are_ignored_with_a_reason() -> None:
    seat = Seat()
    seat.begin(observed=False)
    assert reasons(seat.tell(Start())) == ["started already"]
    assert reasons(seat.tell(Observed(NIL))) == ["nil is no observation"]
    seat.tell(Observed(U))
    assert reasons(seat.tell(Observed(U))) == ["observed already"]


def test_only_another_members_word_on_us_counts_and_only_while_it_is_awaited() -> None:
    seat = Seat()
    seat.tell(Resume(), Start(), Observed(U))
    for nobody in (Address(b"x" * 20), seat.leaders[0]):
        assert reasons(seat.tell(OwnVotesRecovered(nobody))) == ["not waiting for this member's word"]
    assert seat.said(OBSERVATION) == []
    assert reasons(seat.tell(OwnVotesRecovered(seat.leaders[1]))) == []
    assert reasons(seat.tell(OwnVotesRecovered(seat.leaders[2]))) == ["not waiting for this member's word"]


def test_the_same_members_word_counts_once() -> None:
    seat = Seat(n=7)
    seat.tell(Resume(), Start(), Observed(U))
    seat.tell(OwnVotesRecovered(seat.leaders[1]), OwnVotesRecovered(seat.leaders[1]))
    assert seat.said(OBSERVATION) == []
    seat.tell(OwnVotesRecovered(seat.leaders[2]))
    assert seat.said(OBSERVATION) == [U]


def test_a_candidate_that_cannot_be_proposed_is_ignored_with_its_reason() -> None:
    turn = "not our turn to propose, or proposed already"
    seat = Seat(seat=1)
    seat.tell(ProposeValue(0, NIL))
    assert reasons(seat.done) == ["nil is never proposed"]
    assert reasons(seat.tell(ProposeValue(0, V))) == [turn]
    seat.begin(observed=False)
    seat.lose_round("023")
    assert reasons(seat.tell(ProposeValue(1, V))) == ["own observation is not out"]
    assert reasons(seat.tell(ProposeValue(0, V))) == [turn]
    seat.tell(Observed(U))
    seat.tell(ReceivedQuorum(seat.quorum("023", PREVOTE, W)))
    assert seat.said(PROPOSAL, 1) == [W]


def test_a_candidate_that_comes_after_a_polka_is_not_proposed() -> None:
    seat = Seat()
    seat.begin()
    seat.a = changed(seat.a, round_state=changed(seat.a.round_state, round=4, valid_value=W, valid_round=0))
    seat.a = changed(
        seat.a,
        votes=seat.a.votes.__class__(seat.a.votes.said, {(PREVOTE, 0, W): seat.quorum("123", PREVOTE, W)}, {}, {}),
    )
    assert reasons(seat.tell(ProposeValue(4, V))) == ["a proven value is to be proposed again"]
    assert seat.said(PROPOSAL, 4) == []


def test_a_candidate_that_comes_after_our_prevote_is_too_late() -> None:
    seat = Seat()
    seat.begin()
    seat.wait(1_500)
    assert seat.said(PREVOTE) == [NIL]
    assert reasons(seat.tell(ProposeValue(0, V))) == ["not our turn to propose, or proposed already"]


def test_before_the_cut_off_no_candidate_is_taken() -> None:
    seat = Seat()
    seat.begin()
    seat.a = changed(seat.a, eligibility=changed(seat.a.eligibility, recovered=False, recover_at=T0 + 5_000))
    assert reasons(seat.tell(ProposeValue(0, V))) == ["not our turn to propose, or proposed already"]


def test_a_polka_older_than_what_is_kept_and_held_is_ignored_and_a_newer_one_never() -> None:
    seat = Seat(seat=1)
    seat.begin()
    for round in range(20):
        seat.lose_round("023", round)
    assert seat.a.round == 20
    floor = 20 - 16
    assert not reasons(seat.tell(ReceivedQuorum(seat.quorum("023", PREVOTE, V, floor - 1))))
    for older in (floor - 1, floor - 2):
        heard = seat.tell(ReceivedQuorum(seat.quorum("023", PREVOTE, W, older)))
        assert reasons(heard) == ["a newer polka is held"]
    assert not reasons(seat.tell(ReceivedQuorum(seat.quorum("023", PREVOTE, W, floor))))
    assert not reasons(seat.tell(ReceivedQuorum(seat.quorum("023", PRECOMMIT, W, 1))))
    assert seat.a.decided is not None


# --- what is persisted, asked and woken -------------------------------------------------------------


def test_what_another_member_says_is_kept_and_what_it_said_before_is_not_kept_again() -> None:
    seat = Seat(seat=1)
    seat.begin()
    s = seat.vote(2, PREVOTE, V)
    assert StoreStatement(s) in seat.tell(Received(s))
    assert seat.tell(Received(s)) == []


def test_a_decided_instance_that_is_resumed_owes_its_decision() -> None:
    seat = Seat(seat=1)
    certificate = seat.quorum("023", PRECOMMIT, V)
    seat.tell(ReceivedQuorum(certificate))
    assert seat.a.step is Step.DECIDED
    sources = tuple(sorted(seat.leaders[i] for i in (0, 2, 3)))
    assert seat.tell(Resume()) == [StoreQuorum(certificate), Decide(certificate, sources)]
    assert seat.tell(Tick()) == []


def test_resuming_forgets_what_peers_told_and_asks_and_compares_anew() -> None:
    seat = Seat()
    seat.begin()
    seat.tell(sets_of(seat, "0123"))
    assert seat.a.eligibility.value_asked == 0
    seat.tell(Resume())
    eligibility = seat.a.eligibility
    assert (eligibility.recovered, eligibility.answers, eligibility.value_asked) == (False, frozenset(), -1)
    assert eligibility.relay_at is None
    assert eligibility.recover_at == T0 + 5_000
    seat.now += 3_000
    seat.tell(Resume())
    assert seat.a.eligibility.recover_at == T0 + 8_000


def test_with_an_imported_journal_a_round_gets_its_whole_time() -> None:
    seat = Seat(seat=3)
    seat.begin()
    seat.lock_on(V)
    seat.lose_round("012")
    reload(seat, progress=False)
    seat.now += 60_000
    seat.begin(observed=False)
    assert seat.a.round_state.started_ms == seat.now
    assert seat.a.round_state.locked_value == V


def test_a_journal_that_says_something_else_is_our_own_mistake() -> None:
    seat = Seat(seat=1)
    seat.begin()
    seat.wait(1_500)
    seat.hear_proposal(V)
    seat.a = changed(seat.a, round_state=changed(seat.a.round_state, step=Step.PROPOSE, started_ms=seat.now))
    seat.tell(Tick())
    with pytest.raises(InvariantError, match="a second prevote in round 0"):
        seat.judge(V)


def test_a_value_is_asked_of_the_signers_of_its_quorums_its_voters_and_its_proposers() -> None:
    seat = Seat(n=7, seat=6)
    seat.begin()
    seat.hear_proposal(V)  # by seat 0
    seat.hear("5", PREVOTE, W)
    seat.hear("4", PREVOTE, V)
    seat.hear("3", PRECOMMIT, V)
    voters = (seat.leaders[3], seat.leaders[4], seat.leaders[0])
    assert FetchValue(V, voters) in seat.judge(V, NOT_YET)
    seat.tell(ReceivedQuorum(seat.quorum("12345", PREVOTE, V)))
    signers = tuple(sorted(seat.leaders[i] for i in (1, 2, 3, 4, 5)))
    assert FetchValue(V, (*signers, seat.leaders[0])) in seat.judge(V, NOT_YET)


def test_we_are_not_our_own_source() -> None:
    seat = Seat(seat=1)
    seat.begin()
    seat.hear_proposal(V)
    seat.judge(V)
    assert seat.said(PREVOTE) == [V]
    seat.a = changed(seat.a, judgements={V: Judgement(NOT_YET, YES, 0)})
    assert FetchValue(V, (seat.leaders[0],)) in seat.judge(V, NOT_YET)


@pytest.mark.parametrize(("back_ms", "kept"), [(0, True), (100_000, False)])
def test_timers_are_bounded_by_the_longest_timeout_from_now(back_ms: int, kept: bool) -> None:
    seat = Seat(seat=1)
    seat.begin()
    seat.hear("0", PREVOTE, W)
    seat.hear_proposal(V)
    seat.judge(V)
    seat.hear("2", PREVOTE, NIL)
    seat.hear("02", PRECOMMIT, NIL)
    seat.hear("3", PRECOMMIT, V)
    place = seat.a.round_state
    assert (place.prevote_at, place.precommit_at, place.started_ms) == (T0 + 1_000, T0 + 1_000, T0)
    seat.now -= back_ms
    seat.tell(Tick(), DataArrived())
    now = seat.a.round_state
    limit = seat.now + 60_000
    assert now.started_ms == seat.now
    assert (now.prevote_at, now.precommit_at) == ((T0 + 1_000,) * 2 if kept else (limit, limit))


@pytest.mark.parametrize("timer", ["prevote_at", "precommit_at"])
def test_one_timer_alone_is_bounded_too(timer: str) -> None:
    seat = Seat(seat=1)
    seat.begin()
    seat.wait(1_500)
    if timer == "prevote_at":
        seat.hear("0", PREVOTE, W)
        seat.hear("2", PREVOTE, NIL)
    else:
        seat.hear("02", PRECOMMIT, NIL)
        seat.hear("3", PRECOMMIT, V)
    before = seat.a.round_state
    assert [getattr(before, name) is not None for name in ("prevote_at", "precommit_at")].count(True) == 1
    far = seat.now + 60_001
    seat.a = changed(seat.a, round_state=changed(before, **{timer: far}))
    seat.tell(DataArrived())
    assert getattr(seat.a.round_state, timer) == seat.now + 60_000
    seat.a = changed(seat.a, round_state=changed(before, **{timer: far - 1}))
    unchanged = seat.a.round_state
    seat.tell(DataArrived())
    assert seat.a.round_state is unchanged


def test_the_door_refuses_what_the_machine_would_not_keep() -> None:
    seat = Seat(seat=1)
    seat.begin()
    for round in range(20):
        seat.lose_round("023", round)
    far = "round far ahead and not the signer's newest"
    seat.hear("0", PREVOTE, V, round=40)
    expected = {3: "round long past", 4: "", 20: "", 22: "", 23: far, 41: ""}
    assert {round: why_ignored(seat.a, seat.vote(0, PREVOTE, W, round)) for round in expected} == expected
    seat.tell(ReceivedQuorum(seat.quorum("023", PRECOMMIT, V, 20)))
    assert why_ignored(seat.a, seat.vote(0, PREVOTE, W, 20)) == "decided"


def test_the_status_page_says_what_a_leader_and_later_steps_wait_for() -> None:
    seat = Seat()
    seat.begin()
    seat.tell(sets_of(seat, "012"))
    assert describe_wait(seat.a) == "sets of 3/4 observers"
    seat.wait(1_500)
    seat.hear("12", PREVOTE, V)
    assert describe_wait(seat.a) == "3/3 prevotes of round 0"
    seat.wait(1_000)
    assert describe_wait(seat.a) == "1/3 precommits of round 0"
    nobody = InstanceState(Rules.of(INSTANCE, CONFIG, [], None, Timeouts()))
    for event in (Resume(), Start(), Tick()):
        nobody, _ = on_event(nobody, event, T0)
    assert describe_wait(nobody) == "a proposal, or data to judge it"


def wakes(effects: list[Effect]) -> list[int]:
    return [e.ms for e in effects if isinstance(e, WakeAt)]


def test_a_wake_time_is_told_when_it_changes_and_not_again() -> None:
    seat = Seat()
    assert wakes(seat.tell(Resume(), Start())) == [T0 + 5_000]
    assert wakes(seat.tell(OwnVotesRecovered(seat.leaders[1]))) == [T0 + 500]
    assert wakes(seat.tell(sets_of(seat, "01"))) == []
    assert wakes(seat.hear("2", PREVOTE, V)) == []
    assert wakes(seat.wait(500)) == [T0 + 750]
    assert wakes(seat.tell(ReceivedQuorum(seat.quorum("123", PRECOMMIT, V)))) == []
    assert seat.a.wake_ms is None


def test_a_leader_wakes_at_a_third_and_at_half_of_its_timeout() -> None:
    seat = Seat(relay_ms=100_000)
    seat.begin()
    seen = [seat.a.wake_ms]
    for _ in range(3):
        assert seat.a.wake_ms is not None
        seat.wait(seat.a.wake_ms - seat.now)
        seen.append(seat.a.wake_ms)
    assert seen == [T0 + 500, T0 + 750, T0 + 1_500, T0 + 100_000]


def test_who_does_not_lead_wakes_for_the_timeouts_alone() -> None:
    seat = Seat(seat=1, relay_ms=100_000)
    seat.begin()
    assert seat.a.wake_ms == T0 + 1_500
    seat.wait(1_500)
    seat.hear("0", PREVOTE, V)
    seat.hear("2", PREVOTE, W)
    assert seat.a.wake_ms == T0 + 2_500


def test_resuming_puts_open_questions_again() -> None:
    seat = Seat(seat=1)
    seat.begin()
    seat.hear_proposal(V)
    assert ValidateProposal(V, 0, fresh=True) in seat.tell(Resume())


def test_a_quorum_after_the_decision_is_ignored_with_a_reason() -> None:
    seat = Seat(seat=1)
    seat.tell(ReceivedQuorum(seat.quorum("023", PRECOMMIT, V)))
    assert reasons(seat.tell(ReceivedQuorum(seat.quorum("023", PREVOTE, V)))) == ["decided"]


def test_what_came_from_the_store_is_looked_at_once() -> None:
    seat = Seat(seat=1)
    seat.begin()
    seat.hear("0", PREVOTE, V)
    seat.hear("0", PREVOTE, W)
    reload(seat)
    resend = Received(seat.vote(0, PREVOTE, V))
    assert kinds(seat.tell(resend)) == ["StoreEvidence"]
    assert seat.tell(resend) == []


def test_own_words_are_never_kept_as_anothers() -> None:
    seat = Seat(seat=1)
    assert not any(isinstance(e, StoreStatement) for e in seat.begin())
    again = replace(seat.a.votes.of(OBSERVATION, 0)[seat.leaders[1]][0], signature=bytes(65))
    assert seat.tell(Received(again)) == []
    assert not seat.a.eligibility.halted


def test_a_quorum_that_came_while_nobody_looked_counts() -> None:
    seat = Seat(seat=1)
    seat.begin()
    polka = seat.quorum("023", PREVOTE, V)
    seat.a = restore(seat.a.rules, encode_progress(seat.a), seat.a.journal.values(), (), [polka])
    assert ValidateProposal(V, 0, fresh=False) in seat.tell(Tick())
    assert (seat.a.round_state.valid_value, seat.a.round_state.valid_round) == (V, 0)


def test_when_peers_have_told_the_old_timers_wake_us_again() -> None:
    seat = Seat(seat=1)
    seat.begin()
    assert wakes(seat.tell(Resume())) == [T0 + 5_000]
    assert wakes(seat.tell(OwnVotesRecovered(seat.leaders[2]))) == [T0 + 500]


def test_an_observer_asks_nobody_what_it_said() -> None:
    seat = Seat(seat=None)
    assert not any(isinstance(e, RecoverOwnVotes) for e in seat.tell(Resume(), Start()))
    assert seat.a.eligibility.recovered


def test_whatever_comes_after_a_timeout_finds_it() -> None:
    seat = Seat(seat=1)
    seat.begin()
    seat.hear("2", PREVOTE, V)
    seat.now += 1_500
    seat.hear("2", PREVOTE, V)
    assert seat.said(PREVOTE) == [NIL]


def test_at_the_very_moment_of_a_timeout_whatever_comes_finds_it() -> None:
    seat = Seat(seat=1, relay_ms=100_000)
    seat.begin()
    seat.hear("2", PREVOTE, V)
    assert seat.a.wake_ms == T0 + 1_500
    seat.now += 1_500
    seat.hear("2", PREVOTE, V)
    assert seat.said(PREVOTE) == [NIL]


def test_a_round_that_ends_by_timeout_is_saved_whatever_event_found_it() -> None:
    seat = Seat(seat=1)
    seat.begin()
    seat.hear("023", PRECOMMIT, NIL)
    seat.now += 1_000
    seat.hear("2", PRECOMMIT, NIL)
    assert seat.a.round == 1


def test_the_value_of_a_polka_of_another_round_is_asked_for_at_once() -> None:
    seat = Seat(seat=1)
    seat.begin()
    assert ValidateProposal(V, 0, fresh=False) in seat.tell(ReceivedQuorum(seat.quorum("023", PREVOTE, V, 3)))


# --- said again, asked again ------------------------------------------------------------------------


def test_an_observer_sends_no_polkas_when_it_resumes() -> None:
    seat = Seat(seat=None)
    seat.tell(ReceivedQuorum(seat.quorum("012", PREVOTE, V)))
    assert not any(isinstance(e, SendQuorum) for e in seat.tell(Resume()))


def test_a_polka_that_is_all_there_is_goes_out_again() -> None:
    seat = Seat(seat=1)
    seat.tell(ReceivedQuorum(seat.quorum("023", PREVOTE, V)))
    polka = seat.quorum("023", PREVOTE, V)
    seat.a = restore(seat.a.rules, encode_progress(seat.a), (), (), [polka])
    assert SendQuorum(polka) in seat.tell(Resume())


def test_a_re_proposal_goes_out_again_with_its_polka_and_the_newest() -> None:
    seat = Seat(seat=1)
    seat.begin()
    old, new = seat.quorum("023", PREVOTE, V), seat.quorum("023", PREVOTE, V, 1)
    seat.tell(ReceivedQuorum(old))
    seat.lose_round("023")
    seat.tell(ReceivedQuorum(new))
    assert seat.said(PROPOSAL, 1) == [V]
    effects = seat.tell(Resume())
    assert [e.quorum for e in effects if isinstance(e, SendQuorum)] == [old, new]


def test_open_questions_are_put_again_with_each_comparison_and_closed_ones_never() -> None:
    seat = Seat(seat=1)
    seat.begin()
    assert SyncVotes() not in seat.hear_proposal(V)
    seat.hear_proposal(W)
    seat.judge(V, YES, NO)
    seat.judge(W, NOT_YET, NOT_YET)
    again = seat.wait(500)
    assert SyncVotes() in again
    assert [e for e in again if isinstance(e, ValidateProposal)] == [ValidateProposal(W, 0, fresh=True)]
    assert [e for e in seat.tell(DataArrived()) if isinstance(e, ValidateProposal)] == [
        ValidateProposal(W, 0, fresh=True)
    ]


def test_of_a_proven_value_only_validity_is_asked_until_it_is_known() -> None:
    seat = Seat(seat=1)
    seat.begin()
    seat.tell(ReceivedQuorum(seat.quorum("023", PREVOTE, V)))
    seat.judge(V, NOT_YET)
    assert ValidateProposal(V, 0, fresh=False) in seat.tell(DataArrived())
    seat.judge(V, YES, NOT_YET)
    assert not any(isinstance(e, ValidateProposal) for e in seat.tell(DataArrived()))


def test_a_leader_that_could_not_build_is_asked_again_until_it_has_proposed() -> None:
    seat = Seat()
    seat.begin()
    assert GetValue(0) not in seat.tell(DataArrived())
    assert GetValue(0) in seat.tell(sets_of(seat, "0123"))
    assert GetValue(0) in seat.tell(DataArrived())
    seat.tell(ProposeValue(0, V))
    assert GetValue(0) not in seat.tell(DataArrived())


def test_a_barred_leader_builds_nothing() -> None:
    seat = Seat()
    seat.begin()
    seat.tell(Received(seat.vote(0, PREVOTE, W, round=2)))
    assert seat.a.eligibility.halted
    assert GetValue(0) not in seat.tell(sets_of(seat, "0123"))


def test_a_leader_whose_round_has_its_polka_builds_nothing_more() -> None:
    seat = Seat()
    seat.begin()
    seat.tell(sets_of(seat, "012"))
    seat.now += 500
    assert GetValue(0) not in seat.tell(ReceivedQuorum(seat.quorum("123", PREVOTE, V)))


def test_an_observer_asks_of_a_fresh_proposal_only_whether_it_is_valid() -> None:
    seat = Seat(seat=None)
    seat.begin()
    assert ValidateProposal(V, 0, fresh=False) in seat.hear_proposal(V)


def test_what_is_invalid_is_not_asked_again_in_a_later_round() -> None:
    seat = Seat(seat=3)
    seat.begin()
    seat.hear_proposal(V)
    seat.judge(V, NO)
    seat.lose_round("012")
    assert not any(isinstance(e, ValidateProposal) for e in seat.hear_proposal(V, round=1))
    assert seat.said(PREVOTE, 1) == [NIL]


def test_a_validity_once_known_is_not_asked_again_for_a_re_proposal() -> None:
    seat = Seat(seat=3)
    seat.begin()
    seat.lock_on(V)
    seat.lose_round("012")
    assert not any(isinstance(e, ValidateProposal) for e in seat.hear_proposal(V, round=1, valid_round=0))
    assert seat.said(PREVOTE, 1) == [V]


def test_an_answer_that_comes_after_the_timeout_and_before_it_was_noticed_still_counts() -> None:
    seat = Seat(seat=1)
    seat.begin()
    seat.hear_proposal(V)
    seat.now += 2_000
    seat.judge(V)
    assert seat.said(PREVOTE) == [V]


def test_a_good_re_proposal_is_prevoted_although_its_round_has_its_polka() -> None:
    seat = Seat(seat=3)
    seat.begin()
    seat.tell(ReceivedQuorum(seat.quorum("012", PREVOTE, V)))
    seat.judge(V)
    seat.hear_proposal(V, round=1, valid_round=0)
    assert seat.a.round == 0
    seat.tell(ReceivedQuorum(seat.quorum("012", PREVOTE, V, 1)))
    assert seat.said(PREVOTE, 1) == [V]


def test_judgements_of_values_that_nobody_names_any_more_are_forgotten() -> None:
    seat = Seat(seat=3)
    seat.begin()
    seat.hear_proposal(V)
    seat.judge(V, NO)
    for round in range(18):
        seat.lose_round("012", round)
        assert (V in (seat.a.judgements or {})) == (round < 16)


def test_of_a_values_voters_those_of_newer_rounds_come_first_and_double_votes_count() -> None:
    seat = Seat(n=7, seat=6)
    seat.begin()
    seat.hear_proposal(V)
    seat.hear("4", PREVOTE, V)
    seat.hear("5", PREVOTE, W, round=1)
    seat.hear("5", PREVOTE, V, round=1)
    assert FetchValue(V, tuple(seat.leaders[i] for i in (5, 4, 0))) in seat.judge(V, NOT_YET)


def test_before_the_cut_off_nobody_is_woken() -> None:
    seat = Seat()
    seat.tell(Resume())
    assert seat.a.wake_ms is None


def test_a_barred_members_wait_says_so_until_it_is_decided() -> None:
    seat = Seat(seat=1)
    seat.begin()
    seat.tell(Received(seat.vote(1, PREVOTE, W, round=2)))
    assert describe_wait(seat.a).startswith("halted: ")
    seat.tell(ReceivedQuorum(seat.quorum("023", PRECOMMIT, V)))
    assert describe_wait(seat.a) == "decided"


def test_unknown_own_words_are_kept_as_what_bars_us() -> None:
    seat = Seat(seat=1)
    seat.begin()
    unknown = seat.vote(1, PREVOTE, W)
    assert kinds(seat.tell(Received(unknown))) == ["Halt", "StoreStatement"]


def test_a_re_proposal_leaves_together_with_its_polka() -> None:
    seat = Seat(seat=1)
    seat.begin()
    polka = seat.quorum("023", PREVOTE, V)
    seat.tell(ReceivedQuorum(polka))
    effects = seat.lose_round("023")
    assert any(isinstance(e, SignAndBroadcast) and e.statement.valid_round == 0 for e in effects)
    assert SendQuorum(polka) in effects


def test_a_leader_asks_for_a_candidate_once() -> None:
    seat = Seat()
    seat.begin()
    assert GetValue(0) in seat.tell(sets_of(seat, "0123"))
    assert GetValue(0) not in seat.hear("2", PREVOTE, V)


def test_at_half_time_a_quorum_of_observations_is_enough() -> None:
    seat = Seat()
    seat.begin()
    seat.tell(sets_of(seat, "012", reproduced="0"))
    assert GetValue(0) not in seat.wait(749)
    assert GetValue(0) in seat.wait(1)
