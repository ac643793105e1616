"""logstore verify: a verdict on a file, on what an Arweave transaction carries, or on a bundle by its number."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from logstore.errors import Refused
from logstore.output import Output
from validator.protocol.errors import ConfigError

if TYPE_CHECKING:
    from logstore.store import LogStore
    from logstore.stored_message import MessageVerdict
    from logstore.verification import Verdict

MAX_SHOWN = 200
"""Characters of a content."""
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
        str | None, typer.Option("--root", metavar="HEX", help="The root that you know the bundle to have.")
    ] = None,
    network: NetworkOption = None,
    rpc: RpcOption = None,
    gateway: GatewayOption = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Verify a bundle whole (every row, root and certificate), or a message with its proof, and ask the contract.

    Status 0: verified; 1: refused, and what differs is named; 2: wrong words; 3: it could not be fetched or read.
    """
    output = make_output(as_json)
    known = _parse_root(root)
    if Path(target).exists():
        if _is_message(Path(target)):
            _verify_message(Path(target), offline, known, network, rpc, cache, output)
            return
        verdict = _verify_path(Path(target), offline, signatures, network, rpc, cache, output)
    elif offline:
        raise ConfigError(f"{target}: no such file, and nothing is fetched with --offline", field="target")
    else:
        with connected(network, rpc, gateway, cache, output) as store:
            verdict = _verify_remote(target, store, output, signatures)
    if known is not None:
        if verdict.root != known:
            raise Refused(target, "bundle.root", f"0x{verdict.root.hex()}, not the one that you named")
        verdict = replace(verdict, is_root_known=True)
    _show(verdict, output)


def _parse_root(text: str | None) -> bytes | None:
    if text is None:
        return None
    if not re.fullmatch("(0x)?[0-9a-fA-F]{64}", text):
        raise ConfigError("--root: not 0x and 64 hex digits", field="root")
    return bytes.fromhex(text.removeprefix("0x"))


def _is_message(path: Path) -> bool:
    from logstore.stored_message import is_stored_message

    return path.is_file() and is_stored_message(path)


def _verify_message(
    path: Path,
    offline: bool,
    root: bytes | None,
    network: str | None,
    rpc: list[str] | None,
    cache: Path | None,
    output: Output,
) -> None:
    from logstore.connection import find_sources, has_network
    from logstore.stored_message import ask_contract, describe, verify_stored

    if offline:
        known = find_sources(network, cache=cache, offline=True).network if has_network(network) else None
        verdict = verify_stored(path, known, root)
    else:
        with connected(network, rpc, None, cache, output) as store:
            verdict = ask_contract(path, verify_stored(path, store.network, root), store.reports)
    output.document(describe(verdict), lambda out: _render_message(out, verdict))


def _render_message(output: Output, verdict: MessageVerdict) -> None:
    from logstore.times import format_time
    from validator.protocol.codec.publisher_text import format_publisher

    m, stored, accepted = verdict.message, verdict.stored, verdict.accepted
    step, instance = stored.proof.entry, stored.proof.window.instance
    signature = "valid" if verdict.is_signature_checked else "by a contract: only the chain can say"
    pairs: list[tuple[str, object]] = [
        ("message", f"{m.stream_id}/{m.partition} at {format_time(m.timestamp_ms)}, number {m.sequence_number}"),
        ("publisher", f"{format_publisher(m.publisher_id)}, signature {signature}"),
        ("content", show_content(m.content)),
        (
            "place",
            f"{step.index + 1}. of {step.count} messages of its partition in {instance}",
        ),
        ("root", f"0x{stored.root.hex()} of bundle {stored.number}"),
        ("contract", "not asked" if accepted is None else f"holds this root since block {accepted.block_number}"),
        ("proves", verdict.proves),
    ]
    if verdict.leaves_open:
        pairs.append(("leaves open", verdict.leaves_open))
    output.line("verified")
    output.pairs(pairs)


def show_content(content: bytes) -> str:
    """As text where it is text, else as hex; cut where it is long."""
    from logstore.stored_message import decode_text

    text = decode_text(content)
    shown = f"0x{content.hex()}" if text is None else text
    return shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}… ({len(content)} bytes)"


def _verify_path(
    path: Path,
    offline: bool,
    signatures: bool,
    network: str | None,
    rpc: list[str] | None,
    cache: Path | None,
    output: Output,
) -> Verdict:
    from logstore.connection import find_sources, has_network
    from logstore.verification import ask_contract, verify_file

    if path.is_dir():
        raise ConfigError(f"{path}: a folder; name a file", field="target")
    if offline:
        known = find_sources(network, cache=cache, offline=True).network if has_network(network) else None
        with output.busy(f"verifying {path.name}"):
            return verify_file(path, known, signatures=signatures)
    with connected(network, rpc, None, cache, output) as store:
        reports = store.reports
        with output.busy(f"verifying {path.name}"):
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
        ("proves", verdict.proves),
    ]
    if verdict.leaves_open:
        pairs.append(("leaves open", verdict.leaves_open))
    pairs += [("remark", remark) for remark in verdict.remarks]
    output.line("verified")
    output.pairs(pairs)
