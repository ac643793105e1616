"""An account of one member in one instance, kept from what it heard: what it may say, what it must, and when.

The paper's lines once more (arXiv 1807.04938, as the design restates them), written apart from the machine and in
another form: the account hears every event that the member took, keeps what is to be kept, and after every saved step
compares. A vote needs its reason, a timer its quorum, a new round its f + 1 members or its timeout; and what is due
must have happened, so that nothing waits for ever behind a condition that is too strict.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from validator.protocol.consensus.events import (
    Decide,
    Effect,
    Event,
    GetValue,
    Observed,
    OwnVotesRecovered,
    ProposalValidated,
    ProposeValue,
    Received,
    ReceivedQuorum,
    Resume,
    SendQuorum,
    SetsHeld,
    SignAndBroadcast,
    Start,
    StoreEvidence,
    StoreQuorum,
    StoreStatement,
    ValidateProposal,
)
from validator.protocol.consensus.proposal import Answer
from validator.protocol.consensus.state import InstanceState, Step, Timeouts
from validator.protocol.hashing import instance_subject, order_committee
from validator.protocol.model import NIL, Address, Digest, Statement, StatementKind, VoteQuorum

if TYPE_CHECKING:
    from tests.simulator.node import Key

OBSERVATION, PROPOSAL = StatementKind.OBSERVATION, StatementKind.PROPOSAL
PREVOTE, PRECOMMIT = StatementKind.PREVOTE, StatementKind.PRECOMMIT
YES, NO, NOT_YET = Answer.YES, Answer.NO, Answer.NOT_YET
BEHIND, AHEAD = 16, 2
"""Rounds kept around the own one."""
Said = tuple[Digest, int]
"""(value, valid round)."""


class Mismatch(Exception):
    """What the member did is not what follows. ``name``: of the invariant."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


class Account:
    """Rounds and kinds are keyed as round * 8 + kind: these tables are asked at every step."""

    def __init__(self, key: Key, own: Address, committee: tuple[Address, ...], timeouts: Timeouts) -> None:
        n = len(committee)
        self.key = key
        self.own = own
        self.members = frozenset(committee)
        self.faulty = (n - 1) // 3
        self.quorum = n - self.faulty
        self.size = n
        self.leaders = order_committee(sorted(committee), key[0], instance_subject(key[1]))
        self.timeouts = timeouts
        self.round = 0
        self.slots: dict[int, dict[Address, list[Said]]] = {}
        self.tally: dict[tuple[int, Digest], int] = {}
        self.ahead: dict[Address, Statement] = {}
        self.newest: dict[Address, int] = {}
        self.spoke: dict[Address, int] = {}
        """The same, of single statements alone: quorums are read after them where both are rows."""
        self.from_rows = False
        self.quorums: set[tuple[int, Digest]] = set()
        self.polka: tuple[int, Digest] = (-1, NIL)
        """The newest: round and value."""
        self.said: dict[int, Statement] = {}
        self.locks: list[tuple[int, Digest]] = [(-1, NIL)]
        self.validity: dict[Digest, Answer] = {}
        self.acceptable: dict[tuple[Digest, int], Answer] = {}
        self.observed: Digest | None = None
        self.started = False
        self.answers: set[Address] = set()
        self.asked_ms: int | None = None
        self.recovered = False
        self.sets: tuple[frozenset[Address], frozenset[Address]] = (frozenset(), frozenset())
        self.may_build = -1
        self.halted = False
        self.decided = False
        self.fresh_quorums: list[tuple[int, Digest]] = []
        self.fresh_pairs = 0

    # --- hearing ---

    def follow(
        self,
        event: Event,
        rows: Sequence[Statement],
        before: InstanceState,
        after: InstanceState,
        effects: tuple[Effect, ...],
        now: int,
    ) -> None:
        """One step of the member that is saved (or changed nothing), ``rows`` looked at first. Raises Mismatch."""
        if self.decided:
            self.follow_decided((*map(Received, rows), event), after)
            return
        self.fresh_quorums = []
        self.fresh_pairs = 0
        was_halted = self.halted
        self.from_rows = True
        for s in rows:
            self.hear(Received(s), now)
        self.from_rows = False
        kept = self.hear(event, now) if not self.decided else False
        rs, old = after.round_state, before.round_state
        says = [e.statement for e in effects if type(e) is SignAndBroadcast]
        if rs is not old and rs.round != self.round:
            self.enter(rs.round, before, now)
        for e in effects:
            if type(e) is ValidateProposal:
                self.validity.setdefault(e.value, NOT_YET)
        polka = self.polka  # before what it says itself completes another
        for s in says:
            self.accept_own(s)
        if self.decided:
            if not any(type(e) is Decide for e in effects):
                raise Mismatch("kept", "a certificate is complete, and nothing decided")
            self.check_kept(event, kept, effects, looked=before.loaded)
            return
        if says:
            if was_halted:
                raise Mismatch("halted", f"{_text(says[0])}: halted, yet it speaks")
            for s in says:
                self.justify(s, event, polka, before, after, now)
        if kept or self.fresh_quorums:
            self.check_kept(event, kept, effects, looked=before.loaded)
        if after is not before:
            self.compare(event, before, after, effects, now)

    def follow_decided(self, events: Iterable[Event], after: InstanceState) -> None:
        """Nothing is kept any more; only what bears the own signature is still looked at."""
        for event in events:
            heard: Iterable[Statement] = ()
            if type(event) is Received:
                heard = (event.statement,)
            elif type(event) is ReceivedQuorum and self.is_genuine(event.quorum):
                heard = event.quorum.statements()
            for s in heard:
                if s.signer == self.own and self.is_fit(s):
                    self.hear_own(s)
        if after.eligibility.halted != self.halted:
            raise Mismatch("halted", "an own statement that it had not said, heard after the decision")

    def hear(self, event: Event, now: int) -> bool:
        """Whether it was a statement of another member that is to be kept."""
        kind = type(event)
        if kind is Received:
            s: Statement = event.statement  # type: ignore[union-attr]
            if not self.is_fit(s):
                return False
            if s.signer == self.own:
                self.hear_own(s)
                if s.round > self.round + AHEAD:
                    return False
            return self.keep(s)
        if kind is ReceivedQuorum:
            self.hear_quorum(event.quorum)  # type: ignore[union-attr]
        elif kind is ProposalValidated:
            self.hear_answer(event)  # type: ignore[arg-type]
        elif kind is SetsHeld:
            observed, reproduced = self.sets
            self.sets = (
                observed | event.observed & self.members,  # type: ignore[union-attr]
                reproduced | event.reproduced & self.members,  # type: ignore[union-attr]
            )
        elif kind is Observed:
            self.observed = self.observed or event.value  # type: ignore[union-attr]
        elif kind is Resume:
            self.recovered, self.answers, self.asked_ms = False, set(), now
            self.may_build = -1
        elif kind is Start:
            self.started = True
            self.asked_ms = now if self.asked_ms is None else self.asked_ms
        elif kind is OwnVotesRecovered and event.member in self.members and event.member != self.own:  # type: ignore[union-attr]
            self.answers.add(event.member)  # type: ignore[union-attr]
        return False

    def is_fit(self, s: Statement) -> bool:
        if (s.config_digest, s.instance) != self.key or s.signer not in self.members or s.round < 0:
            return False
        if s.kind == OBSERVATION:
            return s.round == 0 and s.value != NIL and s.valid_round == -1
        if s.kind == PROPOSAL:
            leads = self.leaders[s.round % self.size] == s.signer
            return leads and s.value != NIL and -1 <= s.valid_round < s.round
        return s.valid_round == -1

    def keep(self, s: Statement) -> bool:
        """At most two of a signer, kind and round; of rounds far ahead the newest only; of rounds long past none."""
        signer, round = s.signer, s.round
        if s.kind != OBSERVATION:
            if round < self.round - BEHIND:
                return False
            newer = round > (self.spoke if self.from_rows else self.newest).get(signer, -1)
            if round > self.round + AHEAD and not newer:
                return False
            if newer:
                self.spoke[signer] = round
                self.newest[signer] = max(round, self.newest.get(signer, -1))
            if round > self.round + AHEAD:
                self.ahead[signer] = s
                return True
        at = round * 8 + s.kind
        slots = self.slots.get(at)
        if slots is None:
            slots = self.slots[at] = {}
        kept = slots.get(signer)
        said = (s.value, s.valid_round)
        if kept is None:
            slots[signer] = [said]
        elif len(kept) == 2 or said in kept:
            return False
        else:
            kept.append(said)
            self.fresh_pairs += 1
        if s.kind >= PREVOTE:
            vote = (at, s.value)
            count = self.tally[vote] = self.tally.get(vote, 0) + 1
            if count == self.quorum and s.value != NIL:
                self.prove(at, s.value)
        return True

    def hear_quorum(self, q: VoteQuorum) -> None:
        if not self.is_genuine(q):
            return
        votes = q.statements()
        at = q.round * 8 + q.kind
        for s in votes:
            if s.signer == self.own:
                self.hear_own(s)
        old = q.kind == PREVOTE and q.round < self.round - BEHIND and q.round <= self.polka[0]
        if old or (at, q.value) in self.quorums:
            return
        self.prove(at, q.value)
        for s in votes:
            self.newest[s.signer] = max(s.round, self.newest.get(s.signer, -1))
            self.keep(s)

    def is_genuine(self, q: VoteQuorum) -> bool:
        signers = [signer for signer, _ in q.signatures]
        return (
            q.kind in (PREVOTE, PRECOMMIT)
            and (q.config_digest, q.instance) == self.key
            and q.value != NIL
            and q.round >= 0
            and len(signers) >= self.quorum
            and len(set(signers)) == len(signers)
            and self.members.issuperset(signers)
        )

    def hear_own(self, s: Statement) -> None:
        """Whatever bears its signature and is not in its journal halts it, however it came."""
        known = self.said.get(s.round * 8 + s.kind)
        if known is None or known.content != s.content:
            self.halted = True

    def prove(self, at: int, value: Digest) -> None:
        if (at, value) in self.quorums:
            return
        self.quorums.add((at, value))
        self.fresh_quorums.append((at, value))
        round, kind = divmod(at, 8)
        if kind == PRECOMMIT:
            self.decided = True
        elif round > self.polka[0]:
            self.polka = (round, value)

    def hear_answer(self, answer: ProposalValidated) -> None:
        if answer.value not in self.validity:
            return  # not asked
        if self.validity[answer.value] is NOT_YET:
            self.validity[answer.value] = answer.validity
        self.acceptable[answer.value, answer.round] = answer.acceptable

    def accept_own(self, s: Statement) -> None:
        self.said[s.round * 8 + s.kind] = s
        self.keep(s)
        if s.kind == PRECOMMIT and s.value != NIL:
            self.locks.append((s.round, s.value))

    def enter(self, round: int, before: InstanceState, now: int) -> None:
        """Another round: that it may be entered, and what comes within reach with it, or leaves it."""
        due = before.round_state.precommit_at
        by_timeout = due is not None and now >= due and round >= self.round + 1
        base = self.round + 1 if by_timeout else self.round
        if round != base and round > max(base, self.reached()):
            raise Mismatch("reasons", f"round {round} after {self.round}: neither f + 1 members there nor a timeout")
        if round < self.round:
            raise Mismatch("no-lower-round", f"round {round} after {self.round}")
        self.round = round
        for signer, s in list(self.ahead.items()):
            if s.round <= round + AHEAD:
                del self.ahead[signer]
                self.keep(s)
        floor = (round - BEHIND) * 8
        if floor > 0:
            self.slots = {at: slots for at, slots in self.slots.items() if at >= floor or at % 8 == OBSERVATION}
            self.tally = {vote: count for vote, count in self.tally.items() if vote[0] >= floor}
            newest = (self.polka[0] * 8 + PREVOTE, self.polka[1])
            self.quorums = {q for q in self.quorums if q[0] >= floor or q[0] % 8 == PRECOMMIT or q == newest}
        if self.validity:
            named = {s.value for s in self.ahead.values()} | {self.polka[1], self.locks[-1][1]}
            named |= {value for slots in self.slots.values() for kept in slots.values() for value, _ in kept}
            self.validity = {value: answer for value, answer in self.validity.items() if value in named}

    def reached(self) -> int:
        """Line 55: the highest round in which f + 1 members were heard, or the own one."""
        rounds = sorted(self.newest.values(), reverse=True)
        return max(self.round, rounds[self.faulty]) if len(rounds) > self.faulty else self.round

    # --- what may be said ---

    def justify(
        self,
        s: Statement,
        event: Event,
        polka: tuple[int, Digest],
        before: InstanceState,
        after: InstanceState,
        now: int,
    ) -> None:
        if not (self.started and after.eligibility.recovered):
            raise Mismatch("reasons", f"{_text(s)}: before it may speak at all")
        if s.kind == OBSERVATION:
            if s.value != self.observed:
                raise Mismatch("reasons", f"{_text(s)}: not what was observed")
        elif s.kind == PROPOSAL:
            self.justify_proposal(s, event, polka)
        elif s.kind == PREVOTE:
            allowed = self.prevotes(s.round, before if before.round_state.round == s.round else after, now)
            if s.value not in allowed:
                raise Mismatch("reasons", f"{_text(s)}: what it heard asks for {_names(allowed)}")
        else:
            self.justify_precommit(s, polka, before, now)

    def justify_proposal(self, s: Statement, event: Event, polka: tuple[int, Digest]) -> None:
        if self.leaders[s.round % self.size] != self.own:
            raise Mismatch("reasons", f"{_text(s)}: does not lead")
        round, value = polka
        if round >= 0 and (s.valid_round, s.value) != polka:
            raise Mismatch("reasons", f"{_text(s)}: {value.hex()[:6]} is proven in round {round}")
        if round >= 0:
            return
        asked = type(event) is ProposeValue and (event.round, event.value) == (s.round, s.value)
        if s.valid_round != -1 or not asked or OBSERVATION not in self.said:
            raise Mismatch("reasons", f"{_text(s)}: no candidate of this round, or before its own observation")

    def prevotes(self, round: int, state: InstanceState, now: int) -> set[Digest]:
        """Lines 22 to 33 and 57 to 60: the values that may be prevoted now; none while that is open."""
        slots = self.slots.get(round * 8 + PROPOSAL, {})
        proposals = slots.get(self.leaders[round % self.size], [])
        answers = {said: self.answer(round, *said) for said in proposals}
        good = {value for (value, _), answer in answers.items() if answer is YES}
        if good:
            return good
        refused = bool(answers) and all(answer is NO for answer in answers.values())
        late = now >= state.round_state.started_ms + self.grown(self.timeouts.propose_ms, round)
        return {NIL} if refused or late or self.polka[0] == round else set()

    def answer(self, round: int, value: Digest, valid_round: int) -> Answer:
        locked_round, locked_value = self.lock_before(round)
        validity = self.validity.get(value, NOT_YET)
        against = locked_round != -1 and locked_value != value
        if valid_round >= 0:
            if (valid_round * 8 + PREVOTE, value) not in self.quorums:
                return NOT_YET
            return NO if against and locked_round > valid_round else validity
        if against:
            return NO
        if any(v == value and at % 8 == PREVOTE and at // 8 < round for at, v in self.quorums):
            return validity
        if OBSERVATION not in self.said:
            return NOT_YET
        acceptable = self.acceptable.get((value, round), NOT_YET)
        if NO in (validity, acceptable):
            return NO
        return acceptable if validity is YES else NOT_YET

    def lock_before(self, round: int) -> tuple[int, Digest]:
        return next(lock for lock in reversed(self.locks) if lock[0] < round)

    def justify_precommit(self, s: Statement, polka: tuple[int, Digest], before: InstanceState, now: int) -> None:
        """Lines 36 to 46 and 61 to 64."""
        at = s.round * 8 + PREVOTE
        known = self.polka if s.value != NIL else polka
        proven = known[1] if known[0] == s.round else NIL
        ready = proven != NIL and self.validity.get(proven) is YES
        if s.value != NIL:
            if not ready or s.value != proven:
                raise Mismatch("reasons", f"{_text(s)}: no polka of this round for it, or not found valid")
            return
        due = before.round_state.prevote_at if before.round_state.round == s.round else None
        lost = self.tally.get((at, NIL), 0) >= self.quorum or (due is not None and now >= due)
        if ready or not lost:
            raise Mismatch("reasons", f"{_text(s)}: neither a quorum of nil nor a timeout, or a valid value is proven")

    # --- what must have happened ---

    def check_kept(self, event: Event, kept: bool, effects: tuple[Effect, ...], *, looked: bool) -> None:
        """Each statement, quorum and pair of evidence that is new is persisted, and each quorum is passed on.

        ``looked``: the state came from its rows, and all the evidence in them is told again.
        """
        if kept and not any(type(e) is StoreStatement and e.statement is event.statement for e in effects):  # type: ignore[union-attr]
            raise Mismatch("kept", f"{_text(event.statement)} was heard and is not kept")  # type: ignore[union-attr]
        pairs = sum(type(e) is StoreEvidence for e in effects)
        if pairs < self.fresh_pairs or (pairs > self.fresh_pairs and not looked):
            raise Mismatch("kept", f"{self.fresh_pairs} new pairs of evidence, and another number is kept")
        if self.fresh_quorums:
            new = set(self.fresh_quorums)
            for wanted in (StoreQuorum, SendQuorum):
                done = {(e.quorum.round * 8 + e.quorum.kind, e.quorum.value) for e in effects if type(e) is wanted}
                if not new <= done:
                    raise Mismatch("kept", f"a quorum is complete, and there is no {wanted.__name__}")

    def compare(
        self, event: Event, before: InstanceState, after: InstanceState, effects: tuple[Effect, ...], now: int
    ) -> None:
        """The saved state with what follows from all that was heard."""
        rs, old, eligibility = after.round_state, before.round_state, after.eligibility
        if (rs.valid_round, rs.valid_value) != self.polka:
            raise Mismatch("reasons", f"valid value of round {rs.valid_round}, newest polka of {self.polka[0]}")
        lock = (rs.locked_round, rs.locked_value)
        if self.halted and rs.locked_round > max(self.locks)[0]:
            self.locks.append(lock)  # it follows, and says nothing
        if lock != max(self.locks):
            raise Mismatch("lock-kept", f"locked in round {rs.locked_round}, said so in round {max(self.locks)[0]}")
        if eligibility.halted != self.halted:
            raise Mismatch("halted", "an own statement that it had not said" if self.halted else "for nothing")
        self.compare_recovery(eligibility.recovered, now)
        if not (self.started and self.recovered):
            return
        if rs is not old:
            self.compare_times(before, after, now)
        self.compare_rules(before, after, effects, now)
        self.compare_wake(after, now)

    def compare_recovery(self, recovered: bool, now: int) -> None:
        """It speaks when f others told what they know of it, or after its patience; not before, and then at once."""
        asked = self.asked_ms is not None
        waited = self.asked_ms is not None and now >= self.asked_ms + self.timeouts.recover_ms
        enough = asked and len(self.answers) >= self.faulty
        self.recovered = self.recovered or enough or (waited and self.started)
        if recovered != self.recovered:
            raise Mismatch("recall", f"{len(self.answers)} of {self.faulty} answers, recovered: {recovered}")

    def compare_times(self, before: InstanceState, after: InstanceState, now: int) -> None:
        """Timers start now or stand: each began when its quorum was there."""
        rs, old, t, round = after.round_state, before.round_state, self.timeouts, self.round
        entered = rs.round != old.round or old.step is Step.WAITING
        if entered and rs.started_ms != now:
            raise Mismatch("timers", f"round {round} began at {now}, noted {rs.started_ms}")
        if not entered and rs.started_ms != old.started_ms:
            raise Mismatch("timers", f"round {round}: its begin was moved")
        for name, at, was, base in (
            ("prevotes", rs.prevote_at, old.prevote_at, t.prevote_ms),
            ("precommits", rs.precommit_at, old.precommit_at, t.precommit_ms),
        ):
            stands = not entered and was is not None
            if at != was if stands else at is not None and at != now + self.grown(base, round):
                raise Mismatch("timers", f"round {round}: the wait for {name} ends at {at}, was {was}, it is {now}")

    def compare_rules(self, before: InstanceState, after: InstanceState, effects: tuple[Effect, ...], now: int) -> None:
        """No rule that applies is left: the machine moves as far as what it heard allows."""
        rs, round, quorum = after.round_state, self.round, self.quorum
        if self.reached() > round:
            raise Mismatch("rounds", f"in round {round}, though f + 1 members are in {self.reached()}")
        step, at = rs.step, round * 8
        prevoted = len(self.slots.get(at + PREVOTE, ()))
        precommitted = len(self.slots.get(at + PRECOMMIT, ()))
        if (rs.precommit_at is not None) != (precommitted >= quorum):
            raise Mismatch("timers", f"round {round}: {precommitted} precommitted, the wait is {rs.precommit_at}")
        if rs.precommit_at is not None and now >= rs.precommit_at:
            raise Mismatch("rounds", f"round {round} is over")
        if step is Step.PREVOTE:
            if (rs.prevote_at is not None) != (prevoted >= quorum):
                raise Mismatch("timers", f"round {round}: {prevoted} prevoted, the wait is {rs.prevote_at}")
            proven = self.polka[0] == round and self.validity.get(self.polka[1]) is YES
            lost = self.tally.get((at + PREVOTE, NIL), 0) >= quorum
            if proven or lost or (rs.prevote_at is not None and now >= rs.prevote_at):
                raise Mismatch("reasons", f"round {round}: the precommit is due")
        elif rs.prevote_at is not None and prevoted < quorum:
            raise Mismatch("timers", f"round {round}: the wait for prevotes began with {prevoted}")
        elif step is Step.PROPOSE and self.prevotes(round, after, now):
            raise Mismatch("reasons", f"round {round}: the prevote is due")
        elif step is Step.WAITING:
            raise Mismatch("rounds", "round 0 is to begin")
        if not self.halted:
            self.compare_words(after, effects, now)

    def compare_words(self, after: InstanceState, effects: tuple[Effect, ...], now: int) -> None:
        rs, at, said = after.round_state, self.round * 8, self.said
        if self.observed is not None and OBSERVATION not in said:
            raise Mismatch("reasons", "the observation is due")
        for kind, step in ((PREVOTE, Step.PREVOTE), (PRECOMMIT, Step.PRECOMMIT)):
            if (rs.step >= step) != (at + kind in said):
                raise Mismatch("reasons", f"round {self.round}: step {rs.step.name}, and its {kind.name} is not so")
        if self.leaders[self.round % self.size] == self.own:
            self.compare_lead(after, effects, now)

    def compare_lead(self, after: InstanceState, effects: tuple[Effect, ...], now: int) -> None:
        """A leader proposes the proven value at once, and builds once there is enough to build from."""
        round = self.round
        asked = any(type(e) is GetValue for e in effects)
        open_ = (
            after.round_state.step is Step.PROPOSE and round * 8 + PROPOSAL not in self.said and self.polka[0] != round
        )
        if open_ and self.polka[0] >= 0:
            raise Mismatch("reasons", f"round {round}: the proven value is to be proposed")
        if not open_:
            return
        timeout, waited = self.grown(self.timeouts.propose_ms, round), now - after.round_state.started_ms
        observed, reproduced = self.sets
        enough = OBSERVATION in self.said and (
            len(reproduced) >= self.size
            or (waited >= timeout // 3 and len(reproduced) >= self.quorum)
            or (waited >= timeout // 2 and len(observed) >= self.quorum)
        )
        if enough and self.may_build != round and not asked:
            raise Mismatch("reasons", f"round {round}: there is enough to build from")
        if asked and not enough:
            raise Mismatch("reasons", f"round {round}: too little to build from")
        if asked:
            self.may_build = round

    def compare_wake(self, after: InstanceState, now: int) -> None:
        """It is woken in time for whatever it waits for."""
        rs, wake = after.round_state, after.wake_ms
        due = [after.eligibility.relay_at, rs.precommit_at]
        if rs.step is Step.PREVOTE:
            due.append(rs.prevote_at)
        elif rs.step is Step.PROPOSE:
            timeout = self.grown(self.timeouts.propose_ms, self.round)
            due.append(rs.started_ms + timeout)
            leads = self.leaders[self.round % self.size] == self.own and not self.halted
            if leads and self.round * 8 + PROPOSAL not in self.said and self.polka[0] != self.round:
                due += [rs.started_ms + timeout // 3, rs.started_ms + timeout // 2]
        times = [t for t in due if t is not None and t > now]
        if wake is None or wake <= now or (times and wake > min(times)):
            raise Mismatch("wakes", f"woken at {wake}, waits until {min(times, default=None)}, it is {now}")
        if after.eligibility.relay_at is None or not now < after.eligibility.relay_at <= now + self.timeouts.relay_ms:
            raise Mismatch("wakes", f"votes are compared at {after.eligibility.relay_at}, it is {now}")

    def grown(self, base_ms: int, round: int) -> int:
        return min(base_ms + self.timeouts.delta_ms * round, max(base_ms, self.timeouts.max_ms))


def _text(s: Statement) -> str:
    value = s.value.hex()[:6] if s.value != NIL else "nil"
    again = f" again from {s.valid_round}" if s.valid_round >= 0 else ""
    return f"round {s.round} {s.kind.name} {value}{again}"


def _names(values: set[Any]) -> str:
    return " or ".join(sorted("nil" if v == NIL else v.hex()[:6] for v in values)) or "waiting"
