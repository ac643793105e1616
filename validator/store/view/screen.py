"""``SqlView``: what the operator listener asks, each answer from one snapshot of the database."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, select

from validator.ports.clock import Clock
from validator.ports.states import BundleState, ReportState, WindowState
from validator.protocol.codec.outcome import decode_outcome
from validator.protocol.model import Address, InstanceId, InstanceKind, StatementKind
from validator.store import schema
from validator.store.database import Database
from validator.store.rows import count_by, is_instance
from validator.store.view.bundles import load_bundles, load_reports
from validator.store.view.participation import load_participation
from validator.store.view.parties import count_rejections, load_brokers, load_evidence_views, load_members
from validator.store.view.readiness import Readiness, load_heads
from validator.store.view.status import Check, EventView, ParticipationView, Status, UsedObservations
from validator.store.view.weave import load_gateways, load_payments, load_wallet
from validator.store.view.windows import load_instances, load_windows, window_view

SHOWN_WINDOWS = 100
SHOWN_EVENTS = 20
NEWEST = 20
"""Windows over which participation is counted for every screen and scrape."""


class SqlView:
    """What the operator listener shows of one validator."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        address: Address | None,
        network: str,
        data_dir: Path,
        disk_floor: str = "",
        observer: bool = False,
    ) -> None:
        self._database = database
        self._clock = clock
        self._address = address
        self._network = network
        self._observer = observer
        self._readiness = Readiness(database, clock, data_dir, disk_floor)

    def load_status(self, limit: int = SHOWN_WINDOWS) -> Status:
        """Everything for one screen, from one snapshot; ``limit`` windows at most, and as many unfinished ones."""
        now_ms = self._clock.now_ms()
        is_due = schema.due.c.wake_ms <= now_ms
        with self._database.read() as connection:
            windows = load_windows(connection, limit)
            instances = load_instances(connection, windows, limit)
            heads = load_heads(connection)
            return Status(
                now_ms=now_ms,
                address=self._address,
                network=self._network,
                observer=self._observer,
                head=heads.get("head"),
                finalised=heads.get("finalised"),
                due=_count(connection, schema.due.c.key, is_due),
                window_counts=_counts(connection, schema.windows.c.state, list(WindowState)),
                windows=tuple(window_view(row, instances) for row in windows),
                late=tuple(r.view for i, r in sorted(instances.items()) if i.kind is InstanceKind.LATE),
                certificates=tuple(r.certificate for _, r in sorted(instances.items()) if r.certificate is not None),
                bundle_counts=_counts(connection, schema.bundles.c.state, list(BundleState)),
                bundles=load_bundles(connection),
                report_counts=_counts(connection, schema.reports.c.state, list(ReportState)),
                reports=load_reports(connection),
                brokers=load_brokers(connection),
                members=load_members(connection, instances),
                invalid_rejected=count_rejections(connection),
                evidence=load_evidence_views(connection),
                evidence_count=_count(connection, schema.evidence.c.id),
                events=_load_events(connection),
                sets=_count(connection, schema.sets.c.set_root),
                set_bytes=int(connection.scalar(select(func.coalesce(func.sum(schema.sets.c.size), 0))) or 0),
                reorganisations=_count(connection, schema.reorganisations.c.at_s),
                damaged_sets=_count(connection, schema.damaged_sets.c.set_root),
                late_candidates=_count(connection, schema.late_candidates.c.identity),
                gateways=load_gateways(connection),
                wallet=load_wallet(connection),
                payments=load_payments(connection),
                participation=load_participation(connection, self._address, 0, now_ms, NEWEST),
                oldest_due_ms=connection.scalar(select(func.min(schema.due.c.wake_ms)).where(is_due)),
            )

    def load_participation(self, since_ms: int) -> ParticipationView:
        """Over all windows that began at that time or later."""
        with self._database.read() as connection:
            return load_participation(connection, self._address, since_ms, self._clock.now_ms())

    def load_own_statements(self, instance: InstanceId) -> list[bytes]:
        """Own journaled statements of an instance under all configs, in the order they were made."""
        t = schema.journal
        query = select(t.c.bytes).where(t.c.instance_kind == int(instance.kind), t.c.instance_number == instance.number)
        with self._database.read() as connection:
            return list(connection.scalars(query.order_by(t.c.id)))

    def load_used_observations(self, instance: InstanceId) -> UsedObservations | None:
        """What the decided outcome of an instance used, as far as it is kept; None while the outcome is not here."""
        instances, bodies, statements = schema.instances, schema.bodies, schema.statements
        decided = select(instances.c.decided_value).where(
            is_instance(instances, instance), instances.c.decided_value.is_not(None)
        )
        with self._database.read() as connection:
            value = connection.scalar(decided.order_by(instances.c.opened_ms.desc()).limit(1))
            body = connection.scalar(select(bodies.c.bytes).where(bodies.c.digest == value))
            if body is None:
                return None
            named = decode_outcome(body).observations
            query = (
                select(statements.c.bytes, bodies.c.bytes)
                .join(bodies, bodies.c.digest == statements.c.value)
                .where(
                    is_instance(statements, instance),
                    statements.c.statement_kind == int(StatementKind.OBSERVATION),
                    statements.c.value.in_(named),
                )
                .order_by(statements.c.id)
            )
            return UsedObservations(named, tuple((said, what) for said, what in connection.execute(query)))

    def check_ready(self) -> list[Check]:
        """Whether this validator can work: database, schema, disk, chain, beat and worker. Never raises."""
        return self._readiness.check()


def _load_events(connection: Connection) -> tuple[EventView, ...]:
    t = schema.events
    query = select(t).where(t.c.level.in_(("warning", "error"))).order_by(t.c.id.desc()).limit(SHOWN_EVENTS)
    return tuple(EventView(row.at_ms, row.level, row.event, row.fields) for row in connection.execute(query))


def _counts(connection: Connection, column: Any, states: Sequence[str]) -> dict[str, int]:
    return dict.fromkeys(states, 0) | count_by(connection, column)


def _count(connection: Connection, column: Any, *conditions: ColumnElement[bool]) -> int:
    return connection.execute(select(func.count(column)).where(*conditions)).scalar_one()
