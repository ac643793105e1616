"""Canonical observations and outcomes, kept under their digests."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, select

from validator.codec import cbor
from validator.errors import MalformedInput
from validator.hashing import hash_object
from validator.model import Digest, InstanceId, InstanceKind
from validator.store import schema
from validator.store.rows import insert_new

KINDS = {"observation/1": "observation", "outcome/1": "outcome"}
_BYTES = select(schema.bodies.c.bytes).where(schema.bodies.c.digest == bindparam("at_digest"))


def save_body(connection: Connection, body: bytes, now_ms: int) -> Digest:
    """Keep a body that the caller has decoded; returns its digest. Saving it again changes nothing.

    Raises:
        MalformedInput: it is neither an observation nor an outcome.
    """
    kind, instance = _head(body)
    digest = hash_object(body)
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
