"""Statements between the store, the core and the wire."""

from __future__ import annotations

from collections.abc import Iterable

from validator.log import get_logger
from validator.ports.peers import Gossip
from validator.ports.stored import StoredInstance
from validator.protocol.codec.certificate import verify_quorum
from validator.protocol.codec.statement import verify_statement
from validator.protocol.consensus.state import InstanceState, Rules, restore
from validator.protocol.errors import MalformedInput
from validator.protocol.model import InstanceId, Statement, StatementKind, VoteQuorum
from validator.steps.context import Context
from validator.steps.cut_points import EpochConfig

log = get_logger(__name__)

WITH_BODY = (StatementKind.OBSERVATION, StatementKind.PROPOSAL)
"""Kinds whose value is the digest of an object that travels beside the statement."""


def restore_state(rules: Rules, stored: StoredInstance) -> InstanceState:
    """The state of an instance as it was saved; a statement that is journaled and received counts once."""
    return restore(rules, stored.progress, stored.own, stored.statements, stored.quorums)


def load_bodies(context: Context, statements: Iterable[Statement]) -> tuple[bytes, ...]:
    """What the statements name, as far as it is here, in their order."""
    named = (context.store.instances.load_body(s.value) for s in statements if s.kind in WITH_BODY)
    return tuple(body for body in named if body is not None)


def verify_gossip(
    context: Context, config: EpochConfig, gossip: Gossip, instance: InstanceId
) -> tuple[list[Statement], list[VoteQuorum]]:
    """Statements and quorums of one instance whose signatures hold; the others are dropped and logged."""
    statements, quorums = [], []
    for statement in gossip.statements:
        if (statement.instance, statement.config_digest) != (instance, config.digest):
            continue
        try:
            verify_statement(statement, context.identity.signing)
        except MalformedInput as error:
            log.debug("statement.refused", instance=str(instance), reason=str(error))
            continue
        statements.append(statement)
    for votes in gossip.quorums:
        try:
            verify_quorum(votes, config.digest, instance, config.committee, context.identity.signing)
        except MalformedInput as error:
            log.debug("quorum.refused", instance=str(instance), reason=str(error))
            continue
        quorums.append(votes)
    return statements, quorums
