"""What this database is: its random id, the block of its creation, its network."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from validator.protocol.codec import cbor
from validator.protocol.errors import ConfigError
from validator.protocol.model import Digest
from validator.protocol.parameters import Contracts
from validator.store import schema
from validator.store.rows import as_row, from_row, insert_new, insert_or_replace

_RETIRED = select(schema.meta.c.retired_ms).where(schema.meta.c.id == 1).with_for_update(read=True)


@dataclass(frozen=True, slots=True)
class Meta:
    """Written once, when the database is created; a fresh one votes late (design: agreement, persist then speak).

    ``database_id``: 32 random bytes, also written beside the key. ``created_block_s``: time of the newest block at
    creation; ``config_count``: the count then. ``retired_ms``: votes were exported, never vote again.
    """

    database_id: bytes
    created_ms: int
    created_block_number: int
    created_block_s: int
    chain_id: int
    parent_hash: Digest
    contracts: bytes
    config_count: int
    retired_ms: int | None = None


def encode_contracts(contracts: Contracts) -> bytes:
    """The contracts' addresses, as the database keeps them."""
    c = contracts
    return cbor.encode_object(
        "contracts/1", c.token, c.node_manager, c.store_manager, c.query_manager, c.report_manager, c.stream_registry
    )


def load_meta(connection: Connection) -> Meta | None:
    """None until the first start has written it."""
    columns = [c for c in schema.meta.c if c.name != "id"]
    row = connection.execute(select(*columns).where(schema.meta.c.id == 1)).one_or_none()
    return None if row is None else from_row(Meta, row)


def create_meta(connection: Connection, meta: Meta) -> Meta:
    """Write it if nobody has; returns what the database holds.

    Raises:
        ConfigError: the database belongs to another network.
    """
    insert_new(connection, schema.meta, {"id": 1, **as_row(meta)})
    held = load_meta(connection)
    assert held is not None
    for name in ("chain_id", "parent_hash", "contracts"):
        if getattr(held, name) != getattr(meta, name):
            raise ConfigError(
                f"LOGSTORE_DATABASE_URL: this database belongs to another network ({name} differs); "
                "name another database",
                field="LOGSTORE_DATABASE_URL",
                differs=name,
            )
    return held


def replace_meta(connection: Connection, meta: Meta) -> None:
    """Write it over whatever is there: the database begins anew as another one."""
    insert_or_replace(connection, schema.meta, {"id": 1, **as_row(meta)})


def require_active(connection: Connection) -> None:
    """In the transaction that writes a vote: nobody is exporting the votes at the same time, or has.

    Raises:
        ConfigError: the database is retired.
    """
    if connection.scalar(_RETIRED) is not None:
        raise retired_error()


def retired_error() -> ConfigError:
    return ConfigError(
        "LOGSTORE_DATABASE_URL: this database is retired, its votes were exported; use the one they were imported into",
        field="LOGSTORE_DATABASE_URL",
    )


def save_retired(connection: Connection, now_ms: int) -> None:
    """After an export of votes: this database never votes again."""
    connection.execute(update(schema.meta).values(retired_ms=now_ms))
