"""What a bundle holds, without its rows: the manifest, for people and as JSON values."""

from __future__ import annotations

from typing import Any

from logstore.output import Output
from logstore.times import format_time
from validator.net.chain.bundles import AcceptedBundle
from validator.protocol.codec.arweave_text import encode_storage_id
from validator.protocol.codec.config import decode_config
from validator.protocol.model import Certified, Flag, InstanceKind, Manifest, PartitionEntry


def describe_manifest(manifest: Manifest) -> dict[str, Any]:
    """Header, totals, windows and late set with their entries."""
    config = decode_config(manifest.config_preimage)
    sets = (*manifest.windows, manifest.late)
    return {
        "config_digest": f"0x{manifest.header.config_digest.hex()}",
        "previous_root": f"0x{manifest.header.previous_root.hex()}",
        "epoch": config.epoch,
        "committee": [f"0x{member.hex()}" for member in config.committee],
        "messages": sum(e.count for c in sets for e in c.outcome.entries),
        "signed_bytes": sum(e.signed_bytes for c in sets for e in c.outcome.entries),
        "windows": [_describe_set(c) for c in manifest.windows],
        "late": _describe_set(manifest.late),
    }


def _describe_set(certified: Certified) -> dict[str, Any]:
    outcome, certificate = certified.outcome, certified.certificate
    window = outcome.instance.kind is InstanceKind.WINDOW
    return {
        "instance": str(outcome.instance),
        "start": format_time(outcome.instance.number) if window else None,
        "block": outcome.block_number,
        "round": certificate.round,
        "signers": [f"0x{signer.hex()}" for signer, _ in certificate.signatures],
        "price": str(outcome.price),
        "entries": [_describe_entry(e) for e in outcome.entries],
    }


def _describe_entry(entry: PartitionEntry) -> dict[str, Any]:
    return {
        "stream": entry.stream_id,
        "partition": entry.partition,
        "messages": entry.count,
        "signed_bytes": entry.signed_bytes,
        "root": f"0x{entry.root.hex()}",
        "flags": name_flags(entry.flags),
    }


def name_flags(flags: Flag) -> list[str]:
    """full, incomplete, variants, equivocation: those that are set."""
    return [str(flag.name).lower() for flag in Flag if flag in flags]


def render_manifest(output: Output, bundle: AcceptedBundle, manifest: Manifest) -> None:
    """The same for people, without entries that hold nothing."""
    values = describe_manifest(manifest)
    span = f"{format_time(bundle.first_ms)} to {format_time(bundle.end_ms)}"
    final = "final" if bundle.is_final else "not final yet"
    output.pairs(
        [
            (f"bundle {bundle.number}", span),
            ("root", f"0x{bundle.root.hex()}"),
            ("Arweave id", encode_storage_id(bundle.storage_id)),
            ("accepted", f"in block {bundle.block_number}, {final}"),
            ("config", f"epoch {values['epoch']}, digest {values['config_digest']}"),
            ("committee", f"{len(values['committee'])} members"),
            ("messages", f"{values['messages']}, {values['signed_bytes']} signed bytes"),
        ]
    )
    rows = [
        (s["start"] or "late", e["stream"], e["partition"], e["messages"], e["signed_bytes"], " ".join(e["flags"]))
        for s in (*values["windows"], values["late"])
        for e in s["entries"]
        if e["messages"] or e["flags"]
    ]
    names = ("window", "stream", "partition", "messages", "bytes", "flags")
    output.table(names, rows, numbers=("partition", "messages", "bytes"))
