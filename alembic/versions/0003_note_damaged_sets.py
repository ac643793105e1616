"""Note sets whose files were damaged, until they are obtained again.

Revision: 0003.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "damaged_sets",
        sa.Column("set_root", sa.LargeBinary(length=32), nullable=False),
        sa.Column("newest_ms", sa.BigInteger(), nullable=False),
        sa.Column("found_ms", sa.BigInteger(), nullable=False),
        sa.Column("tried_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("set_root", name=op.f("pk_damaged_sets")),
    )


def downgrade() -> None:
    op.drop_table("damaged_sets")
