"""Bodies of observations and outcomes by digest, and where the sets behind roots are kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, select

from validator.errors import InvariantError
from validator.hashing import hash_object
from validator.model import Digest, InstanceId, Root
from validator.store import schema
from validator.store.rows import as_row, chunks, from_row, insert_new, is_instance, require_word

KINDS = ("observation", "outcome")


@dataclass(frozen=True, slots=True)
class SetRow:
    """The file behind a set root (store.segments); counts bound what a reader may expect."""

    set_root: Root
    instance: InstanceId
    path: str
    count: int
    signed_bytes: int
    created_ms: int


def save_body(
    connection: Connection, digest: Digest, kind: str, instance: InstanceId, data: bytes, now_ms: int
) -> bool:
    """Keep canonical bytes under their digest; False if they are there. Raises InvariantError: not their digest."""
    require_word(kind, KINDS, "body.kind")
    if hash_object(data) != digest:
        raise InvariantError("a body is saved under its own digest only")
    row = {
        "digest": digest,
        "kind": kind,
        "instance_kind": int(instance.kind),
        "instance_number": instance.number,
        "bytes": data,
        "saved_ms": now_ms,
    }
    return insert_new(connection, schema.bodies, row)


def load_body(connection: Connection, digest: Digest) -> bytes | None:
    return connection.scalar(select(schema.bodies.c.bytes).where(schema.bodies.c.digest == digest))


def load_bodies(connection: Connection, digests: Sequence[Digest]) -> dict[Digest, bytes]:
    """Those of the given bodies that are here."""
    found = {}
    t = schema.bodies
    for chunk in chunks(digests):
        rows = connection.execute(select(t.c.digest, t.c.bytes).where(t.c.digest.in_(chunk)))
        found.update({Digest(digest): data for digest, data in rows})
    return found


def load_instance_bodies(connection: Connection, instance: InstanceId, kind: str) -> list[bytes]:
    """All bodies of one kind of an instance, in the order they came."""
    t = schema.bodies
    query = select(t.c.bytes).where(is_instance(t, instance), t.c.kind == kind).order_by(t.c.saved_ms, t.c.digest)
    return list(connection.scalars(query))


def delete_bodies(connection: Connection, instance: InstanceId, *, keep: Iterable[Digest] = ()) -> None:
    """Drop the bodies of an instance, all but ``keep``."""
    t = schema.bodies
    connection.execute(delete(t).where(is_instance(t, instance), t.c.digest.not_in(list(keep))))


# --- sets -------------------------------------------------------------------------------------------


def save_set(connection: Connection, row: SetRow) -> bool:
    """Record a set whose file is durable; False if it is known."""
    return insert_new(connection, schema.sets, as_row(row))


def load_set(connection: Connection, set_root: Root) -> SetRow | None:
    row = connection.execute(select(schema.sets).where(schema.sets.c.set_root == set_root)).one_or_none()
    return None if row is None else from_row(SetRow, row)


def load_instance_sets(connection: Connection, instance: InstanceId) -> list[SetRow]:
    """All sets kept for an instance, oldest first."""
    t = schema.sets
    query = select(t).where(is_instance(t, instance)).order_by(t.c.created_ms, t.c.set_root)
    return [from_row(SetRow, row) for row in connection.execute(query)]


def delete_set(connection: Connection, set_root: Root) -> None:
    """Forget a set; delete its file after the commit."""
    connection.execute(delete(schema.sets).where(schema.sets.c.set_root == set_root))
