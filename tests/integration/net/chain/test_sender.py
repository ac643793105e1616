"""Transactions on a real node: simulated, saved, sent, replaced, watched."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.builders import a_key
from tests.contract_network import ContractNetwork
from tests.fakes.web3signer import web3signer
from validator.devnet.contracts import WEI, NodeSetup
from validator.net.chain.sender import LINE_GAS, ChainSender
from validator.net.chain.transaction import parse_raw
from validator.net.signer.source import open_signer
from validator.ports.chain import ReportSender
from validator.protocol.errors import AlreadyDone, RemoteFault, TransientError, UnknownOutcome
from validator.protocol.hashing import keccak256
from validator.protocol.model import Digest

GAS_KEY = a_key(700)


@pytest.fixture
def sender(chain_url: str, network: ContractNetwork) -> Iterator[ChainSender]:
    network.chain.fund([GAS_KEY.address], WEI)
    sender = ChainSender([chain_url], network.chain.deployment.contracts, GAS_KEY, chain_id=31337)
    yield sender
    sender.close()


def accepted(network: ContractNetwork) -> None:
    """What ``network.submit`` would note."""
    values = network.chain.call("ReportManager", "lastReport")
    network.number, network.last_root, network.last_ms = values[1] + 1, values[2], values[3]


def test_a_report_is_simulated_signed_sent_and_mined(network: ContractNetwork, sender: ChainSender) -> None:
    port: ReportSender = sender
    report = network.next_report()
    network.chain.mine()
    prepared = port.prepare(report, *network.sign(report))
    assert prepared.hash == keccak256(prepared.raw)
    assert port.fetch_status(prepared.hash).state == "missing"
    port.send(prepared)
    assert port.fetch_status(prepared.hash).state == "pending"
    port.send(prepared)  # known already: harmless
    network.chain.mine()
    status = port.fetch_status(prepared.hash)
    assert (status.state, status.success) == ("mined", True)
    assert 100_000 < status.gas_used < 500_000
    with pytest.raises(AlreadyDone):
        port.send(prepared)
    with pytest.raises(AlreadyDone):
        port.replace(prepared)
    accepted(network)


def test_gas_is_offered_for_nodes_that_fall_below_the_requirement_until_it_is_mined(
    network: ContractNetwork, sender: ChainSender
) -> None:
    """Each that a reward lifts over the requirement again costs two new slots: six were enough to run out of gas."""
    nodes = [(a_key(7100 + i), a_key(7200 + i)) for i in range(6)]
    required: int = network.chain.call("NodeManager", "stakeRequiredAmount")[0]
    network.chain.register_nodes([NodeSetup(node, stake, required, "https://x.example") for node, stake in nodes])
    lines = {key.address: required // 50 for key in (*network.brokers, *(node for node, _ in nodes))}
    for _ in range(2):  # each is paid both times
        network.submit(network.next_report(nodes=lines))
    report = network.next_report(nodes=lines)
    network.chain.mine()
    prepared = sender.prepare(report, *network.sign(report))
    for node, stake in nodes:
        network.chain.transact(stake, "NodeManager", "undelegate", 2 * (required // 50) + 1, "0x" + node.address.hex())
        assert not network.chain.call("NodeManager", "isStaked", "0x" + node.address.hex())[0]
    sender.send(prepared)
    network.chain.mine()
    fate = sender.fetch_fate([prepared])
    assert (fate.state, fate.success) == ("mined", True)
    assert fate.gas_used > (parse_raw(prepared.raw).gas - LINE_GAS * len(report.nodes))
    accepted(network)


def test_a_report_that_the_contract_would_refuse_is_named_and_not_sent(
    network: ContractNetwork, sender: ChainSender
) -> None:
    report = replace(network.next_report(), number=99)
    with pytest.raises(RemoteFault, match=r"WrongNumber\(\d+\)") as caught:
        sender.prepare(report, *network.sign(report))
    assert caught.value.reason == "revert"


def test_a_stuck_transaction_is_replaced_by_one_that_pays_more(network: ContractNetwork, sender: ChainSender) -> None:
    report = network.next_report()
    network.chain.mine()
    first = sender.prepare(report, *network.sign(report))
    sender.send(first)
    second = sender.replace(first)
    assert second.nonce == first.nonce
    assert second.max_fee_per_gas * 4 >= first.max_fee_per_gas * 5
    sender.send(second)
    network.chain.mine()
    assert sender.fetch_status(first.hash).state == "missing"
    assert sender.fetch_status(second.hash).success is True
    accepted(network)


def test_the_second_of_two_reports_for_one_bundle_fails_on_chain(network: ContractNetwork, sender: ChainSender) -> None:
    report = network.next_report()
    network.chain.mine()
    signed = network.sign(report)
    first, other = sender.prepare(report, *signed), a_key(701)
    network.chain.fund([other.address])
    network.chain.transact(other, "ReportManager", "submitReport", *network.arguments(report))
    sender.send(first)
    network.chain.mine()
    status = sender.fetch_status(first.hash)
    assert (status.state, status.success) == ("mined", False)
    accepted(network)


def test_the_fee_cap_holds_for_replacements(chain_url: str, network: ContractNetwork, sender: ChainSender) -> None:
    report = network.next_report()
    network.chain.mine()
    prepared = sender.prepare(report, *network.sign(report))
    low = ChainSender(
        [chain_url],
        network.chain.deployment.contracts,
        GAS_KEY,
        chain_id=31337,
        max_fee_wei=prepared.max_fee_per_gas,
    )
    assert low.prepare(report, *network.sign(report)).max_fee_per_gas <= prepared.max_fee_per_gas
    with pytest.raises(RemoteFault) as caught:
        low.replace(prepared)
    assert caught.value.reason == "fee cap"
    low.close()


def test_a_key_without_funds_is_refused_by_name(chain_url: str, network: ContractNetwork) -> None:
    poor = ChainSender([chain_url], network.chain.deployment.contracts, a_key(702), chain_id=31337)
    assert poor.fetch_balance() == 0
    report = network.next_report()
    network.chain.mine()
    with pytest.raises(RemoteFault) as caught:
        poor.send(poor.prepare(report, *network.sign(report)))
    assert caught.value.reason == "funds"
    poor.close()


def test_without_an_answer_the_outcome_is_unknown(network: ContractNetwork, sender: ChainSender) -> None:
    report = network.next_report()
    network.chain.mine()
    prepared = sender.prepare(report, *network.sign(report))
    gone = ChainSender(
        ["http://127.0.0.1:1"], network.chain.deployment.contracts, GAS_KEY, chain_id=31337, deadline_s=2.0
    )
    with pytest.raises(UnknownOutcome):
        gone.send(prepared)
    with pytest.raises(TransientError):
        gone.fetch_status(Digest(b"\1" * 32))
    with pytest.raises(TransientError):
        gone.prepare(report, *network.sign(report))
    gone.close()


def test_a_key_in_a_remote_signer_pays_for_a_report(chain_url: str, network: ContractNetwork) -> None:
    network.chain.fund([GAS_KEY.address], WEI)
    report = network.next_report()
    network.chain.mine()
    with web3signer(GAS_KEY) as server:
        key = open_signer(server.url(GAS_KEY), "LOGSTORE_GAS_KEY", ask_password=str)
        sender = ChainSender([chain_url], network.chain.deployment.contracts, key, chain_id=31337)
        first = sender.prepare(report, *network.sign(report))
        sender.send(first)
        second = sender.replace(first)
        sender.send(second)
        network.chain.mine()
        assert sender.fetch_fate([first, second]).success is True
        server.keys.clear()
        with pytest.raises(TransientError, match="does not hold the key"):
            sender.prepare_call(GAS_KEY.address, b"")
        sender.close()
    accepted(network)


def test_any_call_of_our_contracts_can_be_sent(network: ContractNetwork, sender: ChainSender) -> None:
    manager = network.chain.address_of("NodeManager")
    sent = sender.transact("NodeManager", "upsertNode", ("{}",), to=manager)
    network.chain.mine()
    assert sender.fetch_status(sent.hash).success is True
    with pytest.raises(RemoteFault, match="NotOwner"):
        sender.transact("NodeManager", "treasuryWithdraw", (0,), to=manager)


def test_reading_and_sending_need_no_web3() -> None:
    program = """
import sys
import validator.net.chain.reader, validator.net.chain.sender
loaded = {name.partition(".")[0] for name in sys.modules}
assert not {"web3", "eth_account", "py_ecc"} & loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
