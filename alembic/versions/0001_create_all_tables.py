"""Create all tables.

Revision: 0001, the first.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "announcements",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("storage_id", sa.LargeBinary(length=32), nullable=False),
        sa.Column("signer", sa.LargeBinary(length=20), nullable=False),
        sa.Column("bytes", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("heard_ms", sa.BigInteger(), nullable=False),
        sa.Column("checked_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("number", "storage_id", "signer", name=op.f("pk_announcements")),
    )
    op.create_table(
        "attestations",
        sa.Column("report_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("signer", sa.LargeBinary(length=20), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("signature", sa.LargeBinary(length=65), nullable=False),
        sa.Column("received_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("report_digest", "signer", name=op.f("pk_attestations")),
    )
    op.create_index(op.f("ix_attestations_number"), "attestations", ["number"])

    op.create_table(
        "bodies",
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("instance_kind", sa.Integer(), nullable=False),
        sa.Column("instance_number", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.LargeBinary(), nullable=False),
        sa.Column("saved_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_bodies")),
    )
    op.create_index(op.f("ix_bodies_instance_kind_instance_number"), "bodies", ["instance_kind", "instance_number"])

    op.create_table(
        "bundles",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("config_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("first_ms", sa.BigInteger(), nullable=False),
        sa.Column("last_ms", sa.BigInteger(), nullable=False),
        sa.Column("end_ms", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("previous_root", sa.LargeBinary(length=32), nullable=True),
        sa.Column("root", sa.LargeBinary(length=32), nullable=True),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(length=32), nullable=True),
        sa.Column("manifest", sa.LargeBinary(), nullable=False),
        sa.Column("messages", sa.BigInteger(), nullable=False),
        sa.Column("late_observation", sa.LargeBinary(length=32), nullable=True),
        sa.Column("opened_ms", sa.BigInteger(), nullable=False),
        sa.Column("sealed_ms", sa.BigInteger(), nullable=False),
        sa.Column("changed_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_bundles")),
    )
    op.create_index(op.f("ix_bundles_state"), "bundles", ["state"])

    op.create_table(
        "chain_blocks",
        sa.Column("at_s", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("timestamp_s", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("at_s", name=op.f("pk_chain_blocks")),
    )
    op.create_table(
        "chain_heads",
        sa.Column("name", sa.String(length=16), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("timestamp_s", sa.BigInteger(), nullable=False),
        sa.Column("seen_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_chain_heads")),
    )
    op.create_table(
        "chain_states",
        sa.Column("block_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("block_number", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.LargeBinary(), nullable=False),
        sa.Column("saved_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("block_hash", name=op.f("pk_chain_states")),
    )
    op.create_index(op.f("ix_chain_states_saved_ms"), "chain_states", ["saved_ms"])

    op.create_table(
        "cursors",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.Column("changed_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_cursors")),
    )
    op.create_table(
        "due",
        sa.Column("task", sa.String(length=32), nullable=False),
        sa.Column("key", sa.String(length=128), nullable=False),
        sa.Column("wake_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("task", "key", name=op.f("pk_due")),
    )
    op.create_index(op.f("ix_due_wake_ms"), "due", ["wake_ms"])

    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("level", sa.String(length=8), nullable=False),
        sa.Column("event", sa.String(length=64), nullable=False),
        sa.Column("fields", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    op.create_table(
        "evidence",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("config_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("instance_kind", sa.Integer(), nullable=False),
        sa.Column("instance_number", sa.BigInteger(), nullable=False),
        sa.Column("round", sa.BigInteger(), nullable=False),
        sa.Column("statement_kind", sa.Integer(), nullable=False),
        sa.Column("signer", sa.LargeBinary(length=20), nullable=False),
        sa.Column("first", sa.LargeBinary(), nullable=False),
        sa.Column("second", sa.LargeBinary(), nullable=False),
        sa.Column("noticed_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evidence")),
        sa.UniqueConstraint(
            "config_digest",
            "instance_kind",
            "instance_number",
            "signer",
            "statement_kind",
            "round",
            name="uq_evidence_place",
        ),
    )
    op.create_table(
        "identities",
        sa.Column("identity", sa.LargeBinary(length=32), nullable=False),
        sa.Column("instance_kind", sa.Integer(), nullable=False),
        sa.Column("instance_number", sa.BigInteger(), nullable=False),
        sa.Column("timestamp_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("identity", name=op.f("pk_identities")),
    )
    op.create_index(
        op.f("ix_identities_instance_kind_instance_number"), "identities", ["instance_kind", "instance_number"]
    )
    op.create_index(op.f("ix_identities_timestamp_ms"), "identities", ["timestamp_ms"])

    op.create_table(
        "journal",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("config_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("instance_kind", sa.Integer(), nullable=False),
        sa.Column("instance_number", sa.BigInteger(), nullable=False),
        sa.Column("round", sa.BigInteger(), nullable=False),
        sa.Column("statement_kind", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.LargeBinary(), nullable=False),
        sa.Column("journaled_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_journal")),
        sa.UniqueConstraint(
            "config_digest", "instance_kind", "instance_number", "round", "statement_kind", name="uq_journal_place"
        ),
    )
    op.create_table(
        "late_candidates",
        sa.Column("identity", sa.LargeBinary(length=32), nullable=False),
        sa.Column("timestamp_ms", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.LargeBinary(), nullable=False),
        sa.Column("first_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("identity", name=op.f("pk_late_candidates")),
    )
    op.create_index(op.f("ix_late_candidates_timestamp_ms"), "late_candidates", ["timestamp_ms"])

    op.create_table(
        "meta",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("database_id", sa.LargeBinary(length=32), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("created_block_number", sa.BigInteger(), nullable=False),
        sa.Column("created_block_s", sa.BigInteger(), nullable=False),
        sa.Column("chain_id", sa.BigInteger(), nullable=False),
        sa.Column("parent_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("contracts", sa.LargeBinary(), nullable=False),
        sa.Column("config_count", sa.BigInteger(), nullable=False),
        sa.Column("retired_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_meta")),
    )
    op.create_table(
        "permissions",
        sa.Column("block_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("subject", sa.LargeBinary(length=32), nullable=False),
        sa.Column("allowed", sa.Boolean(), nullable=False),
        sa.Column("saved_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("block_hash", "subject", name=op.f("pk_permissions")),
    )
    op.create_index(op.f("ix_permissions_saved_ms"), "permissions", ["saved_ms"])

    op.create_table(
        "proofs",
        sa.Column("config_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("instance_kind", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("instance_number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("statement_kind", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("round", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("value", sa.LargeBinary(length=32), nullable=False),
        sa.Column("bytes", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint(
            "config_digest",
            "instance_kind",
            "instance_number",
            "statement_kind",
            "round",
            "value",
            name=op.f("pk_proofs"),
        ),
    )
    op.create_table(
        "rejection_overflows",
        sa.Column("source", sa.LargeBinary(length=20), nullable=False),
        sa.Column("window_start", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("reason", sa.String(length=32), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("source", "window_start", "reason", name=op.f("pk_rejection_overflows")),
    )
    op.create_table(
        "rejections",
        sa.Column("record_sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("reason", sa.String(length=32), nullable=False),
        sa.Column("source", sa.LargeBinary(length=20), nullable=False),
        sa.Column("window_start", sa.BigInteger(), nullable=False),
        sa.Column("first_ms", sa.BigInteger(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("record_sha256", "reason", name=op.f("pk_rejections")),
    )
    op.create_index(op.f("ix_rejections_source_window_start"), "rejections", ["source", "window_start"])

    op.create_table(
        "reports",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("storage_id", sa.LargeBinary(length=32), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("ledger", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("transaction", sa.LargeBinary(length=32), nullable=True),
        sa.Column("gas_used", sa.BigInteger(), nullable=True),
        sa.Column("drafted_ms", sa.BigInteger(), nullable=False),
        sa.Column("changed_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("number", "storage_id", name=op.f("pk_reports")),
    )
    op.create_index(op.f("ix_reports_state"), "reports", ["state"])

    op.create_table(
        "rounds",
        sa.Column("config_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("instance_kind", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("instance_number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("order_ms", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("progress", sa.LargeBinary(), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("round", sa.BigInteger(), nullable=False),
        sa.Column("step", sa.String(length=32), nullable=False),
        sa.Column("leader", sa.LargeBinary(length=20), nullable=True),
        sa.Column("waits_for", sa.Text(), nullable=False),
        sa.Column("wake_ms", sa.BigInteger(), nullable=True),
        sa.Column("queued", sa.Boolean(), nullable=False),
        sa.Column("opened_ms", sa.BigInteger(), nullable=False),
        sa.Column("decided_value", sa.LargeBinary(length=32), nullable=True),
        sa.Column("decided_round", sa.BigInteger(), nullable=True),
        sa.Column("certificate", sa.LargeBinary(), nullable=True),
        sa.Column("decided_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("config_digest", "instance_kind", "instance_number", name=op.f("pk_rounds")),
    )
    op.create_index(op.f("ix_rounds_instance_kind_instance_number"), "rounds", ["instance_kind", "instance_number"])
    op.create_index(op.f("ix_rounds_state_order_ms"), "rounds", ["state", "order_ms"])

    op.create_table(
        "sets",
        sa.Column("set_root", sa.LargeBinary(length=32), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("signed_bytes", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("newest_ms", sa.BigInteger(), nullable=False),
        sa.Column("saved_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("set_root", name=op.f("pk_sets")),
    )
    op.create_index(op.f("ix_sets_newest_ms"), "sets", ["newest_ms"])

    op.create_table(
        "statements",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("config_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("instance_kind", sa.Integer(), nullable=False),
        sa.Column("instance_number", sa.BigInteger(), nullable=False),
        sa.Column("statement_kind", sa.Integer(), nullable=False),
        sa.Column("round", sa.BigInteger(), nullable=False),
        sa.Column("signer", sa.LargeBinary(length=20), nullable=False),
        sa.Column("value", sa.LargeBinary(length=32), nullable=False),
        sa.Column("valid_round", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.LargeBinary(), nullable=False),
        sa.Column("received_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_statements")),
        sa.UniqueConstraint(
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
    op.create_table(
        "store_index",
        sa.Column("stream_id", sa.String(length=256), nullable=False),
        sa.PrimaryKeyConstraint("stream_id", name=op.f("pk_store_index")),
    )
    op.create_table(
        "transactions",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("storage_id", sa.LargeBinary(length=32), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("nonce", sa.BigInteger(), nullable=False),
        sa.Column("max_fee_per_gas", sa.Numeric(78, 0).with_variant(sa.String(78), "sqlite"), nullable=False),
        sa.Column("prepared_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_transactions")),
        sa.UniqueConstraint("hash", name=op.f("uq_transactions_hash")),
    )
    op.create_index(op.f("ix_transactions_number"), "transactions", ["number"])

    op.create_table(
        "uploads",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("storage_id", sa.LargeBinary(length=32), nullable=False),
        sa.Column("owner", sa.LargeBinary(), nullable=False),
        sa.Column("header", sa.Text(), nullable=False),
        sa.Column("reward", sa.Numeric(78, 0).with_variant(sa.String(78), "sqlite"), nullable=False),
        sa.Column("anchor_height", sa.BigInteger(), nullable=False),
        sa.Column("data_size", sa.BigInteger(), nullable=False),
        sa.Column("data_sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("prepared_ms", sa.BigInteger(), nullable=False),
        sa.Column("changed_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("number", "attempt", name=op.f("pk_uploads")),
        sa.UniqueConstraint("storage_id", name=op.f("uq_uploads_storage_id")),
    )
    op.create_table(
        "windows",
        sa.Column("start_ms", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("end_ms", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("observation", sa.LargeBinary(length=32), nullable=True),
        sa.Column("bundle", sa.BigInteger(), nullable=True),
        sa.Column("opened_ms", sa.BigInteger(), nullable=False),
        sa.Column("collected_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("start_ms", name=op.f("pk_windows")),
    )
    op.create_index(op.f("ix_windows_bundle"), "windows", ["bundle"])
    op.create_index(op.f("ix_windows_state"), "windows", ["state"])

    op.create_table(
        "etags",
        sa.Column("window_start", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("broker", sa.LargeBinary(length=20), nullable=False),
        sa.Column("stream_id", sa.String(length=256), nullable=False),
        sa.Column("partition", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("etag", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["window_start"], ["windows.start_ms"], name=op.f("fk_etags_window_start"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("window_start", "broker", "stream_id", "partition", name=op.f("pk_etags")),
    )
    op.create_table(
        "sightings",
        sa.Column("window_start", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("bytes", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["window_start"], ["windows.start_ms"], name=op.f("fk_sightings_window_start"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("window_start", name=op.f("pk_sightings")),
    )


def downgrade() -> None:
    op.drop_table("sightings")
    op.drop_table("etags")
    op.drop_table("windows")
    op.drop_table("uploads")
    op.drop_table("transactions")
    op.drop_table("store_index")
    op.drop_table("statements")
    op.drop_table("sets")
    op.drop_table("rounds")
    op.drop_table("reports")
    op.drop_table("rejections")
    op.drop_table("rejection_overflows")
    op.drop_table("proofs")
    op.drop_table("permissions")
    op.drop_table("meta")
    op.drop_table("late_candidates")
    op.drop_table("journal")
    op.drop_table("identities")
    op.drop_table("evidence")
    op.drop_table("events")
    op.drop_table("due")
    op.drop_table("cursors")
    op.drop_table("chain_states")
    op.drop_table("chain_heads")
    op.drop_table("chain_blocks")
    op.drop_table("bundles")
    op.drop_table("bodies")
    op.drop_table("attestations")
    op.drop_table("announcements")
