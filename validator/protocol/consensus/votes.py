"""The statements that one instance holds: bounded, counted, compared with what a peer holds. Pure.

Per signer, round and kind at most two different statements are kept, as evidence, and both count: a liar who splits
its votes must not keep a quorum from forming. A polka or certificate is kept as a whole, whatever single votes of
its signers are known; so is an observation that a proposal names, but outside of here: who judges a proposal needs the
signed observations behind it, and a signer of many shows each member another two. Rounds are kept from ``floor`` to
``ceiling`` around the own round; of what lies above, one newest statement per signer, which is all that the skip of
rounds needs (line 55). Relay fetches the rest later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

from validator.protocol.codec.certificate import build_quorum
from validator.protocol.model import NIL, Address, Digest, Statement, StatementKind, VoteQuorum

KNOWN = "known"
"""What ``why_dropped`` says of a resend, which is no news and no fault."""
BEHIND = 16
"""Rounds kept below the own one. Older votes can still arrive inside a certificate, which is always taken."""
AHEAD = 2
"""Rounds kept above the own one."""

Slots = Mapping[Address, tuple[Statement, ...]]
QuorumKey = tuple[int, int, Digest]
"""(kind, round, value)."""
Held = tuple[tuple[StatementKind, int, Digest, tuple[Address, ...]], ...]
"""Per kind, round and value the signers: what ``HeldVotes.held`` carries."""

_NOBODY: Slots = {}


class Votes(Struct, frozen=True, gc=False):
    """Everything held of one instance. The mappings are never changed, only replaced.

    ``said``: by (kind, round), then signer. ``newest``: highest round in which each member was heard.
    """

    said: Mapping[tuple[int, int], Slots]
    quorums: Mapping[QuorumKey, VoteQuorum]
    ahead: Mapping[Address, Statement]
    newest: Mapping[Address, int]

    def of(self, kind: StatementKind, round: int) -> Slots:
        return self.said.get((kind, round), _NOBODY)

    def count(self, kind: StatementKind, round: int, value: Digest) -> int:
        """Distinct signers of this very vote."""
        slots = self.said.get((kind, round))
        if slots is None:
            return 0
        total = 0
        for statements in slots.values():
            for statement in statements:
                if statement.value == value:
                    total += 1
                    break
        return total

    def polka(self, round: int, value: Digest) -> VoteQuorum | None:
        return self.quorums.get((StatementKind.PREVOTE, round, value))

    def has_polka_below(self, round: int, value: Digest) -> bool:
        """Whether a polka of an earlier round for this value is held."""
        return any(k == StatementKind.PREVOTE and r < round and v == value for k, r, v in self.quorums)

    def statements(self) -> tuple[Statement, ...]:
        """All single statements."""
        within = tuple(s for slots in self.said.values() for kept in slots.values() for s in kept)
        return within + tuple(self.ahead.values())


EMPTY = Votes({}, {}, {}, {})


def why_dropped(votes: Votes, s: Statement, floor: int, ceiling: int) -> str:
    """Why a statement is not kept; "" if it is new and kept; ``KNOWN`` for a resend."""
    if s.kind is not StatementKind.OBSERVATION:
        if s.round < floor:
            return "round long past"
        if s.round > ceiling:
            return "" if s.round > votes.newest.get(s.signer, -1) else "round far ahead and not the signer's newest"
    slots = votes.said.get((s.kind, s.round))
    if slots is None:
        return ""
    kept = slots.get(s.signer, ())
    for other in kept:
        if other.value == s.value and other.valid_round == s.valid_round:
            return KNOWN
    return "two kept already" if len(kept) >= 2 else ""


def add(votes: Votes, s: Statement, ceiling: int) -> Votes:
    """Keep a statement that ``why_dropped`` lets through."""
    newest = votes.newest
    counted = s.kind is not StatementKind.OBSERVATION
    if counted and s.round > newest.get(s.signer, -1):
        newest = {**newest, s.signer: s.round}
    if counted and s.round > ceiling:
        return Votes(votes.said, votes.quorums, {**votes.ahead, s.signer: s}, newest)
    key = (s.kind, s.round)
    slots = votes.said.get(key, _NOBODY)
    slots = {**slots, s.signer: (*slots.get(s.signer, ()), s)}
    return Votes({**votes.said, key: slots}, votes.quorums, votes.ahead, newest)


def add_quorum(votes: Votes, q: VoteQuorum) -> Votes:
    """Keep a polka or certificate as a whole, and that its signers were in its round."""
    newest = dict(votes.newest)
    for signer, _ in q.signatures:
        if q.round > newest.get(signer, -1):
            newest[signer] = q.round
    return Votes(votes.said, {**votes.quorums, (q.kind, q.round, q.value): q}, votes.ahead, newest)


def form_quorum(votes: Votes, kind: StatementKind, round: int, value: Digest) -> VoteQuorum:
    """The votes held for one value, as a polka or certificate."""
    chosen = []
    for statements in votes.of(kind, round).values():
        chosen += [s for s in statements if s.value == value][:1]
    return build_quorum(chosen)


def unformed(votes: Votes, needed: int) -> list[QuorumKey]:
    """Quorums that lie in single votes and are not yet kept as a whole; by round, prevotes first."""
    found = []
    for (kind, round), slots in sorted(votes.said.items(), key=lambda item: (item[0][1], item[0][0])):
        if kind not in (StatementKind.PREVOTE, StatementKind.PRECOMMIT) or len(slots) < needed:
            continue
        for value in sorted({s.value for kept in slots.values() for s in kept} - {NIL}):
            enough = votes.count(StatementKind(kind), round, value) >= needed
            if enough and (kind, round, value) not in votes.quorums:
                found.append((kind, round, value))
    return found


def trim(votes: Votes, floor: int, ceiling: int) -> Votes:
    """Forget rounds below ``floor`` but the newest polka, and take in what was ahead and is now within reach."""
    said = {key: slots for key, slots in votes.said.items() if key[1] >= floor or key[0] == StatementKind.OBSERVATION}
    polkas = [key for key in votes.quorums if key[0] == StatementKind.PREVOTE]
    newest_polka = max(polkas, key=lambda key: key[1], default=None)
    quorums = {
        key: q
        for key, q in votes.quorums.items()
        if key[1] >= floor or key == newest_polka or key[0] == StatementKind.PRECOMMIT
    }
    trimmed = Votes(said, quorums, {a: s for a, s in votes.ahead.items() if s.round > ceiling}, votes.newest)
    for statement in votes.ahead.values():
        if statement.round <= ceiling and not why_dropped(trimmed, statement, floor, ceiling):
            trimmed = add(trimmed, statement, ceiling)
    return trimmed


# --- relay ----------------------------------------------------------------------------------------


def summarise_votes(votes: Votes) -> Held:
    """Who said what, as far as held; signers of a polka or certificate count as heard."""
    signers: dict[QuorumKey, set[Address]] = {}
    for s in votes.statements():
        signers.setdefault((s.kind, s.round, s.value), set()).add(s.signer)
    for key, q in votes.quorums.items():
        signers.setdefault(key, set()).update(signer for signer, _ in q.signatures)
    return tuple((StatementKind(k), r, v, tuple(sorted(signers[k, r, v]))) for k, r, v in sorted(signers))


def votes_missing(votes: Votes, held: Held, needed: int) -> tuple[tuple[Statement, ...], tuple[VoteQuorum, ...]]:
    """What a peer that holds ``held`` lacks, whoever signed it: single statements, and whole quorums.

    A statement that a sent quorum contains is not sent again. The rounds that the peer names say nothing about what
    it would keep: a liar's vote of a round far ahead is among them.
    """
    theirs: dict[QuorumKey, frozenset[Address]] = {(k, r, v): frozenset(signers) for k, r, v, signers in held}
    quorums = {key: q for key, q in sorted(votes.quorums.items()) if len(theirs.get(key, frozenset())) < needed}
    covered = {(key, signer) for key, q in quorums.items() for signer, _ in q.signatures}
    statements = []
    for s in votes.statements():
        key: QuorumKey = (s.kind, s.round, s.value)
        if s.signer not in theirs.get(key, frozenset()) and (key, s.signer) not in covered:
            statements.append(s)
    return _ordered(statements), tuple(quorums.values())


def _ordered(statements: Iterable[Statement]) -> tuple[Statement, ...]:
    return tuple(sorted(statements, key=lambda s: (s.round, s.kind, s.signer, s.value, s.valid_round)))
