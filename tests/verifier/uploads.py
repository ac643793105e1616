"""Uploads: each bundle was paid for once, and the gateway's count agrees with the wallets' balances."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from tests.verifier.bundles import Archived
from tests.verifier.findings import Findings
from tests.verifier.folder import Run
from validator.codec.arweave import compute_address, encode_base64url


def check_uploads(run: Run, stats: dict[str, Any], bundles: list[Archived], findings: Findings) -> dict[int, int]:
    """Compare; returns how often each bundle was paid for.

    Where a validator was killed, a bundle that it paid for may have been paid for by one successor too.
    """
    wallets = {encode_base64url(member.wallet): member.name for member in run.validators}
    paid: dict[int, int] = {}
    by_root = {b.accepted.report.bundle_root.hex(): b for b in bundles}
    for bundle in bundles:
        claim = f"bundle {bundle.number}, upload"
        owners: dict[str, int] = stats["paid"].get(bundle.accepted.report.bundle_root.hex(), {})
        paid[bundle.number] = sum(owners.values())
        payers = {wallets.get(owner, owner) for owner in owners}
        owner = encode_base64url(compute_address(bundle.transaction.owner))
        findings.expect(owner in wallets, claim, f"is owned by {owner}, who is no validator")
        findings.expect(owner in owners, claim, "was not paid for by the wallet that owns it")
        twice_allowed = run.killed is not None and run.killed in payers
        allowed = 2 if twice_allowed else 1
        counts_once = all(count == 1 for count in owners.values())
        findings.expect(
            counts_once and 1 <= len(owners) <= allowed, claim, f"was paid for {paid[bundle.number]} times: {owners}"
        )
        uploader = next((m.address for m in run.validators if encode_base64url(m.wallet) == owner), None)
        findings.expect(
            uploader == bundle.accepted.report.uploader, claim, "was announced by another node than its owner"
        )
    for root, owners in stats["paid"].items():
        findings.expect(root in by_root, f"bundle root {root[:16]}", f"was paid for by {owners} and is in no report")
    _check_balances(stats, wallets, findings)
    return paid


def _check_balances(stats: dict[str, Any], wallets: dict[str, str], findings: Findings) -> None:
    """All wallets began with the same amount; what is gone is what the mined transactions cost."""
    spent: dict[str, int] = defaultdict(int)
    for transaction in stats["transactions"]:
        if transaction["height"] is None:
            findings.fail(f"transaction {transaction['id']}", "was never mined")
            continue
        spent[transaction["owner"]] += int(transaction["reward"])
        known = transaction["bundle_root"] in stats["paid"]
        findings.expect(known, f"transaction {transaction['id']}", "is counted for no bundle")
    strangers = sorted(set(spent) - set(wallets))
    findings.expect(not strangers, "uploads", f"{strangers} paid, who are no validators")
    start, rest = divmod(int(stats["minted"]), len(wallets))
    findings.expect(not rest, "uploads", "the wallets were not given equal amounts")
    for wallet, name in wallets.items():
        left = int(stats["balances"].get(wallet, "0"))
        findings.expect(
            left == start - spent[wallet], f"wallet of {name}", f"holds {left}, not {start} - {spent[wallet]} winston"
        )
    findings.expect(int(stats["spent"]) == sum(spent.values()), "uploads", "more was spent than transactions cost")
