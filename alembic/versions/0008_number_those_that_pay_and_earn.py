"""Forget states of the chain that lack the numbers by which reports name streams and nodes: they are read anew."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("DELETE FROM chain_states")


def downgrade() -> None:
    op.execute("DELETE FROM chain_states")
