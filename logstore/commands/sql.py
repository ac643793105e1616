"""logstore sql: a question to the messages of a span of time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from logstore.commands.options import (
    CacheOption,
    FromOption,
    GatewayOption,
    JsonOption,
    NetworkOption,
    RpcOption,
    ToOption,
    VerifyOption,
    connected,
    make_output,
    parse_span,
    parse_verify,
)
from logstore.output import shorten
from validator.protocol.errors import ConfigError

if TYPE_CHECKING:
    from logstore.output import Output
    from logstore.query import Table

FORMATS = ("table", "json", "csv")
MAX_SHOWN_ROWS = 1_000
MAX_SHOWN = 100
"""Characters of a cell of a table; the other formats give all."""
NUMBERS = (int, float)


def sql(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="SQL as DuckDB speaks it; the view is messages.")],
    from_: FromOption = None,
    to: ToOption = None,
    form: Annotated[
        str | None, typer.Option("--format", metavar="table|json|csv", help="Default: table; --json is short for json.")
    ] = None,
    allow_files: Annotated[
        bool,
        typer.Option("--allow-files", help="Let the query read and write files of this machine: COPY, read_csv, …"),
    ] = False,
    verify: VerifyOption = "bundle",
    network: NetworkOption = None,
    rpc: RpcOption = None,
    gateway: GatewayOption = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask the messages of a span of time (default: the last hour) with SQL; their bundles are fetched and verified.

    Columns: stream_id, partition, timestamp, sequence_number, publisher_id, msg_chain_id, content, late, bundle and
    the other fields of a message. One query that only asks, over these messages alone, unless --allow-files is said.

    Example: logstore sql --from -1d "select count(*) from messages"
    """
    from logstore.query import open_messages, run_query
    from logstore.selection import select_files

    is_verified = parse_verify(verify)
    from_ms, to_ms = parse_span(from_, to, "-1h")
    form = _parse_format(form, as_json)
    output = make_output(form == "json")
    with connected(network, rpc, gateway, cache, output) as store:
        files = select_files(store.reports, store.bundles, output, from_ms, to_ms, verify=is_verified)
        with (
            open_messages(files, from_ms, to_ms, store.sources.cache, allow_files=allow_files) as connection,
            output.busy("asking"),
        ):
            table = run_query(connection, query, allow_files=allow_files)
    if form == "csv":
        output.csv(table.names, table.rows)
        return
    output.document([dict(zip(table.names, row, strict=True)) for row in table.rows], lambda out: _render(out, table))


def _parse_format(form: str | None, as_json: bool) -> str:
    """Raises ConfigError: none that there is, or two that differ."""
    if form not in (None, *FORMATS):
        raise ConfigError(f"--format: {form!r} is none of {', '.join(FORMATS)}", field="format")
    if as_json and form not in (None, "json"):
        raise ConfigError(f"--json and --format {form}: say one of them", field="format")
    return "json" if as_json else form or "table"


def _render(output: Output, table: Table) -> None:
    rows = table.rows
    numbers = [name for n, name in enumerate(table.names) if rows and isinstance(rows[0][n], NUMBERS)]
    shown = [
        ["" if value is None else shorten(str(value), MAX_SHOWN) for value in row] for row in rows[:MAX_SHOWN_ROWS]
    ]
    output.table(table.names, shown, numbers=numbers)
    if len(rows) > MAX_SHOWN_ROWS:
        output.line(f"the first {MAX_SHOWN_ROWS} of {len(rows)} rows; --format json or csv gives all")
