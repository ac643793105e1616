"""Instances of agreement: the state of each, saved only on top of the version it was decided from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection, select, update

from validator.model import Address, Digest, InstanceId
from validator.store import schema
from validator.store.errors import StaleState
from validator.store.rows import as_row, count_by, from_row, insert_new, is_instance, require_word

STATES = ("open", "decided")


@dataclass(frozen=True, slots=True)
class InstanceRow:
    """One agreement under one config digest.

    ``order_ms``: age of what is decided (a window's start, the end of a late set's bundle). ``progress``: the core's
    encoded scalars. ``barred``: why this validator must not vote here; "" if it may. ``queued`` is the flag of the
    server's path alone, changed by ``set_queued`` and ``clear_queued``, never by ``save_instance``.
    ``wake_ms`` None: nothing is due. A decided instance may still wake (its outcome is to be fetched).
    """

    config_digest: Digest
    instance: InstanceId
    order_ms: int
    opened_ms: int
    version: int = 0
    progress: bytes | None = None
    state: str = "open"
    round: int = 0
    leader: Address | None = None
    waits_for: str = ""
    barred: str = ""
    wake_ms: int | None = None
    queued: bool = False
    decided_value: Digest | None = None
    decided_round: int | None = None
    certificate: bytes | None = None
    decided_ms: int | None = None


def create_instance(connection: Connection, row: InstanceRow) -> bool:
    """Open an instance; False if it is open already (it stays as it is)."""
    require_word(row.state, STATES, "instance.state")
    return insert_new(connection, schema.instances, as_row(row))


def load_instance(
    connection: Connection, config_digest: Digest, instance: InstanceId, *, lock: bool = False
) -> InstanceRow | None:
    """``lock``: the row is locked first, so both engines serialise workers in the same place."""
    query = select(schema.instances).where(is_instance(schema.instances, instance, config_digest))
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    return None if row is None else from_row(InstanceRow, row)


def save_instance(connection: Connection, row: InstanceRow, *, expected_version: int) -> InstanceRow:
    """Write everything but the ``queued`` flag on top of ``expected_version``; returns the row with its new version.

    Raises:
        StaleState: another worker was first; nothing of this transaction may be kept.
    """
    require_word(row.state, STATES, "instance.state")
    saved = replace(row, version=expected_version + 1)
    values = {k: v for k, v in as_row(saved).items() if k not in _FIXED}
    t = schema.instances
    statement = update(t).where(is_instance(t, row.instance, row.config_digest), t.c.version == expected_version)
    if connection.execute(statement.values(**values)).rowcount != 1:
        raise StaleState(
            f"{row.instance} has left version {expected_version}", instance=str(row.instance), version=expected_version
        )
    return saved


_FIXED = ("config_digest", "instance_kind", "instance_number", "queued", "opened_ms")


def find_instances(connection: Connection, instance: InstanceId) -> list[InstanceRow]:
    """The same instance under all config digests, newest first."""
    t = schema.instances
    query = select(t).where(is_instance(t, instance)).order_by(t.c.opened_ms.desc())
    return [from_row(InstanceRow, row) for row in connection.execute(query)]


def due_instances(connection: Connection, now_ms: int, limit: int = 100) -> list[InstanceRow]:
    """Instances whose wake time has passed, oldest first."""
    t = schema.instances
    query = select(t).where(t.c.wake_ms <= now_ms).order_by(t.c.order_ms, t.c.instance_kind).limit(limit)
    return [from_row(InstanceRow, row) for row in connection.execute(query)]


def undecided(connection: Connection, limit: int) -> list[InstanceRow]:
    """The oldest undecided instances: those that are worked on (design: agreement, load)."""
    t = schema.instances
    query = select(t).where(t.c.state == "open").order_by(t.c.order_ms, t.c.instance_kind).limit(limit)
    return [from_row(InstanceRow, row) for row in connection.execute(query)]


def load_decided(connection: Connection, config_digest: Digest, instances: Sequence[InstanceId]) -> list[InstanceRow]:
    """Those of the given instances that are decided."""
    rows = (load_instance(connection, config_digest, instance) for instance in instances)
    return [row for row in rows if row is not None and row.certificate is not None]


def count_instances(connection: Connection) -> dict[str, int]:
    """Instances by state."""
    return dict.fromkeys(STATES, 0) | count_by(connection, schema.instances.c.state)


# --- the flag of the server's path (design: who calls round.advance) --------------------------------


def set_queued(connection: Connection, config_digest: Digest, instance: InstanceId) -> bool:
    """True: the flag was free and is now set, so queue one task; False: one is queued, or there is no such instance."""
    t = schema.instances
    statement = update(t).where(is_instance(t, instance, config_digest), t.c.queued.is_(False))
    return connection.execute(statement.values(queued=True)).rowcount == 1


def clear_queued(connection: Connection, config_digest: Digest, instance: InstanceId) -> None:
    """At the start of every advance, in a transaction of its own, before the state is loaded."""
    t = schema.instances
    statement = update(t).where(is_instance(t, instance, config_digest), t.c.queued.is_(True))
    connection.execute(statement.values(queued=False))
