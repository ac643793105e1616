"""Bundles: each report's file is there, says what was agreed, and every window has one certified outcome."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.verifier.chain import Accepted, Chain
from tests.verifier.findings import Findings
from tests.verifier.folder import Run
from tests.verifier.gateway import Gateway
from validator.codec.arweave import Transaction, encode_storage_id
from validator.codec.bundle_file import bundle_tags, read_records, verify_bundle_file
from validator.codec.config import decode_config
from validator.codec.statement import SigningContext, verify_quorum
from validator.model import Certified, InstanceId, InstanceKind, Manifest, Record, Root
from validator.parameters import Config, Network

FIRST_PREVIOUS_ROOT = Root(bytes(32))


@dataclass(frozen=True, slots=True)
class Archived:
    """A bundle as the gateway keeps it, with the report that settled it."""

    accepted: Accepted
    transaction: Transaction
    manifest: Manifest
    records: tuple[tuple[InstanceId, Record], ...]

    @property
    def number(self) -> int:
        return self.accepted.number


def quorum_of(n: int) -> int:
    """n - f, where 3f < n."""
    return n - (n - 1) // 3 if n else 1


def read_bundles(run: Run, chain: Chain, gateway: Gateway, findings: Findings) -> list[Archived]:
    """Every bundle of an accepted report that can be read and is what its report says."""
    found = []
    for place, accepted in enumerate(chain.reports):
        findings.expect(accepted.number == place, f"report {accepted.number}", f"accepted as number {place}")
        with findings.examining(f"bundle {accepted.number}"):
            found.append(read_bundle(run, gateway, accepted))
    return found


def read_bundle(run: Run, gateway: Gateway, accepted: Accepted) -> Archived:
    """Header, tags, data and rows of one bundle. Raises where anything differs from what was agreed."""
    transaction = gateway.transaction(accepted.report.storage_id)
    data = gateway.data(transaction)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bundle.parquet"
        path.write_bytes(data)
        bundle = verify_bundle_file(path)
        records = tuple(read_records(path, bundle.manifest))
    if bundle.root != accepted.report.bundle_root:
        raise ValueError("its root is not the report's")
    config = decode_config(bundle.manifest.config_preimage)
    end_ms = bundle.manifest.header.last_ms + config.parameters.window_ms
    tags = bundle_tags(bundle.manifest.header, bundle.root, signing_context(run), end_ms)
    if transaction.tag_texts != tags:
        raise ValueError("its tags are not exactly a bundle's")
    return Archived(accepted, transaction, bundle.manifest, records)


def signing_context(run: Run) -> SigningContext:
    return SigningContext(run.chain_id, run.contracts["report_manager"])


# --- outcomes and certificates --------------------------------------------------------------------


def check_outcomes(run: Run, chain: Chain, bundles: list[Archived], findings: Findings) -> None:
    """Every window has exactly one outcome, certified by a quorum of the committee that the contract names."""
    expected = [w.start_ms for w in run.network.windows_from(run.network.genesis_ms)]
    found = [c.outcome.instance.number for b in bundles for c in b.manifest.windows]
    for start_ms in sorted(set(expected) - set(found)):
        findings.fail(f"window {start_ms}", "has no outcome")
    for start_ms in sorted(set(found) - set(expected)):
        findings.fail(f"window {start_ms}", "is no window of the network")
    for start_ms in sorted({s for s in found if found.count(s) > 1}):
        findings.fail(f"window {start_ms}", "has more than one outcome")
    findings.expect(found == sorted(found), "windows", "are not in order over the bundles")
    previous = FIRST_PREVIOUS_ROOT
    for bundle in bundles:
        claim = f"bundle {bundle.number}"
        header = bundle.manifest.header
        findings.expect(header.number == bundle.number, claim, f"calls itself number {header.number}")
        findings.expect(header.previous_root == previous, claim, "does not follow the bundle before it")
        previous = bundle.accepted.report.bundle_root
        with findings.examining(f"{claim}, config"):
            check_config(run, chain, bundle, findings)
        for certified in (*bundle.manifest.windows, bundle.manifest.late):
            with findings.examining(f"{claim}, {certified.outcome.instance}"):
                check_certificate(run, bundle, certified, findings)
                check_block(run.network, chain, bundle, certified, findings)


def check_config(run: Run, chain: Chain, bundle: Archived, findings: Findings) -> None:
    """The preimage's every part is what chain, contract and network file say, and the contract has its digest."""
    claim = f"bundle {bundle.number}, config"
    config: Config = decode_config(bundle.manifest.config_preimage)
    accepted = bundle.accepted
    epoch = run.network.epoch_at(bundle.manifest.header.first_ms)
    if epoch is None:
        findings.fail(claim, "lies in no epoch")
        return
    parent = chain.block(run.deployment_block)
    digest = bundle.manifest.header.config_digest
    findings.expect(digest == accepted.config_digest, claim, "is not the digest that the contract had at the report")
    findings.expect(accepted.committee == config.committee, claim, "names another committee than the contract")
    findings.expect(accepted.config_count == config.config_count, claim, "has another config_count than the contract")
    findings.expect(config.chain_id == run.chain_id, claim, "is of another chain")
    findings.expect(
        parent is not None and config.deployment_parent_hash == parent.parent_hash, claim, "is of another deployment"
    )
    findings.expect(config.contracts == run.network.contracts, claim, "names other contracts")
    findings.expect(config.epoch == epoch.number, claim, f"is of epoch {config.epoch}, not {epoch.number}")
    findings.expect(config.parameters == epoch.parameters, claim, "has other parameters than the network file")
    findings.expect(bundle.manifest.header.last_ms < epoch.end_ms, claim, "crosses the end of its epoch")


def check_certificate(run: Run, bundle: Archived, certified: Certified, findings: Findings) -> None:
    """A quorum of the contract's committee signed this outcome in one round, under the contract's digest."""
    claim = f"bundle {bundle.number}, certificate of {certified.outcome.instance}"
    committee = bundle.accepted.committee
    digest = bundle.accepted.config_digest
    findings.expect(certified.certificate.config_digest == digest, claim, "is of an older config digest")
    verify_quorum(certified.certificate, committee, quorum_of(len(committee)), signing_context(run))


def check_block(network: Network, chain: Chain, bundle: Archived, certified: Certified, findings: Findings) -> None:
    """The outcome's block is the highest one at least ``lag`` before the window (of a late set: the last one)."""
    outcome = certified.outcome
    claim = f"bundle {bundle.number}, block of {outcome.instance}"
    late = outcome.instance.kind is InstanceKind.LATE
    start_ms = bundle.manifest.header.last_ms if late else outcome.instance.number
    epoch = network.epoch_at(start_ms)
    block, following = chain.block(outcome.block_number), chain.block(outcome.block_number + 1)
    if block is None or following is None or epoch is None:
        findings.fail(claim, f"{outcome.block_number} is not on the chain, or nothing follows it")
        return
    latest_ms = start_ms - epoch.parameters.lag_s * 1000
    findings.expect(block.hash == outcome.block_hash, claim, "has another hash on the chain")
    right = block.timestamp_s * 1000 <= latest_ms < following.timestamp_s * 1000
    findings.expect(right, claim, f"{block.number} is not the highest one at {latest_ms} ms")


def summarise(run: Run, bundles: list[Archived], paid: dict[int, int], findings: Findings) -> None:
    """Figures of bundles, and of the rounds that the windows of epoch 0 took."""
    names = {member.wallet: member.name for member in run.validators}
    findings.figures["bundles"] = [
        {
            "number": b.number,
            "arweave_id": encode_storage_id(b.accepted.report.storage_id),
            "paid": paid.get(b.number, 0),
            "messages": len(b.records),
            "bytes": b.transaction.data_size,
            "bytes_per_message": round(b.transaction.data_size / len(b.records), 1) if b.records else None,
            "root": b.accepted.report.bundle_root.hex(),
            "uploader": names.get(b.transaction.address, "unknown"),
        }
        for b in bundles
    ]
    closing = run.network.epoch(1)
    rounds = [
        c.certificate.round + 1
        for b in bundles
        for c in b.manifest.windows
        if closing is None or c.outcome.instance.number < closing.start_ms
    ]
    findings.figures["windows_agreed"] = len(rounds)
    findings.figures["rounds_total"] = sum(rounds)
    findings.figures["rounds_max"] = max(rounds, default=0)
    findings.expect(len(rounds) == run.windows, "windows", f"{len(rounds)} were agreed where {run.windows} were run")
