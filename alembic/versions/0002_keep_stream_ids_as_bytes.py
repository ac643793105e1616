"""Keep stream ids as the bytes that they are: PostgreSQL's text cannot hold the character U+0000, ids can.

Revision: 0002, after 0001.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TABLES = ("etags", "store_index")


def upgrade() -> None:
    _rewrite(sa.LargeBinary(length=256), lambda stream_id: stream_id.encode())


def downgrade() -> None:
    """Ids that are no text of PostgreSQL's are left out: the release before could not have stored them."""
    _rewrite(sa.String(length=256), lambda stream_id: None if b"\x00" in stream_id else bytes(stream_id).decode())


def _rewrite(kind: Any, convert: Callable[[Any], Any]) -> None:
    """Make the tables anew with their ids in another type. Both are small: an id per stored stream, a tag per pull."""
    connection = op.get_bind()
    for name in TABLES:
        every = sa.select(sa.text("*")).select_from(sa.table(name))
        rows = [dict(row) for row in connection.execute(every).mappings()]
        op.drop_table(name)
        table = op.create_table(name, *_columns(name, kind))
        kept = [{**row, "stream_id": convert(row["stream_id"])} for row in rows]
        op.bulk_insert(table, [row for row in kept if row["stream_id"] is not None])


def _columns(name: str, kind: Any) -> list[Any]:
    stream_id = sa.Column("stream_id", kind, nullable=False)
    if name == "store_index":
        return [stream_id, sa.PrimaryKeyConstraint("stream_id", name=op.f("pk_store_index"))]
    return [
        sa.Column("window_start", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("broker", sa.LargeBinary(length=20), nullable=False),
        stream_id,
        sa.Column("partition", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("etag", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["window_start"], ["windows.start_ms"], name=op.f("fk_etags_window_start"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("window_start", "broker", "stream_id", "partition", name=op.f("pk_etags")),
    ]
