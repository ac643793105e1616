"""Reports: the contract holds each with a quorum of valid signatures, and each says what its bundle says."""

from __future__ import annotations

from collections import defaultdict

from tests.verifier.bundles import Archived, quorum_of, signing_context
from tests.verifier.chain import Accepted, Chain
from tests.verifier.findings import Findings
from tests.verifier.folder import Run
from validator.codec.config import decode_config
from validator.codec.report import expand_compact, report_digest
from validator.codec.secp256k1 import recover_address
from validator.hashing import hash_object
from validator.model import NIL, Address, Digest


def check_reports(run: Run, chain: Chain, bundles: list[Archived], findings: Findings) -> None:
    """All accepted reports, in order."""
    claim = "reports"
    (next_number,) = chain.call("report_manager", "nextNumber")
    findings.expect(next_number == len(chain.reports), claim, f"{len(chain.reports)} events, {next_number} accepted")
    findings.expect(len(bundles) == len(chain.reports), claim, f"{len(bundles)} of {next_number} bundles could be read")
    for accepted in chain.reports:
        with findings.examining(f"report {accepted.number}"):
            check_signatures(run, accepted, findings)
            check_held(run, chain, accepted, findings)
            check_amounts(accepted, findings)
    following: dict[int, Archived] = {b.number - 1: b for b in bundles}
    for bundle in bundles:
        with findings.examining(f"report {bundle.number}"):
            check_content(run, chain, bundle, following.get(bundle.number), findings)
    for contract in ("store_manager", "query_manager"):
        for event in chain.events_of(contract, "CaptureShort"):
            findings.fail("reports", f"{contract} captured less than a report says, in {event.transaction}")
    for event in chain.events_of("node_manager", "NodeLineShort"):
        findings.fail("reports", f"a node line was cut by the contract, in {event.transaction}")
    _summarise(chain, findings)


def check_signatures(run: Run, accepted: Accepted, findings: Findings) -> None:
    """Exactly the bitmap's members of the committee signed these very values, and they are a quorum."""
    claim = f"report {accepted.number}"
    context = signing_context(run)
    digest = report_digest(accepted.report, context.chain_id, context.report_manager)
    signers = signers_of(accepted)
    needed = quorum_of(len(accepted.committee))
    if not findings.expect(len(signers) >= needed, claim, f"{len(signers)} signers where {needed} are needed"):
        return
    findings.expect(len(accepted.signatures) == 64 * len(signers), claim, "has another number of signatures")
    for place, signer in enumerate(signers):
        compact = accepted.signatures[64 * place : 64 * place + 64]
        genuine = recover_address(digest, expand_compact(compact)) == signer
        findings.expect(genuine, claim, f"0x{signer.hex()} did not sign it")


def signers_of(accepted: Accepted) -> list[Address]:
    return [member for index, member in enumerate(accepted.committee) if accepted.bitmap >> index & 1]


def check_held(run: Run, chain: Chain, accepted: Accepted, findings: Findings) -> None:
    """The contract's view names the same root, storage id, digest, time and signers as the call that it took."""
    report = accepted.report
    root, storage_id, digest, last_ms, block, bitmap = chain.call("report_manager", "reportOf", accepted.number)
    context = signing_context(run)
    expected = (
        report.bundle_root,
        report.storage_id,
        report_digest(report, context.chain_id, context.report_manager),
        report.last_ms,
        accepted.event.place[0],
        accepted.bitmap,
    )
    same = (root, storage_id, digest, last_ms, block, bitmap) == expected
    findings.expect(
        same, f"report {accepted.number}", "is held by the contract with other values than it was sent with"
    )
    findings.expect(report.number == accepted.number, f"report {accepted.number}", f"calls itself {report.number}")


def check_amounts(accepted: Accepted, findings: Findings) -> None:
    """Captures = node changes + treasury, in the report and in what the contract moved."""
    claim = f"report {accepted.number}"
    report = accepted.report
    captured = sum(x.capture for x in report.streams) + sum(x.capture for x in report.consumers)
    given = sum(x.amount for x in report.nodes) + report.treasury
    findings.expect(captured == given, claim, f"captures {captured} and gives {given}")
    moved = accepted.event.values
    findings.expect(moved["captured"] == captured, claim, f"the contract captured {moved['captured']}, not {captured}")
    same = moved["treasury"] == report.treasury
    findings.expect(same, claim, f"the treasury got {moved['treasury']}, not {report.treasury}")


def check_content(run: Run, chain: Chain, bundle: Archived, following: Archived | None, findings: Findings) -> None:
    """Everything of a report that follows from its bundle and the chain, amounts apart."""
    claim = f"report {bundle.number}"
    report, header = bundle.accepted.report, bundle.manifest.header
    for what, said, agreed in (
        ("config digest", report.config_digest, header.config_digest),
        ("first window", report.first_ms, header.first_ms),
        ("last window", report.last_ms, header.last_ms),
        ("previous root", report.previous_root, header.previous_root),
        ("height", report.height, bundle.manifest.windows[-1].outcome.block_number),
        ("block hash", report.block_hash, bundle.manifest.windows[-1].outcome.block_hash),
    ):
        findings.expect(said == agreed, claim, f"has another {what} than its bundle")
    sizes: dict[str, int] = defaultdict(int)
    for certified in (*bundle.manifest.windows, bundle.manifest.late):
        for entry in certified.outcome.entries:
            sizes[entry.stream_id] += entry.signed_bytes
    for line in report.streams:
        right = line.bytes == sizes[line.stream_id] and line.stream_id != run.system_stream
        findings.expect(right, claim, f"charges {line.stream_id} for {line.bytes} bytes, not {sizes[line.stream_id]}")
    if following is not None:
        ledger = hash_object(following.manifest.ledger)
        findings.expect(report.ledger_root == ledger, claim, "its ledger is not the one in the next bundle")
    _check_rotation(run, bundle, following, findings)


def _check_rotation(run: Run, bundle: Archived, following: Archived | None, findings: Findings) -> None:
    """The last report of an epoch, and no other, names the next committee and digest; the network's last repeats."""
    claim = f"report {bundle.number}"
    report = bundle.accepted.report
    epoch = run.network.epoch_at(report.last_ms)
    if epoch is None:
        findings.fail(claim, "lies in no epoch")
        return
    if report.last_ms + epoch.parameters.window_ms != epoch.end_ms:
        findings.expect(
            not report.next_committee and report.next_config_digest == NIL, claim, "rotates within an epoch"
        )
        return
    if epoch.last:
        committee, digest = bundle.accepted.committee, bundle.manifest.header.config_digest
    elif following is not None:
        committee = decode_config(following.manifest.config_preimage).committee
        digest = Digest(following.manifest.header.config_digest)
    else:
        findings.fail(claim, "nothing follows the last report of its epoch")
        return
    findings.expect(report.next_committee == committee, claim, "names another committee for the next epoch")
    findings.expect(report.next_config_digest == digest, claim, "names another config digest for the next epoch")


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
