"""logstore sql: a question to the messages of a span of time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

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

if TYPE_CHECKING:
    from logstore.output import Output

MAX_SHOWN_ROWS = 1_000
NUMBERS = (int, float)


def sql(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="SQL as DuckDB speaks it; the view is messages.")],
    from_: FromOption = None,
    to: ToOption = None,
    verify: VerifyOption = "bundle",
    network: NetworkOption = None,
    rpc: RpcOption = None,
    gateway: GatewayOption = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask the messages of a span of time (default: the last hour) with SQL; their bundles are fetched and verified.

    Columns: stream_id, partition, timestamp, sequence_number, publisher_id, msg_chain_id, content, late, bundle and
    the other fields of a message.
    """
    from logstore.query import open_messages, run_query
    from logstore.selection import select_files

    is_verified = parse_verify(verify)
    from_ms, to_ms = parse_span(from_, to, "-1h")
    output = make_output(as_json)
    with connected(network, rpc, gateway, cache) as store:
        files = select_files(store.reports, store.bundles, output, from_ms, to_ms, verify=is_verified)
    with open_messages(files, from_ms, to_ms) as connection, output.busy("asking"):
        names, rows = run_query(connection, query)
    output.document([dict(zip(names, row, strict=True)) for row in rows], lambda out: _render(out, names, rows))


def _render(output: Output, names: list[str], rows: list[list[Any]]) -> None:
    numbers = [name for n, name in enumerate(names) if rows and isinstance(rows[0][n], NUMBERS)]
    shown = [["" if value is None else value for value in row] for row in rows[:MAX_SHOWN_ROWS]]
    output.table(names, shown, numbers=numbers)
    if len(rows) > MAX_SHOWN_ROWS:
        output.line(f"the first {MAX_SHOWN_ROWS} of {len(rows)} rows; --json gives all")
