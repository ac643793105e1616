"""The state machine of one instance: observation, then rounds of propose, prevote, precommit. Pure and total.

Tendermint as in arXiv 1807.04938, whose pseudo-code is the specification; "line N" in comments is a line of it.
Where it says 2f + 1 of 3f + 1, this says a quorum of n - f. A quorum of prevotes for one value is a *polka*, one of
precommits a certificate. All transitions, in the order in which they are tried; where no next step stands, it stays:

| Step | What is heard or held | Line | Next step | Effects, beside saving | Method |
|---|---|---|---|---|---|
| waiting | cut-off passed, own words recovered | 10 | propose | | ``run_rules`` |
| any | f + 1 members in a higher round | 55-56 | propose, that round | | ``skip_round`` |
| propose | own turn, a polka of an earlier round | 15-16, 19 | | proposal, its polka | ``propose_again`` |
| propose | own turn, enough observations and sets | 17-18 | | GetValue | ``ask_for_value`` |
| propose | ProposeValue | 19 | | proposal | ``on_propose_value`` |
| propose | fresh one: valid, acceptable, no other lock | 22-26 | prevote | it or nil prevoted | ``answer_fresh`` |
| propose | one with its polka: valid, no newer lock | 28-32 | prevote | it or nil prevoted | ``answer_repeated`` |
| propose | a polka of this round | | prevote | nil prevoted | ``prevote_after_polka`` |
| propose | timeout | 57-60 | prevote | nil prevoted | ``prevote_at_timeout`` |
| prevote | a polka of this round, its value valid | 36-41 | precommit | lock, it precommitted | ``lock_polka`` |
| prevote | a quorum prevoted nil | 44-46 | precommit | nil precommitted | ``give_up_on_nil`` |
| prevote | a quorum prevoted | 34-35 | | WakeAt | ``await_prevotes`` |
| prevote | timeout | 61-64 | precommit | nil precommitted | ``precommit_at_timeout`` |
| any | a polka newer than the valid value's | 42-43 | | SendQuorum, ValidateProposal | ``raise_valid`` |
| any | a quorum precommitted | 47-48 | | WakeAt | ``await_precommits`` |
| any | timeout | 65-67 | propose, next round | | ``next_round_at_timeout`` |
| any | a certificate | 49-51 | decided | SendQuorum, Decide | ``decide`` |
| decided | Resume | | | Decide | ``on_resume`` |
| any | our signature under what the journal lacks | | | Halt | ``halt`` |

Every event and every statement outside this table is kept or ignored with its reason, and moves nothing.

What is added to the paper, and why it is safe:

- Nothing is said before the cut-off (``Start``) and before enough peers told which statements of this member they
  know (``OwnVotesRecovered``). A statement with our signature that our journal lacks halts us in the instance,
  however it comes: alone or inside a quorum, of any round and kind, from a peer or from the store, before or after the
  decision.
- A *fresh* proposal is prevoted only if it is acceptable too, and only by a member whose own observation is out. A
  value with a polka was accepted by n - 2f honest members before; it is judged by validity alone.
- A polka sets the valid value in whatever round it arrives, and before the value itself is here: f + 1 honest members
  found it valid and hold it, and ``FetchValue`` asks them. Precommits still wait for the own judgement (line 36).
- A polka of the current round ends the wait for a proposal: prevoting nil is always safe, and the precommit is due.
- Every polka and certificate is passed on once by everybody, so that the next leader knows of a lock. The wait of
  line 47 gives it the time, also where a quorum of nil precommits shows that the round is lost.
- A certificate decides in any step, before the value is here, and for those who were away.

Events come in with the time; effects go out in order. ``on_event`` says an unsigned statement and counts it when it
comes back signed; ``driver`` does both with a signer passed in, and sees to it that nothing is heard before it is kept.
Performing an effect twice is harmless.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from validator.protocol.codec.certificate import check_quorum
from validator.protocol.consensus.events import (
    DataArrived,
    Decide,
    Effect,
    Event,
    GetValue,
    Ignore,
    Observed,
    OwnVotesRecovered,
    ProposalValidated,
    ProposeValue,
    Received,
    ReceivedQuorum,
    Resume,
    SendQuorum,
    SetsHeld,
    Start,
    StoreEvidence,
    StoreQuorum,
    StoreStatement,
    Tick,
)
from validator.protocol.consensus.evidence import Evidence, find_evidence
from validator.protocol.consensus.inputs import Inputs
from validator.protocol.consensus.proposal import Answer
from validator.protocol.consensus.state import (
    OBSERVATION,
    PRECOMMIT,
    PREVOTE,
    PROPOSAL,
    InstanceState,
    Step,
    why_foreign,
)
from validator.protocol.consensus.votes import AHEAD, KNOWN, add, add_quorum, form_quorum, trim, unformed, why_dropped
from validator.protocol.errors import MalformedInput
from validator.protocol.model import NIL, Digest, Statement, StatementKind, VoteQuorum


def on_event(a: InstanceState, event: Event, now_ms: int) -> tuple[InstanceState, tuple[Effect, ...]]:
    """Answer one event: the next state and what is to be done, in order. Statements said are unsigned."""
    step = Transitions(a, now_ms)
    if step.loaded:
        step.catch_up()
    step.hear(event)
    step.run_rules()
    return step.finish()


class Transitions(Inputs):
    """The rows of the table, and how what is heard comes to be held."""

    __slots__ = ()

    # --- what is heard ---

    def hear(self, event: Event) -> None:
        if self.decided is not None and type(event) not in _HEEDED_WHEN_DECIDED:
            self.do(Ignore(event, "decided"))
        else:
            _HEARD[type(event)](self, event)

    def on_propose_value(self, event: ProposeValue) -> None:
        at_turn = event.round == self.round_state.round and self.round_state.step is Step.PROPOSE and self.is_running()
        if event.value == NIL:
            self.do(Ignore(event, "nil is never proposed"))
        elif not at_turn or not self.may_propose():
            self.do(Ignore(event, "not our turn to propose, or proposed already"))
        elif self.polka_to_repeat() is not None:
            self.do(Ignore(event, "a proven value is to be proposed again"))
        elif not self.has_said(OBSERVATION, 0):
            self.do(Ignore(event, "own observation is not out"))
        else:
            self.say(PROPOSAL, event.value)  # line 19, validRound = -1

    def on_received(self, event: Received) -> None:
        s = event.statement
        reason = why_foreign(self.rules, s)
        foreign = not reason and s.signer == self.rules.own and not self.recognise(s)
        if self.decided is not None:
            self.do(Ignore(event, "decided"))
            return
        reason = reason or why_dropped(self.votes, s, self.floor(), self.ceiling())
        if reason:
            if reason != KNOWN:
                self.do(Ignore(event, reason))
            return
        if s.signer != self.rules.own or foreign:
            self.do(StoreStatement(s))
        if s.signer != self.rules.own or s.round <= self.ceiling():
            self.include(s)

    def on_received_quorum(self, event: ReceivedQuorum) -> None:
        q = event.quorum
        try:
            check_quorum(q, self.rules.config_digest, self.rules.instance, self.rules.members)
        except MalformedInput as error:
            self.do(Ignore(event, str(error)))
            return
        for s in q.statements():
            if s.signer == self.rules.own:
                self.recognise(s)
        if self.decided is not None:
            self.do(Ignore(event, "decided"))
            return
        if (q.kind, q.round, q.value) in self.votes.quorums:
            return  # a resend is not news
        if q.kind is PREVOTE and q.round < self.floor() and q.round <= self.round_state.valid_round:
            self.do(Ignore(event, "a newer polka is held"))
            return
        self.accept_quorum(q)

    # --- what is held ---

    def include(self, s: Statement) -> None:
        """Count a new statement; a quorum that it completes is kept and sent at once."""
        self.touched = True
        ceiling = self.round_state.round + AHEAD
        earlier = self.votes.of(s.kind, s.round).get(s.signer, ())
        self.votes = add(self.votes, s, ceiling)
        for other in earlier:
            self.do(StoreEvidence(Evidence.of(other, s)))
        if s.kind >= PREVOTE and s.value != NIL and s.round <= ceiling:
            key = (s.kind, s.round, s.value)
            if key not in self.votes.quorums and self.votes.count(*key) >= self.rules.quorum:
                self.form(*key)

    def form(self, kind: StatementKind, round: int, value: Digest) -> None:
        """A quorum is complete in single votes."""
        q = form_quorum(self.votes, kind, round, value)
        self.hold_quorum(q)
        self.follow_quorum(q)

    def accept_quorum(self, q: VoteQuorum) -> None:
        """A quorum from a peer counts as a whole, whatever single votes of its signers are known."""
        self.hold_quorum(q)
        for s in q.statements():
            ours_ahead = s.signer == self.rules.own and s.round > self.ceiling()
            if not ours_ahead and not why_dropped(self.votes, s, self.floor(), self.ceiling()):
                self.include(s)
        self.follow_quorum(q)

    def hold_quorum(self, q: VoteQuorum) -> None:
        """Keep it as a whole, and send it to all, once."""
        self.touched = True
        self.votes = add_quorum(self.votes, q)
        self.do(StoreQuorum(q))
        self.do(SendQuorum(q))

    def follow_quorum(self, q: VoteQuorum) -> None:
        if q.kind is PRECOMMIT:
            self.decide(q)
        else:
            self.raise_valid(q)

    def catch_up(self) -> None:
        """Look at what the store held: evidence, quorums in single votes, polkas and certificates."""
        self.touched = True
        self.loaded = False
        for s in self.origin.foreign:
            self.halt(s)
        for pair in find_evidence(self.votes.statements()):
            self.do(StoreEvidence(pair))
        for q in self.votes.quorums.values():
            self.follow_quorum(q)
        for kind, round, value in unformed(self.votes, self.rules.quorum):
            self.form(StatementKind(kind), round, value)

    # --- the rules ---

    def run_rules(self) -> None:
        """Apply the rules until none applies."""
        if not self.touched and not self.is_due():
            return
        if self.decided is None and self.eligibility.started:
            self.wait_for_recovery()
        if not self.is_running():
            return
        self.touched = True
        self.heed_clock()
        observation = self.eligibility.observation
        if observation is not None and not self.has_said(OBSERVATION, 0):
            self.say(OBSERVATION, observation)
        if self.round_state.step is Step.WAITING:
            self.start_round(self.round_state.round)  # line 10
        while self.decided is None and self.apply_rules():
            pass
        self.relay()

    def apply_rules(self) -> bool:
        """The first row that applies; False if none does."""
        if self.skip_round():
            return True
        if self.round_state.step is Step.PROPOSE and self.apply_propose():
            return True
        if self.round_state.step is Step.PREVOTE and self.apply_prevote():
            return True
        return self.end_round()

    def skip_round(self) -> bool:
        """Lines 55-56."""
        reached = self.round_reached()
        if reached <= self.round_state.round:
            return False
        self.start_round(reached)
        return True

    def round_reached(self) -> int:
        """The highest round that f + 1 members have reached; one of them is honest."""
        at = self.round_state.round
        above = [round for round in self.votes.newest.values() if round > at]
        if not above or len(above) < self.rules.one_honest:
            return at
        return sorted(above, reverse=True)[self.rules.one_honest - 1]

    def start_round(self, round: int) -> None:
        """Lines 11-21. Everybody schedules the timeout; a leader too may find nothing to propose."""
        self.round_state = replace(
            self.round_state, round=round, step=Step.PROPOSE, started_ms=self.now_ms, prevote_at=None, precommit_at=None
        )
        self.votes = trim(self.votes, self.floor(), self.ceiling())
        self.forget_judgements()
        for kind, at, value in unformed(self.votes, self.rules.quorum):
            self.form(StatementKind(kind), at, value)

    # --- propose ---

    def apply_propose(self) -> bool:
        if self.may_propose():
            self.lead()
        return self.prevote_proposal() or self.prevote_after_polka() or self.prevote_at_timeout()

    def lead(self) -> None:
        """Lines 14-19: propose the valid value again, or ask for a value once there is enough to build it from."""
        polka = self.polka_to_repeat()
        if polka is not None:
            self.propose_again(polka)
        elif self.eligibility.value_asked != self.round_state.round and self.may_build():
            self.ask_for_value()

    def propose_again(self, polka: VoteQuorum) -> None:
        """Lines 15-16, 19, with the polka that lets the others follow."""
        self.say(PROPOSAL, polka.value, polka.round)
        self.do(SendQuorum(polka))

    def ask_for_value(self) -> None:
        """Lines 17-18: getValue(); the answer is ``on_propose_value``."""
        self.eligibility = replace(self.eligibility, value_asked=self.round_state.round)
        self.do(GetValue(self.round_state.round))

    def prevote_proposal(self) -> bool:
        """Lines 22-32, once what the leader proposed is judged."""
        verdict = self.choose_prevote()
        return verdict is not None and self.prevote(verdict)

    def choose_prevote(self) -> Digest | None:
        """What to prevote for the proposals held of this round's leader; None while undetermined."""
        slots = self.votes.of(PROPOSAL, self.round_state.round)
        leader = self.rules.leader(self.round_state.round) if slots else None
        proposals = slots.get(leader, ()) if leader is not None else ()
        answers = []
        for proposal in proposals:
            answer = self.answer_proposal(proposal)
            if answer is Answer.YES:
                return proposal.value
            answers.append(answer)
        return NIL if answers and all(answer is Answer.NO for answer in answers) else None

    def answer_proposal(self, proposal: Statement) -> Answer:
        return self.answer_fresh(proposal) if proposal.valid_round == -1 else self.answer_repeated(proposal)

    def answer_fresh(self, proposal: Statement) -> Answer:
        """Lines 22-26."""
        rs, value = self.round_state, proposal.value
        if rs.locked_round != -1 and rs.locked_value != value:
            return Answer.NO  # line 23
        if self.votes.has_polka_below(rs.round, value):
            return self.judge(value, fresh=False)  # accepted once by n - 2f honest members
        if self.rules.own is None:
            return self.judge(value, fresh=False)
        return self.judge(value, fresh=True) if self.has_said(OBSERVATION, 0) else Answer.NOT_YET

    def answer_repeated(self, proposal: Statement) -> Answer:
        """Lines 28-32."""
        rs, value, valid_round = self.round_state, proposal.value, proposal.valid_round
        if self.votes.polka(valid_round, value) is None:
            return Answer.NOT_YET  # line 28: the polka may still come
        if rs.locked_round > valid_round and rs.locked_value != value:
            return Answer.NO  # line 29
        return self.judge(value, fresh=False)

    def prevote_after_polka(self) -> bool:
        """The round has its polka: it waits for our precommit, not for our prevote."""
        return self.round_state.valid_round == self.round_state.round and self.prevote(NIL)

    def prevote_at_timeout(self) -> bool:
        """Lines 57-60."""
        return self.now_ms >= self.round_state.started_ms + self.propose_timeout() and self.prevote(NIL)

    def prevote(self, value: Digest) -> bool:
        """Lines 24-27, 30-33, 59-60."""
        self.say(PREVOTE, value)
        self.round_state = replace(self.round_state, step=Step.PREVOTE)
        return True

    # --- prevote ---

    def apply_prevote(self) -> bool:
        if self.lock_polka() or self.give_up_on_nil():
            return True
        self.await_prevotes()
        return self.precommit_at_timeout()

    def lock_polka(self) -> bool:
        """Lines 36-41: a polka of this round, for a value that was found valid here."""
        rs = self.round_state
        if rs.valid_round != rs.round or self.judge(rs.valid_value, fresh=False) is not Answer.YES:
            return False
        self.round_state = replace(rs, locked_value=rs.valid_value, locked_round=rs.round)
        return self.precommit(rs.valid_value)

    def give_up_on_nil(self) -> bool:
        """Lines 44-46: a quorum prevoted nil."""
        lost = self.votes.count(PREVOTE, self.round_state.round, NIL) >= self.rules.quorum
        return lost and self.precommit(NIL)

    def await_prevotes(self) -> None:
        """Lines 34-35: a quorum prevoted, whatever for; the wait for a polka begins."""
        rs = self.round_state
        if rs.prevote_at is None and len(self.votes.of(PREVOTE, rs.round)) >= self.rules.quorum:
            timeout = self.rules.timeouts.grown(self.rules.timeouts.prevote_ms, rs.round)
            self.round_state = replace(rs, prevote_at=self.now_ms + timeout)

    def precommit_at_timeout(self) -> bool:
        """Lines 61-64."""
        at = self.round_state.prevote_at
        return at is not None and self.now_ms >= at and self.precommit(NIL)

    def precommit(self, value: Digest) -> bool:
        """Lines 40-41, 45-46, 63-64."""
        self.round_state = replace(self.round_state, step=Step.PRECOMMIT)
        self.say(PRECOMMIT, value)
        return True

    # --- any step ---

    def end_round(self) -> bool:
        return self.await_precommits() and self.next_round_at_timeout()

    def await_precommits(self) -> bool:
        """Lines 47-48: a quorum precommitted, whatever for; the wait for a certificate begins. Whether that is so."""
        rs = self.round_state
        slots = self.votes.said.get((PRECOMMIT, rs.round))
        if slots is None or len(slots) < self.rules.quorum:
            return False
        if rs.precommit_at is None:
            timeout = self.rules.timeouts.grown(self.rules.timeouts.precommit_ms, rs.round)
            self.round_state = replace(rs, precommit_at=self.now_ms + timeout)
        return True

    def next_round_at_timeout(self) -> bool:
        """Lines 65-67."""
        at = self.round_state.precommit_at
        if at is None or self.now_ms < at:
            return False
        self.start_round(self.round_state.round + 1)
        return True

    def raise_valid(self, q: VoteQuorum) -> None:
        """Lines 42-43, for a polka of any round: the newest proven value is what a leader proposes again."""
        if q.round > self.round_state.valid_round:
            self.round_state = replace(self.round_state, valid_value=q.value, valid_round=q.round)
            self.judge(q.value, fresh=False)

    def decide(self, q: VoteQuorum) -> None:
        """Lines 49-51: n - f precommits of one round; f + 1 honest ones found the value valid, so nothing is asked."""
        if self.decided is not None:
            return
        self.decided = q
        self.round_state = replace(self.round_state, step=Step.DECIDED)
        self.do(Decide(q, self.signers_of(q)))


_HEARD: Mapping[type[Event], Callable[[Transitions, Any], None]] = {
    Resume: Transitions.on_resume,
    Start: Transitions.on_start,
    Observed: Transitions.on_observed,
    OwnVotesRecovered: Transitions.on_own_votes_recovered,
    Received: Transitions.on_received,
    ReceivedQuorum: Transitions.on_received_quorum,
    SetsHeld: Transitions.on_sets_held,
    ProposeValue: Transitions.on_propose_value,
    ProposalValidated: Transitions.on_proposal_validated,
    DataArrived: Transitions.on_data_arrived,
    Tick: Transitions.on_tick,
}
_HEEDED_WHEN_DECIDED = frozenset({Resume, Tick, Received, ReceivedQuorum})
