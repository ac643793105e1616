"""What settlement builds, our contracts take to the last unit, also when reports settle later than they were built."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.builders import a_key
from tests.contract_network import BROKER_STAKE, CONFIG, ContractNetwork
from tests.settlement_network import (
    UNIT_PRICE,
    Bundle,
    a_receipt,
    consumers_of,
    nodes_of,
    settle,
    streams_of,
    the_parameters,
)
from validator.devnet.contracts import WEI, NodeSetup
from validator.protocol.hashing import keccak256
from validator.protocol.model import NIL, Address, Block, BrokerShare, ChainState, Digest, Root
from validator.protocol.report import Ledger, Report
from validator.protocol.settlement import build_report

BALANCE = 1_000 * WEI
SHORT = frozenset(
    "0x" + keccak256(signature).hex()
    for signature in (
        b"CaptureShort(uint32,uint256,uint256)",
        b"NodeLineShort(uint32,int256,int256)",
    )
)
"""Topics of what the contracts log where a balance or stake does not cover its line."""


@pytest.fixture(scope="module")
def network(anvil: str) -> Iterator[ContractNetwork]:
    network = ContractNetwork.create(anvil, balance=BALANCE)
    yield network
    network.chain.close()


@pytest.fixture
def _set_back(network: ContractNetwork) -> Iterator[None]:
    """What the test does is undone afterwards."""
    before, snapshot = (network.number, network.last_root, network.last_ms), network.chain.call_rpc("evm_snapshot")
    yield
    network.chain.call_rpc("evm_revert", snapshot)
    network.chain.forget_nonces()
    network.number, network.last_root, network.last_ms = before


def read_newest_block(network: ContractNetwork) -> Block:
    block = network.chain.call_rpc("eth_getBlockByNumber", "latest", False)
    return Block(int(block["number"], 16), Digest(bytes.fromhex(block["hash"][2:])), int(block["timestamp"], 16))


def build_at(
    network: ContractNetwork, block: Block, bundle: Bundle, ledger: Ledger, previous: Root
) -> tuple[Report, Ledger]:
    """The bundle's report on the balances it names, at a block of the chain, nothing settled yet."""

    def build(before: Ledger, header: Any, root: Any, windows: Any, late: Any, *rest: Any, **named: Any) -> Any:
        receipts, state, processed, parameters = rest
        return build_report(
            before,
            replace(header, config_digest=CONFIG, previous_root=previous),
            Root(keccak256(header.number.to_bytes(8, "big"))),
            [replace(w, block_number=block.number, block_hash=block.hash) for w in windows],
            replace(late, block_number=block.number, block_hash=block.hash),
            receipts,
            number_as_the_contracts_do(network, replace(state, block=block)),
            processed,
            parameters,
            **named,
        )

    return settle(bundle, ledger, build=build)


def number_as_the_contracts_do(network: ContractNetwork, state: ChainState) -> ChainState:
    return replace(
        state,
        nodes=tuple(replace(node, index=network.index_of_node(node.address)) for node in state.nodes),
        stores=tuple(replace(store, index=network.index_of(store.stream_id)) for store in state.stores),
        consumers={who: replace(a, index=network.index_of_consumer(who)) for who, a in state.consumers.items()},
    )


def hexed(address: Address) -> str:
    return f"0x{address.hex()}"


def test_three_reports_built_on_one_block_settle_exactly_and_leave_nothing_short(network: ContractNetwork) -> None:
    chain, block = network.chain, read_newest_block(network)
    stream, other, _ = network.streams
    honest, lazy, _ = (k.address for k in network.brokers)
    consumer = network.consumers[0]
    stakes = {k.address: BROKER_STAKE for k in (*network.validators, *network.brokers)}
    reports: list[Report] = []
    ledger, previous = Ledger(), Root(NIL)
    for number in range(3):
        bundle = Bundle(
            number=number,
            windows=({stream: 6_000, other: 1},),
            late={other: 2},
            prices=(UNIT_PRICE * WEI // 10,),
            shares=([BrokerShare(honest, 6_001, 0), BrokerShare(lazy, 0, 6_001)],),
            receipts=(a_receipt(consumer, honest, 7_000 * (number + 1), UNIT_PRICE * WEI),),
            stores={stream: BALANCE, other: BALANCE},
            stakes=stakes,
            consumers={consumer: BALANCE},
            parameters=the_parameters(penalty_ppm=1_000_000, treasury_ppm=100_001, upload_ppm=30_000),
            uploader=network.validators[number].address,
        )
        report, ledger = build_at(network, block, bundle, ledger, previous)
        reports.append(report)
        previous = report.bundle_root

    assert [streams_of(r).get(stream, 0) for r in reports] == [600 * WEI, 400 * WEI, 0]
    assert [consumers_of(r).get(consumer, 0) for r in reports] == [700 * WEI, 300 * WEI, 0]
    assert -sum(nodes_of(r).get(lazy, 0) for r in reports) == BROKER_STAKE
    receipts = [network.submit(report) for report in reports]

    topics = {log["topics"][0] for receipt in receipts for log in receipt["logs"]}
    assert not topics & SHORT
    balances, _, _ = chain.call("StoreManager", "storesOf", [stream, other])
    assert list(balances) == [0, BALANCE - 3 * (3 * WEI // 10)]
    assert chain.call("QueryManager", "balanceOf", hexed(consumer)) == (0,)
    for node, stake in stakes.items():
        change = sum(nodes_of(report).get(node, 0) for report in reports)
        assert chain.call("NodeManager", "nodeStake", hexed(node)) == (stake + change,)
    assert chain.call("NodeManager", "treasurySupply") == (sum(report.treasury for report in reports),)


@pytest.mark.usefixtures("_set_back")
def test_the_names_of_shortage_are_those_that_the_contracts_log(network: ContractNetwork) -> None:
    """A line beyond the balance is cut and logged, so the test above would notice one."""
    unknown = Address(b"\x99" * 20)
    report = network.next_report({network.streams[2]: BALANCE + 1}, {unknown: 5}, {unknown: BALANCE})
    topics = {log["topics"][0] for log in network.submit(report)["logs"]}
    assert topics >= SHORT


@pytest.mark.usefixtures("_set_back")
def test_the_first_report_of_a_node_that_joined_after_another_leaves_nothing_short(network: ContractNetwork) -> None:
    chain = network.chain
    if network.number == 0:
        network.submit(network.next_report({}, {}, {}))
    key, staker = a_key(5300), a_key(5301)
    chain.register_nodes([NodeSetup(key, staker, BROKER_STAKE, "http://127.0.0.1:9000")])
    stream, old = network.streams[2], network.brokers[2].address
    stakes = {k.address: BROKER_STAKE for k in (*network.validators, network.brokers[2], key)}
    bundle = Bundle(
        number=network.number,
        windows=({stream: 6_000},),
        prices=(UNIT_PRICE * WEI // 100,),
        shares=([BrokerShare(old, 6_000, 0), BrokerShare(key.address, 6_000, 0)],),
        stores={stream: BALANCE},
        stakes=stakes,
        uploader=key.address,
        parameters=the_parameters(treasury_ppm=100_000, upload_ppm=30_000),
    )
    report, _ = build_at(network, read_newest_block(network), bundle, Ledger(), network.last_root)
    reward = nodes_of(report)[key.address]
    assert reward > 0
    receipt = network.submit(replace(report, first_ms=network.last_ms + 1, last_ms=network.last_ms + 2))
    assert not {log["topics"][0] for log in receipt["logs"]} & SHORT
    assert chain.call("NodeManager", "nodeStake", hexed(key.address)) == (BROKER_STAKE + reward,)
    assert chain.call("NodeManager", "delegatesOf", hexed(key.address), hexed(key.address)) == (reward,)
