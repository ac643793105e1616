"""The state of one instance, and how it is saved and rebuilt.

What is scalar travels as one row of progress; statements, quorums and the decision have rows of their own, the own
statements among them being the journal. Where the journal is ahead of the progress, the journal counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from validator.protocol.codec import cbor
from validator.protocol.codec.statement import MAX_ROUND, decode_statement, encode_statement
from validator.protocol.consensus.proposal import Answer
from validator.protocol.consensus.votes import AHEAD, BEHIND, EMPTY, Votes, add, add_quorum, why_dropped
from validator.protocol.errors import InvariantError, MalformedInput
from validator.protocol.hashing import instance_subject, order_committee
from validator.protocol.model import NIL, Address, Digest, InstanceId, Statement, StatementKind, VoteQuorum
from validator.protocol.parameters import ParameterSet
from validator.protocol.quorum import one_honest, quorum

OBSERVATION = StatementKind.OBSERVATION
PROPOSAL = StatementKind.PROPOSAL
PREVOTE = StatementKind.PREVOTE
PRECOMMIT = StatementKind.PRECOMMIT
MAX_PROGRESS_BYTES = 256 << 10

# --- what does not change during an instance --------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Milliseconds. Each of the three grows by ``delta_ms`` per round, up to ``max_ms``.

    ``relay_ms``: how often votes are compared with peers while undecided. ``recover_ms``: how long to wait for
    peers' word on our own statements.
    """

    propose_ms: int = 1_500
    prevote_ms: int = 1_000
    precommit_ms: int = 1_000
    delta_ms: int = 500
    max_ms: int = 60_000
    relay_ms: int = 500
    recover_ms: int = 5_000

    @classmethod
    def of(cls, p: ParameterSet) -> Timeouts:
        return cls(
            p.timeout_propose_ms, p.timeout_prevote_ms, p.timeout_precommit_ms, p.timeout_delta_ms, p.timeout_max_ms
        )

    def grown(self, base_ms: int, round: int) -> int:
        """base + delta x round, at most max_ms."""
        return min(base_ms + self.delta_ms * round, max(base_ms, self.max_ms))


@dataclass(frozen=True, slots=True)
class Rules:
    """Who agrees on what. ``own`` is None for an observer without a seat, who follows and says nothing."""

    instance: InstanceId
    config_digest: Digest
    committee: tuple[Address, ...]
    own: Address | None
    timeouts: Timeouts
    members: frozenset[Address]
    leaders: tuple[Address, ...]
    quorum: int
    one_honest: int

    @classmethod
    def of(
        cls,
        instance: InstanceId,
        config_digest: Digest,
        committee: Sequence[Address],
        own: Address | None,
        timeouts: Timeouts,
    ) -> Rules:
        """``own`` outside the committee counts as an observer."""
        members = frozenset(committee)
        if len(members) != len(committee):
            raise InvariantError("a member stands twice in the committee")
        return cls(
            instance=instance,
            config_digest=config_digest,
            committee=tuple(sorted(members)),
            own=own if own in members else None,
            timeouts=timeouts,
            members=members,
            leaders=_leaders(tuple(sorted(members)), config_digest, instance),
            quorum=quorum(len(members)),
            one_honest=one_honest(len(members)),
        )

    def leader(self, round: int) -> Address | None:
        """proposer(h, round); None in an empty committee."""
        return self.leaders[round % len(self.leaders)] if self.leaders else None


@lru_cache(maxsize=1024)
def _leaders(members: tuple[Address, ...], config_digest: Digest, instance: InstanceId) -> tuple[Address, ...]:
    """Whose turn it is, by round. Asked for at every look at an instance, so the newest are remembered."""
    return order_committee(members, config_digest, instance_subject(instance))


# --- state ------------------------------------------------------------------------------------------


class Step(IntEnum):
    WAITING = 0
    PROPOSE = 1
    PREVOTE = 2
    PRECOMMIT = 3
    DECIDED = 4


class RoundState(Struct, frozen=True, gc=False):
    """Where in the paper's machine we are. Times are absolute; None: not scheduled."""

    round: int = 0
    step: Step = Step.WAITING
    locked_value: Digest = NIL
    locked_round: int = -1
    valid_value: Digest = NIL
    valid_round: int = -1
    started_ms: int = 0
    prevote_at: int | None = None
    precommit_at: int | None = None


class Eligibility(Struct, frozen=True, gc=False):
    """What this member may do and has been told.

    ``observation``: own, frozen. ``observed``/``reproduced``: members whose observation, and whose set with these
    digests, is here.
    """

    started: bool = False
    recovered: bool = False
    answers: frozenset[Address] = frozenset()
    halted: bool = False
    observation: Digest | None = None
    observed: frozenset[Address] = frozenset()
    reproduced: frozenset[Address] = frozenset()
    value_asked: int = -1
    recover_at: int | None = None
    relay_at: int | None = None


class Judgement(Struct, frozen=True, gc=False):
    """What the shell said of a value. ``acceptable`` is for one round, that of the last fresh question."""

    validity: Answer
    acceptable: Answer
    round: int


class InstanceState(Struct, frozen=True, gc=False):
    """The whole state of one instance.

    ``wake_ms``: when ``Tick`` is due next; None: only another event helps. ``unsigned``: said, not yet back with a
    signature; empty whenever state is saved. ``loaded``: statements came from the store and were not looked at yet.
    ``journal``: all that we have ever said here, by kind and round, however old. ``foreign``: statements with our
    signature that came from the store and that the journal lacks, not looked at yet.
    """

    rules: Rules
    votes: Votes = EMPTY
    round_state: RoundState = RoundState()
    eligibility: Eligibility = Eligibility()
    judgements: Mapping[Digest, Judgement] | None = None
    decided: VoteQuorum | None = None
    wake_ms: int | None = None
    unsigned: tuple[Statement, ...] = ()
    loaded: bool = True
    journal: Mapping[tuple[int, int], Statement] = {}
    foreign: tuple[Statement, ...] = ()

    @property
    def round(self) -> int:
        return self.round_state.round

    @property
    def step(self) -> Step:
        return self.round_state.step

    @property
    def leader(self) -> Address | None:
        return self.rules.leader(self.round_state.round)


def why_foreign(rules: Rules, s: Statement) -> str:
    """Why a statement does not belong to this instance at all; "" if it does."""
    if s.config_digest != rules.config_digest:
        return "another config digest"
    if s.instance is not rules.instance and s.instance != rules.instance:
        return "another instance"
    if s.signer not in rules.members:
        return "not in the committee"
    if not 0 <= s.round <= MAX_ROUND:
        return "no such round"
    if s.kind is OBSERVATION:
        if s.round or s.value == NIL or s.valid_round != -1:
            return "not an observation"
    elif s.kind is PROPOSAL:
        if s.value == NIL:
            return "nil proposed"
        if not -1 <= s.valid_round < s.round:
            return "valid round not below the round"  # line 28
        if rules.leader(s.round) != s.signer:
            return "not the leader of its round"
    elif s.valid_round != -1:
        return "a vote has no valid round"
    return ""


# --- persistence ------------------------------------------------------------------------------------


def encode_progress(a: InstanceState) -> bytes:
    """Canonical bytes of everything but the statements, quorums and decision, which have rows of their own."""
    if a.unsigned:
        raise InvariantError("a statement is not signed yet: sign, then save")
    p, s = a.round_state, a.eligibility
    judgements = a.judgements or {}
    return cbor.encode_object(
        "progress/1",
        [p.round, int(p.step), p.locked_value, p.locked_round, p.valid_value, p.valid_round],
        [p.started_ms, p.prevote_at, p.precommit_at, s.recover_at, s.relay_at, a.wake_ms],
        [s.started, s.recovered, s.halted, s.observation, s.value_asked],
        [sorted(s.answers), sorted(s.observed), sorted(s.reproduced)],
        [[v, _ANSWERS.index(j.validity), _ANSWERS.index(j.acceptable), j.round] for v, j in sorted(judgements.items())],
        [encode_statement(a.votes.ahead[signer]) for signer in sorted(a.votes.ahead)],
    )


_ANSWERS = (Answer.YES, Answer.NO, Answer.NOT_YET)


def restore(
    rules: Rules,
    progress: bytes | None,
    journal: Iterable[Statement],
    statements: Sequence[Statement],
    quorums: Sequence[VoteQuorum],
) -> InstanceState:
    """State from the store: progress, journal of own statements, all statements held, all polkas and certificates.

    Round, step and lock are rebuilt from the journal where it is ahead of the progress (an imported journal has no
    progress); what else carries our signature is not ours to build on. The first event looks at the statements;
    nothing is lost between saving and looking.

    Raises:
        MalformedInput: the progress is not of this form.
    """
    rs, eligibility, judgements, wake_ms, ahead = _NEW if progress is None else _decode_progress(progress)
    own = [s for s in journal if s.signer == rules.own]
    rs = _rebuild(rs, own)
    for s in own:
        if s.kind is OBSERVATION:
            eligibility = replace(eligibility, observation=s.value)
    floor, ceiling = rs.round - BEHIND, rs.round + AHEAD
    votes = EMPTY
    for s in (*own, *statements, *ahead):
        ours_ahead = s.signer == rules.own and s.round > ceiling
        if not ours_ahead and not why_foreign(rules, s) and not why_dropped(votes, s, floor, ceiling):
            votes = add(votes, s, ceiling)
    for q in quorums:
        votes = add_quorum(votes, q)
    decision = next((q for q in quorums if q.kind is PRECOMMIT and rs.step is Step.DECIDED), None)
    said: dict[tuple[int, int], Statement] = {(s.kind, s.round): s for s in own}
    signed = (*statements, *ahead, *(s for q in quorums for s in q.statements()))
    foreign = {
        s.content: s for s in signed if s.signer == rules.own and not why_foreign(rules, s) and not is_in(said, s)
    }
    return InstanceState(
        rules,
        votes,
        rs,
        eligibility,
        judgements,
        decision,
        wake_ms,
        journal=said,
        foreign=tuple(foreign.values()),
    )


def is_in(journal: Mapping[tuple[int, int], Statement], s: Statement) -> bool:
    """Whether the journal holds these words; signatures may differ, signers may use random nonces."""
    known = journal.get((s.kind, s.round))
    return known is not None and known.content == s.content


def _rebuild(rs: RoundState, own: Sequence[Statement]) -> RoundState:
    """Never below what the journal says: highest round spoken in, its step, the lock of the newest own precommit."""
    spoken = [s for s in own if s.kind is not OBSERVATION]
    if not spoken:
        return rs
    last = max(s.round for s in spoken)
    if last >= rs.round and rs.step is not Step.DECIDED:
        kinds = {s.kind for s in spoken if s.round == last}
        step = Step.PRECOMMIT if PRECOMMIT in kinds else Step.PREVOTE if PREVOTE in kinds else Step.PROPOSE
        if last > rs.round:
            rs = replace(rs, round=last, step=step, prevote_at=None, precommit_at=None)
        else:
            rs = replace(rs, step=max(rs.step, step))
    locks = [s for s in spoken if s.kind is PRECOMMIT and s.value != NIL]
    newest = max(locks, key=lambda s: s.round, default=None)
    if newest is not None and newest.round > rs.locked_round:
        rs = replace(rs, locked_value=newest.value, locked_round=newest.round)
    return rs


_Progress = tuple[RoundState, Eligibility, Mapping[Digest, Judgement], int | None, tuple[Statement, ...]]
_NEW: _Progress = (RoundState(), Eligibility(), {}, None, ())


def _decode_progress(data: bytes) -> _Progress:
    where, times, flags, members, judged, ahead = cbor.decode_object(
        data, "progress/1", 6, max_bytes=MAX_PROGRESS_BYTES
    )
    try:
        return (
            RoundState(
                round=where[0],
                step=Step(where[1]),
                locked_value=Digest(where[2]),
                locked_round=where[3],
                valid_value=Digest(where[4]),
                valid_round=where[5],
                started_ms=times[0],
                prevote_at=times[1],
                precommit_at=times[2],
            ),
            Eligibility(
                started=flags[0],
                recovered=flags[1],
                halted=flags[2],
                observation=flags[3],
                value_asked=flags[4],
                answers=_members(members[0]),
                observed=_members(members[1]),
                reproduced=_members(members[2]),
                recover_at=times[3],
                relay_at=times[4],
            ),
            {Digest(v): Judgement(_ANSWERS[valid], _ANSWERS[accepted], r) for v, valid, accepted, r in judged},
            times[5],
            tuple(decode_statement(s) for s in ahead),
        )
    except (TypeError, ValueError, IndexError) as error:
        raise MalformedInput("progress", f"fields do not fit: {error}") from error


def _members(items: Any) -> frozenset[Address]:
    return frozenset(Address(item) for item in items)
