"""One step's working copy: the state of an instance taken apart, and what the rules say, ask and wait for with it.

``round`` has the rules. Here is what they are written in: to say something once and never against the journal, to have
a value judged, to be told whose turn it is, and when to be woken. ``finish`` puts the state together again.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from validator.protocol.consensus.events import (
    Effect,
    GetValue,
    Halt,
    RecoverOwnVotes,
    Resend,
    SendQuorum,
    SignAndBroadcast,
    SyncVotes,
    ValidateProposal,
    WakeAt,
)
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
)
from validator.protocol.consensus.votes import AHEAD, BEHIND
from validator.protocol.errors import InvariantError
from validator.protocol.model import Address, Digest, Statement, StatementKind, VoteQuorum


class WorkingCopy:
    """The state in parts that change, and the effects so far. Nothing changes unless ``touched``."""

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

    def floor(self) -> int:
        return self.round_state.round - BEHIND

    def ceiling(self) -> int:
        return self.round_state.round + AHEAD

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

    # --- whose turn it is ---

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

    def signers_of(self, q: VoteQuorum) -> tuple[Address, ...]:
        """Members that can have a decided value, ourselves left out."""
        return tuple(signer for signer, _ in q.signatures if signer != self.rules.own)

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

    def is_due(self) -> bool:
        wake = self.origin.wake_ms
        return wake is not None and wake <= self.now_ms

    def wait_for_recovery(self) -> None:
        eligibility = self.eligibility
        if not eligibility.recovered and eligibility.recover_at is not None and self.now_ms >= eligibility.recover_at:
            self.eligibility = replace(eligibility, recovered=True)
            self.touched = True

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
