"""Canonical observations and outcomes, kept under their digests; what does not hash to its digest is not here."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, and_, bindparam, delete, or_, select

from validator.protocol.codec import cbor
from validator.protocol.codec.outcome import OUTCOME, body_digest, decode_observation, decode_outcome
from validator.protocol.codec.outcome import set_root as compute_set_root
from validator.protocol.errors import MalformedInput
from validator.protocol.model import Digest, InstanceId, InstanceKind, Root
from validator.store import schema
from validator.store.rows import insert_new

KINDS = {"observation/1": "observation", OUTCOME: "outcome"}
MAX_LOOKED_AT = 5_000
_BYTES = select(schema.bodies.c.bytes).where(schema.bodies.c.digest == bindparam("at_digest"))


def save_body(connection: Connection, body: bytes, now_ms: int) -> Digest:
    """Keep a body that the caller has decoded; returns its digest. Saving it again changes nothing.

    Raises:
        MalformedInput: it is neither an observation nor an outcome.
    """
    kind, instance = _head(body)
    digest = body_digest(body)
    row = {
        "digest": digest,
        "kind": kind,
        "instance_kind": int(instance.kind),
        "instance_number": instance.number,
        "bytes": body,
        "saved_ms": now_ms,
    }
    insert_new(connection, schema.bodies, row)
    return digest


def load_body(connection: Connection, digest: Digest) -> bytes | None:
    return connection.scalar(_BYTES, {"at_digest": digest})


def drop_body(connection: Connection, digest: Digest) -> None:
    """Make room for the body as it was, where what is kept does not give its digest any more."""
    connection.execute(delete(schema.bodies).where(schema.bodies.c.digest == digest))


def find_set(connection: Connection, set_root: Root, window_starts: Sequence[int]) -> InstanceId | None:
    """The instance of which this is an outcome's set, or an observed one: one of these windows, or a late set."""
    t = schema.bodies
    kind, number = t.c.instance_kind, t.c.instance_number
    query = (
        select(t.c.kind, t.c.bytes)
        .where(
            or_(
                and_(kind == int(InstanceKind.WINDOW), number.in_(window_starts)),
                kind == int(InstanceKind.LATE),
            )
        )
        .order_by(kind, number.desc())
        .limit(MAX_LOOKED_AT)
    )
    for row in connection.execute(query):
        try:
            if row.kind == "outcome":
                outcome = decode_outcome(row.bytes)
                found = compute_set_root(outcome.entries), outcome.instance
            else:
                observation = decode_observation(row.bytes)
                found = observation.set_root, observation.instance
        except MalformedInput:
            continue  # damaged too
        if found[0] == set_root:
            return found[1]
    return None


def _head(body: bytes) -> tuple[str, InstanceId]:
    """Kind and instance: the first three items, read without building the rest."""
    items = []
    at = 1  # arrays of fewer than 24 items have a head of one byte
    for _ in range(3):
        end = cbor.scan_item(body, at, "body")
        items.append(cbor.decode(body[at:end], max_bytes=64, what="body"))
        at = end
    if not isinstance(items[0], str) or items[0] not in KINDS:
        raise MalformedInput("body", "neither an observation nor an outcome")
    try:
        return KINDS[items[0]], InstanceId(InstanceKind(items[1]), items[2])
    except ValueError:
        raise MalformedInput("body.instance", f"{items[1]!r} is unknown") from None
