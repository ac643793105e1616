"""Statements between the store, the core and the wire."""

from __future__ import annotations

from collections.abc import Iterable

from validator.ports.store import StoredInstance
from validator.protocol.consensus.state import Agreement, Rules, restore
from validator.protocol.model import Statement, StatementKind
from validator.steps.context import Context

WITH_BODY = (StatementKind.OBSERVATION, StatementKind.PROPOSAL)
"""Kinds whose value is the digest of an object that travels beside the statement."""


def restore_agreement(rules: Rules, stored: StoredInstance) -> Agreement:
    """The state of an instance as it was saved; a statement that is journaled and received counts once."""
    return restore(rules, stored.progress, stored.own, stored.statements, stored.quorums)


def load_bodies(context: Context, statements: Iterable[Statement]) -> tuple[bytes, ...]:
    """What the statements name, as far as it is here, in their order."""
    named = (context.store.instances.load_body(s.value) for s in statements if s.kind in WITH_BODY)
    return tuple(body for body in named if body is not None)
