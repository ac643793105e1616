"""logstore bundle list | show | fetch: what the contract holds, and the files themselves."""

from __future__ import annotations

from pathlib import Path
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
    find_numbers,
    make_output,
    parse_span,
    parse_verify,
)
from logstore.output import count_of
from validator.protocol.errors import ConfigError

if TYPE_CHECKING:
    from logstore.output import Output
    from logstore.reports import Reports
    from validator.net.chain.bundles import AcceptedBundle

app = typer.Typer(help="Bundles that the contract has accepted, and their files.", no_args_is_help=True)


@app.command("list", short_help="List accepted bundles, newest first.")
def list_bundles(
    from_: FromOption = None,
    to: ToOption = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="So many of the newest.")] = 20,
    network: NetworkOption = None,
    rpc: RpcOption = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """List accepted bundles, newest first: the contract's word, nothing is downloaded.

    Example: logstore bundle list --from -1d
    """
    from_ms, to_ms = parse_span(from_, to)
    output = make_output(as_json)
    with connected(network, rpc, None, cache, output) as store:
        reports = store.reports
        numbers = find_numbers(reports, from_ms, to_ms)
        first = max(numbers.start, numbers.stop - limit)
        bundles = reports.fetch_many(first, numbers.stop)[::-1]
        values = {"accepted": reports.count, "block": reports.head.number, "bundles": [describe(b) for b in bundles]}
        output.document(values, lambda out: _render_list(out, bundles, reports, len(numbers)))


def _render_list(output: Output, bundles: list[AcceptedBundle], reports: Reports, found: int) -> None:
    from logstore.times import format_time
    from validator.protocol.codec.arweave_text import encode_storage_id

    rows = [
        (
            b.number,
            format_time(b.first_ms),
            format_time(b.end_ms),
            f"0x{b.root.hex()[:16]}…",
            encode_storage_id(b.storage_id),
            b.block_number,
            "yes" if b.is_final else "not yet",
        )
        for b in bundles
    ]
    names = ("bundle", "from", "to", "root", "Arweave id", "block", "final")
    output.table(names, rows, numbers=("bundle", "block"))
    output.line(
        f"{len(bundles)} of {count_of(found, 'bundle')} of that time; the contract has accepted {reports.count}"
    )


def describe(bundle: AcceptedBundle) -> dict[str, Any]:
    """What the contract holds of a bundle, as JSON values."""
    from logstore.times import format_time
    from validator.protocol.codec.arweave_text import encode_storage_id

    return {
        "bundle": bundle.number,
        "first_ms": bundle.first_ms,
        "end_ms": bundle.end_ms,
        "first": format_time(bundle.first_ms),
        "end": format_time(bundle.end_ms),
        "root": f"0x{bundle.root.hex()}",
        "storage_id": encode_storage_id(bundle.storage_id),
        "block": bundle.block_number,
        "final": bundle.is_final,
    }


@app.command("show", short_help="Show what a bundle holds.")
def show_bundle(
    number: Annotated[int, typer.Argument(min=0, metavar="NUMBER", help="The bundle's number.")],
    network: NetworkOption = None,
    rpc: RpcOption = None,
    gateway: GatewayOption = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a bundle holds: its header, and per window and late set each partition of a stream.

    Example: logstore bundle show 0
    """
    from logstore.manifests import describe_manifest, render_manifest

    output = make_output(as_json)
    with connected(network, rpc, gateway, cache, output) as store:
        bundle = _require(store.reports, number)
        manifest = store.bundles.fetch_manifest(bundle, output)
        values = {**describe(bundle), **describe_manifest(manifest)}
        output.document(values, lambda out: render_manifest(out, bundle, manifest))


@app.command("fetch", short_help="Download bundles as files, and verify them.")
def fetch_bundles(
    numbers: Annotated[
        list[int] | None, typer.Argument(min=0, metavar="[NUMBER]...", help="Or --from and --to.")
    ] = None,
    from_: FromOption = None,
    to: ToOption = None,
    folder: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where the files go.")] = Path(),
    verify: VerifyOption = "bundle",
    network: NetworkOption = None,
    rpc: RpcOption = None,
    gateway: GatewayOption = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Download bundles as files bundle-NUMBER.parquet, and verify each against the contract.

    Example: logstore bundle fetch 0 -o bundles
    """
    is_verified = parse_verify(verify)
    if bool(numbers) is (from_ is not None):
        raise ConfigError("name bundles by their numbers, or a span of time with --from", field="numbers")
    from_ms, to_ms = parse_span(from_, to)
    output = make_output(as_json)
    done = []
    with connected(network, rpc, gateway, cache, output) as store:
        wanted = numbers or find_numbers(store.reports, from_ms, to_ms)
        for number in wanted:
            bundle = _require(store.reports, number)
            path = folder / f"bundle-{number}.parquet"
            store.bundles.save(bundle, path, output, verify=is_verified)
            done.append({**describe(bundle), "file": str(path), "verified": is_verified})
            if not as_json:
                output.line(f"{path}  {'verified' if is_verified else 'not verified'}")
        output.document(done, lambda out: out.line(count_of(len(done), "bundle")))


def _require(reports: Reports, number: int) -> AcceptedBundle:
    bundle = reports.fetch(number)
    if bundle is None:
        raise ConfigError(
            f"bundle {number}: the contract has accepted {reports.count}, they are numbered from 0", field="number"
        )
    return bundle
