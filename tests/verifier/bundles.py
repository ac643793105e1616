"""Bundles: each report's file is there and says what was agreed; every window has one certified outcome, in order."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from tests.bundle_reader import read_records
from tests.verifier.chain import Accepted, Chain
from tests.verifier.claims import Claim
from tests.verifier.findings import Findings
from tests.verifier.folder import Run
from tests.verifier.gateway import Gateway
from tests.verifier.state import States
from validator.protocol.codec.arweave import Transaction
from validator.protocol.codec.arweave_text import encode_storage_id
from validator.protocol.codec.bundle import bundle_tags
from validator.protocol.codec.bundle_file import verify_bundle_file
from validator.protocol.codec.certificate import verify_certificate
from validator.protocol.codec.config import decode_config
from validator.protocol.codec.statement import SigningContext
from validator.protocol.model import (
    Address,
    Certified,
    Digest,
    InstanceId,
    InstanceKind,
    Manifest,
    Outcome,
    Record,
    Root,
)
from validator.protocol.parameters import Config, Epoch, Network, ParameterSet

FIRST_PREVIOUS_ROOT = Root(bytes(32))


@dataclass(frozen=True)
class Archived:
    """A bundle as the gateway keeps it, with the report that settled it."""

    accepted: Accepted
    transaction: Transaction
    manifest: Manifest
    records: tuple[tuple[InstanceId, Record], ...]
    records_of: dict[InstanceId, list[Record]] = field(default_factory=dict)
    """The same by instance, in canonical order."""

    def __post_init__(self) -> None:
        for instance, record in self.records:
            self.records_of.setdefault(instance, []).append(record)
        for members in self.records_of.values():
            members.sort(key=lambda record: record.order)

    @property
    def number(self) -> int:
        return self.accepted.number

    @cached_property
    def config(self) -> Config:
        return decode_config(self.manifest.config_preimage)

    @property
    def parameters(self) -> ParameterSet:
        return self.config.parameters

    @property
    def end_ms(self) -> int:
        return self.manifest.header.last_ms + self.parameters.window_ms

    @property
    def block_hash(self) -> Digest:
        """Of the last window's block: its state is what the late set and the report are judged by."""
        return self.manifest.windows[-1].outcome.block_hash


def instances_of(bundle: Archived) -> Iterator[tuple[InstanceId, Outcome, str]]:
    """Windows in order and the late set, each with its outcome and the words that name it."""
    for certified in (*bundle.manifest.windows, bundle.manifest.late):
        instance = certified.outcome.instance
        yield instance, certified.outcome, f"bundle {bundle.number}, {instance}"


def faulty_of(n: int) -> int:
    """f, where 3f < n."""
    return max(0, (n - 1) // 3)


def quorum_of(n: int) -> int:
    """n - f; nobody agrees on anything in an empty committee."""
    return max(1, n - faulty_of(n))


def read_bundles(run: Run, chain: Chain, gateway: Gateway, findings: Findings) -> list[Archived]:
    """Every bundle of an accepted report that can be read and is what its report says."""
    found = []
    for accepted in chain.reports:
        with findings.examining(Claim.BUNDLES, f"bundle {accepted.number}"):
            found.append(read_bundle(run, gateway, accepted))
            findings.expect(True, Claim.BUNDLES, f"bundle {accepted.number}", "")
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
    archived = Archived(accepted, transaction, bundle.manifest, records)
    if transaction.tag_texts != bundle_tags(bundle.manifest.header, bundle.root, signing_context(run), archived.end_ms):
        raise ValueError("its tags are not exactly a bundle's")
    return archived


def signing_context(run: Run) -> SigningContext:
    return SigningContext(run.chain_id, run.contracts["report_manager"])


# --- order ----------------------------------------------------------------------------------------


def check_order(run: Run, bundles: Sequence[Archived], findings: Findings) -> None:
    """Every window has exactly one outcome, and each bundle follows the one before it."""
    found = [c.outcome.instance.number for b in bundles for c in b.manifest.windows]
    _check_windows(run, found, findings)
    findings.expect(found == sorted(found), Claim.ORDER, "windows", "are not in order over the bundles")
    previous = FIRST_PREVIOUS_ROOT
    for bundle in bundles:
        header = bundle.manifest.header
        faults = []
        if header.number != bundle.number:
            faults.append(f"calls itself number {header.number}")
        if header.previous_root != previous:
            faults.append("does not follow the bundle before it")
        findings.faultless(Claim.ORDER, f"bundle {bundle.number}", faults)
        previous = bundle.accepted.report.bundle_root


def _check_windows(run: Run, found: Sequence[int], findings: Findings) -> None:
    """Each window of the network has an outcome: up to its end, where it has one, else up to the newest outcome."""
    expected = set()
    for window in run.network.windows_from(run.network.genesis_ms):
        if not run.network.sets[-1].last and window.start_ms > max(found, default=0):
            break
        expected.add(window.start_ms)
    for start_ms in sorted(expected | set(found)):
        times = found.count(start_ms)
        faults = [] if start_ms in expected else ["is no window of the network"]
        if times != 1:
            faults.append("has more than one outcome" if times else "has no outcome")
        findings.faultless(Claim.WINDOWS, f"window {start_ms}", faults)
    closing = run.network.epoch(1)
    first = [start_ms for start_ms in found if closing is None or start_ms < closing.start_ms]
    wrong = f"{len(first)} were agreed where {run.windows} were run"
    findings.expect(len(first) == run.windows, Claim.WINDOWS, "windows of epoch 0", wrong)


def check_boundaries(run: Run, bundles: Sequence[Archived], findings: Findings) -> None:
    """A bundle takes windows while there are at most so many and so many bytes, at least one, of one epoch."""
    following = {before.number: after for before, after in pairwise(bundles)}
    for bundle in bundles:
        faults = _find_boundary_faults(run, bundle, following.get(bundle.number))
        findings.faultless(Claim.BOUNDARIES, f"bundle {bundle.number}", faults)


def _find_boundary_faults(run: Run, bundle: Archived, following: Archived | None) -> Iterator[str]:
    limits = bundle.parameters
    sizes = [c.outcome.canonical_bytes for c in bundle.manifest.windows]
    epoch = run.network.epoch_at(bundle.manifest.header.first_ms)
    if epoch is None:
        yield "lies in no epoch"
        return
    if bundle.end_ms > epoch.end_ms:
        yield "crosses the end of its epoch"
    if len(sizes) > limits.bundle_windows:
        yield f"has {len(sizes)} windows where {limits.bundle_windows} are the most"
    if len(sizes) > 1 and sum(sizes) > limits.bundle_bytes:
        yield f"has {sum(sizes)} bytes where {limits.bundle_bytes} are the most"
    if len(sizes) >= limits.bundle_windows or bundle.end_ms >= epoch.end_ms:
        return
    if following is None:
        yield "ends where no rule says so, and nothing follows it"
    elif sum(sizes) + following.manifest.windows[0].outcome.canonical_bytes <= limits.bundle_bytes:
        yield f"was cut after {len(sizes)} windows, although the next one fits"


# --- what it was agreed under ---------------------------------------------------------------------


def check_agreement(run: Run, chain: Chain, states: States, bundles: Sequence[Archived], findings: Findings) -> None:
    """Config, committee, certificates and blocks of all bundles."""
    for bundle in bundles:
        where = f"bundle {bundle.number}"
        with findings.examining(Claim.CONFIGS, where):
            _check_config(run, chain, bundle, findings)
        with findings.examining(Claim.COMMITTEES, where):
            check_committee(run, chain, states, bundle, findings)
        for certified in (*bundle.manifest.windows, bundle.manifest.late):
            named = f"{where}, {certified.outcome.instance}"
            with findings.examining(Claim.CERTIFICATES, named):
                _check_certificate(run, bundle, certified, named, findings)
            with findings.examining(Claim.BLOCKS, named):
                _check_block(run.network, chain, bundle, certified, named, findings)


def _check_config(run: Run, chain: Chain, bundle: Archived, findings: Findings) -> None:
    """The preimage's every part is what chain, contract and network file say, and the contract has its digest."""
    where = f"bundle {bundle.number}"
    config, accepted = bundle.config, bundle.accepted
    epoch = run.network.epoch_at(bundle.manifest.header.first_ms)
    if epoch is None:
        findings.fail(Claim.CONFIGS, where, "lies in no epoch")
        return
    parent = chain.block(run.deployment_block)
    digest = bundle.manifest.header.config_digest
    for holds, what in (
        (digest == accepted.config_digest, "is not the digest that the contract had at the report"),
        (accepted.committee == config.committee, "names another committee than the contract"),
        (accepted.config_count == config.config_count, "has another config_count than the contract"),
        (config.chain_id == run.chain_id, "is of another chain"),
        (parent is not None and config.deployment_parent_hash == parent.parent_hash, "is of another deployment"),
        (config.contracts == run.network.contracts, "names other contracts"),
        (config.epoch == epoch.number, f"is of epoch {config.epoch}, not {epoch.number}"),
        (config.parameters == epoch.parameters, "has other parameters than the network file"),
    ):
        findings.expect(holds, Claim.CONFIGS, where, what)


def check_committee(run: Run, chain: Chain, states: States, bundle: Archived, findings: Findings) -> None:
    """The committee is what the chain gave when the bundle's epoch began."""
    epoch = run.network.epoch_at(bundle.manifest.header.first_ms)
    if epoch is None:
        raise ValueError("lies in no epoch")
    members, said = config_of(run, chain, states, epoch, bundle.config).committee, bundle.config.committee
    wrong = f"has {len(said)} members, not the {len(members)} that were staked when epoch {epoch.number} began"
    findings.expect(said == members, Claim.COMMITTEES, f"bundle {bundle.number}", wrong)


def config_of(run: Run, chain: Chain, states: States, epoch: Epoch, known: Config) -> Config:
    """The config of an epoch; ``known`` is another one of the same network."""
    committee = committee_of(run, chain, states, epoch)
    return replace(known, parameters=epoch.parameters, epoch=epoch.number, committee=committee)


def committee_of(run: Run, chain: Chain, states: States, epoch: Epoch) -> tuple[Address, ...]:
    """Of the nodes that were staked with a validator URL when the epoch began, so many as there may be: those with the
    largest stake, ties by address. Where there is none, the members of the epoch before."""
    block = chain.block_at_or_before(epoch.start_ms // 1000 - epoch.parameters.lag_s)
    willing = [node for node in states.at(block.hash).nodes.values() if node.is_validator]
    willing.sort(key=lambda node: (-node.stake, node.address))
    if not willing and epoch.number:
        before = run.network.epoch(epoch.number - 1)
        assert before is not None  # epochs follow each other without gaps
        return committee_of(run, chain, states, before)
    return tuple(sorted(node.address for node in willing[: epoch.parameters.committee_limit]))


def _check_certificate(run: Run, bundle: Archived, certified: Certified, where: str, findings: Findings) -> None:
    """A quorum of the contract's committee signed this outcome in one round, under the contract's digest."""
    committee = bundle.accepted.committee
    faults = []
    if certified.certificate.config_digest != bundle.accepted.config_digest:
        faults.append("is of an older config digest")
    certificate = certified.certificate
    if len(certificate.signatures) < quorum_of(len(committee)):
        faults.append("is of fewer than a quorum")
    verify_certificate(
        certificate, certificate.config_digest, certified.outcome.instance, committee, signing_context(run)
    )
    findings.faultless(Claim.CERTIFICATES, where, faults)


def _check_block(
    network: Network, chain: Chain, bundle: Archived, certified: Certified, where: str, findings: Findings
) -> None:
    """The outcome's block is the highest one at least ``lag`` before the window (of a late set: the last one)."""
    outcome = certified.outcome
    late = outcome.instance.kind is InstanceKind.LATE
    start_ms = bundle.manifest.header.last_ms if late else outcome.instance.number
    epoch = network.epoch_at(start_ms)
    block, following = chain.block(outcome.block_number), chain.block(outcome.block_number + 1)
    if block is None or following is None or epoch is None:
        findings.fail(Claim.BLOCKS, where, f"{outcome.block_number} is not on the chain, or nothing follows it")
        return
    latest_ms = start_ms - epoch.parameters.lag_s * 1000
    faults = [] if block.hash == outcome.block_hash else ["its block has another hash on the chain"]
    if not block.timestamp_s * 1000 <= latest_ms < following.timestamp_s * 1000:
        faults.append(f"block {block.number} is not the highest one at {latest_ms} ms")
    findings.faultless(Claim.BLOCKS, where, faults)


# --- figures --------------------------------------------------------------------------------------


def summarise(run: Run, bundles: Sequence[Archived], paid: dict[int, int], findings: Findings) -> None:
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
