"""Others, as this validator saw them: members and what they said, brokers and what they served, and refused records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from sqlalchemy import Connection, func, select

from validator.protocol.codec.outcome import decode_observation
from validator.protocol.codec.statement import encode_statement
from validator.protocol.model import Address, InstanceId, StatementKind
from validator.store import schema
from validator.store.rows import count_by
from validator.store.statements import load_evidence
from validator.store.view.status import BrokerView, EvidenceView, MemberView
from validator.store.view.windows import among

SHARES_OF = 20
"""Newest own observations whose broker shares are added up."""
SHOWN_EVIDENCE = 50


def load_members(connection: Connection, instances: Iterable[InstanceId]) -> tuple[MemberView, ...]:
    t = schema.statements
    query = (
        select(t.c.signer, t.c.statement_kind, func.count())
        .where(among(t, instances))
        .group_by(t.c.signer, t.c.statement_kind)
    )
    members: dict[Address, dict[str, int]] = {}
    for signer, kind, count in connection.execute(query):
        spoken = members.setdefault(Address(signer), {k.name.lower(): 0 for k in StatementKind})
        spoken[StatementKind(kind).name.lower()] = count
    e = schema.evidence
    rows = connection.execute(select(e.c.signer, func.count()).group_by(e.c.signer))
    guilty = {Address(signer): count for signer, count in rows}
    return tuple(
        MemberView(address, members.get(address, {}), guilty.get(address, 0))
        for address in sorted(members.keys() | guilty.keys())
    )


def load_evidence_views(connection: Connection) -> tuple[EvidenceView, ...]:
    return tuple(
        EvidenceView(
            e.first.signer,
            e.first.instance,
            e.first.round,
            e.first.kind.name.lower(),
            encode_statement(e.first),
            encode_statement(e.second),
            e.noticed_ms,
        )
        for e in load_evidence(connection, SHOWN_EVIDENCE)
    )


def load_brokers(connection: Connection) -> tuple[BrokerView, ...]:
    served: Counter[Address] = Counter()
    missed: Counter[Address] = Counter()
    w, b = schema.windows, schema.bodies
    newest = select(w.c.observation).where(w.c.observation.is_not(None)).order_by(w.c.start_ms.desc()).limit(SHARES_OF)
    for body in connection.scalars(select(b.c.bytes).where(b.c.digest.in_(newest))):
        for share in decode_observation(body).shares:
            served[share.broker] += share.served
            missed[share.broker] += share.missed
    invalid: dict[Address, dict[str, int]] = {}
    r = schema.rejections
    for source, reason, count in connection.execute(
        select(r.c.source, r.c.reason, func.count()).group_by(r.c.source, r.c.reason)
    ):
        invalid.setdefault(Address(source), {})[reason] = count
    return tuple(
        BrokerView(address, served[address], missed[address], invalid.get(address, {}))
        for address in sorted(served.keys() | missed.keys() | invalid.keys())
    )


def count_rejections(connection: Connection) -> dict[str, int]:
    """Distinct records refused per reason; those beyond the bound of kept rows are counted as they came."""
    counted = Counter(count_by(connection, schema.rejections.c.reason))
    t = schema.rejection_overflows
    for reason, count in connection.execute(select(t.c.reason, func.sum(t.c.count)).group_by(t.c.reason)):
        counted[reason] += int(count)
    return dict(sorted(counted.items()))
