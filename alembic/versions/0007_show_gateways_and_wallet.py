"""Keep what was last seen of gateways and of the wallet, for the operator's screen and metrics."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

AMOUNT = sa.Numeric(78, 0).with_variant(sa.String(78), "sqlite")


def upgrade() -> None:
    op.create_table(
        "gateways",
        sa.Column("host", sa.String(300), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("changed_ms", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "wallets",
        sa.Column("address", sa.LargeBinary(32), primary_key=True),
        sa.Column("balance", AMOUNT, nullable=False),
        sa.Column("base", AMOUNT, nullable=False),
        sa.Column("step", AMOUNT, nullable=False),
        sa.Column("seen_ms", sa.BigInteger(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("wallets")
    op.drop_table("gateways")
