"""The check reads the real contracts: committees, reports with their call data, stakes, and the balances left."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract_network import BROKER_STAKE, CONFIG, ContractNetwork
from tests.verifier.chain import Chain, HttpRpc
from tests.verifier.findings import Findings
from tests.verifier.payments import read_stakes, staked_until
from tests.verifier.reports import check_amounts, signers_of
from validator.codec.report import expand_compact
from validator.codec.secp256k1 import recover_address
from validator.devnet.contracts import WEI
from validator.model import Report


@dataclasses.dataclass
class Settled:
    """A network of contracts with two accepted reports, and the check's view of it."""

    network: ContractNetwork
    reports: list[Report]
    receipts: list[dict[str, Any]]
    chain: Chain


@pytest.fixture(scope="module")
def settled(anvil: str) -> Iterator[Settled]:
    network = ContractNetwork.create(anvil)
    reports, receipts = [], []
    for _ in range(2):
        reports.append(network.next_report())
        receipts.append(network.submit(reports[-1]))
    deployment = network.chain.deployment
    addresses = {f.name: getattr(deployment.contracts, f.name) for f in dataclasses.fields(deployment.contracts)}
    rpc = HttpRpc(anvil)
    yield Settled(network, reports, receipts, Chain(rpc, addresses, deployment.block))
    rpc.close()
    network.chain.close()


def test_accepted_reports_are_read_back_from_their_call_data(settled: Settled) -> None:
    found = settled.chain.reports
    assert [a.report for a in found] == settled.reports
    assert [a.event.transaction for a in found] == [r["transactionHash"] for r in settled.receipts]
    assert [hex(a.gas_used) for a in found] == [r["gasUsed"] for r in settled.receipts]
    assert {a.config_digest for a in found} == {CONFIG}


def test_signers_are_those_who_signed(settled: Settled) -> None:
    for accepted in settled.chain.reports:
        digest = settled.network.digest(accepted.report)
        compact = [accepted.signatures[i : i + 64] for i in range(0, len(accepted.signatures), 64)]
        assert [recover_address(digest, expand_compact(c)) for c in compact] == signers_of(accepted)
        assert len(compact) == 3


def test_what_the_contract_holds_and_moved_agrees_with_the_reports(settled: Settled) -> None:
    findings = Findings()
    for accepted in settled.chain.reports:
        check_amounts(accepted, findings)
        held = settled.chain.call("report_manager", "reportOf", accepted.number)
        assert held[:2] == (accepted.report.bundle_root, accepted.report.storage_id)
        assert held[4:] == (accepted.event.place[0], accepted.bitmap)
    assert findings.failures == []
    assert settled.chain.call("report_manager", "nextNumber") == (2,)


def test_balances_are_stakes_less_captures(settled: Settled) -> None:
    stakes = read_stakes(settled.chain)
    newest = settled.chain.block("latest")
    assert newest is not None
    for stream in settled.network.streams:
        (left,) = settled.chain.call("store_manager", "stores", stream)
        assert left == staked_until(stakes.streams[stream], newest.number) - 2 * WEI
    payer = settled.network.consumers[0]
    (left,) = settled.chain.call("query_manager", "balanceOf", payer)
    assert left == staked_until(stakes.consumers[payer], newest.number) - 2 * WEI
    (stake,) = settled.chain.call("node_manager", "nodeStake", settled.network.brokers[0].address)
    assert stake == BROKER_STAKE + 2 * WEI


def test_blocks_name_their_parents(settled: Settled) -> None:
    first, second = settled.chain.block(1), settled.chain.block(2)
    assert first is not None
    assert second is not None
    assert second.parent_hash == first.hash
    assert settled.chain.block(10**9) is None
