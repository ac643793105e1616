"""``check``, the chain's part: sources, contracts, cut points, and what the keys hold there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import func, select

from validator.net.chain.abi import interface
from validator.net.chain.jsonrpc import Failed, Request, Reverted
from validator.net.chain.reader import ChainReader, ContractConfig
from validator.net.chain.values import parse_bytes, parse_quantity
from validator.operations.findings import Finding, fail, ok, warn
from validator.protocol.codec.config import find_epoch
from validator.protocol.errors import TransientError
from validator.protocol.model import Address, Block, Digest
from validator.protocol.parameters import Network, ParameterSet
from validator.quantities import show_count
from validator.store import schema
from validator.wiring import Node

HEAD_AGE_S = 60
REPORT_GAS = 3_000_000
"""Gas of a report where none was sent yet."""
FEW_REPORTS = 30
FEW_UPLOADS = 30
ETHER = 10**18
SHOWN_MS = 7 * 86_400_000
NEWEST = 5
"""Cut points that are compared with the chain."""


@dataclass(frozen=True, slots=True)
class Fees:
    """What one report costs now, in wei."""

    gas: int
    price_wei: int

    @property
    def report_wei(self) -> int:
        return max(1, self.gas * self.price_wei)


def make_reader(node: Node) -> ChainReader:
    """A reader that needs no database."""
    network = node.network
    return ChainReader(
        node.settings.rpc_urls,
        network.contracts,
        deployment_block=network.deployment_block,
        finality=network.sets[0].finality,
        chain_id=network.chain_id,
    )


def current_parameters(network: Network) -> ParameterSet:
    """Of the running epoch; before genesis the first epoch's, after the end the last's."""
    now_ms = max(time.time_ns() // 1_000_000, network.genesis_ms)
    epoch = network.epoch_at(now_ms)
    return epoch.parameters if epoch is not None else network.sets[-1]


def check_sources(node: Node, reader: ChainReader) -> Iterator[Finding]:
    """Chain id, code of the contracts, the block before their deployment, age and finality of the newest block."""
    network = node.network
    now_s = time.time_ns() // 10**9
    for warning in (*reader.check(now_s), *reader.examine()):
        yield warn("rpc", warning)
    parent = reader.fetch_parent_hash_of_deployment(network.deployment_block)
    if parent != network.deployment_parent_hash:
        yield fail(
            "rpc",
            f"before block {network.deployment_block} stands 0x{parent.hex()}, the network file says "
            f"0x{network.deployment_parent_hash.hex()}: another chain",
        )
        return
    head, finalised = reader.fetch_head(), reader.fetch_finalised()
    age_s = now_s - head.timestamp_s
    sources = show_count(len(reader.rpc.hosts), "source")
    text = f"chain {network.chain_id}, block {head.number}, {age_s} s old, {sources}"
    yield ok("rpc", text) if age_s <= HEAD_AGE_S else warn("rpc", text)
    behind_s, lag_s = head.timestamp_s - finalised.timestamp_s, current_parameters(network).lag_s
    if behind_s > lag_s:
        yield warn("finality", f"the newest final block is {behind_s} s behind; cut points lie {lag_s} s back and wait")
    else:
        yield ok("finality", f"{behind_s} s behind the newest block; cut points lie {lag_s} s back")


def check_blocks(node: Node, reader: ChainReader) -> Iterator[Finding]:
    """Cut points of this database that the chain has replaced: those that were found, and the newest compared now."""
    now_ms = time.time_ns() // 1_000_000
    found = node.store.chain.load_reorganisations(now_ms - SHOWN_MS)
    for one in found:
        signed = f"; observed or agreed by it: {one.signed}" if one.signed else ""
        yield warn(
            "blocks",
            f"a reorganisation of at least {show_count(one.depth, 'block')} replaced block {one.number}, "
            f"0x{one.stored_hash.hex()} by 0x{one.present_hash.hex()}: finality is too shallow{signed}",
        )
    newest = node.store.chain.load_cut_points(0, None, NEWEST)
    for cut, present in zip(newest, reader.fetch_blocks([c.block.number for c in newest]), strict=True):
        if present.hash != cut.block.hash:
            yield fail(
                "blocks",
                f"this database names block {cut.block.number} 0x{cut.block.hash.hex()}, the chain "
                f"0x{present.hash.hex()}; the head watcher reads it anew: is serve running?",
            )
            return
    if not found:
        yield ok("blocks", "the newest cut points stand in the chain")


def check_contract(node: Node, reader: ChainReader) -> Iterator[Finding]:
    """What the contract holds follows from the network's file: config count, and the digest of all the rest."""
    held = reader.fetch_config()
    difference = describe_difference(node.network, reader, held)
    if difference:
        yield fail("contract", difference)
        return
    yield ok("contract", f"next report {held.next_number}, {show_count(len(held.committee), 'member')}")


def describe_difference(network: Network, reader: ChainReader, held: ContractConfig) -> str:
    """In what the contract and the network's file differ; "" where the one follows from the other.

    Before anything is accepted the owner may not have set the first committee: then there is nothing to compare.
    """
    if held.config_count != network.config_count:
        return f"config_count is {held.config_count}, the network file says {network.config_count}; take the newest"
    if held.config_digest == Digest(bytes(32)):
        return ""
    last = reader.fetch_last_report()
    times_ms = [network.genesis_ms if last is None else last.last_ms, time.time_ns() // 1_000_000]
    if find_epoch(network, held.committee, held.config_digest, times_ms) is None:
        return (
            f"it holds config digest 0x{held.config_digest.hex()}, which follows from no epoch of the network file: "
            "that is out of date, or not of this contract; take the newest"
        )
    return ""


def fetch_fees(node: Node, reader: ChainReader) -> Fees:
    """Price of gas as the sources see it, and what the last own reports used."""
    prices = [
        price
        for _, price in reader.rpc.each(Request("eth_gasPrice", (), parse_quantity))
        if not isinstance(price, Failed | Reverted)
    ]
    if not prices:
        raise TransientError("rpc: no source tells a gas price")
    with node.database.read() as connection:
        used = connection.scalar(select(func.max(schema.reports.c.gas_used)))
    return Fees(int(used or REPORT_GAS), max(prices))


def check_gas(node: Node, reader: ChainReader, gas: Address) -> Iterator[Finding]:
    fees = fetch_fees(node, reader)
    balance = reader.fetch_native_balance(gas)
    left = balance // fees.report_wei
    text = f"0x{gas.hex()} holds {balance / ETHER:.4f}, {show_count(left, 'report')} at today's price"
    yield fail("gas", text) if left < 1 else warn("gas", text) if left < FEW_REPORTS else ok("gas", text)


def check_voting_balance(node: Node, reader: ChainReader, voting: Address) -> Iterator[Finding]:
    """The voting key lies on several processes: nothing of value may depend on it."""
    head = reader.fetch_head()
    stake = fetch_uint(reader, "NodeManager", node.network.contracts.node_manager, "delegatesOf", voting, head)
    tokens = fetch_uint(reader, "Token", node.network.contracts.token, "balanceOf", voting, head)
    if stake:
        yield warn("voting key", f"it has {stake} base units of stake; let a cold key delegate to the node instead")
    if tokens:
        yield warn("voting key", f"it holds {tokens} base units of the token; move them to a cold key")
    fees = fetch_fees(node, reader)
    balance = reader.fetch_native_balance(voting)
    if balance > FEW_REPORTS * fees.report_wei:
        reports = show_count(balance // fees.report_wei, "report")
        yield warn("voting key", f"it holds gas for {reports}; {FEW_REPORTS} are plenty")


def fetch_uint(reader: ChainReader, name: str, contract: Address, function: str, account: Address, block: Block) -> int:
    """A balance by account, at a block; of NodeManager the account's part of its own node."""
    call = interface(name).function(function)
    account_hex = f"0x{account.hex()}"
    arguments = (account_hex, account_hex) if name == "NodeManager" else (account_hex,)
    data = "0x" + call.encode(arguments).hex()
    at = {"blockHash": "0x" + block.hash.hex(), "requireCanonical": True}
    request = Request(
        "eth_call",
        ({"to": f"0x{contract.hex()}", "data": data}, at),
        lambda value: call.decode(parse_bytes(value, "eth_call")),
    )
    answer = reader.rpc.agree([request])[0]
    return 0 if isinstance(answer, Reverted) else int(answer[0])


def check_query(reader: ChainReader, query: Address) -> Iterator[Finding]:
    balance = reader.fetch_query_balance(query)
    text = f"0x{query.hex()} holds {balance} base units in QueryManager"
    yield ok("query", text) if balance else warn("query", f"{text}; brokers refuse who cannot pay")
