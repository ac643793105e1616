"""Which messages are in agreed sets, and which came too late for their window."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import ColumnElement, delete, exists, select

from validator.ports.clock import Clock
from validator.protocol.codec.message import record_from_canonical
from validator.protocol.hashing import hash_labelled
from validator.protocol.model import Digest, Identity, InstanceId, Record
from validator.store import schema
from validator.store.database import Database
from validator.store.rows import chunks, insert_all_new, insert_new, is_instance

IDENTITIES_ROWS = 20_000
"""Identities that are written, or looked for, at a time."""


class ArchiveRows:
    """The port ``Archive``."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def save_identities(self, instance: InstanceId, identities: Iterable[Identity]) -> None:
        """Remember that these messages are in the agreed set of ``instance``; candidates among them are dropped."""
        place = {"instance_kind": int(instance.kind), "instance_number": instance.number}
        t = schema.late_candidates
        for some in chunks(identities, IDENTITIES_ROWS):  # a large set is many short transactions; each repeatable
            rows = [{"identity": identity_key(i), "timestamp_ms": i[2], **place} for i in some]
            with self._database.write() as connection:
                insert_all_new(connection, schema.identities, rows)
                for keys in chunks([row["identity"] for row in rows]):
                    connection.execute(delete(t).where(t.c.identity.in_(keys)))

    def stored_identities(self, identities: Iterable[Identity]) -> set[Identity]:
        """Which of these messages are in an agreed set."""
        return self._known(identities)

    def identities_of(self, instance: InstanceId, identities: Iterable[Identity]) -> set[Identity]:
        """Which of these messages are in the agreed set of one instance."""
        return self._known(identities, is_instance(schema.identities, instance))

    def _known(self, identities: Iterable[Identity], *conditions: ColumnElement[bool]) -> set[Identity]:
        t = schema.identities
        found: set[Identity] = set()
        for some in chunks(identities, IDENTITIES_ROWS):
            by_key = {identity_key(identity): identity for identity in some}
            with self._database.read() as connection:
                for keys in chunks(by_key):
                    rows = connection.scalars(select(t.c.identity).where(t.c.identity.in_(keys), *conditions))
                    found.update(by_key[Digest(key)] for key in rows)
        return found

    def save_late(self, records: Sequence[Record], now_ms: int) -> list[Record]:
        """Candidates of late sets; returns those that were new and are in no agreed set."""
        stored = self.stored_identities([record.identity for record in records])
        fresh = []
        with self._database.write() as connection:
            for record in records:
                row = {
                    "identity": identity_key(record.identity),
                    "timestamp_ms": record.message.timestamp_ms,
                    "bytes": record.canonical,
                    "first_ms": now_ms,
                }
                if record.identity not in stored and insert_new(connection, schema.late_candidates, row):
                    fresh.append(record)
        return fresh

    def load_late(self, from_ms: int, until_ms: int) -> list[Record]:
        """Candidates with from_ms <= timestamp < until_ms that no agreed set holds, in canonical order."""
        t, held = schema.late_candidates, schema.identities
        query = select(t.c.bytes).where(
            t.c.timestamp_ms >= from_ms,
            t.c.timestamp_ms < until_ms,
            ~exists().where(held.c.identity == t.c.identity),
        )
        with self._database.read() as connection:
            data = connection.scalars(query).all()
        return sorted((record_from_canonical(item) for item in data), key=lambda record: record.order)

    def forget(self, before_ms: int) -> None:
        """Drop identities and candidates of messages too old for any late set."""
        with self._database.write() as connection:
            for table in (schema.identities, schema.late_candidates):
                connection.execute(delete(table).where(table.c.timestamp_ms < before_ms))


def identity_key(identity: Identity) -> Digest:
    """32 bytes that stand for an identity in the database."""
    stream_id, partition, timestamp_ms, signed_digest = identity
    return hash_labelled(
        "identity", stream_id.encode(), partition.to_bytes(4, "big"), timestamp_ms.to_bytes(8, "big"), signed_digest
    )
