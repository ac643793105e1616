"""The whole check: read, examine each promise, gather figures."""

from __future__ import annotations

from tests.verifier.bundles import (
    Archived,
    check_agreement,
    check_boundaries,
    check_order,
    read_bundles,
    summarise,
)
from tests.verifier.chain import Chain
from tests.verifier.claims import Claim
from tests.verifier.collected import check_killed
from tests.verifier.contents import check_contents
from tests.verifier.findings import Findings
from tests.verifier.folder import Run, read_json
from tests.verifier.gateway import Gateway
from tests.verifier.messages import Truth, check_messages, read_truth
from tests.verifier.observations import Used, check_observations, read_observations
from tests.verifier.payments import check_payments
from tests.verifier.proofs import check_proofs
from tests.verifier.reports import check_reports
from tests.verifier.scope import check_scope
from tests.verifier.state import States
from tests.verifier.uploads import check_uploads
from validator.protocol.parameters import Contracts


def check_run(run: Run, chain: Chain, gateway: Gateway) -> Findings:
    """Examine everything; a part that cannot be read fails and does not hide the others.

    Raises Unreachable: chain or gateway does not answer at all, so nothing can be said.
    """
    findings = Findings()
    states = States(chain)
    with findings.examining(Claim.NETWORK, "run"):
        _check_network(run, chain, findings)
    bundles: list[Archived] = []
    with findings.examining(Claim.BUNDLES, "reports"):
        bundles = read_bundles(run, chain, gateway, findings)
    with findings.examining(Claim.ORDER, "bundles"):
        check_order(run, bundles, findings)
    with findings.examining(Claim.BOUNDARIES, "bundles"):
        check_boundaries(run, bundles, findings)
    check_agreement(run, chain, states, bundles, findings)
    used: Used = {}
    with findings.examining(Claim.OBSERVATIONS, "observations"):
        used = check_observations(run, bundles, read_observations(run), findings)
    check_scope(run, states, bundles, findings)
    check_contents(run, states, bundles, used, findings)
    truth = Truth()
    with findings.examining(Claim.COMPLETE, "logs"):
        truth = read_truth(run, findings)
        check_messages(run, states, truth, bundles, findings)
    with findings.examining(Claim.ACCEPTED, "reports"):
        check_reports(run, chain, states, bundles, findings)
    with findings.examining(Claim.PROVABLE, "messages"):
        check_proofs(chain, bundles, findings)
    with findings.examining(Claim.LEDGER, "payments"):
        check_payments(run, chain, states, bundles, len(truth.receipts), findings)
    with findings.examining(Claim.KILLED, "collected.json"):
        _check_collected(run, states, gateway, bundles, findings)
    return findings


def _check_collected(run: Run, states: States, gateway: Gateway, bundles: list[Archived], findings: Findings) -> None:
    """What needs the word of validators: the kill that may excuse a second payment."""
    collected = read_json(run.folder / "collected.json")
    check_killed(run, collected, bundles, findings)
    paid: dict[int, int] = {}
    with findings.examining(Claim.UPLOADS, "gateway"):
        paid = check_uploads(run, states, gateway, bundles, collected.get("killed"), findings)
    summarise(run, bundles, paid, findings)


def _check_network(run: Run, chain: Chain, findings: Findings) -> None:
    """Folder, network file and chain speak of one network."""
    contracts = Contracts(**{name: run.contracts[name] for name in Contracts.__dataclass_fields__})
    for holds, what in (
        (chain.chain_id() == run.chain_id == run.network.chain_id, "another chain id"),
        (contracts == run.network.contracts, "the network file names other contracts"),
        (run.network.deployment_block == run.deployment_block, "another deployment block"),
        (len(run.validators) == len({m.wallet for m in run.validators}), "a wallet twice"),
    ):
        findings.expect(holds, Claim.NETWORK, "run", what)
