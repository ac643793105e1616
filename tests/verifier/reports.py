"""Reports: the contract holds each with a quorum of valid signatures, and each says what its bundle says."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from tests.compact_signature import expand_compact
from tests.verifier.bundles import Archived, config_of, quorum_of, signing_context
from tests.verifier.chain import Accepted, Chain
from tests.verifier.claims import Claim
from tests.verifier.findings import Findings
from tests.verifier.folder import Run
from tests.verifier.state import States
from validator.protocol.codec.config import config_digest
from validator.protocol.codec.report import pack_lines, report_digest
from validator.protocol.codec.secp256k1 import recover_address
from validator.protocol.model import NIL, Address


def check_reports(run: Run, chain: Chain, states: States, bundles: Sequence[Archived], findings: Findings) -> None:
    """All accepted reports, in order."""
    (next_number,) = chain.call("report_manager", "nextNumber")
    accepted_all = f"{len(chain.reports)} events, {next_number} accepted"
    findings.expect(next_number == len(chain.reports), Claim.ACCEPTED, "reports", accepted_all)
    read = f"{len(bundles)} of {next_number} bundles could be read"
    findings.expect(len(bundles) == len(chain.reports), Claim.BUNDLES, "reports", read)
    for place, accepted in enumerate(chain.reports):
        where = f"report {accepted.number}"
        with findings.examining(Claim.REPORT_SIGNATURES, where):
            _check_signatures(run, accepted, where, findings)
        with findings.examining(Claim.ACCEPTED, where):
            _check_held(run, chain, accepted, place, where, findings)
        check_amounts(accepted, findings)
    for bundle in bundles:
        with findings.examining(Claim.CONTENT, f"report {bundle.number}"):
            _check_content(bundle, findings)
        with findings.examining(Claim.ROTATIONS, f"report {bundle.number}"):
            _check_rotation(run, chain, states, bundle, findings)
    _check_changes(chain, findings)
    _check_cut(chain, findings)
    _summarise(chain, findings)


def _check_signatures(run: Run, accepted: Accepted, where: str, findings: Findings) -> None:
    """Exactly the bitmap's members of the committee signed these very values, and they are a quorum."""
    context = signing_context(run)
    digest = report_digest(accepted.report, context.chain_id, context.report_manager)
    signers = signers_of(accepted)
    needed = quorum_of(len(accepted.committee))
    faults = []
    if len(signers) < needed:
        faults.append(f"{len(signers)} signers where {needed} are needed")
    if len(accepted.signatures) != 64 * len(signers):
        faults.append("has another number of signatures than signers")
    else:
        for place, signer in enumerate(signers):
            compact = accepted.signatures[64 * place : 64 * place + 64]
            if recover_address(digest, expand_compact(compact)) != signer:
                faults.append(f"0x{signer.hex()} did not sign it")
    findings.faultless(Claim.REPORT_SIGNATURES, where, faults)


def signers_of(accepted: Accepted) -> list[Address]:
    return [member for index, member in enumerate(accepted.committee) if accepted.bitmap >> index & 1]


def _check_held(run: Run, chain: Chain, accepted: Accepted, place: int, where: str, findings: Findings) -> None:
    """Call, event and view of the contract name the same report, in its place."""
    report, moved = accepted.report, accepted.event.values
    context = signing_context(run)
    digest = report_digest(report, context.chain_id, context.report_manager)
    kept = (report.bundle_root, report.last_ms, accepted.event.place[0], accepted.bitmap, digest[:17])
    said = {
        "bundleRoot": report.bundle_root,
        "storageId": report.storage_id,
        "reportDigest": digest,
        "ledgerRoot": report.ledger_root,
        "signerBitmap": accepted.bitmap,
        "lines": pack_lines(report),
    }
    faults = []
    if not report.number == accepted.number == place:
        faults.append(f"calls itself {report.number} and was accepted as number {accepted.number}, {place} were before")
    if chain.call("report_manager", "reportOf", accepted.number) != kept:
        faults.append("is held by the contract with other values than it was sent with")
    if {name: moved[name] for name in said} != said:
        faults.append("was announced with other values than it was sent with")
    findings.faultless(Claim.ACCEPTED, where, faults)


def check_amounts(accepted: Accepted, findings: Findings) -> None:
    """Captures = node changes + treasury, in the report and in what the contract moved."""
    report, moved = accepted.report, accepted.event.values
    captured = sum(x.capture for x in report.streams) + sum(x.capture for x in report.consumers)
    given = sum(x.amount for x in report.nodes) + report.treasury
    faults = []
    if captured != given:
        faults.append(f"captures {captured} and gives {given}")
    if moved["captured"] != captured:
        faults.append(f"the contract captured {moved['captured']}, not {captured}")
    if moved["treasury"] != report.treasury:
        faults.append(f"the treasury got {moved['treasury']}, not {report.treasury}")
    findings.faultless(Claim.MOVED, f"report {accepted.number}", faults)


def _check_cut(chain: Chain, findings: Findings) -> None:
    """The contracts never cut what a report says."""
    for contract in ("store_manager", "query_manager"):
        for event in chain.events_of(contract, "CaptureShort"):
            findings.fail(Claim.MOVED, event.transaction, f"{contract} captured less than a report says")
    for event in chain.events_of("node_manager", "NodeLineShort"):
        findings.fail(Claim.MOVED, event.transaction, "a node line was cut by the contract")


def _check_content(bundle: Archived, findings: Findings) -> None:
    """Everything of a report that follows from its bundle, amounts apart."""
    report, header = bundle.accepted.report, bundle.manifest.header
    last = bundle.manifest.windows[-1].outcome
    for what, said, agreed in (
        ("config digest", report.config_digest, header.config_digest),
        ("first window", report.first_ms, header.first_ms),
        ("last window", report.last_ms, header.last_ms),
        ("previous root", report.previous_root, header.previous_root),
        ("height", report.height, last.block_number),
        ("block hash", report.block_hash, last.block_hash),
    ):
        wrong = f"has another {what} than its bundle"
        findings.expect(said == agreed, Claim.CONTENT, f"report {bundle.number}", wrong)


def _check_rotation(run: Run, chain: Chain, states: States, bundle: Archived, findings: Findings) -> None:
    """The last report of an epoch, and no other, names the next committee and digest; the network's last repeats."""
    where, report = f"report {bundle.number}", bundle.accepted.report
    epoch = run.network.epoch_at(bundle.manifest.header.last_ms)
    committee: tuple[Address, ...] = ()
    digest = NIL
    if epoch is None:
        findings.fail(Claim.ROTATIONS, where, "lies in no epoch")
        return
    if bundle.end_ms == epoch.end_ms:
        following = epoch if epoch.last else run.network.epoch(epoch.number + 1)
        assert following is not None  # epochs end with the network's last
        config = bundle.config if epoch.last else config_of(run, chain, states, following, bundle.config)
        committee, digest = config.committee, config_digest(config)
    faults = []
    if report.next_committee != committee:
        faults.append("names another committee for what follows")
    if report.next_config_digest != digest:
        faults.append("names another config digest for what follows")
    findings.faultless(Claim.ROTATIONS, where, faults)


def _check_changes(chain: Chain, findings: Findings) -> None:
    """After the first, a committee is set by the report that names it, or under a config count that was raised."""
    named = {a.event.transaction: (a.report.next_committee, a.report.next_config_digest) for a in chain.reports}
    for before, change in pairwise(chain.committees):
        by_report = named.get(change.event.transaction) == (change.members, change.digest)
        wrong = f"a committee of {len(change.members)} was set by no report that names it"
        raised = change.count > before.count
        findings.expect(by_report or raised, Claim.ROTATIONS, f"block {change.event.place[0]}", wrong)


def _summarise(chain: Chain, findings: Findings) -> None:
    final = chain.block("finalized")
    findings.figures["reports"] = [
        {
            "id": a.number,
            "tx": a.event.transaction,
            "gas_used": a.gas_used,
            "signers": len(signers_of(a)),
            "status": "final" if final is not None and a.event.place[0] <= final.number else "accepted",
        }
        for a in chain.reports
    ]
