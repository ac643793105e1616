"""Bind uploads to the wallets that nodes have named on chain, and look again at what an earlier release refused.

States of the chain that were kept lack the wallets: they are read again. A refusal may stem from a reader that was
killed, and one member's word could refuse another's upload: all are read back again, once.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("announcements", sa.Column("tries", sa.Integer(), nullable=False, server_default="0"))
    op.execute("UPDATE announcements SET state = 'heard', reason = '' WHERE state = 'refused'")
    op.execute("DELETE FROM chain_states")


def downgrade() -> None:
    op.execute("UPDATE announcements SET state = 'heard' WHERE state IN ('seeded', 'unreadable')")
    op.execute("DELETE FROM chain_states")
    op.drop_column("announcements", "tries")
