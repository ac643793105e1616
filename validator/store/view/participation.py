"""How this validator took part: what it saw and said, against what was decided."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select

from validator.ports.states import WindowState
from validator.protocol.codec.outcome import decode_outcome
from validator.protocol.codec.statement import decode_quorum, decode_statement
from validator.protocol.model import NIL, Address, Flag, InstanceKind, StatementKind
from validator.store import schema
from validator.store.view.status import ParticipationView

MOST = 20_000
"""Windows; a week of windows of half a minute."""


def load_participation(
    connection: Connection, own: Address | None, since_ms: int, now_ms: int, limit: int = MOST
) -> ParticipationView:
    """Of the newest ``limit`` windows that began at ``since_ms`` or later and have ended."""
    w = schema.windows
    ended = select(w).where(w.c.start_ms >= since_ms, w.c.end_ms <= now_ms).order_by(w.c.start_ms.desc()).limit(limit)
    rows = {row.start_ms: row for row in connection.execute(ended)}
    decided = _load_decided(connection, list(rows))
    included = signed = disagreed = incomplete = messages = 0
    voted = _load_prevotes(connection, list(decided))
    for start_ms, row in decided.items():
        signers = {signer for signer, _ in decode_quorum(row.certificate).signatures}
        signed += own in signers
        disagreed += voted.get(start_ms, row.decided_value) != row.decided_value
        if row.bytes is None:
            continue
        outcome = decode_outcome(row.bytes)
        included += rows[start_ms].observation in outcome.observations
        incomplete += any(entry.flags & Flag.INCOMPLETE for entry in outcome.entries)
        messages += sum(entry.count for entry in outcome.entries)
    return ParticipationView(
        windows=len(rows),
        decided=len(decided),
        observed=sum(row.state != WindowState.OPEN and row.observation is not None for row in rows.values()),
        included=included,
        signed=signed,
        disagreed=disagreed,
        incomplete=incomplete,
        messages=messages,
    )


def _load_decided(connection: Connection, starts: list[int]) -> dict[int, Any]:
    """Instances with certificate, and the outcome's bytes where they are here."""
    t, b = schema.instances, schema.bodies
    query = (
        select(t.c.instance_number, t.c.decided_value, t.c.certificate, b.c.bytes)
        .outerjoin(b, b.c.digest == t.c.decided_value)
        .where(
            t.c.instance_kind == int(InstanceKind.WINDOW),
            t.c.instance_number.in_(starts),
            t.c.certificate.is_not(None),
        )
        .order_by(t.c.opened_ms)
    )
    return {row.instance_number: row for row in connection.execute(query)}


def _load_prevotes(connection: Connection, starts: list[int]) -> dict[int, bytes]:
    """What this validator's last prevote for each window named, where it named anything."""
    t = schema.journal
    query = select(t.c.instance_number, t.c.bytes).where(
        t.c.instance_kind == int(InstanceKind.WINDOW),
        t.c.instance_number.in_(starts),
        t.c.statement_kind == int(StatementKind.PREVOTE),
    )
    said = {number: decode_statement(data).value for number, data in connection.execute(query.order_by(t.c.id))}
    return {number: value for number, value in said.items() if value != NIL}
