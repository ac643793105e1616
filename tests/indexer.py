"""An indexer: what the managers' events alone say of every balance, for comparing with the managers' own views."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import contracts_abi
from tests.recursion import recursion_limit_kept
from validator.devnet.contracts import DevChain

with recursion_limit_kept():
    from web3 import Web3

MANAGERS = ("StoreManager", "QueryManager", "NodeManager", "ReportManager")
LOSS = 1 << 31
"""Bit of a node line's index that says that the node loses."""
Values = Mapping[str, Any]


class Indexer:
    """Balances in base units, from all logs up to the newest block that ``follow`` has seen."""

    def __init__(self, chain: DevChain) -> None:
        self.chain = chain
        self.streams: Counter[str] = Counter()
        """By stream id, with what is leaving."""
        self.consumers: Counter[str] = Counter()
        self.stakes: Counter[str] = Counter()
        """By node."""
        self.leaving: Counter[str] = Counter()
        self.accounts: Counter[str] = Counter()
        """In NodeManager, delegated to nobody."""
        self.treasury = 0
        self.ledger_root = b""
        self._next_block = 0
        self._names: dict[tuple[str, int], str] = {}
        self._short: dict[tuple[str, int], int] = {}
        """What lines of the report under way came to, where that is not what they say."""
        self._contracts = {hexed(chain.address_of(name)): name for name in MANAGERS}
        self._rules: dict[str, Callable[[str, Values], None]] = {
            "StoreIndexed": self._on_store_indexed,
            "ConsumerIndexed": self._on_consumer_indexed,
            "NodeIndexed": self._on_node_indexed,
            "StoreUpdated": self._on_store_updated,
            "Stake": self._on_stake,
            "Staked": self._on_staked,
            "Withdrawn": self._on_withdrawn,
            "TreasuryWithdrawn": self._on_treasury_withdrawn,
            "StakeDelegateUpdated": self._on_stake_delegate_updated,
            "ExitReleased": self._on_exit_released,
            "Penalised": self._on_penalised,
            "CaptureShort": self._on_capture_short,
            "NodeLineShort": self._on_node_line_short,
            "ReportAccepted": self._on_report_accepted,
        }

    def follow(self) -> None:
        """Read what is new."""
        head = int(self.chain.call_rpc("eth_blockNumber"), 16)
        if head < self._next_block:
            return
        span = {"fromBlock": hex(self._next_block), "toBlock": hex(head), "address": list(self._contracts)}
        for log in self.chain.call_rpc("eth_getLogs", span):
            contract = self._contracts[log["address"].lower()]
            name, values = _decode(contract, log)
            if name in self._rules:
                self._rules[name](contract, values)
        self._next_block = head + 1

    # --- what events mean ---

    def _on_store_indexed(self, contract: str, said: Values) -> None:
        self._names[contract, said["index"]] = said["store"]

    def _on_consumer_indexed(self, contract: str, said: Values) -> None:
        self._names[contract, said["index"]] = said["consumer"].lower()

    def _on_node_indexed(self, contract: str, said: Values) -> None:
        self._names[contract, said["index"]] = said["nodeAddress"].lower()

    def _on_store_updated(self, _contract: str, said: Values) -> None:
        self.streams[said["store"]] += said["amount"]

    def _on_stake(self, _contract: str, said: Values) -> None:
        self.consumers[said["consumer"].lower()] += said["amount"]

    def _on_staked(self, _contract: str, said: Values) -> None:
        self.accounts[said["account"].lower()] += said["amount"]

    def _on_withdrawn(self, contract: str, said: Values) -> None:
        if contract == "StoreManager":
            self.streams[self._names[contract, said["index"]]] -= said["amount"]
        elif contract == "QueryManager":
            self.consumers[said["consumer"].lower()] -= said["amount"]
        else:
            self.accounts[said["account"].lower()] -= said["amount"]

    def _on_treasury_withdrawn(self, _contract: str, said: Values) -> None:
        self.treasury -= said["amount"]

    def _on_stake_delegate_updated(self, _contract: str, said: Values) -> None:
        node = said["node"].lower()
        self.stakes[node] = said["totalStake"]
        if said["delegated"]:
            self.accounts[said["delegate"].lower()] -= said["amount"]
        else:
            self.leaving[node] += said["amount"]

    def _on_exit_released(self, _contract: str, said: Values) -> None:
        self.leaving[said["node"].lower()] -= said["amount"]
        self.accounts[said["delegate"].lower()] += said["amount"]

    def _on_penalised(self, contract: str, said: Values) -> None:
        node = self._names[contract, said["index"]]
        self.stakes[node] -= said["fromStake"]
        self.leaving[node] -= said["fromLeaving"]

    def _on_capture_short(self, contract: str, said: Values) -> None:
        self._short[contract, said["index"]] = said["captured"]

    def _on_node_line_short(self, contract: str, said: Values) -> None:
        self._short[contract, said["index"]] = said["settled"]

    def _on_report_accepted(self, _contract: str, said: Values) -> None:
        lines: bytes = said["lines"]
        counts = [int.from_bytes(lines[i : i + 2], "big") for i in (0, 2, 4)]
        place = 6
        for contract, count, size in zip(MANAGERS, counts, (24, 24, 16), strict=False):
            for _ in range(count):
                index = int.from_bytes(lines[place : place + 4], "big")
                self._settle(contract, index, int.from_bytes(lines[place + 4 : place + 16], "big"))
                place += size
        assert place == len(lines)
        self._short.clear()
        self.treasury += said["treasury"]
        self.ledger_root = said["ledgerRoot"]

    def _settle(self, contract: str, index: int, amount: int) -> None:
        if contract == "NodeManager" and index & LOSS:
            return  # Penalised has said what it came to
        amount = self._short.get((contract, index), amount)
        if not amount:
            return  # such a line may name nobody
        name = self._names[contract, index]
        if contract == "StoreManager":
            self.streams[name] -= amount
        elif contract == "QueryManager":
            self.consumers[name] -= amount
        else:
            self.stakes[name] += amount


def hexed(address: bytes) -> str:
    return "0x" + address.hex()


@cache
def _events(contract: str) -> dict[str, Any]:
    """By topic."""
    abi = contracts_abi.load(contract).abi
    found = Web3().eth.contract(abi=[entry for entry in abi if entry["type"] == "event"])
    return {event.topic: event for event in map(found.get_event_by_name, _names(abi))}


def _names(abi: Any) -> list[str]:
    return [entry["name"] for entry in abi if entry["type"] == "event"]


def _decode(contract: str, log: Any) -> tuple[str, Values]:
    event = _events(contract)[log["topics"][0]]
    numbers = {name: int(log[name], 16) for name in ("logIndex", "transactionIndex", "blockNumber")}
    topics = [bytes.fromhex(topic[2:]) for topic in log["topics"]]
    read = event.process_log({**log, **numbers, "topics": topics, "data": bytes.fromhex(log["data"][2:])})
    return str(read["event"]), read["args"]
