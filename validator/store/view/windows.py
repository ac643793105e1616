"""Windows and instances: where each stands, and how many members have spoken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select

from validator.ports.states import WindowState
from validator.protocol.codec.statement import decode_quorum
from validator.protocol.model import Address, InstanceId, InstanceKind, StatementKind
from validator.store import schema
from validator.store.view.status import CertificateView, RoundView, WindowView


@dataclass(frozen=True, slots=True)
class ShownInstance:
    view: RoundView
    certificate: CertificateView | None


def load_windows(connection: Connection, limit: int) -> list[Any]:
    t = schema.windows
    newest = connection.execute(select(t).order_by(t.c.start_ms.desc()).limit(limit)).all()
    oldest = newest[-1].start_ms if newest else 0
    waiting = select(t).where(t.c.start_ms < oldest, t.c.state != WindowState.HELD).order_by(t.c.start_ms).limit(limit)
    return [*connection.execute(waiting), *reversed(newest)]


def load_instances(connection: Connection, windows: Sequence[Any], limit: int) -> dict[InstanceId, ShownInstance]:
    """Rounds of these windows and of the newest late sets, each under its newest config."""
    t = schema.instances
    starts = [row.start_ms for row in windows]
    shown = or_(
        and_(t.c.instance_kind == int(InstanceKind.WINDOW), t.c.instance_number.in_(starts)),
        t.c.instance_kind == int(InstanceKind.LATE),
    )
    order = (t.c.instance_kind, t.c.instance_number.desc(), t.c.opened_ms.desc())
    rows: dict[InstanceId, Any] = {}
    for row in connection.execute(select(t).where(shown).order_by(*order).limit(4 * limit)):
        rows.setdefault(InstanceId(InstanceKind(row.instance_kind), row.instance_number), row)
    votes = _count_votes(connection, rows)
    return {instance: _round(instance, row, votes) for instance, row in rows.items()}


def window_view(row: Any, instances: Mapping[InstanceId, ShownInstance]) -> WindowView:
    held = instances.get(InstanceId(InstanceKind.WINDOW, row.start_ms))
    return WindowView(row.start_ms, row.end_ms, row.epoch, row.state, row.bundle, None if held is None else held.view)


def among(table: Any, instances: Iterable[InstanceId]) -> ColumnElement[bool]:
    by_kind: dict[InstanceKind, list[int]] = {}
    for instance in instances:
        by_kind.setdefault(instance.kind, []).append(instance.number)
    return or_(
        table.c.instance_kind == 0,  # none, where nothing is shown
        *(
            and_(table.c.instance_kind == int(kind), table.c.instance_number.in_(numbers))
            for kind, numbers in by_kind.items()
        ),
    )


def _round(instance: InstanceId, row: Any, votes: Mapping[tuple[InstanceId, bytes, int, int], int]) -> ShownInstance:
    certificate = None
    if row.certificate is not None:
        quorum = decode_quorum(row.certificate)
        signers = tuple(signer for signer, _ in quorum.signatures)
        certificate = CertificateView(instance, quorum.round, quorum.value, signers)
    shown = row.round if row.decided_round is None else row.decided_round
    spoken = {
        kind.name.lower(): votes.get(
            (instance, row.config_digest, int(kind), 0 if kind is StatementKind.OBSERVATION else shown), 0
        )
        for kind in StatementKind
    }
    view = RoundView(
        instance=instance,
        state=row.state,
        round=shown,
        step=row.step,
        leader=None if row.leader is None else Address(row.leader),
        votes=spoken,
        waits_for="" if row.state == "decided" else row.waits_for,
        opened_ms=row.opened_ms,
        decided_ms=row.decided_ms,
    )
    return ShownInstance(view, certificate)


def _count_votes(
    connection: Connection, instances: Iterable[InstanceId]
) -> dict[tuple[InstanceId, bytes, int, int], int]:
    """Signers by (instance, config digest, kind, round)."""
    t = schema.statements
    place = (t.c.instance_kind, t.c.instance_number, t.c.config_digest, t.c.statement_kind, t.c.round)
    query = select(*place, func.count(t.c.signer.distinct())).where(among(t, instances)).group_by(*place)
    return {
        (InstanceId(InstanceKind(kind), number), config_digest, statement_kind, round_): count
        for kind, number, config_digest, statement_kind, round_, count in connection.execute(query)
    }
