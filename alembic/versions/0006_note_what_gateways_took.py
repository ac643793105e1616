"""Note which chunks each gateway has taken, where an upload was posted, what it replaces, and how deep it was read.

Uploads that were read back before are read back once more, when they are deep enough.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("uploads", sa.Column("replaces", sa.Integer()))
    op.add_column("uploads", sa.Column("posted_to", sa.Text(), nullable=False, server_default=""))
    op.add_column("announcements", sa.Column("read_confirmations", sa.Integer(), nullable=False, server_default="0"))
    op.create_table(
        "seeds",
        sa.Column("storage_id", sa.LargeBinary(32), primary_key=True),
        sa.Column("gateway", sa.String(300), primary_key=True),
        sa.Column("taken", sa.LargeBinary(), nullable=False),
        sa.Column("changed_ms", sa.BigInteger(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("seeds")
    op.drop_column("announcements", "read_confirmations")
    op.drop_column("uploads", "posted_to")
    op.drop_column("uploads", "replaces")
