"""The driver: what the machine asks for is persisted, then sent, then asked, and each by its kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from validator.protocol.consensus.driver import Ready, drive
from validator.protocol.consensus.events import (
    Decide,
    Event,
    FetchValue,
    GetValue,
    Ignore,
    Observed,
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
from validator.protocol.consensus.evidence import Evidence
from validator.protocol.consensus.state import InstanceState, Rules, Timeouts
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

CONFIG, V, W = (Digest(bytes([n]) * 32) for n in (1, 2, 3))
INSTANCE = InstanceId(InstanceKind.WINDOW, 1_700_000_000_000)
OWN = Address(bytes([9]) * 20)
ALONE = InstanceState(Rules.of(INSTANCE, CONFIG, [OWN], OWN, Timeouts()))
NOW = 1_700_000_060_000


class Full(Exception):
    """The disk is."""


@dataclass
class Notes:
    """A shell that notes what it is called for, and may fail."""

    fails: str = ""
    answers: Sequence[Event] = ()
    calls: list[tuple[str, Ready]] = field(default_factory=list)

    def sign(self, statement: Statement) -> Statement:
        return replace(statement, signature=bytes(65))

    def persist(self, ready: Ready) -> None:
        self.note("persist", ready)

    def send(self, ready: Ready) -> None:
        self.note("send", ready)

    def ask(self, ready: Ready) -> Sequence[Event]:
        self.note("ask", ready)
        return self.answers

    def note(self, name: str, ready: Ready) -> None:
        if name == self.fails:
            raise Full
        self.calls.append((name, ready))

    def called(self) -> list[str]:
        return [name for name, _ in self.calls]


def a_vote(value: Digest = V, kind: StatementKind = StatementKind.PREVOTE) -> Statement:
    return Statement(kind, CONFIG, INSTANCE, 0, value, OWN, signature=bytes(65))


def a_quorum(kind: StatementKind) -> VoteQuorum:
    return VoteQuorum(kind, CONFIG, INSTANCE, 0, V, ((OWN, bytes(65)),))


def ready_with(*effects: object, state: InstanceState = ALONE) -> Ready:
    return Ready(ALONE, state, effects)  # type: ignore[arg-type]


def test_what_is_said_is_persisted_before_it_is_sent_and_sent_before_anything_is_asked() -> None:
    notes = Notes(answers=[Tick()])
    state, answers = drive(ALONE, (Resume(), Start(), Observed(V)), NOW, notes)
    assert notes.called() == ["persist", "send", "ask"]
    assert [s.value for s in notes.calls[0][1].said] == [V]
    assert state is notes.calls[0][1].state
    assert answers == [Tick()]


@pytest.mark.parametrize(("fails", "called"), [("persist", []), ("send", ["persist"]), ("ask", ["persist", "send"])])
def test_where_one_handler_fails_none_after_it_is_called(fails: str, called: list[str]) -> None:
    notes = Notes(fails=fails)
    with pytest.raises(Full):
        drive(ALONE, (Resume(), Start(), Observed(V)), NOW, notes)
    assert notes.called() == called


def test_own_words_are_signed_and_counted_in_the_same_look() -> None:
    notes = Notes()
    state, _ = drive(ALONE, (Resume(), Start(), Observed(V), SetsHeld(frozenset([OWN]), frozenset([OWN]))), NOW, notes)
    (said,) = state.votes.of(StatementKind.OBSERVATION, 0)[OWN]
    assert said.signature == bytes(65)
    assert state.unsigned == ()
    assert [type(q) for q in notes.calls[0][1].questions] == [GetValue]


def test_the_effects_of_all_events_of_a_look_are_performed_together() -> None:
    notes = Notes()
    drive(ALONE, (Start(), Start()), NOW, notes)
    (ready,) = {id(ready): ready for _, ready in notes.calls}.values()
    assert Ignore(Start(), "started already") in ready.effects


def test_effects_are_handed_out_by_what_is_to_be_done_with_them() -> None:
    new, again, theirs = a_vote(V), a_vote(W), a_vote(NIL)
    polka, certificate = a_quorum(StatementKind.PREVOTE), a_quorum(StatementKind.PRECOMMIT)
    evidence = Evidence.of(new, again)
    decision = Decide(certificate, ())
    questions = (ValidateProposal(V, 0, True), GetValue(0), FetchValue(V, (OWN,)), RecoverOwnVotes(), SyncVotes())
    ready = ready_with(
        Ignore(Tick(), "for nothing"),
        SignAndBroadcast(new),
        StoreStatement(theirs),
        StoreQuorum(polka),
        StoreEvidence(evidence),
        decision,
        SendQuorum(certificate),
        Resend((again,)),
        WakeAt(7),
        *questions,
    )
    assert (ready.said, ready.kept, ready.quorums, ready.evidence) == ((new,), (theirs,), (polka,), (evidence,))
    assert ready.decision is decision
    assert (ready.statements_to_send, ready.quorums_to_send) == ((new, again), (certificate,))
    assert ready.questions == questions


def test_a_question_that_several_events_ask_is_asked_once() -> None:
    asked = ValidateProposal(V, 0, False)
    ready = ready_with(asked, SyncVotes(), ValidateProposal(V, 0, True), asked, SyncVotes())
    assert ready.questions == (asked, SyncVotes(), ValidateProposal(V, 0, True))


@pytest.mark.parametrize(
    ("effects", "changed", "idle"),
    [
        ((), False, True),
        ((Ignore(Tick(), "for nothing"),), False, True),
        ((Ignore(Tick(), "for nothing"), FetchValue(V, ())), False, False),
        ((SignAndBroadcast(a_vote()), SyncVotes()), True, False),
        ((StoreStatement(a_vote()),), True, False),
        ((StoreQuorum(a_quorum(StatementKind.PREVOTE)),), True, False),
        ((StoreEvidence(Evidence.of(a_vote(V), a_vote(W))),), True, False),
        ((Decide(a_quorum(StatementKind.PRECOMMIT), ()),), True, False),
    ],
)
def test_only_what_changes_something_is_worth_a_transaction(
    effects: tuple[object, ...], changed: bool, idle: bool
) -> None:
    ready = ready_with(*effects)
    assert (ready.is_changed, ready.is_idle) == (changed, idle)
    other = ready_with(*effects, state=InstanceState(ALONE.rules, wake_ms=1))
    assert (other.is_changed, other.is_idle) == (True, False)
