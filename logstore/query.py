"""SQL over bundles: DuckDB with one view, ``messages``, of a span of time.

    stream_id, partition, timestamp, sequence_number, publisher_id (text: 0x… or key:…), msg_chain_id,
    prev_timestamp, prev_sequence_number, message_type, content_type, encryption_type, group_key_id,
    new_group_key_id, new_group_key, content (JSON, or null where it is none), content_bytes (what is no JSON),
    signature_type, signature, late, bundle (number)

A JSON field of a content is ``content->>'$.field'``.

A query may come from a stranger, with the data that it is about. So DuckDB fetches nothing and installs nothing, reads
the selected files and no others, and takes one statement, which must be one that only asks: no COPY, which could write
over the very files that were verified. Who wants more says so (``allow_files``).
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from logstore.selection import BundleFile
from validator.protocol.errors import ConfigError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, DuckDBPyRelation

_COLUMNS = """
    stream_id, partition, "timestamp", sequence_number, publisher_id, msg_chain_id, prev_timestamp,
    prev_sequence_number, message_type, content_type, encryption_type, group_key_id, new_group_key_id, new_group_key,
    content, content_bytes, signature_type, signature, late,
    regexp_extract(filename, '([0-9]+)-[^/]*$', 1)::BIGINT AS bundle
"""
_EMPTY = """
    CREATE VIEW messages AS SELECT NULL::VARCHAR AS stream_id, NULL::UTINYINT AS partition,
    NULL::TIMESTAMPTZ AS "timestamp", NULL::INTEGER AS sequence_number, NULL::VARCHAR AS publisher_id,
    NULL::VARCHAR AS msg_chain_id, NULL::TIMESTAMPTZ AS prev_timestamp, NULL::INTEGER AS prev_sequence_number,
    NULL::UTINYINT AS message_type, NULL::UTINYINT AS content_type, NULL::UTINYINT AS encryption_type,
    NULL::VARCHAR AS group_key_id, NULL::VARCHAR AS new_group_key_id, NULL::BLOB AS new_group_key,
    NULL::JSON AS content, NULL::BLOB AS content_bytes, NULL::UTINYINT AS signature_type,
    NULL::BLOB AS signature, NULL::BOOLEAN AS late, NULL::BIGINT AS bundle WHERE false
"""


QUESTIONS = frozenset({"SELECT", "MULTI"})
"""Kinds of statements that only ask, DESCRIBE and PIVOT among them. EXPLAIN ANALYZE runs whatever it explains."""


class Table(NamedTuple):
    """Names of the columns, and rows."""

    names: list[str]
    rows: list[list[Any]]


def open_messages(
    files: Sequence[BundleFile], from_ms: int | None, to_ms: int, folder: Path, *, allow_files: bool = False
) -> DuckDBPyConnection:
    """A database in memory that has the view; what does not fit into memory goes below ``folder`` for a while.

    Raises:
        ConfigError: DuckDB is not installed.
    """
    try:
        import duckdb
    except ImportError as error:
        raise ConfigError("SQL needs DuckDB: pip install 'logstore-validator[sql]'", field="duckdb") from error
    connection = duckdb.connect()
    connection.execute("SET autoinstall_known_extensions = false; SET autoload_known_extensions = false")
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"SET temp_directory = {_quote(str(folder / f'spill-{os.getpid()}'))}")
    paths = ", ".join(_quote(str(file.path)) for file in files)
    if files:
        span = f'"timestamp" >= epoch_ms({from_ms or 0})::TIMESTAMPTZ AND "timestamp" < epoch_ms({to_ms})::TIMESTAMPTZ'
        connection.execute(
            f"CREATE VIEW messages AS SELECT {_COLUMNS} FROM read_parquet([{paths}], filename = true) WHERE {span}"  # noqa: S608
        )
    else:
        connection.execute(_EMPTY)
    if not allow_files:
        connection.execute(f"SET allowed_paths = [{paths}]; SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
    return connection


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def start_query(connection: DuckDBPyConnection, query: str, *, allow_files: bool = False) -> DuckDBPyRelation:
    """The query's answer, computed when it is read. ConfigError: the query is wrong, or answers nothing."""
    import duckdb

    try:
        if not allow_files:
            _require_question(connection.extract_statements(query))
        relation = connection.sql(query)
    except duckdb.Error as error:
        raise _refuse(error) from error
    if relation is None:
        raise ConfigError("SQL: that answers nothing; write a query", field="query")
    return relation


def _require_question(statements: Sequence[Any]) -> None:
    """Raises ConfigError unless it is one statement, and only asks."""
    if len(statements) != 1:
        raise ConfigError(f"SQL: {len(statements)} statements where one query belongs", field="query")
    kind = statements[0].type.name
    if kind not in QUESTIONS:
        raise ConfigError(
            f"SQL: a statement of kind {kind}; only queries, unless it may reach this machine's files (--allow-files)",
            field="query",
        )


def run_query(connection: DuckDBPyConnection, query: str, *, allow_files: bool = False) -> Table:
    """The answer as JSON values: times as ISO texts, bytes as 0x and hex.

    Raises:
        ConfigError: the query is wrong, in DuckDB's own words.
    """
    import duckdb

    try:
        table = start_query(connection, query, allow_files=allow_files).to_arrow_table()
    except duckdb.Error as error:
        raise _refuse(error) from error
    columns = [_plain_column(table.column(n)) for n in range(table.num_columns)]
    return Table(list(table.column_names), [list(row) for row in zip(*columns, strict=True)])


def _refuse(error: Exception) -> ConfigError:
    return ConfigError(f"SQL: {' '.join(str(error).split())[:500]}", field="query")


def _plain_column(column: Any) -> list[Any]:
    import pyarrow as pa

    if pa.types.is_timestamp(column.type):
        from logstore.times import format_time

        milliseconds = column.cast(pa.timestamp("ms", tz=column.type.tz), safe=False).cast(pa.int64()).to_pylist()
        return [None if ms is None else format_time(ms) if ms >= 0 else str(ms) for ms in milliseconds]
    return [_plain(value) for value in column.to_pylist()]


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return f"0x{value.hex()}"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no word for it
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Decimal) and value == value.to_integral_value():
        return int(value)  # sums of integers are that wide
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value)
