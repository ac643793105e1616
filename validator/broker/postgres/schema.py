"""The tables of a broker's PostgreSQL, and how they come to be: numbered steps, and a version table of their own.

Alembic, which migrates the validator's database, was decided against here. Its scripts are one line of history for one
schema, compared with SQLAlchemy's metadata, and applied by ``init``; a broker has no SQLAlchemy, no ``init`` (its day
files make themselves too), a table that is partitioned by days as they come, and shares no schema with a validator. A
second tree of scripts would carry three files of machinery for a handful of statements.

Every process brings the schema up to date when it starts, one at a time under an advisory lock, in one transaction.
Steps add first and remove a release later, so that older processes go on beside a newer one; a process that starts on
a schema newer than itself refuses to.
"""

from __future__ import annotations

from validator.broker.postgres.database import Cursor, Database
from validator.protocol.errors import ConfigError
from validator.protocol.model import Address

MIGRATION_LOCK = 0x6C6F67_42
"""Of the advisory lock under which tables are made; ``LEAD_LOCK`` is another."""

_FIRST = """
CREATE TABLE broker_owner (address bytea NOT NULL, network bytea NOT NULL);
CREATE TABLE parts (
  id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, stream_id bytea NOT NULL, partition int NOT NULL,
  UNIQUE (stream_id, partition));
CREATE TABLE day_parts (day int NOT NULL, part int NOT NULL, PRIMARY KEY (day, part));
CREATE TABLE messages (
  part int NOT NULL, sequence int NOT NULL, timestamp bigint NOT NULL, arrived bigint NOT NULL,
  signed_bytes int NOT NULL, publisher bytea NOT NULL, chain bytea NOT NULL, leaf bytea NOT NULL,
  identity bytea NOT NULL, canonical bytea NOT NULL) PARTITION BY RANGE (timestamp);
ALTER TABLE messages ALTER canonical SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX places ON messages (part, timestamp, sequence, leaf) INCLUDE (arrived);
"""
_SHARED = """
CREATE TABLE touched (
  id bigint GENERATED ALWAYS AS IDENTITY, start bigint NOT NULL, part int NOT NULL, PRIMARY KEY (start, id));
CREATE TABLE sums (
  length bigint NOT NULL, start bigint NOT NULL, count bigint NOT NULL, root bytea NOT NULL,
  PRIMARY KEY (length, start));
ALTER TABLE broker_owner ADD looked_from bigint;
CREATE TABLE accounts (
  consumer bytea PRIMARY KEY, epoch bigint NOT NULL, cumulative bigint NOT NULL, unpaid bigint NOT NULL);
CREATE TABLE evidence (name text PRIMARY KEY, data bytea NOT NULL);
"""
STEPS = (_FIRST, _SHARED)
"""Never changed once released: what a later release needs is a step of its own."""


def migrate(database: Database, address: Address, network: bytes) -> None:
    """Bring the schema to this release's, and see whose it is. Safe to run twice and at the same time.

    Raises:
        ConfigError: the schema is a newer release's, or the database another broker's or network's.
        TransientError: the database does not answer.
    """
    with database.transaction() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))
        cursor.execute("CREATE TABLE IF NOT EXISTS broker_schema (version int NOT NULL)")
        found = cursor.execute("SELECT max(version) FROM broker_schema").fetchone()
        version = 0 if found is None or found[0] is None else int(found[0])
        if version > len(STEPS):
            raise ConfigError(
                f"the database's schema is at {version}, made by a newer release; install that release",
                field="database_url",
            )
        for number in range(version, len(STEPS)):
            cursor.connection.execute(STEPS[number])
            cursor.execute("INSERT INTO broker_schema VALUES (%s)", (number + 1,))
        _require_owner(cursor, address, network)


def _require_owner(cursor: Cursor, address: Address, network: bytes) -> None:
    """Two brokers in one database would each claim what the other holds."""
    found = cursor.execute("SELECT address, network FROM broker_owner").fetchone()
    if found is None:
        cursor.execute("INSERT INTO broker_owner VALUES (%s, %s)", (address, network))
    elif found[0] != address:
        raise ConfigError(
            f"the database belongs to the broker 0x{found[0].hex()}; each has one of its own", field="database_url"
        )
    elif found[1] != network:
        raise ConfigError("the database belongs to another network", field="database_url")
