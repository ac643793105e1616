"""The whole check: read, examine each promise, gather figures."""

from __future__ import annotations

from tests.verifier.bundles import check_outcomes, read_bundles, summarise
from tests.verifier.chain import Chain
from tests.verifier.collected import check_killed, check_rejections
from tests.verifier.findings import Findings
from tests.verifier.folder import Run, read_json
from tests.verifier.gateway import Gateway
from tests.verifier.messages import Truth, check_messages, read_truth
from tests.verifier.payments import check_payments
from tests.verifier.reports import check_reports
from tests.verifier.uploads import check_uploads
from validator.parameters import Contracts


def check_run(run: Run, chain: Chain, gateway: Gateway) -> Findings:
    """Examine everything; a part that cannot be read fails and does not hide the others."""
    findings = Findings()
    with findings.examining("network"):
        _check_network(run, chain, findings)
    bundles = []
    with findings.examining("bundles"):
        bundles = read_bundles(run, chain, gateway, findings)
    with findings.examining("outcomes"):
        check_outcomes(run, chain, bundles, findings)
    truth = Truth()
    with findings.examining("messages"):
        truth = read_truth(run, findings)
        check_messages(run, truth, bundles, findings)
    paid: dict[int, int] = {}
    with findings.examining("uploads"):
        paid = check_uploads(run, gateway.stats(), bundles, findings)
    with findings.examining("bundles, figures"):
        summarise(run, bundles, paid, findings)
    with findings.examining("reports"):
        check_reports(run, chain, bundles, findings)
    with findings.examining("payments"):
        check_payments(run, chain, bundles, len(truth.receipts), findings)
    with findings.examining("collected"):
        collected = read_json(run.folder / "collected.json")
        check_rejections(run, truth, collected, findings)
        check_killed(run, collected, bundles, findings)
    return findings


def _check_network(run: Run, chain: Chain, findings: Findings) -> None:
    """Folder, network file and chain speak of one network."""
    findings.expect(chain.chain_id() == run.chain_id == run.network.chain_id, "network", "another chain id")
    contracts = Contracts(**{name: run.contracts[name] for name in Contracts.__dataclass_fields__})
    findings.expect(contracts == run.network.contracts, "network", "the network file names other contracts")
    findings.expect(run.network.deployment_block == run.deployment_block, "network", "another deployment block")
    findings.expect(len(run.validators) == len({m.wallet for m in run.validators}), "network", "a wallet twice")
