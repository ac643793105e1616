"""logstore network show: which network it is, by its file and by its contract."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from logstore.commands.options import (
    CacheOption,
    GatewayOption,
    JsonOption,
    NetworkOption,
    RpcOption,
    connected,
    make_output,
)

if TYPE_CHECKING:
    from logstore.output import Output
    from logstore.store import LogStore

app = typer.Typer(help="The network itself.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """The network itself."""


@app.command("show", short_help="Show contracts, committee and parameters.")
def show(
    network: NetworkOption = None,
    rpc: RpcOption = None,
    gateway: GatewayOption = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the network: contracts and parameters by its file, committee and accepted bundles by the contract.

    Example: logstore network show --json
    """
    output = make_output(as_json)
    with connected(network, rpc, gateway, cache, output) as store:
        values = describe(store)
        output.document(values, lambda out: _render(out, values))


def describe(store: LogStore) -> dict[str, Any]:
    """Everything as JSON values."""
    import dataclasses

    from logstore.connection import now_ms
    from logstore.times import format_time

    network, reports = store.network, store.reports
    contract, epoch = reports.contract, network.epoch_at(now_ms())
    newest = reports.fetch(reports.count - 1)
    return {
        "name": network.name,
        "chain_id": network.chain_id,
        "contracts": {
            field.name: f"0x{getattr(network.contracts, field.name).hex()}"
            for field in dataclasses.fields(network.contracts)
        },
        "genesis": format_time(network.genesis_ms),
        "epoch": None if epoch is None else epoch.number,
        "parameters": dataclasses.asdict(epoch.parameters if epoch is not None else network.sets[-1]),
        "committee": [f"0x{member.hex()}" for member in contract.committee],
        "config_digest": f"0x{contract.config_digest.hex()}",
        "config_count": contract.config_count,
        "config_epoch": reports.contract_epoch,
        "accepted": contract.next_number,
        "stored_until": None if newest is None else format_time(newest.end_ms),
        "block": reports.head.number,
        "nodes": [{"host": s.host, "last_error": s.last_error} for s in reports.health],
        "gateways": [urlsplit_host(url) for url in store.sources.gateway_urls],
    }


def urlsplit_host(url: str) -> str:
    """Host and port: the rest of a URL may hold credentials."""
    from urllib.parse import urlsplit

    return urlsplit(url).netloc.rpartition("@")[2]


def _render(output: Output, values: dict[str, Any]) -> None:
    parameters = values["parameters"]
    fits = values["config_epoch"]
    epoch = "over" if values["epoch"] is None else f"{values['epoch']} now"
    output.pairs(
        [
            ("network", f"{values['name']}, chain {values['chain_id']}, since {values['genesis']}"),
            ("epoch", f"{epoch}, windows of {parameters['window_ms']} ms, bundles of {parameters['bundle_windows']}"),
            ("bundles", f"{values['accepted']} accepted, stored until {values['stored_until'] or 'nothing yet'}"),
            ("config digest", values["config_digest"]),
            ("", f"as this file has it for epoch {fits}" if fits is not None else "not as this file has it"),
            ("committee", f"{len(values['committee'])} members"),
            *(("", member) for member in values["committee"]),
            *((name.replace("_", " "), address) for name, address in values["contracts"].items()),
            *(("node", f"{s['host']} {s['last_error']}".strip()) for s in values["nodes"]),
            *(("gateway", host) for host in values["gateways"]),
        ]
    )
