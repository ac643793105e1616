"""What a state answers without changing: the door, a peer that lacks something, the status page."""

from __future__ import annotations

from validator.protocol.consensus.state import PRECOMMIT, PREVOTE, InstanceState, Step, why_foreign
from validator.protocol.consensus.votes import AHEAD, BEHIND, Held, summarise_votes, votes_missing, why_dropped
from validator.protocol.model import Statement, VoteQuorum


def why_ignored(a: InstanceState, s: Statement) -> str:
    """Why a statement would be ignored; "" if it is new and would be kept. For the door, before the state is locked."""
    if a.decided is not None:
        return "decided"
    return why_foreign(a.rules, s) or why_dropped(a.votes, s, a.round - BEHIND, a.round + AHEAD)


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
