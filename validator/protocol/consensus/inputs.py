"""What a member is told by its shell and its peers: noted, and nothing more. The rules look at it afterwards."""

from __future__ import annotations

from msgspec.structs import replace

from validator.protocol.consensus.events import (
    DataArrived,
    Decide,
    FetchValue,
    Ignore,
    Observed,
    OwnVotesRecovered,
    ProposalValidated,
    Resume,
    SetsHeld,
    Start,
    StoreQuorum,
    Tick,
)
from validator.protocol.consensus.proposal import Answer
from validator.protocol.consensus.state import Judgement, Step
from validator.protocol.consensus.working import WorkingCopy
from validator.protocol.model import NIL


class Inputs(WorkingCopy):
    """One method per event that is no statement and no quorum."""

    __slots__ = ()

    def on_tick(self, _event: Tick) -> None:
        self.touched = True

    def on_data_arrived(self, _event: DataArrived) -> None:
        self.touched = True
        self.ask_again()

    def on_resume(self, _event: Resume) -> None:
        """What is owed: the decision, or own words of this round again; the lock is in the state (``restore``)."""
        self.touched = True
        if self.decided is not None:
            self.do(StoreQuorum(self.decided))
            self.do(Decide(self.decided, self.signers_of(self.decided)))
            return
        self.eligibility = replace(
            self.eligibility, recovered=False, answers=frozenset(), recover_at=None, value_asked=-1, relay_at=None
        )
        self.recover()
        self.resend()
        self.ask_again()

    def on_start(self, event: Start) -> None:
        if self.eligibility.started:
            self.do(Ignore(event, "started already"))
            return
        self.touched = True
        self.eligibility = replace(self.eligibility, started=True)
        if self.round_state.step is not Step.WAITING:
            self.round_state = replace(self.round_state, started_ms=self.now_ms)
        if not self.eligibility.recovered and self.eligibility.recover_at is None:
            self.recover()

    def on_observed(self, event: Observed) -> None:
        known = self.eligibility.observation
        if known is not None:
            self.do(Ignore(event, "observed already" if known == event.value else "observed something else before"))
            return
        if event.value == NIL:
            self.do(Ignore(event, "nil is no observation"))
            return
        self.touched = True
        self.eligibility = replace(self.eligibility, observation=event.value)

    def on_own_votes_recovered(self, event: OwnVotesRecovered) -> None:
        if self.eligibility.recovered or event.member not in self.rules.members or event.member == self.rules.own:
            self.do(Ignore(event, "not waiting for this member's word"))
            return
        self.touched = True
        answers = self.eligibility.answers | {event.member}
        self.eligibility = replace(self.eligibility, answers=answers, recovered=len(answers) >= self.answers_needed())

    def on_sets_held(self, event: SetsHeld) -> None:
        observed = self.eligibility.observed | (event.observed & self.rules.members)
        reproduced = self.eligibility.reproduced | (event.reproduced & self.rules.members)
        if (observed, reproduced) != (self.eligibility.observed, self.eligibility.reproduced):
            self.touched = True
            self.eligibility = replace(self.eligibility, observed=observed, reproduced=reproduced)

    def on_proposal_validated(self, event: ProposalValidated) -> None:
        known = self.judgements.get(event.value)
        if known is None:
            self.do(Ignore(event, "not asked"))
            return
        # An answer "yes" or "no" to validity is a function of bytes: it stays.
        validity = event.validity if known.validity is Answer.NOT_YET else known.validity
        acceptable = event.acceptable if event.round == known.round else known.acceptable
        if validity is Answer.NOT_YET:
            self.do(FetchValue(event.value, self.sources_of(event.value)))
        judgement = Judgement(validity, acceptable, known.round)
        if judgement != known:
            self.touched = True
            self.judgements = {**self.judgements, event.value: judgement}
