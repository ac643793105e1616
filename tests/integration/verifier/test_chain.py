"""The check reads the real contracts: committees, reports with their call data, stakes, and the balances left."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from tests.compact_signature import expand_compact
from tests.contract_network import BROKER_STAKE, CONFIG, ContractNetwork
from tests.proving import a_bundle, a_part
from tests.verifier.chain import Chain, HttpRpc
from tests.verifier.claims import Claim
from tests.verifier.findings import Findings
from tests.verifier.payments import check_balances
from tests.verifier.proofs import ask_contract
from tests.verifier.reports import check_amounts, signers_of
from tests.verifier.state import States
from validator.devnet.contracts import WEI
from validator.protocol.codec.secp256k1 import recover_address
from validator.protocol.model import Root
from validator.protocol.proof import build_message
from validator.protocol.report import Report

PROVEN = a_bundle((2, 5, 3))


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
    for root in (PROVEN.root, Root(b"\x02" * 32)):
        reports.append(network.next_report(bundle_root=root))
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
        assert held[:2] == (accepted.report.bundle_root, accepted.report.last_ms)
        assert held[2:4] == (accepted.event.place[0], accepted.bitmap)
    assert findings.failures == []
    assert settled.chain.call("report_manager", "nextNumber") == (2,)


def test_the_contract_is_asked_for_proofs(settled: Settled) -> None:
    part = a_part(1)
    for index, record in enumerate(PROVEN.records[part]):
        proof = build_message(PROVEN.outcome, part, PROVEN.leaves(part), index, PROVEN.bundle)
        assert list(ask_contract(settled.chain, 0, record, proof)) == []
        assert len(list(ask_contract(settled.chain, 1, record, proof))) == 1


def test_balances_are_stakes_less_captures(settled: Settled) -> None:
    findings = Findings()
    check_balances(settled.chain, findings)
    assert findings.failures == []
    assert findings.checked[Claim.BALANCES] > 10
    payer = settled.network.consumers[0]
    assert settled.chain.call("query_manager", "balanceOf", payer)[0] > 0


def test_a_state_is_what_the_contracts_held_at_its_block(settled: Settled) -> None:
    """Before the first report and after it; nodes by what their metadata says they are."""
    first, second = (a.event.place[0] for a in settled.chain.reports)
    blocks = [settled.chain.block(number) for number in (first - 1, first, second)]
    states = States(settled.chain)
    before, between, after = (states.at(block.hash) for block in blocks if block is not None)
    assert [state.reports for state in (before, between, after)] == [0, 1, 2]
    stream = settled.network.streams[0]
    assert [s.stores[stream].balance - after.stores[stream].balance for s in (before, between)] == [2 * WEI, WEI]
    broker = settled.network.brokers[0].address
    assert [s.nodes[broker].stake - BROKER_STAKE for s in (before, between, after)] == [0, WEI, 2 * WEI]
    assert broker in after.brokers
    payer = settled.network.consumers[0]
    held = [states.balances([payer], block.hash)[payer] for block in blocks if block is not None]
    assert [amount - held[2] for amount in held] == [2 * WEI, WEI, 0]


def test_who_may_publish_is_the_registrys_word(settled: Settled) -> None:
    newest = settled.chain.block("latest")
    assert newest is not None
    states, stream = States(settled.chain), settled.network.streams[0]
    assert states.may_publish(stream, settled.network.brokers[0].address, newest.hash) is False
    assert states.may_publish(stream + "-none", b"\x01" * 33, newest.hash) is False


def test_the_block_at_a_time_is_the_highest_that_is_not_later(settled: Settled) -> None:
    newest = settled.chain.block("latest")
    assert newest is not None
    blocks = [settled.chain.block(number) for number in (0, 1, newest.number // 2, newest.number)]
    for wanted_s in [block.timestamp_s for block in blocks if block is not None]:
        found = settled.chain.block_at_or_before(wanted_s)
        following = settled.chain.block(found.number + 1)
        assert found.timestamp_s <= wanted_s
        assert following is None or following.timestamp_s > wanted_s
    assert settled.chain.block_of(newest.hash) == newest
    with pytest.raises(ValueError, match="no block at 5 s"):
        settled.chain.block_at_or_before(5)


def test_blocks_name_their_parents(settled: Settled) -> None:
    first, second = settled.chain.block(1), settled.chain.block(2)
    assert first is not None
    assert second is not None
    assert second.parent_hash == first.hash
    assert settled.chain.block(10**9) is None
