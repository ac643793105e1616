"""One member hears whatever can be said to it, in any order, and does what its account says, step by step.

The account (``tests.simulator.account``) is the paper once more, apart from the machine. Walks are drawn by number and
replay exactly.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace

import pytest

from tests.simulator.account import Account
from validator.protocol.codec.certificate import build_quorum
from validator.protocol.consensus.driver import advance
from validator.protocol.consensus.events import (
    DataArrived,
    Event,
    GetValue,
    Observed,
    OwnVotesRecovered,
    ProposalValidated,
    ProposeValue,
    Received,
    ReceivedQuorum,
    Resume,
    SetsHeld,
    Start,
    Tick,
    ValidateProposal,
)
from validator.protocol.consensus.proposal import Answer
from validator.protocol.consensus.state import InstanceState, Rules, Timeouts, encode_progress, restore
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
VALUES = [Digest(letter * 32) for letter in (b"v", b"w")]
ANSWERS = (Answer.YES, Answer.YES, Answer.YES, Answer.NO, Answer.NOT_YET)
STEPS = 120
WALKS = 8


class Walker:
    """Draws events that lead somewhere: votes of rounds near the own one, often for the same value."""

    def __init__(self, number: int) -> None:
        self.rng = rng = random.Random(number)
        self.members = [Address(bytes([i + 1]) * 20) for i in range(rng.choice((1, 4, 4, 4, 5, 7)))]
        own = rng.choice(self.members)
        rules = Rules.of(INSTANCE, CONFIG, self.members, own, Timeouts())
        self.a = InstanceState(rules)
        self.account = Account((CONFIG, INSTANCE), own, rules.committee, rules.timeouts)
        self.journal: dict[tuple[int, int], Statement] = {}
        self.rows: list[Statement] = []
        self.now = 1_000_000
        self.signed = 0
        self.favourite = rng.choice(VALUES)
        self.pending: list[Event] = [Resume()]
        self.twin = rng.random() < 0.3

    def sign(self, s: Statement) -> Statement:
        self.signed += 1
        signed = replace(s, signature=self.signed.to_bytes(65, "big"))
        self.journal[s.kind, s.round] = signed
        return signed

    def walk(self) -> None:
        for _ in range(STEPS):
            if self.rng.random() < 0.05:
                self.reload()
            event = self.pending.pop(0) if self.pending else self.draw()
            before = self.a
            self.a, effects = advance(before, event, self.now, self.sign)
            self.account.follow(event, self.rows if before.loaded else (), before, self.a, effects, self.now)
            self.rows = [] if before.loaded else self.rows
            for effect in effects:
                if isinstance(effect, ValidateProposal) and self.rng.random() < 0.9:
                    self.pending.append(self.judged(effect))
                elif isinstance(effect, GetValue) and self.rng.random() < 0.9:
                    self.pending.append(ProposeValue(effect.round, self.rng.choice(VALUES)))

    def judged(self, question: ValidateProposal) -> ProposalValidated:
        return ProposalValidated(question.value, question.round, self.rng.choice(ANSWERS), self.rng.choice(ANSWERS))

    def reload(self) -> None:
        """As the next worker finds it in the store, with what the door took in meanwhile. Nothing was lost."""
        a = self.a
        own = {s.signature for s in self.journal.values()}
        held = [s for s in a.votes.statements() if s.signature not in own]
        if self.rng.random() < 0.5:
            self.rows += [s for s in self.votes() if s.signer != a.rules.own or self.twin]
        quorums = tuple(a.votes.quorums.values())
        b = restore(a.rules, encode_progress(a), self.journal.values(), (*held, *self.rows), quorums)
        for field in ("round_state", "eligibility", "judgements", "decided", "wake_ms", "journal"):
            assert (getattr(b, field) or {}) == (getattr(a, field) or {}), field
        assert b.votes.quorums == a.votes.quorums
        assert self.rows or a.eligibility.halted or set(b.votes.statements()) == set(a.votes.statements())
        assert self.rows or b.votes.ahead == a.votes.ahead
        self.a = b

    # --- what can be said to it ---

    def draw(self) -> Event:
        kind = self.rng.choice(
            ("votes", "votes", "votes", "votes", "proposal", "quorum", "time", "time", "time", "other")
        )
        if kind == "votes":
            self.pending += [Received(s) for s in self.votes()]
        elif kind == "proposal":
            return Received(self.proposal())
        elif kind == "quorum" and self.rng.random() < 0.4:
            return ReceivedQuorum(self.quorum())
        elif kind == "time":
            wake = self.a.wake_ms
            early = self.rng.choice((0, 0, 0, 1))
            self.now = max(self.now, wake - early) if wake is not None and self.rng.random() < 0.8 else self.now + 200
        elif kind == "other":
            return self.rng.choice(self.others())
        return self.pending.pop(0) if self.pending else Tick()

    def others(self) -> list[Event]:
        some = frozenset(m for m in self.members if self.rng.random() < 0.7)
        fewer = frozenset(m for m in some if self.rng.random() < 0.8)
        return [
            Start(),
            Start(),
            Observed(VALUES[0]),
            OwnVotesRecovered(self.rng.choice(self.members)),
            OwnVotesRecovered(Address(b"x" * 20)),
            SetsHeld(some | {Address(b"x" * 20)}, fewer),
            SetsHeld(frozenset(self.members), frozenset(self.members)),
            DataArrived(),
            Resume(),
            ProposeValue(self.a.round, self.rng.choice([*VALUES, NIL])),
            ProposalValidated(
                self.rng.choice(VALUES), self.a.round, self.rng.choice(ANSWERS), self.rng.choice(ANSWERS)
            ),
        ]

    def round(self) -> int:
        return max(0, self.a.round + self.rng.choice((0, 0, 0, 0, 0, 0, 1, 1, 2, 3, -1, -1, -2, 9, 16, -16, -17)))

    def statement(self, kind: StatementKind, round: int, value: Digest, signer: Address, valid: int = -1) -> Statement:
        self.signed += 1
        return Statement(kind, CONFIG, INSTANCE, round, value, signer, valid, self.signed.to_bytes(65, "big"))

    def votes(self) -> list[Statement]:
        """Of some members, mostly one vote of one round."""
        rng, round = self.rng, self.round()
        kind = rng.choice((OBSERVATION, PREVOTE, PREVOTE, PREVOTE, PRECOMMIT, PRECOMMIT))
        value = rng.choice((self.favourite, self.favourite, *VALUES, NIL, NIL))
        if kind is OBSERVATION:
            round, value = 0, rng.choice(VALUES)
        if kind is PRECOMMIT and value != NIL and rng.random() < 0.7:
            value = NIL  # else every walk ends soon
        chosen = [m for m in self.members if rng.random() < 0.6 and (m != self.a.rules.own or self.heard_own())]
        return [self.statement(kind, round, value, m) for m in chosen]

    def heard_own(self) -> bool:
        return self.twin and self.rng.random() < 0.1

    def proposal(self) -> Statement:
        rng, round = self.rng, self.round()
        leader = self.a.rules.leader(round)
        assert leader is not None
        if leader == self.a.rules.own and not self.heard_own():
            round += 1
            leader = self.a.rules.leader(round)
            assert leader is not None
        valid = rng.choice((-1, -1, round - 1, self.a.round_state.valid_round, rng.randrange(-1, round + 1)))
        named = self.a.round_state.valid_value if valid == self.a.round_state.valid_round != -1 else self.favourite
        return self.statement(PROPOSAL, round, rng.choice((named, named, *VALUES)), leader, valid)

    def quorum(self) -> VoteQuorum:
        rng, round = self.rng, self.round()
        value = rng.choice([v for r, v in self.proven() if r == round] or [self.favourite, *VALUES])
        kind = PRECOMMIT if rng.random() < 0.1 else PREVOTE
        others = [m for m in self.members if m != self.a.rules.own or self.heard_own() or len(self.members) == 1]
        size = rng.randrange(max(1, self.a.rules.quorum - 1), len(others) + 1) if len(others) > 1 else len(others)
        return build_quorum([self.statement(kind, round, value, m) for m in rng.sample(others, min(size, len(others)))])

    def proven(self) -> Iterable[tuple[int, Digest]]:
        return ((r, v) for k, r, v in self.a.votes.quorums if k == PREVOTE)


@pytest.mark.parametrize("first", range(0, 240, WALKS))
def test_a_member_does_what_its_account_says(first: int) -> None:
    for number in range(first, first + WALKS):
        Walker(number).walk()
