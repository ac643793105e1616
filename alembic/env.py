"""Runs the migrations: on the connection that ``validator.store.database.migrate`` hands over, or for the alembic
command on the database of LOGSTORE_DATABASE_URL (``-x url=…`` comes first)."""

from __future__ import annotations

import os
from typing import Any, Literal

from alembic import context
from sqlalchemy import Connection

from validator.store.column_types import Amount, StreamId, Words
from validator.store.database import open_database, prepare_sqlite
from validator.store.schema import metadata


def render_item(kind: str, item: Any, _autogen: Any) -> str | Literal[False]:
    """Migrations must not change with the code: write our own types out."""
    if kind == "type" and isinstance(item, Amount):
        return 'sa.Numeric(78, 0).with_variant(sa.String(78), "sqlite")'
    if kind == "type" and isinstance(item, StreamId):
        return "sa.LargeBinary(length=256)"
    if kind == "type" and isinstance(item, Words):
        return "sa.Text()"
    return False


def compare_type(_context: Any, _column: Any, _found: Any, _meta: Any, wanted: Any) -> bool | None:
    """Amounts are text on SQLite by intention; everything else is compared as usual."""
    return False if isinstance(wanted, Amount) else None


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        render_item=render_item,
        compare_type=compare_type,
    )
    with context.begin_transaction():
        context.run_migrations()


def main() -> None:
    if context.is_offline_mode():
        raise SystemExit("migrations need a database: offline mode is not supported")
    given = context.config.attributes.get("connection")
    if given is not None:
        run(given)
        return
    url = context.get_x_argument(as_dictionary=True).get("url") or os.environ.get("LOGSTORE_DATABASE_URL", "")
    database = open_database(url)
    try:
        if database.is_sqlite:
            prepare_sqlite(database.writer)
        with database.write() as connection:
            run(connection)
    finally:
        database.close()


main()
