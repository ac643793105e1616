"""logstore audit: did a broker leave out what a second one holds?"""

from __future__ import annotations

from typing import Annotated

import typer

from logstore.commands.options import (
    CacheOption,
    FromOption,
    JsonOption,
    KeyOption,
    NetworkOption,
    PartitionOption,
    RpcOption,
    StreamArgument,
    ToOption,
    connected,
    make_output,
    parse_span,
)
from logstore.output import count_of


def audit(
    stream: StreamArgument,
    from_: FromOption = None,
    to: ToOption = None,
    partition: PartitionOption = 0,
    broker: Annotated[
        list[str] | None,
        typer.Option("--broker", metavar="URL", help="Twice: who answers, and who audits; else as the chain has them."),
    ] = None,
    key: KeyOption = None,
    network: NetworkOption = None,
    rpc: RpcOption = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask one broker for a span of time (default: the last hour), and a second one what the first has left out.

    Status 0: nothing that is signed; 1: refused, and the first message is named; 2: wrong words; 3: not reached.

    Example: logstore audit 0x…/sensors --from -10m --to -1m
    """
    from logstore.auditing import describe

    from_ms, to_ms = parse_span(from_, to, "-1h")
    output = make_output(as_json)
    with connected(network, rpc, None, cache, output, key) as store, output.busy("comparing"):
        verdict = store.audit(stream, from_ms or 0, to_ms, partition=partition, brokers=broker or ())
    said = f"0x{verdict.second.hex()} holds nothing that is missing from {count_of(verdict.proof.count, 'message')}"
    output.document(describe(verdict), lambda out: out.line(f"nothing left out: {said}"))
