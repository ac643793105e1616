"""Tables. Times are BIGINT Unix milliseconds unless the name ends in _s; digests and addresses are raw bytes.

The schema is created and changed by the migrations in alembic/ only; a test compares the two. Amounts of up to 256
bits are NUMERIC(78) on PostgreSQL and decimal text on SQLite, whose numbers would become floats.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from validator.store.column_types import Amount, Serial, StreamId, Words

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _instance_columns() -> list[Column[Any]]:
    return [
        Column("config_digest", LargeBinary(32), nullable=False),
        Column("instance_kind", Integer, nullable=False),
        Column("instance_number", BigInteger, nullable=False),
    ]


meta = Table(
    "meta",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("database_id", LargeBinary(32), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("created_block_number", BigInteger, nullable=False),
    Column("created_block_s", BigInteger, nullable=False),
    Column("chain_id", BigInteger, nullable=False),
    Column("parent_hash", LargeBinary(32), nullable=False),
    Column("contracts", LargeBinary, nullable=False),
    Column("config_count", BigInteger, nullable=False),
    Column("retired_ms", BigInteger),
)

cursors = Table(
    "cursors",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", BigInteger, nullable=False),
    Column("changed_ms", BigInteger, nullable=False),
)

statements = Table(
    "statements",
    metadata,
    Column("id", Serial, primary_key=True),
    *_instance_columns(),
    Column("statement_kind", Integer, nullable=False),
    Column("round", BigInteger, nullable=False),
    Column("signer", LargeBinary(20), nullable=False),
    Column("value", LargeBinary(32), nullable=False),
    Column("valid_round", BigInteger, nullable=False),
    Column("bytes", LargeBinary, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    UniqueConstraint(
        "config_digest",
        "instance_kind",
        "instance_number",
        "signer",
        "statement_kind",
        "round",
        "value",
        "valid_round",
        name="uq_statements_content",
    ),
)

quorums = Table(
    "proofs",  # and certificates
    metadata,
    Column("config_digest", LargeBinary(32), primary_key=True),
    Column("instance_kind", Integer, primary_key=True, autoincrement=False),
    Column("instance_number", BigInteger, primary_key=True, autoincrement=False),
    Column("statement_kind", Integer, primary_key=True, autoincrement=False),
    Column("round", BigInteger, primary_key=True, autoincrement=False),
    Column("value", LargeBinary(32), primary_key=True),
    Column("bytes", LargeBinary, nullable=False),
)

journal = Table(
    "journal",
    metadata,
    Column("id", Serial, primary_key=True),
    *_instance_columns(),
    Column("round", BigInteger, nullable=False),
    Column("statement_kind", Integer, nullable=False),
    Column("bytes", LargeBinary, nullable=False),
    Column("journaled_ms", BigInteger, nullable=False),
    UniqueConstraint(
        "config_digest", "instance_kind", "instance_number", "round", "statement_kind", name="uq_journal_place"
    ),
)

evidence = Table(
    "evidence",
    metadata,
    Column("id", Serial, primary_key=True),
    *_instance_columns(),
    Column("round", BigInteger, nullable=False),
    Column("statement_kind", Integer, nullable=False),
    Column("signer", LargeBinary(20), nullable=False),
    Column("first", LargeBinary, nullable=False),
    Column("second", LargeBinary, nullable=False),
    Column("noticed_ms", BigInteger, nullable=False),
    UniqueConstraint(
        "config_digest",
        "instance_kind",
        "instance_number",
        "signer",
        "statement_kind",
        "round",
        name="uq_evidence_place",
    ),
)

attestations = Table(
    "attestations",
    metadata,
    Column("report_digest", LargeBinary(32), primary_key=True),
    Column("signer", LargeBinary(20), primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("signature", LargeBinary(65), nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    Index(None, "number"),
)

chain_blocks = Table(
    "chain_blocks",
    metadata,
    Column("at_s", BigInteger, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False),
    Column("hash", LargeBinary(32), nullable=False),
    Column("timestamp_s", BigInteger, nullable=False),
)

epoch_blocks = Table(
    "epoch_blocks",
    metadata,
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False),
    Column("hash", LargeBinary(32), nullable=False),
    Column("timestamp_s", BigInteger, nullable=False),
)

reorganisations = Table(
    "reorganisations",
    metadata,
    Column("at_s", BigInteger, primary_key=True, autoincrement=False),
    Column("stored_hash", LargeBinary(32), primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("present_hash", LargeBinary(32), nullable=False),
    Column("depth", BigInteger, nullable=False),
    Column("signed", Text, nullable=False),
    Column("found_ms", BigInteger, nullable=False),
)

store_index = Table(
    "store_index",
    metadata,
    Column("stream_id", StreamId(256), primary_key=True),
)

events = Table(
    "events",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("level", String(8), nullable=False),
    Column("event", String(64), nullable=False),
    Column("fields", Words, nullable=False),
)

due = Table(
    "due",
    metadata,
    Column("task", String(32), primary_key=True),
    Column("key", String(128), primary_key=True),
    Column("wake_ms", BigInteger, nullable=False),
    Index(None, "wake_ms"),
)

windows = Table(
    "windows",
    metadata,
    Column("start_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("end_ms", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Column("observation", LargeBinary(32)),
    Column("bundle", BigInteger),
    Column("opened_ms", BigInteger, nullable=False),
    Column("collected_ms", BigInteger),
    Index(None, "state"),
    Index(None, "bundle"),
)

etags = Table(
    "etags",
    metadata,
    Column(
        "window_start",
        BigInteger,
        ForeignKey("windows.start_ms", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("broker", LargeBinary(20), primary_key=True),
    Column("stream_id", StreamId(256), primary_key=True),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("etag", Words, nullable=False),
)

sightings = Table(
    "sightings",
    metadata,
    Column(
        "window_start",
        BigInteger,
        ForeignKey("windows.start_ms", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("bytes", LargeBinary, nullable=False),
)

rejections = Table(
    "rejections",
    metadata,
    Column("record_sha256", LargeBinary(32), primary_key=True),
    Column("reason", String(32), primary_key=True),
    Column("source", LargeBinary(20), nullable=False),
    Column("window_start", BigInteger, nullable=False),
    Column("first_ms", BigInteger, nullable=False),
    Column("detail", Words, nullable=False),
    Index(None, "source", "window_start"),
)

rejection_overflows = Table(
    "rejection_overflows",
    metadata,
    Column("source", LargeBinary(20), primary_key=True),
    Column("window_start", BigInteger, primary_key=True, autoincrement=False),
    Column("reason", String(32), primary_key=True),
    Column("count", BigInteger, nullable=False),
)

instances = Table(
    "rounds",  # of agreement: the table is older than the word
    metadata,
    Column("config_digest", LargeBinary(32), primary_key=True),
    Column("instance_kind", Integer, primary_key=True, autoincrement=False),
    Column("instance_number", BigInteger, primary_key=True, autoincrement=False),
    Column("order_ms", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("progress", LargeBinary),
    Column("state", String(16), nullable=False),
    Column("round", BigInteger, nullable=False),
    Column("step", String(32), nullable=False),
    Column("leader", LargeBinary(20)),
    Column("waits_for", Words, nullable=False),
    Column("wake_ms", BigInteger),
    Column("queued", Boolean, nullable=False),
    Column("opened_ms", BigInteger, nullable=False),
    Column("decided_value", LargeBinary(32)),
    Column("decided_round", BigInteger),
    Column("certificate", LargeBinary),
    Column("decided_ms", BigInteger),
    Index(None, "state", "order_ms"),
    Index(None, "instance_kind", "instance_number"),
)

bodies = Table(
    "bodies",
    metadata,
    Column("digest", LargeBinary(32), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("instance_kind", Integer, nullable=False),
    Column("instance_number", BigInteger, nullable=False),
    Column("bytes", LargeBinary, nullable=False),
    Column("saved_ms", BigInteger, nullable=False),
    Index(None, "instance_kind", "instance_number"),
)

sets = Table(
    "sets",
    metadata,
    Column("set_root", LargeBinary(32), primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("signed_bytes", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("newest_ms", BigInteger, nullable=False),
    Column("saved_ms", BigInteger, nullable=False),
    Index(None, "newest_ms"),
)

damaged_sets = Table(
    "damaged_sets",
    metadata,
    Column("set_root", LargeBinary(32), primary_key=True),
    Column("newest_ms", BigInteger, nullable=False),
    Column("found_ms", BigInteger, nullable=False),
    Column("tried_ms", BigInteger, nullable=False),
)

identities = Table(
    "identities",
    metadata,
    Column("identity", LargeBinary(32), primary_key=True),
    Column("instance_kind", Integer, nullable=False),
    Column("instance_number", BigInteger, nullable=False),
    Column("timestamp_ms", BigInteger, nullable=False),
    Index(None, "timestamp_ms"),
    Index(None, "instance_kind", "instance_number"),
)

late_candidates = Table(
    "late_candidates",
    metadata,
    Column("identity", LargeBinary(32), primary_key=True),
    Column("timestamp_ms", BigInteger, nullable=False),
    Column("bytes", LargeBinary, nullable=False),
    Column("first_ms", BigInteger, nullable=False),
    Index(None, "timestamp_ms"),
)

bundles = Table(
    "bundles",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("config_digest", LargeBinary(32), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("first_ms", BigInteger, nullable=False),
    Column("last_ms", BigInteger, nullable=False),
    Column("end_ms", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Column("previous_root", LargeBinary(32)),
    Column("root", LargeBinary(32)),
    Column("path", Words, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", LargeBinary(32)),
    Column("manifest", LargeBinary, nullable=False),
    Column("messages", BigInteger, nullable=False),
    Column("late_observation", LargeBinary(32)),
    Column("opened_ms", BigInteger, nullable=False),
    Column("sealed_ms", BigInteger, nullable=False),
    Column("changed_ms", BigInteger, nullable=False),
    Index(None, "state"),
)

uploads = Table(
    "uploads",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("storage_id", LargeBinary(32), nullable=False),
    Column("owner", LargeBinary, nullable=False),
    Column("header", Words, nullable=False),
    Column("reward", Amount, nullable=False),
    Column("anchor_height", BigInteger, nullable=False),
    Column("data_size", BigInteger, nullable=False),
    Column("data_sha256", LargeBinary(32), nullable=False),
    Column("state", String(16), nullable=False),
    Column("prepared_ms", BigInteger, nullable=False),
    Column("changed_ms", BigInteger, nullable=False),
    Column("replaces", Integer),
    Column("posted_to", Words, nullable=False, server_default=""),
    UniqueConstraint("storage_id"),
)

seeds = Table(
    "seeds",
    metadata,
    Column("storage_id", LargeBinary(32), primary_key=True),
    Column("gateway", String(300), primary_key=True),
    Column("taken", LargeBinary, nullable=False),
    Column("changed_ms", BigInteger, nullable=False),
)

gateways = Table(
    "gateways",
    metadata,
    Column("host", String(300), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("failures", Integer, nullable=False),
    Column("error", Words, nullable=False),
    Column("changed_ms", BigInteger, nullable=False),
)

wallets = Table(
    "wallets",
    metadata,
    Column("address", LargeBinary(32), primary_key=True),
    Column("balance", Amount, nullable=False),
    Column("base", Amount, nullable=False),
    Column("step", Amount, nullable=False),
    Column("seen_ms", BigInteger, nullable=False),
)

announcements = Table(
    "announcements",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("storage_id", LargeBinary(32), primary_key=True),
    Column("signer", LargeBinary(20), primary_key=True),
    Column("bytes", LargeBinary, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Words, nullable=False),
    Column("heard_ms", BigInteger, nullable=False),
    Column("checked_ms", BigInteger),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("read_confirmations", Integer, nullable=False, server_default="0"),
)

reports = Table(
    "reports",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("storage_id", LargeBinary(32), primary_key=True),
    Column("digest", LargeBinary(32), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("ledger", LargeBinary, nullable=False),
    Column("state", String(16), nullable=False),
    Column("transaction", LargeBinary(32)),
    Column("gas_used", BigInteger),
    Column("drafted_ms", BigInteger, nullable=False),
    Column("changed_ms", BigInteger, nullable=False),
    Index(None, "state"),
)

transactions = Table(
    "transactions",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("hash", LargeBinary(32), nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("storage_id", LargeBinary(32), nullable=False),
    Column("raw", LargeBinary, nullable=False),
    Column("nonce", BigInteger, nullable=False),
    Column("max_fee_per_gas", Amount, nullable=False),
    Column("prepared_ms", BigInteger, nullable=False),
    UniqueConstraint("hash"),
    Index(None, "number"),
)

chain_heads = Table(
    "chain_heads",
    metadata,
    Column("name", String(16), primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("hash", LargeBinary(32), nullable=False),
    Column("timestamp_s", BigInteger, nullable=False),
    Column("seen_ms", BigInteger, nullable=False),
)

chain_states = Table(
    "chain_states",
    metadata,
    Column("block_hash", LargeBinary(32), primary_key=True),
    Column("block_number", BigInteger, nullable=False),
    Column("bytes", LargeBinary, nullable=False),
    Column("saved_ms", BigInteger, nullable=False),
    Index(None, "saved_ms"),
)

permissions = Table(
    "permissions",
    metadata,
    Column("block_hash", LargeBinary(32), primary_key=True),
    Column("subject", LargeBinary(32), primary_key=True),
    Column("allowed", Boolean, nullable=False),
    Column("saved_ms", BigInteger, nullable=False),
    Index(None, "saved_ms"),
)
