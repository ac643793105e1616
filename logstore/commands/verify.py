"""logstore verify: a verdict on a file, on what an Arweave transaction carries, or on a bundle by its number."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
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
from logstore.commands.verify_proof import verify_proof
from logstore.errors import Refused
from logstore.output import Output
from validator.protocol.errors import ConfigError

if TYPE_CHECKING:
    from logstore.store import LogStore
    from logstore.verification import Verdict

STORAGE_ID = re.compile(r"[A-Za-z0-9_-]{43}")
SCHEME = "ar://"
"""What an Arweave id may begin with; without it an id that begins with a dash looks like an option."""

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
    roots = [_parse_root(text) for text in root or ()]
    path = Path(target)
    if path.exists() and verify_proof(path, roots, asked):
        return
    if len(roots) > 1:
        raise ConfigError("--root: a bundle has one", field="root")
    if path.exists():
        verdict = _verify_path(path, asked, signatures)
    elif offline:
        raise ConfigError(f"{target}: no such file, and nothing is fetched with --offline", field="target")
    else:
        with asked.connect() as store:
            verdict = _verify_remote(target, store, asked.output, signatures)
    if roots:
        if verdict.root != roots[0]:
            raise Refused(target, "bundle.root", f"0x{verdict.root.hex()}, not the one that you named")
        verdict = replace(verdict, is_root_known=True)
    _show(verdict, asked.output)


def _parse_root(text: str) -> bytes:
    if not re.fullmatch("(0x)?[0-9a-fA-F]{64}", text):
        raise ConfigError("--root: not 0x and 64 hex digits", field="root")
    return bytes.fromhex(text.removeprefix("0x"))


def _verify_path(path: Path, asked: Asked, signatures: bool) -> Verdict:
    from logstore.verification import ask_contract, verify_file

    if path.is_dir():
        raise ConfigError(f"{path}: a folder; name a file", field="target")
    if asked.offline:
        known = asked.find_network()
        with asked.output.busy(f"verifying {path.name}"):
            return verify_file(path, known, signatures=signatures)
    with asked.connect() as store:
        reports = store.reports
        with asked.output.busy(f"verifying {path.name}"):
            verdict = verify_file(path, store.network, signatures=signatures)
        return ask_contract(path.name, verdict, reports)


def _verify_remote(target: str, store: LogStore, output: Output, signatures: bool) -> Verdict:
    from logstore.verification import ask_contract
    from validator.protocol.codec.arweave_text import decode_storage_id

    if target.isascii() and target.isdecimal():
        bundle = store.reports.fetch(int(target[:18]))
        if bundle is None:
            raise ConfigError(f"bundle {target}: the contract has accepted {store.reports.count}", field="target")
        storage_id = bundle.storage_id
    elif STORAGE_ID.fullmatch(target.removeprefix(SCHEME)):
        storage_id = decode_storage_id(target.removeprefix(SCHEME))
    else:
        raise ConfigError(f"{target}: no such file, and neither an Arweave id nor a bundle's number", field="target")
    return store.bundles.verify_again(
        target,
        storage_id,
        output,
        lambda verdict: ask_contract(target, verdict, store.reports),
        signatures=signatures,
    )


def _show(verdict: Verdict, output: Output) -> None:
    from logstore.verification import describe

    output.document(describe(verdict), lambda out: _render(out, verdict))


def _render(output: Output, verdict: Verdict) -> None:
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
