"""What is remembered of single messages: why they were refused, which set holds them, who still waits for a set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, select, update

from validator.model import Address, Digest, InstanceId, Reason
from validator.store import schema
from validator.store.rows import as_row, chunks, count_by, from_row, insert_all_new, insert_new, is_instance

MAX_REJECTIONS = 10_000
"""Rows kept per broker and window; what comes after is only counted."""
MAX_DETAIL = 300
"""Characters kept of a refusal's detail."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A record from outside that was not taken. ``window_start`` is that of the window it was pulled for."""

    record_sha256: Digest
    reason: Reason
    broker: Address
    window_start: int
    first_ms: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class LateCandidate:
    """A valid message that is in no agreed set yet. ``identity`` is the digest of its identity."""

    identity: Digest
    leaf: Digest
    window_start: int
    bytes: bytes
    source: Address
    first_ms: int
    pushed: bool = False


# --- rejections -------------------------------------------------------------------------------------


def save_rejections(connection: Connection, rejections: Iterable[Rejection]) -> int:
    """Keep each distinct (record, reason) once; returns how many were new.

    Behind ``MAX_REJECTIONS`` per broker and window only a counter grows.
    """
    fresh = 0
    t = schema.rejections
    held: dict[tuple[Address, int], int] = {}
    for rejection in rejections:
        place = (rejection.broker, rejection.window_start)
        if place not in held:
            query = select(func.count()).where(t.c.broker == place[0], t.c.window_start == place[1])
            held[place] = connection.execute(query).scalar_one()
        if held[place] >= MAX_REJECTIONS:
            _count_overflow(connection, rejection)
            continue
        row = as_row(rejection) | {"reason": rejection.reason.value, "detail": rejection.detail[:MAX_DETAIL]}
        if insert_new(connection, t, row):
            held[place] += 1
            fresh += 1
    return fresh


def count_rejections(connection: Connection) -> dict[str, int]:
    """Distinct records per reason."""
    return count_by(connection, schema.rejections.c.reason)


def count_rejections_by_broker(connection: Connection) -> dict[Address, dict[str, int]]:
    """Distinct records per reason and the broker that served them first."""
    t = schema.rejections
    counted: dict[Address, dict[str, int]] = {}
    rows = connection.execute(select(t.c.broker, t.c.reason, func.count()).group_by(t.c.broker, t.c.reason))
    for broker, reason, count in rows:
        counted.setdefault(Address(broker), {})[reason] = count
    return counted


def count_overflows(connection: Connection) -> int:
    """Refusals that were only counted."""
    return int(connection.execute(select(func.coalesce(func.sum(schema.rejection_overflows.c.count), 0))).scalar_one())


def load_rejections(connection: Connection, limit: int = 100) -> list[Rejection]:
    """Newest first."""
    t = schema.rejections
    rows = connection.execute(select(t).order_by(t.c.first_ms.desc(), t.c.record_sha256).limit(limit))
    return [from_row(Rejection, row) for row in rows]


def delete_rejections(connection: Connection, before_ms: int) -> None:
    """Drop those first seen before this time."""
    connection.execute(delete(schema.rejections).where(schema.rejections.c.first_ms < before_ms))


def _count_overflow(connection: Connection, rejection: Rejection) -> None:
    t = schema.rejection_overflows
    place = {"broker": rejection.broker, "window_start": rejection.window_start, "reason": rejection.reason.value}
    if not insert_new(connection, t, {**place, "count": 1}):
        condition = (t.c[name] == value for name, value in place.items())
        connection.execute(update(t).where(*condition).values(count=t.c.count + 1))


# --- identities of messages in agreed sets ------------------------------------------------------------


def save_identities(
    connection: Connection, instance: InstanceId, window_start: int, identities: Iterable[Digest]
) -> None:
    """Remember that these messages are in the agreed set of ``instance``; ``window_start`` decides how long."""
    place = {"instance_kind": int(instance.kind), "instance_number": instance.number, "window_start": window_start}
    insert_all_new(connection, schema.identities, ({"identity": i, **place} for i in identities))


def known_identities(connection: Connection, identities: Iterable[Digest]) -> set[Digest]:
    """Which of these messages are in an agreed set."""
    t = schema.identities
    found: set[Digest] = set()
    for chunk in chunks(identities):
        found.update(Digest(i) for i in connection.scalars(select(t.c.identity).where(t.c.identity.in_(chunk))))
    return found


def load_identity_instance(connection: Connection, identity: Digest) -> InstanceId | None:
    """The instance whose set holds the message."""
    t = schema.identities
    row = connection.execute(
        select(t.c.instance_kind, t.c.instance_number).where(t.c.identity == identity)
    ).one_or_none()
    return None if row is None else InstanceId(*row)


def delete_identities(
    connection: Connection, *, before_ms: int | None = None, instance: InstanceId | None = None
) -> None:
    """Drop those of windows that start before a time, or of an instance that is void."""
    t = schema.identities
    if before_ms is not None:
        connection.execute(delete(t).where(t.c.window_start < before_ms))
    if instance is not None:
        connection.execute(delete(t).where(is_instance(t, instance)))


# --- late candidates ----------------------------------------------------------------------------------


def save_late_candidates(connection: Connection, candidates: Iterable[LateCandidate]) -> int:
    """Keep messages that missed their window; returns how many were new."""
    return sum(insert_new(connection, schema.late_candidates, as_row(candidate)) for candidate in candidates)


def load_late_candidates(
    connection: Connection, from_ms: int, until_ms: int, *, unpushed: bool = False, limit: int = 1_000_000
) -> list[LateCandidate]:
    """Candidates of windows with from_ms <= start < until_ms, by window and identity; ``unpushed``: only those."""
    t = schema.late_candidates
    query = select(t).where(t.c.window_start >= from_ms, t.c.window_start < until_ms)
    if unpushed:
        query = query.where(t.c.pushed.is_(False))
    rows = connection.execute(query.order_by(t.c.window_start, t.c.identity).limit(limit))
    return [from_row(LateCandidate, row) for row in rows]


def save_pushed(connection: Connection, identities: Sequence[Digest]) -> None:
    """These were pushed to the peers."""
    t = schema.late_candidates
    for chunk in chunks(identities):
        connection.execute(update(t).where(t.c.identity.in_(chunk)).values(pushed=True))


def delete_late_candidates(
    connection: Connection, *, identities: Iterable[Digest] = (), before_ms: int | None = None
) -> None:
    """Drop those that are in an agreed set now, or whose window is too old for any late set."""
    t = schema.late_candidates
    for chunk in chunks(identities):
        connection.execute(delete(t).where(t.c.identity.in_(chunk)))
    if before_ms is not None:
        connection.execute(delete(t).where(t.c.window_start < before_ms))


def count_late_candidates(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(schema.late_candidates)).scalar_one()
