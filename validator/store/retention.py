"""What may go: everything that only served to agree, upload and settle bundles that are final now.

Certificates, outcomes, evidence, bundles, uploads and reports stay for ever, and of every instance the newest own
statement: a vote below it is refused whatever happens. Deletions are bounded, so that a call is short after however
long a pause, and what one leaves the next one takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Table, and_, delete, func, or_, select, tuple_

from validator.ports.clock import Clock
from validator.ports.states import BundleState
from validator.ports.stored import Settled
from validator.protocol.model import InstanceId, InstanceKind
from validator.store import schema
from validator.store.database import Database
from validator.store.rows import is_instance
from validator.store.sets import SetRows

VACUUMED_PAGES = 2_000
"""Free pages that SQLite gives back to the file system at a time: 8 MB."""
KEPT_HASHES = 400


class RetentionRows:
    """The port ``Retention``."""

    def __init__(self, database: Database, sets: SetRows, clock: Clock) -> None:
        self._database = database
        self._sets = sets
        self._clock = clock

    def last_settled(self, before_ms: int) -> Settled | None:
        """The newest bundle that was final before a time, as were all bundles before it."""
        t = schema.bundles
        with self._database.read() as connection:
            unsettled = connection.scalar(select(func.min(t.c.number)).where(t.c.state != BundleState.FINAL))
            query = select(t.c.number, t.c.end_ms).where(t.c.state == BundleState.FINAL, t.c.changed_ms < before_ms)
            if unsettled is not None:
                query = query.where(t.c.number < unsettled)
            row = connection.execute(query.order_by(t.c.number.desc()).limit(1)).one_or_none()
        return None if row is None else Settled(row.number, row.end_ms)

    def delete_sets(self, before_ms: int, limit: int) -> int:
        """Sets whose newest message and whose saving lie before a time; the empty set stays, many windows share it."""
        old = self._sets.old_sets(before_ms, limit)
        for set_root in old:
            self._sets.delete_set(set_root)
        return len(old)

    def delete_set_files(self, before_ms: int, limit: int) -> int:
        """Files of damaged sets, and of savings that never ended."""
        return self._sets.sweep_files(before_ms, limit)

    def delete_identities(self, before_ms: int, limit: int) -> int:
        """Of messages too old for any late set to come: what was agreed, and what never was."""
        deleted = 0
        for table in (schema.identities, schema.late_candidates):
            deleted += self._delete(table, table.c.timestamp_ms < before_ms, limit)
        return deleted

    def delete_window_notes(self, before_ms: int, limit: int) -> int:
        """Etags and sightings of windows that start before a time."""
        deleted = 0
        for table in (schema.etags, schema.sightings):
            deleted += self._delete(table, table.c.window_start < before_ms, limit)
        return deleted

    def delete_rejections(self, before_ms: int, limit: int) -> int:
        """Refused records that were first seen before a time."""
        t, more = schema.rejections, schema.rejection_overflows
        deleted = self._delete(t, t.c.first_ms < before_ms, limit)
        return deleted + self._delete(more, more.c.window_start < before_ms, limit)

    def delete_states(self, before_ms: int, kept_s: Sequence[int], limit: int) -> int:
        """Chain states and permissions read before a time; states at the cut points of ``kept_s`` stay."""
        states, blocks, permissions = schema.chain_states, schema.chain_blocks, schema.permissions
        kept = list(kept_s)[-KEPT_HASHES:]
        with self._database.read() as connection:
            hashes = list(connection.scalars(select(blocks.c.hash).where(blocks.c.at_s.in_(kept))))
            hashes += connection.scalars(select(schema.epoch_blocks.c.hash))
        deleted = self._delete(states, and_(states.c.saved_ms < before_ms, states.c.block_hash.not_in(hashes)), limit)
        deleted += self._delete(permissions, permissions.c.saved_ms < before_ms, limit)
        old_block = and_(blocks.c.at_s < before_ms // 1000, blocks.c.at_s.not_in(kept))
        return deleted + self._delete(blocks, old_block, limit)

    def prune_instances(self, settled: Settled, limit: int) -> int:
        """Statements, proofs and bodies of settled instances, at most ``limit`` of these; returns how many."""
        with self._database.read() as connection:
            instances = _unpruned(connection, settled, limit)
        for instance in instances:
            with self._database.write() as connection:
                _prune(connection, instance)
        return len(instances)

    def compact(self) -> None:
        """Give free pages of SQLite's file back; PostgreSQL sees to that itself."""
        self._database.vacuum(VACUUMED_PAGES)

    def _delete(self, table: Table, condition: ColumnElement[bool], limit: int) -> int:
        keys = list(table.primary_key)
        oldest = select(*keys).where(condition).limit(limit)
        chosen = tuple_(*keys).in_(oldest) if len(keys) > 1 else keys[0].in_(oldest)
        with self._database.write() as connection:
            return int(connection.execute(delete(table).where(chosen)).rowcount)


def _unpruned(connection: Connection, settled: Settled, limit: int) -> list[InstanceId]:
    """Settled instances of which statements are left, oldest statement first."""
    t = schema.statements
    kind, number = t.c.instance_kind, t.c.instance_number
    query = (
        select(kind, number)
        .where(_is_settled(kind, number, settled))
        .group_by(kind, number)
        .order_by(func.min(t.c.id))
        .limit(limit)
    )
    return [InstanceId(InstanceKind(k), n) for k, n in connection.execute(query)]


def _is_settled(kind: Column[Any], number: Column[Any], settled: Settled) -> ColumnElement[bool]:
    return or_(
        and_(kind == int(InstanceKind.WINDOW), number < settled.end_ms),
        and_(kind == int(InstanceKind.LATE), number <= settled.number),
    )


def _prune(connection: Connection, instance: InstanceId) -> None:
    """Certificate, outcome and newest own statement (by config) stay; statements go last: they bring us back here."""
    journal, bodies, instances = schema.journal, schema.bodies, schema.instances
    place = func.row_number().over(
        partition_by=journal.c.config_digest, order_by=(journal.c.round.desc(), journal.c.statement_kind.desc())
    )
    ranked = select(journal.c.id, place.label("place")).where(is_instance(journal, instance)).subquery()
    newest = select(ranked.c.id).where(ranked.c.place == 1)
    connection.execute(delete(journal).where(is_instance(journal, instance), journal.c.id.not_in(newest)))
    decided = select(instances.c.decided_value).where(
        is_instance(instances, instance), instances.c.decided_value.is_not(None)
    )
    connection.execute(delete(bodies).where(is_instance(bodies, instance), bodies.c.digest.not_in(decided)))
    connection.execute(delete(schema.quorums).where(is_instance(schema.quorums, instance)))
    connection.execute(delete(schema.statements).where(is_instance(schema.statements, instance)))
