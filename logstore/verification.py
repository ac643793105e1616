"""Verdicts on bundles: what follows from a file alone, and what the contract adds.

A file alone shows that its rows give every root it names, and that a quorum of the committee *it names* signed each
outcome. Anybody can found a committee, so that is worth as much as the config digest is known to be the network's.
The contract closes the gap: the root it holds was signed by a quorum of the committee that it knew, and the root covers
the header, with it the config digest, the committee and every outcome.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from logstore.errors import Refused
from logstore.reports import Reports
from logstore.rows import scan
from logstore.times import format_time
from validator.net.chain.bundles import AcceptedBundle
from validator.net.sandbox import Sandbox
from validator.protocol.codec.arweave_text import encode_storage_id
from validator.protocol.codec.bundle import VerifiedBundle, bundle_tags
from validator.protocol.codec.bundle_columns import read_batch
from validator.protocol.codec.config import decode_config, name_difference
from validator.protocol.codec.manifest_rules import bundle_end_ms
from validator.protocol.codec.signatures import VALID, verify_batch
from validator.protocol.codec.statement import SigningContext
from validator.protocol.errors import MalformedInput
from validator.protocol.model import BundleHeader, Reason, Root
from validator.protocol.parameters import Config, Network

READ_LIMIT_S = 1_800.0
READ_MEMORY_BYTES = 2 << 30
"""A reader's own machine; a file that needs more was not read, which is no verdict."""
MOST_PROCESSES = 16
"""Together they take less than 512 MiB."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A bundle that was read whole and holds what it must. ``accepted`` is None where the contract was not asked."""

    bundle: VerifiedBundle
    config: Config
    is_of_network: bool
    """Chain, deployment and contracts are those of a network file."""
    signatures: int = 0
    """Messages whose publisher's signature was checked here."""
    accepted: AcceptedBundle | None = None
    is_root_known: bool = False
    """The caller knew the bundle root."""
    remarks: tuple[str, ...] = ()

    @property
    def header(self) -> BundleHeader:
        return self.bundle.manifest.header

    @property
    def root(self) -> Root:
        return self.bundle.root

    @property
    def end_ms(self) -> int:
        return bundle_end_ms(self.bundle.manifest)

    @property
    def signers(self) -> int:
        """Of the certificate with fewest."""
        manifest = self.bundle.manifest
        return min(len(c.certificate.signatures) for c in (*manifest.windows, manifest.late))

    @property
    def proves(self) -> str:
        rows = f"the {self.bundle.rows} messages of the file are exactly those"
        own = f"; {self.signatures} publishers' signatures were checked" if self.signatures else ""
        if self.accepted is not None:
            return f"{rows} that the contract's committee signed as bundle {self.header.number}{own}"
        if self.is_root_known:
            return f"{rows} of the bundle whose root you named{own}"
        return f"{rows} that {self.signers} of the {len(self.config.committee)} members that the file names signed{own}"

    @property
    def leaves_open(self) -> str:
        """What it does not prove, or nothing."""
        if self.accepted is not None:
            return self.accepted.leaves_open
        if self.is_root_known:
            return ""
        return (
            "whether these members are the network's: ask the contract (without --offline), or compare the config"
            " digest with one that you trust"
        )


def verify_file(path: Path, network: Network | None, *, signatures: bool = False) -> Verdict:
    """What follows from a file alone; with ``signatures`` every message's own is checked too.

    Validators have checked them before they certified a message, so this is for who trusts no quorum.

    Raises:
        Refused: it was read, and is not a bundle, or not of this network; or names the message that nobody signed.
        ReaderFailed: it was not read to its end.
    """
    try:
        processes = min(MOST_PROCESSES, os.cpu_count() or 1)
        bundle = Sandbox(READ_LIMIT_S, READ_MEMORY_BYTES, processes).verify(path)
        config = decode_config(bundle.manifest.config_preimage)
    except MalformedInput as error:
        raise Refused(path.name, error.field, error.reason) from error
    remarks = [] if network is None else compare_network(path.name, config, network)
    checked, by_contracts = _check_signatures(path) if signatures else (0, 0)
    if by_contracts:
        remarks.append(f"{by_contracts} messages are signed by contracts, which only the chain of that time can check")
    return Verdict(bundle, config, network is not None, checked, remarks=tuple(remarks))


def _check_signatures(path: Path) -> tuple[int, int]:
    """How many signatures of a verified file hold, and how many only a contract can check. Raises Refused."""
    valid = by_contracts = 0
    for batch in scan(path, (None, None), 0, None):
        messages = [record.message for _, record in read_batch(batch)]
        for message, verdict in zip(messages, verify_batch(messages, threads=os.cpu_count() or 1), strict=True):
            if verdict is Reason.ERC1271_UNKNOWN:
                by_contracts += 1
            elif verdict is VALID:
                valid += 1
            else:
                m = message
                where = f"{m.stream_id}/{m.partition} at {format_time(m.timestamp_ms)}, number {m.sequence_number}"
                raise Refused(path.name, "message.signature", f"{where}: {verdict.value}")
    return valid, by_contracts


def compare_network(subject: str, config: Config, network: Network) -> list[str]:
    """Whether a config is of this network; what is odd, in words.

    Raises:
        Refused: another chain, deployment or contract.
    """
    epoch = network.epoch(config.epoch)
    ours = replace(
        config,
        chain_id=network.chain_id,
        deployment_parent_hash=network.deployment_parent_hash,
        contracts=network.contracts,
    )
    foreign = name_difference(config, ours)
    if foreign:
        raise Refused(subject, f"config.{foreign.split(', ')[0]}", f"not that of the network {network.name!r}")
    if epoch is None:
        return [f"the network file ends before epoch {config.epoch}"]
    odd = name_difference(config, replace(config, parameters=epoch.parameters))
    return [f"the network file has other parameters for epoch {config.epoch}: {odd}"] if odd else []


def ask_contract(subject: str, verdict: Verdict, reports: Reports) -> Verdict:
    """The verdict with the contract's word.

    Raises:
        Refused: the contract holds another root, or none yet, for this bundle's number.
        TransientError: nodes of the chain do not answer, or not alike.
    """
    number = verdict.header.number
    accepted = reports.fetch(number)
    if accepted is None:
        raise Refused(
            subject, "header.number", f"the contract has accepted {reports.count} bundles, not number {number}"
        )
    if accepted.root != verdict.root:
        raise Refused(
            subject, "bundle.root", f"0x{verdict.root.hex()}, where the contract holds 0x{accepted.root.hex()}"
        )
    return replace(verdict, accepted=accepted)


def check_tags(subject: str, tags: Sequence[tuple[str, str]], verdict: Verdict) -> None:
    """Whether a transaction's tags are exactly those of the bundle that it carries. Raises Refused."""
    signing = SigningContext(verdict.config.chain_id, verdict.config.contracts.report_manager)
    expected = bundle_tags(verdict.header, verdict.root, signing, verdict.end_ms)
    if tuple(tags) != expected:
        at = next((name for (name, _), found in zip(expected, tags, strict=False) if (name, _) != found), "number")
        raise Refused(subject, f"tags.{at}", "its transaction's are not those of the bundle that it carries")


def describe(verdict: Verdict) -> dict[str, Any]:
    """The verdict as JSON values."""
    header, accepted = verdict.header, verdict.accepted
    return {
        "verdict": "verified",
        "bundle": header.number,
        "root": f"0x{verdict.root.hex()}",
        "previous_root": f"0x{header.previous_root.hex()}",
        "messages": verdict.bundle.rows,
        "signatures_checked": verdict.signatures,
        "first_ms": header.first_ms,
        "end_ms": verdict.end_ms,
        "first": format_time(header.first_ms),
        "end": format_time(verdict.end_ms),
        "config_digest": f"0x{header.config_digest.hex()}",
        "epoch": verdict.config.epoch,
        "committee": [f"0x{member.hex()}" for member in verdict.config.committee],
        "signers": verdict.signers,
        "network": verdict.is_of_network,
        "contract": None
        if accepted is None
        else {
            "block": accepted.block_number,
            "final": accepted.is_final,
            "storage_id": encode_storage_id(accepted.storage_id),
        },
        "proves": verdict.proves,
        "leaves_open": verdict.leaves_open,
        "remarks": list(verdict.remarks),
    }
