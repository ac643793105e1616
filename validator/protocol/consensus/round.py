"""The state machine of one instance: observation, then rounds of propose, prevote, precommit. Pure and total.

Tendermint as in arXiv 1807.04938, whose pseudo-code is the specification; "line N" in comments is a line of it.
Where it says 2f + 1 of 3f + 1, this says a quorum of n - f. What is added, and why it is safe:

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

Events come in with the time; effects go out in order, what is persisted before what others can see. ``on_event`` says
an unsigned statement and counts it when it comes back signed; ``advance`` does both with a signer passed in. A shell
saves state, statements said, quorums, evidence and decision in one transaction on condition of the state's version,
and only then performs the rest. Performing an effect twice is harmless.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from validator.protocol.consensus.certificate import check_quorum
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
from validator.protocol.consensus.evidence import Evidence, find_evidence
from validator.protocol.consensus.proposal import Answer
from validator.protocol.consensus.state import (
    OBSERVATION,
    PRECOMMIT,
    PREVOTE,
    PROPOSAL,
    InstanceState,
    Judgement,
    Step,
    is_in,
    why_foreign,
)
from validator.protocol.consensus.votes import (
    AHEAD,
    BEHIND,
    Held,
    add,
    add_quorum,
    form_quorum,
    summarise_votes,
    trim,
    unformed,
    votes_missing,
    why_dropped,
)
from validator.protocol.errors import InvariantError, MalformedInput
from validator.protocol.model import NIL, Address, Digest, Statement, StatementKind, VoteQuorum

# --- the machine ------------------------------------------------------------------------------------


def on_event(a: InstanceState, event: Event, now_ms: int) -> tuple[InstanceState, tuple[Effect, ...]]:
    """Answer one event: the next state and what is to be done, in order. Statements said are unsigned."""
    turn = _Turn(a, now_ms)
    if turn.loaded:
        turn.catch_up()
    turn.take(event)
    turn.run_rules()
    return turn.finish()


def advance(
    a: InstanceState, event: Event, now_ms: int, sign: Callable[[Statement], Statement]
) -> tuple[InstanceState, tuple[Effect, ...]]:
    """``on_event`` until nothing is left to say; what is said is signed then, and the last wake time stands."""
    effects: list[Effect] = []
    wake: WakeAt | None = None
    pending: list[Event] = [event]
    for one in pending:
        a, more = on_event(a, one, now_ms)
        for effect in more:
            if isinstance(effect, SignAndBroadcast):
                signed = sign(effect.statement)
                effects.append(SignAndBroadcast(signed))
                pending.append(Received(signed))
            elif isinstance(effect, WakeAt):
                wake = effect
            else:
                effects.append(effect)
    if wake is not None:
        effects.append(wake)
    return a, tuple(effects)


def _signers(votes: VoteQuorum, own: Address | None) -> tuple[Address, ...]:
    return tuple(signer for signer, _ in votes.signatures if signer != own)


class _Turn:
    """One event's working copy of the state, with the rules as methods."""

    __slots__ = (
        "decided",
        "effects",
        "eligibility",
        "journal",
        "judgements",
        "loaded",
        "now_ms",
        "origin",
        "round_state",
        "rules",
        "touched",
        "unsigned",
        "votes",
    )

    def __init__(self, a: InstanceState, now_ms: int) -> None:
        self.origin = a
        self.rules = a.rules
        self.votes = a.votes
        self.round_state = a.round_state
        self.eligibility = a.eligibility
        self.judgements: Mapping[Digest, Judgement] = a.judgements or {}
        self.decided = a.decided
        self.unsigned = a.unsigned
        self.loaded = a.loaded
        self.journal = a.journal
        self.now_ms = now_ms
        self.effects: list[Effect] = []
        self.touched = False

    def finish(self) -> tuple[InstanceState, tuple[Effect, ...]]:
        if not self.touched:
            return self.origin, tuple(self.effects)
        before = self.origin
        wake = before.wake_ms
        moved = (
            self.round_state is not before.round_state
            or self.eligibility is not before.eligibility
            or self.decided is not None
        )
        if moved or wake is None or wake <= self.now_ms:
            wake = self.next_wake()
            if wake is not None and wake != before.wake_ms:
                self.effects.append(WakeAt(wake))
        a = InstanceState(
            self.rules,
            self.votes,
            self.round_state,
            self.eligibility,
            self.judgements,
            self.decided,
            wake,
            self.unsigned,
            self.loaded,
            self.journal,
        )
        return a, tuple(self.effects)

    def do(self, effect: Effect) -> None:
        self.effects.append(effect)

    # --- events ---

    def take(self, event: Event) -> None:
        if self.decided is not None and type(event) not in _HEEDED_WHEN_DECIDED:
            self.do(Ignore(event, "decided"))
        else:
            _TAKERS[type(event)](self, event)

    def take_tick(self, _event: Tick) -> None:
        self.touched = True

    def take_arrival(self, _event: DataArrived) -> None:
        self.touched = True
        self.ask_again()

    def take_resume(self, _event: Resume) -> None:
        """What is owed: the decision, or own words of this round again; the lock is in the state (``restore``)."""
        self.touched = True
        if self.decided is not None:
            self.do(StoreQuorum(self.decided))
            self.do(Decide(self.decided, _signers(self.decided, self.rules.own)))
            return
        self.eligibility = replace(
            self.eligibility, recovered=False, answers=frozenset(), recover_at=None, value_asked=-1, relay_at=None
        )
        self.recover()
        self.resend()
        self.ask_again()

    def take_start(self, event: Start) -> None:
        if self.eligibility.started:
            self.do(Ignore(event, "started already"))
            return
        self.touched = True
        self.eligibility = replace(self.eligibility, started=True)
        if self.round_state.step is not Step.WAITING:
            self.round_state = replace(self.round_state, started_ms=self.now_ms)
        if not self.eligibility.recovered and self.eligibility.recover_at is None:
            self.recover()

    def take_observation(self, event: Observed) -> None:
        known = self.eligibility.observation
        if known is not None:
            self.do(Ignore(event, "observed already" if known == event.value else "observed something else before"))
            return
        if event.value == NIL:
            self.do(Ignore(event, "nil is no observation"))
            return
        self.touched = True
        self.eligibility = replace(self.eligibility, observation=event.value)

    def take_recovery(self, event: OwnVotesRecovered) -> None:
        if self.eligibility.recovered or event.member not in self.rules.members or event.member == self.rules.own:
            self.do(Ignore(event, "not waiting for this member's word"))
            return
        self.touched = True
        answers = self.eligibility.answers | {event.member}
        self.eligibility = replace(self.eligibility, answers=answers, recovered=len(answers) >= self.answers_needed())

    def take_sets(self, event: SetsHeld) -> None:
        observed = self.eligibility.observed | (event.observed & self.rules.members)
        reproduced = self.eligibility.reproduced | (event.reproduced & self.rules.members)
        if (observed, reproduced) != (self.eligibility.observed, self.eligibility.reproduced):
            self.touched = True
            self.eligibility = replace(self.eligibility, observed=observed, reproduced=reproduced)

    def take_candidate(self, event: ProposeValue) -> None:
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

    def take_judgement(self, event: ProposalValidated) -> None:
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

    def take_statement(self, event: Received) -> None:
        s = event.statement
        reason = why_foreign(self.rules, s)
        foreign = not reason and s.signer == self.rules.own and not self.recognise(s)
        if self.decided is not None:
            self.do(Ignore(event, "decided"))
            return
        reason = reason or why_dropped(self.votes, s, self.floor(), self.ceiling())
        if reason:
            if reason != "known":  # a resend is not news
                self.do(Ignore(event, reason))
            return
        if s.signer != self.rules.own or foreign:
            self.do(StoreStatement(s))
        if s.signer != self.rules.own or s.round <= self.ceiling():
            self.include(s)

    def recognise(self, s: Statement) -> bool:
        """Own words come back signed, or the journal holds them, or they are not ours to know: then we are halted."""
        for said in self.unsigned:
            if said.content == s.content:
                self.touched = True
                self.unsigned = tuple(u for u in self.unsigned if u is not said)
                self.journal = {**self.journal, (s.kind, s.round): s}
                return True
        if is_in(self.journal, s):
            return True
        self.halt(s)
        return False

    def take_quorum(self, event: ReceivedQuorum) -> None:
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

    def floor(self) -> int:
        return self.round_state.round - BEHIND

    def ceiling(self) -> int:
        return self.round_state.round + AHEAD

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

    def decide(self, q: VoteQuorum) -> None:
        """Lines 49-51: n - f precommits of one round; f + 1 honest ones found the value valid, so nothing is asked."""
        if self.decided is not None:
            return
        self.decided = q
        self.round_state = replace(self.round_state, step=Step.DECIDED)
        self.do(Decide(q, _signers(q, self.rules.own)))

    def raise_valid(self, q: VoteQuorum) -> None:
        """Lines 42-43, for a polka of any round: the newest proven value is what a leader proposes again."""
        if q.round > self.round_state.valid_round:
            self.round_state = replace(self.round_state, valid_value=q.value, valid_round=q.round)
            self.judge(q.value, fresh=False)

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

    # --- what we say ---

    def is_running(self) -> bool:
        return self.eligibility.started and self.eligibility.recovered and self.decided is None

    def answers_needed(self) -> int:
        """Peers that must tell what they know of us: with us, one of them is honest."""
        return self.rules.one_honest - 1

    def recover(self) -> None:
        """Learn what we may have said and do not know (a restored snapshot, a second machine with our key)."""
        self.touched = True
        if self.rules.own is None or self.answers_needed() == 0:
            self.eligibility = replace(self.eligibility, recovered=True)
        else:
            self.eligibility = replace(self.eligibility, recover_at=self.now_ms + self.rules.timeouts.recover_ms)
            self.do(RecoverOwnVotes())

    def halt(self, s: Statement) -> None:
        if not self.eligibility.halted:
            self.touched = True
            self.eligibility = replace(self.eligibility, halted=True)
            self.do(Halt(s))

    def own_statements(self, kind: StatementKind, round: int) -> tuple[Statement, ...]:
        own = self.rules.own
        if own is None:
            return ()
        said = self.votes.of(kind, round).get(own, ())
        if not self.unsigned:
            return said
        return said + tuple(u for u in self.unsigned if u.kind is kind and u.round == round)

    def has_said(self, kind: StatementKind, round: int) -> bool:
        own = self.rules.own
        slots = self.votes.said.get((kind, round))
        return own is not None and slots is not None and own in slots

    def say(self, kind: StatementKind, value: Digest, valid_round: int = -1) -> None:
        """Say it, once: what is in the journal is never contradicted. Observers and halted members keep silent."""
        own = self.rules.own
        if own is None or self.eligibility.halted:
            return
        round = 0 if kind is OBSERVATION else self.round_state.round
        statement = Statement(
            kind, self.rules.config_digest, self.rules.instance, round, value, own, valid_round=valid_round
        )
        for earlier in self.own_statements(kind, round):
            if earlier.content != statement.content:
                raise InvariantError(f"a second {kind.name.lower()} in round {round}")
            return
        self.touched = True
        self.unsigned = (*self.unsigned, statement)
        self.do(SignAndBroadcast(statement))

    def resend(self) -> None:
        """Own statements of the current round, as signed then, with the polka a re-proposal needs, and the newest."""
        own = self.rules.own
        if own is None or self.decided is not None or not (self.votes.said or self.votes.quorums):
            return
        kinds = ((OBSERVATION, 0), *((kind, self.round_state.round) for kind in (PROPOSAL, PREVOTE, PRECOMMIT)))
        said = tuple(s for kind, round in kinds for s in self.votes.of(kind, round).get(own, ()))
        if said:
            self.do(Resend(said))
        named = [(s.valid_round, s.value) for s in said if s.valid_round >= 0]
        for round, value in dict.fromkeys([*named, (self.round_state.valid_round, self.round_state.valid_value)]):
            polka = self.votes.polka(round, value)
            if polka is not None:
                self.do(SendQuorum(polka))

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

    def is_due(self) -> bool:
        wake = self.origin.wake_ms
        return wake is not None and wake <= self.now_ms

    def wait_for_recovery(self) -> None:
        eligibility = self.eligibility
        if not eligibility.recovered and eligibility.recover_at is not None and self.now_ms >= eligibility.recover_at:
            self.eligibility = replace(eligibility, recovered=True)
            self.touched = True

    def apply_rules(self) -> bool:
        """One rule that applies; False if none does."""
        rs = self.round_state
        reached = self.round_reached()
        if reached > rs.round:
            self.start_round(reached)  # lines 55-56
            return True
        if rs.step is Step.PROPOSE and self.apply_propose():
            return True
        if rs.step is Step.PREVOTE and self.apply_prevote():
            return True
        return self.apply_precommit()

    def round_reached(self) -> int:
        """Line 55: the highest round that f + 1 members have reached; one of them is honest."""
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

    def apply_propose(self) -> bool:
        self.lead()
        verdict = self.choose_prevote()
        if verdict is None and self.round_state.valid_round == self.round_state.round:
            verdict = NIL  # the round has its polka; it waits for our precommit, not for our prevote
        if verdict is None and self.now_ms >= self.round_state.started_ms + self.propose_timeout():
            verdict = NIL  # lines 57-60
        if verdict is None:
            return False
        self.say(PREVOTE, verdict)  # lines 24, 26, 30, 32
        self.round_state = replace(self.round_state, step=Step.PREVOTE)  # lines 27, 33
        return True

    def lead(self) -> None:
        """Lines 14-19: propose the valid value again, or ask for a candidate once there is enough to build it from."""
        if not self.may_propose():
            return
        polka, round = self.polka_to_repeat(), self.round_state.round
        if polka is not None:
            self.say(PROPOSAL, polka.value, polka.round)
            self.do(SendQuorum(polka))
        elif self.eligibility.value_asked != round and self.may_build():
            self.eligibility = replace(self.eligibility, value_asked=round)
            self.do(GetValue(round))

    def polka_to_repeat(self) -> VoteQuorum | None:
        """The newest polka, if it is of an earlier round: its value is proposed again, with it."""
        rs = self.round_state
        return self.votes.polka(rs.valid_round, rs.valid_value) if rs.valid_round < rs.round else None

    def may_propose(self) -> bool:
        round, own = self.round_state.round, self.rules.own
        leads = own is not None and self.rules.leader(round) == own and not self.eligibility.halted
        proven = self.round_state.valid_round == round
        return leads and not proven and not self.own_statements(PROPOSAL, round)

    def may_build(self) -> bool:
        """All n observations and sets; a third of the timeout later those of a quorum; at half time observations.

        A member that is silent must not hold up a window for longer, and one whose set does not come is left out.
        """
        if not self.has_said(OBSERVATION, 0):
            return False
        sets, waited = len(self.eligibility.reproduced), self.now_ms - self.round_state.started_ms
        if sets >= len(self.rules.committee):
            return True
        if waited >= self.propose_timeout() // 3 and sets >= self.rules.quorum:
            return True
        return waited >= self.propose_timeout() // 2 and len(self.eligibility.observed) >= self.rules.quorum

    def choose_prevote(self) -> Digest | None:
        """Lines 22-32: what to prevote for the proposals held of this round's leader; None while undetermined."""
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
        rs, value, valid_round = self.round_state, proposal.value, proposal.valid_round
        if valid_round == -1:
            if rs.locked_round != -1 and rs.locked_value != value:
                return Answer.NO  # line 23
            if self.votes.has_polka_below(rs.round, value):
                return self.judge(value, fresh=False)  # accepted once by n - 2f honest members
            if self.rules.own is None:
                return self.judge(value, fresh=False)
            return self.judge(value, fresh=True) if self.has_said(OBSERVATION, 0) else Answer.NOT_YET
        if self.votes.polka(valid_round, value) is None:
            return Answer.NOT_YET  # line 28: the polka may still come
        if rs.locked_round > valid_round and rs.locked_value != value:
            return Answer.NO  # line 29
        return self.judge(value, fresh=False)

    def apply_prevote(self) -> bool:
        rs = self.round_state
        if rs.valid_round == rs.round and self.judge(rs.valid_value, fresh=False) is Answer.YES:
            self.lock(rs.valid_value)  # lines 36-41
            return True
        if self.votes.count(PREVOTE, rs.round, NIL) >= self.rules.quorum:
            return self.precommit_nil()  # lines 44-46
        if rs.prevote_at is None:
            if len(self.votes.of(PREVOTE, rs.round)) < self.rules.quorum:
                return False
            timeout = self.rules.timeouts.grown(self.rules.timeouts.prevote_ms, rs.round)
            self.round_state = rs = replace(rs, prevote_at=self.now_ms + timeout)  # lines 34-35
        if rs.prevote_at is not None and self.now_ms >= rs.prevote_at:
            return self.precommit_nil()  # lines 61-64
        return False

    def lock(self, value: Digest) -> None:
        rs = self.round_state
        self.round_state = replace(rs, locked_value=value, locked_round=rs.round, step=Step.PRECOMMIT)
        self.say(PRECOMMIT, value)

    def precommit_nil(self) -> bool:
        self.round_state = replace(self.round_state, step=Step.PRECOMMIT)
        self.say(PRECOMMIT, NIL)
        return True

    def apply_precommit(self) -> bool:
        rs = self.round_state
        slots = self.votes.said.get((PRECOMMIT, rs.round))
        if slots is None or len(slots) < self.rules.quorum:
            return False
        if rs.precommit_at is None:
            timeout = self.rules.timeouts.grown(self.rules.timeouts.precommit_ms, rs.round)
            self.round_state = rs = replace(rs, precommit_at=self.now_ms + timeout)  # lines 47-48
        if rs.precommit_at is not None and self.now_ms >= rs.precommit_at:
            self.start_round(rs.round + 1)  # lines 65-67
            return True
        return False

    # --- judging ---

    def judge(self, value: Digest, *, fresh: bool) -> Answer:
        """What is known of a value; asks if it was not asked in these terms before. Validity is asked once."""
        known = self.judgements.get(value)
        round = self.round_state.round
        unasked = known is None or (fresh and known.round != round and known.validity is not Answer.NO)
        if unasked:
            validity = Answer.NOT_YET if known is None else known.validity
            known = Judgement(validity, Answer.NOT_YET, round if fresh else -1)
            self.judgements = {**self.judgements, value: known}
            self.touched = True
            self.do(ValidateProposal(value, round, fresh))
        assert known is not None
        if known.validity is Answer.NO or not fresh:
            return known.validity
        if known.acceptable is Answer.NO:
            return Answer.NO
        return known.acceptable if known.validity is Answer.YES else Answer.NOT_YET

    def ask_again(self) -> None:
        """Repeat open questions of the current round, and of the proven value, and a request to build."""
        if self.decided is not None:
            return
        rs = self.round_state
        values = [rs.valid_value] if rs.valid_round >= 0 else []
        if rs.step is Step.PROPOSE:
            slots = self.votes.of(PROPOSAL, rs.round)
            values += [s.value for kept in slots.values() for s in kept]
            if self.eligibility.value_asked == rs.round and self.may_propose() and self.polka_to_repeat() is None:
                self.do(GetValue(rs.round))
        for value in dict.fromkeys(values):
            known = self.judgements.get(value)
            if known is None:
                continue
            fresh = known.round == rs.round
            if known.validity is Answer.NOT_YET or (fresh and known.acceptable is Answer.NOT_YET):
                self.do(ValidateProposal(value, rs.round, fresh))

    def sources_of(self, value: Digest) -> tuple[Address, ...]:
        """Members that can have the value, likeliest first: signers of its quorums, its voters, its proposers."""
        sources: dict[Address, None] = {}
        for key in sorted(self.votes.quorums):
            if key[2] == value:
                sources.update(dict.fromkeys(signer for signer, _ in self.votes.quorums[key].signatures))
        for kind in (PRECOMMIT, PREVOTE, PROPOSAL):
            for (said_kind, _), slots in sorted(self.votes.said.items(), key=lambda item: item[0], reverse=True):
                if said_kind == kind:
                    sources.update(dict.fromkeys(a for a in sorted(slots) if any(s.value == value for s in slots[a])))
        return tuple(member for member in sources if member != self.rules.own)

    def forget_judgements(self) -> None:
        """Only values that are still named somewhere can matter again."""
        named = {s.value for s in self.votes.statements()} | {
            self.round_state.valid_value,
            self.round_state.locked_value,
        }
        self.judgements = {value: j for value, j in self.judgements.items() if value in named}

    # --- time ---

    def propose_timeout(self) -> int:
        return self.rules.timeouts.grown(self.rules.timeouts.propose_ms, self.round_state.round)

    def heed_clock(self) -> None:
        """A clock that was set back must not make a timeout last longer than it is."""
        rs, limit = self.round_state, self.now_ms + self.rules.timeouts.max_ms
        if rs.started_ms > self.now_ms or (rs.prevote_at or 0) > limit or (rs.precommit_at or 0) > limit:
            self.round_state = replace(
                rs,
                started_ms=min(rs.started_ms, self.now_ms),
                prevote_at=None if rs.prevote_at is None else min(rs.prevote_at, limit),
                precommit_at=None if rs.precommit_at is None else min(rs.precommit_at, limit),
            )

    def relay(self) -> None:
        """While undecided, compare votes with peers at a fixed pace, and repeat open questions."""
        if self.decided is not None:
            return
        at, pace = self.eligibility.relay_at, self.rules.timeouts.relay_ms
        if at is not None and self.now_ms < at <= self.now_ms + pace:
            return
        self.eligibility = replace(self.eligibility, relay_at=self.now_ms + pace)
        if at is not None:
            self.do(SyncVotes())
            self.ask_again()

    def next_wake(self) -> int | None:
        if self.decided is not None or not self.eligibility.started:
            return None
        if not self.eligibility.recovered:
            return self.eligibility.recover_at
        rs = self.round_state
        times = [self.eligibility.relay_at, rs.precommit_at]
        if rs.step is Step.PROPOSE:
            timeout = self.propose_timeout()
            times.append(rs.started_ms + timeout)
            if self.may_propose():
                times += [rs.started_ms + timeout // 3, rs.started_ms + timeout // 2]
        elif rs.step is Step.PREVOTE:
            times.append(rs.prevote_at)
        due = [t for t in times if t is not None and t > self.now_ms]
        return min(due) if due else None


_TAKERS: Mapping[type[Event], Callable[[_Turn, Any], None]] = {
    Resume: _Turn.take_resume,
    Start: _Turn.take_start,
    Observed: _Turn.take_observation,
    OwnVotesRecovered: _Turn.take_recovery,
    Received: _Turn.take_statement,
    ReceivedQuorum: _Turn.take_quorum,
    SetsHeld: _Turn.take_sets,
    ProposeValue: _Turn.take_candidate,
    ProposalValidated: _Turn.take_judgement,
    DataArrived: _Turn.take_arrival,
    Tick: _Turn.take_tick,
}
_HEEDED_WHEN_DECIDED = frozenset({Resume, Tick, Received, ReceivedQuorum})


def why_ignored(a: InstanceState, s: Statement) -> str:
    """Why a statement would be ignored; "" if it is new and would be kept. For the door, before the state is locked."""
    if a.decided is not None:
        return "decided"
    return why_foreign(a.rules, s) or why_dropped(a.votes, s, a.round - BEHIND, a.round + AHEAD)


# --- relay ------------------------------------------------------------------------------------------


def summarise(a: InstanceState) -> Held:
    """What we hold, for a peer to answer with what we lack."""
    return summarise_votes(a.votes)


def missing_for(a: InstanceState, held: Held) -> tuple[tuple[Statement, ...], tuple[VoteQuorum, ...]]:
    """What a peer that holds ``held`` lacks. Once decided, the certificate says it all."""
    if a.decided is not None:
        return (), (a.decided,)
    return votes_missing(a.votes, held, a.rules.quorum)


def describe_wait(a: InstanceState) -> str:
    """What the instance waits for, in words for the status page."""
    waits = _describe_wait(a)
    return f"halted: {waits}" if a.eligibility.halted and a.decided is None else waits


def _describe_wait(a: InstanceState) -> str:
    rs, eligibility, rules = a.round_state, a.eligibility, a.rules
    if a.decided is not None:
        return "decided"
    if not eligibility.started:
        return "cut-off"
    if not eligibility.recovered:
        return "peers' word on own statements"
    if rs.step is Step.PROPOSE:
        if a.leader is not None and a.leader == rules.own:
            return f"sets of {len(eligibility.reproduced)}/{len(rules.committee)} observers"
        return "a proposal, or data to judge it"
    kind = PREVOTE if rs.step is Step.PREVOTE else PRECOMMIT
    return f"{len(a.votes.of(kind, rs.round))}/{rules.quorum} {kind.name.lower()}s of round {rs.round}"
