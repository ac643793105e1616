"""Signed statements: the journal of own votes, what was received, quorums, and evidence.

Functions on an open connection: a vote belongs in one transaction with the state it follows from (instances.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from sqlalchemy import Connection, bindparam, delete, func, select

from validator.protocol.codec.statement import decode_quorum, decode_statement, encode_quorum, encode_statement
from validator.protocol.consensus.votes import Votes, why_dropped
from validator.protocol.errors import InvariantError
from validator.protocol.model import Address, Digest, InstanceId, Statement, StatementKind, VoteQuorum
from validator.store import schema
from validator.store.rows import at_instance, insert_new, is_instance, of_instance

_J, _S, _P = schema.journal, schema.statements, schema.quorums
_JOURNAL = select(_J.c.bytes).where(of_instance(_J, of_config=True)).order_by(_J.c.round, _J.c.statement_kind)
_JOURNALED_ROUND = select(func.max(_J.c.round)).where(of_instance(_J, of_config=True))
_STATEMENTS = select(_S.c.bytes).where(of_instance(_S, of_config=True)).order_by(_S.c.id)
_OF_SIGNER = (of_instance(_S, of_config=True), _S.c.signer == bindparam("at_signer"))
_AT_PLACE = (*_OF_SIGNER, _S.c.statement_kind == bindparam("at_statement"), _S.c.round == bindparam("at_round"))
_COUNT_OF_SIGNER = select(func.count()).where(*_OF_SIGNER)
_SAID_AT_PLACE = select(_S.c.value, _S.c.valid_round).where(*_AT_PLACE).order_by(_S.c.id)
_NEWEST_ROUND = select(func.max(_S.c.round)).where(*_OF_SIGNER, _S.c.statement_kind != int(StatementKind.OBSERVATION))
_OLDEST_KEPT = select(_S.c.round).where(*_OF_SIGNER).order_by(_S.c.round.desc()).offset(bindparam("at_most")).limit(1)
_PROOFS = select(_P.c.bytes).where(of_instance(_P, of_config=True)).order_by(_P.c.round, _P.c.statement_kind)


class DoubleVote(InvariantError):
    """The journal holds another vote for this place, or one of a higher round: nothing may be signed or sent."""


MAX_PER_SIGNER = 128
"""Rows kept per signer and instance: two different votes of each kind in every round that the core keeps (19), two
observations and some to spare; then the newest rounds stay."""


# --- the journal of own votes -----------------------------------------------------------------------


def journal_vote(connection: Connection, statement: Statement, now_ms: int) -> Statement:
    """Write an own signed statement before it is heard, in the transaction of the state it follows from.

    Returns the journaled statement, which is the one to send: if the same content is there already, its stored
    signature, for nothing is signed twice.

    Raises:
        DoubleVote: another content is journaled for this config, instance, round and kind, or a higher round is.
        InvariantError: it is not signed.
    """
    if len(statement.signature) != 65:
        raise InvariantError("only a signed statement is journaled")
    place = _place(statement)
    if insert_new(connection, schema.journal, {**place, "bytes": encode_statement(statement), "journaled_ms": now_ms}):
        _require_no_higher_round(connection, statement)
        return statement
    t = schema.journal
    query = select(t.c.bytes).where(*(t.c[name] == value for name, value in place.items()))
    held = decode_statement(connection.execute(query).scalar_one())
    if held.content != statement.content or held.signer != statement.signer:
        raise DoubleVote(
            f"{statement.instance} round {statement.round}: the journal holds another {statement.kind.name.lower()}, "
            f"for 0x{held.value.hex()}, not for 0x{statement.value.hex()}"
        )
    return held


def take_over_vote(connection: Connection, statement: Statement, now_ms: int) -> bool:
    """Journal what another database of the same key has journaled; False if this place is taken already."""
    row = {**_place(statement), "bytes": encode_statement(statement), "journaled_ms": now_ms}
    return insert_new(connection, schema.journal, row)


def load_journal(connection: Connection, config_digest: Digest, instance: InstanceId) -> list[Statement]:
    """Own statements of an instance, by round and kind: the lock is rebuilt from them before anything is said."""
    return [decode_statement(data) for data in connection.scalars(_JOURNAL, at_instance(instance, config_digest))]


def is_journaled(connection: Connection, statement: Statement) -> bool:
    """Whether the journal holds these very words; signatures may differ."""
    t = schema.journal
    query = select(t.c.bytes).where(*(t.c[name] == value for name, value in _place(statement).items()))
    data = connection.scalar(query)
    return data is not None and decode_statement(data).content == statement.content


def load_whole_journal(connection: Connection) -> list[Statement]:
    """All own statements under all config digests, in the order they were written: for an export."""
    return [decode_statement(data) for data in connection.scalars(select(schema.journal.c.bytes).order_by("id"))]


def _require_no_higher_round(connection: Connection, statement: Statement) -> None:
    if statement.kind is StatementKind.OBSERVATION:
        return
    highest = connection.scalar(_JOURNALED_ROUND, at_instance(statement.instance, statement.config_digest))
    if highest is not None and highest > statement.round:
        raise DoubleVote(
            f"{statement.instance}: no {statement.kind.name.lower()} for round {statement.round}, "
            f"the journal has reached round {highest}"
        )


# --- received (and own) statements ------------------------------------------------------------------


def save_statements(connection: Connection, statements: Iterable[Statement], now_ms: int) -> list[Statement]:
    """Keep statements whose signatures are verified; returns those that were news.

    At most two different ones per signer, round and kind, and ``MAX_PER_SIGNER`` per signer and instance, of which
    the newest rounds stay: a flood costs its sender, nobody else.
    """
    fresh = []
    for statement in statements:
        if why_not_kept(connection, statement, statement.round, statement.round):
            continue
        if insert_new(connection, schema.statements, _row(statement, now_ms)):
            fresh.append(statement)
    for config_digest, instance, signer in {(s.config_digest, s.instance, s.signer) for s in fresh}:
        _prune_signer(connection, config_digest, instance, signer)
    return fresh


def save_foreign(connection: Connection, statement: Statement, now_ms: int) -> bool:
    """Keep a verified statement that carries our signature and is not ours, whatever its round; False if it is kept.

    One is enough to bar us, so whoever has our key fills no disk with others.
    """
    place = at_instance(statement.instance, statement.config_digest)
    if connection.execute(_COUNT_OF_SIGNER, {**place, "at_signer": statement.signer}).scalar_one() > 2 * MAX_PER_SIGNER:
        return False
    return insert_new(connection, schema.statements, _row(statement, now_ms))


def save_named(connection: Connection, statement: Statement, now_ms: int) -> bool:
    """Keep an observation that an outcome names, as a third of its signer too; False if it is kept."""
    if statement.kind is not StatementKind.OBSERVATION:
        raise InvariantError("an outcome names observations only")
    return insert_new(connection, schema.statements, _row(statement, now_ms))


def load_observations(
    connection: Connection, config_digest: Digest, instance: InstanceId, digests: Collection[Digest]
) -> list[Statement]:
    """Statements that name these observations, in the order they came."""
    t = schema.statements
    query = (
        select(t.c.bytes)
        .where(is_instance(t, instance, config_digest), t.c.statement_kind == int(StatementKind.OBSERVATION))
        .where(t.c.value.in_(list(digests)))
        .order_by(t.c.id)
    )
    return [decode_statement(data) for data in connection.scalars(query)]


def why_not_kept(connection: Connection, statement: Statement, floor: int, ceiling: int) -> str:
    """What the core says of it (``why_dropped``), told of what it asks about: this place, and the signer's rounds."""
    place = _at_place(statement)
    said = tuple(
        replace(statement, value=Digest(row.value), valid_round=row.valid_round)
        for row in connection.execute(_SAID_AT_PLACE, place)
    )
    newest = connection.scalar(_NEWEST_ROUND, place)
    votes = Votes(
        said={(statement.kind, statement.round): {statement.signer: said}},
        quorums={},
        ahead={},
        newest={} if newest is None else {statement.signer: newest},
    )
    return why_dropped(votes, statement, floor, ceiling)


def drop_ahead(connection: Connection, statement: Statement, ceiling: int) -> None:
    """Of the rounds above ``ceiling`` only the newest statement of a signer is kept: make room for this one."""
    t = schema.statements
    here = is_instance(t, statement.instance, statement.config_digest)
    connection.execute(delete(t).where(here, t.c.signer == statement.signer, t.c.round > ceiling))


def load_statements(connection: Connection, config_digest: Digest, instance: InstanceId) -> list[Statement]:
    """All kept statements of an instance, in the order they came."""
    return [decode_statement(data) for data in connection.scalars(_STATEMENTS, at_instance(instance, config_digest))]


def _at_place(statement: Statement) -> dict[str, object]:
    return {
        **at_instance(statement.instance, statement.config_digest),
        "at_signer": statement.signer,
        "at_statement": int(statement.kind),
        "at_round": statement.round,
    }


def _prune_signer(connection: Connection, config_digest: Digest, instance: InstanceId, signer: Address) -> None:
    t = schema.statements
    place = {**at_instance(instance, config_digest), "at_signer": signer, "at_most": MAX_PER_SIGNER - 1}
    oldest = connection.scalar(_OLDEST_KEPT, place)
    if oldest is None:
        return
    mine = (is_instance(t, instance, config_digest), t.c.signer == signer)
    observation = int(StatementKind.OBSERVATION)
    connection.execute(delete(t).where(*mine, t.c.round < oldest, t.c.statement_kind != observation))


# --- quorums -----------------------------------------------------------------------------------------


def save_quorum(connection: Connection, quorum: VoteQuorum) -> bool:
    """Keep a verified quorum of prevotes or precommits; False if one for the same votes is there."""
    row = {
        "config_digest": quorum.config_digest,
        "instance_kind": int(quorum.instance.kind),
        "instance_number": quorum.instance.number,
        "statement_kind": int(quorum.kind),
        "round": quorum.round,
        "value": quorum.value,
        "bytes": encode_quorum(quorum),
    }
    return insert_new(connection, schema.quorums, row)


def load_quorums(connection: Connection, config_digest: Digest, instance: InstanceId) -> list[VoteQuorum]:
    """Proofs of an instance by round."""
    return [decode_quorum(data) for data in connection.scalars(_PROOFS, at_instance(instance, config_digest))]


# --- evidence ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Evidence:
    """Two statements of one signer with different content where only one is allowed."""

    first: Statement
    second: Statement
    noticed_ms: int


def save_evidence(connection: Connection, first: Statement, second: Statement, now_ms: int) -> bool:
    """Keep one pair per signer, instance, round and kind; False if one is there. Raises InvariantError: no evidence."""
    if _place(first) != _place(second) or first.signer != second.signer or first.content == second.content:
        raise InvariantError("these two statements are no evidence")
    low, high = sorted((encode_statement(first), encode_statement(second)))
    row = {**_place(first), "signer": first.signer, "first": low, "second": high, "noticed_ms": now_ms}
    return insert_new(connection, schema.evidence, row)


def load_evidence(connection: Connection, limit: int = 1000) -> list[Evidence]:
    """Newest first."""
    t = schema.evidence
    rows = connection.execute(select(t.c.first, t.c.second, t.c.noticed_ms).order_by(t.c.id.desc()).limit(limit))
    return [Evidence(decode_statement(a), decode_statement(b), at) for a, b, at in rows]


def _row(statement: Statement, now_ms: int) -> dict[str, object]:
    return {
        **_place(statement),
        "signer": statement.signer,
        "value": statement.value,
        "valid_round": statement.valid_round,
        "bytes": encode_statement(statement),
        "received_ms": now_ms,
    }


def _place(statement: Statement) -> dict[str, object]:
    return {
        "config_digest": statement.config_digest,
        "instance_kind": int(statement.instance.kind),
        "instance_number": statement.instance.number,
        "round": statement.round,
        "statement_kind": int(statement.kind),
    }
