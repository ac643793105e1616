"""Note cut points that the chain has replaced.

Revision: 0004.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "epoch_blocks",
        sa.Column("epoch", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("timestamp_s", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("epoch", name=op.f("pk_epoch_blocks")),
    )
    op.create_table(
        "reorganisations",
        sa.Column("at_s", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("stored_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("present_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("depth", sa.BigInteger(), nullable=False),
        sa.Column("signed", sa.Text(), nullable=False),
        sa.Column("found_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("at_s", "stored_hash", name=op.f("pk_reorganisations")),
    )


def downgrade() -> None:
    op.drop_table("reorganisations")
    op.drop_table("epoch_blocks")
