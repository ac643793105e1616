"""logstore verify: a verdict on a file, on what an Arweave transaction carries, or on a bundle by its number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from logstore.commands.options import (
    Asked,
    CacheOption,
    GatewayOption,
    JsonOption,
    NetworkOption,
    RpcOption,
    make_output,
)
from logstore.commands.verify_proof import render_message, render_range
from logstore.output import Output
from logstore.verdicts import Verifier, describe_verdict, parse_root, require_there

if TYPE_CHECKING:
    from logstore.verdicts import AnyVerdict
    from logstore.verification import Verdict

OfflineOption = Annotated[
    bool, typer.Option("--offline", help="Ask nobody: certificates are checked against the committee that is named.")
]


def verify(
    target: Annotated[str, typer.Argument(metavar="FILE|ID|NUMBER", help="A file, an Arweave id, a bundle's number.")],
    offline: OfflineOption = False,
    signatures: Annotated[bool, typer.Option("--signatures", help="Check every message's own signature too.")] = False,
    root: Annotated[
        list[str] | None,
        typer.Option("--root", metavar="HEX", help="The root that you know the bundle to have; several for a span."),
    ] = None,
    network: NetworkOption = None,
    rpc: RpcOption = None,
    gateway: GatewayOption = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Verify a bundle whole (every row, root and certificate), or a proof of logstore prove, and ask the contract.

    Status 0: verified; 1: refused, and what differs is named; 2: wrong words; 3: it could not be fetched or read.

    Example: logstore verify bundle-0.parquet --offline
    """
    asked = Asked(network, rpc, gateway, cache, offline, make_output(as_json))
    require_there(target)
    roots = [parse_root(text) for text in root or ()]
    if offline:
        verdict = Verifier(asked.find_network(), None, asked.output, roots, signatures).verify(target)
    else:
        with asked.connect() as store:
            verdict = Verifier(store.network, store, asked.output, roots, signatures).verify(target)
    asked.output.document(describe_verdict(verdict), lambda out: _render(out, verdict))


def _render(output: Output, verdict: AnyVerdict) -> None:
    from logstore.stored_message import MessageVerdict
    from logstore.stored_range import RangeVerdict

    if isinstance(verdict, MessageVerdict):
        render_message(output, verdict)
    elif isinstance(verdict, RangeVerdict):
        render_range(output, verdict)
    else:
        _render_bundle(output, verdict)


def _render_bundle(output: Output, verdict: Verdict) -> None:
    from logstore.times import format_time

    header, accepted = verdict.header, verdict.accepted
    members = len(verdict.config.committee)
    contract = "not asked" if accepted is None else f"holds this root since block {accepted.block_number}"
    pairs: list[tuple[str, object]] = [
        (f"bundle {header.number}", f"{format_time(header.first_ms)} to {format_time(verdict.end_ms)}"),
        ("messages", verdict.bundle.rows),
        ("root", f"0x{verdict.root.hex()}"),
        ("certificates", f"{verdict.signers} or more of {members} members, epoch {verdict.config.epoch}"),
        ("config digest", f"0x{header.config_digest.hex()}"),
        ("network", "that of the network file" if verdict.is_of_network else "not compared: no network file"),
        ("contract", contract),
    ]
    output.verified(pairs, verdict.proves, verdict.leaves_open, verdict.remarks)
