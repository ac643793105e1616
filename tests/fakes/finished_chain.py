"""The chain of a finished run in memory: events, calls and blocks as they were put in, every view at every block."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from eth_abi.abi import decode, encode

from tests.builders import GENESIS_MS
from tests.bundle_builder import CHAIN_ID, CONTRACTS
from tests.verifier.chain import CONTRACTS as ABI_NAMES
from tests.verifier.chain import ERC1271_SELECTOR, _entry, _kind, _selector, _signature
from validator.protocol.codec.config import config_digest
from validator.protocol.codec.report import pack_lines, report_digest, report_values
from validator.protocol.errors import MalformedInput
from validator.protocol.hashing import hash_body, keccak256
from validator.protocol.leaves import hash_message, hash_publisher, hash_stream_id
from validator.protocol.merkle import compute_root_above
from validator.protocol.model import Block, Digest, Flag, InstanceId, InstanceKind, PartitionEntry
from validator.protocol.parameters import Config
from validator.protocol.proof import BundleStep, EntryProof, WindowStep, verify_entry
from validator.protocol.report import Report

FIRST_BLOCK_S = GENESIS_MS // 1000 - 100
NEWEST_BLOCK = 200
LAG_S = 4
FOR_EVER = (1 << 256) - 1


def block_hash(number: int) -> Digest:
    return Digest(hashlib.sha256(b"block %d" % number).digest())


def block_at(ms: int) -> Block:
    """B(ms): the highest block at least the lag before."""
    seconds = ms // 1000 - LAG_S
    number = seconds - FIRST_BLOCK_S
    return Block(number, block_hash(number), seconds)


class FakeChain:
    """Answers JSON-RPC from what was put in; views at a block from what had moved by then."""

    def __init__(self) -> None:
        self.logs: list[dict[str, Any]] = []
        self.transactions: dict[str, dict[str, Any]] = {}
        self.held: dict[int, tuple[Any, ...]] = {}
        self.moves: list[tuple[int, str, Any, int]] = []
        """(block, view, argument, amount) for ``stores``, ``balanceOf``, ``nodeStake`` and ``treasurySupply``."""
        self.metadata: dict[str, dict[str, Any]] = {}
        """Of nodes, by address."""
        self.indices: dict[tuple[str, str], int] = {}
        """The numbers that a contract has given, by contract and name."""
        self.partitions: dict[str, int] = {}
        """Of the streams that exist."""
        self.publishers: set[tuple[str, bytes]] = set()
        self.contract_signatures: set[tuple[bytes, bytes]] = set()
        """(contract, signed digest) that a contract finds valid, whatever the signature."""
        self.verify_message: Callable[..., tuple[bool]] = self.check_message

    def ask(self, method: str, *params: Any) -> Any:
        answers: Mapping[str, Callable[..., Any]] = {
            "eth_chainId": lambda: hex(CHAIN_ID),
            "eth_getBlockByNumber": self._block,
            "eth_getBlockByHash": self._block_of,
            "eth_getLogs": lambda _: list(self.logs),
            "eth_getTransactionByHash": lambda tx: self.transactions[tx],
            "eth_getTransactionReceipt": lambda tx: {"gasUsed": hex(210_000)},
            "eth_call": self._call,
        }
        return answers[method](*params)

    def amount(self, view: str, argument: Any = None, at: int = NEWEST_BLOCK) -> int:
        """Never below zero: a contract takes no more than there is."""
        return max(0, sum(amount for block, *key, amount in self.moves if key == [view, argument] and block <= at))

    def move(self, view: str, argument: Any, amount: int, block: int) -> None:
        self.moves.append((block, view, argument, amount))

    def emit(self, contract: str, name: str, block: int, transaction: str = "0x00", **values: Any) -> None:
        entry = _entry(contract, "event", name)
        indexed = [i for i in entry["inputs"] if i["indexed"]]
        plain = [i for i in entry["inputs"] if not i["indexed"]]
        topics = [keccak256(_signature(entry)), *(encode([_kind(i)], [values[i["name"]]]) for i in indexed)]
        self.logs.append(
            {
                "address": "0x" + getattr(CONTRACTS, contract).hex(),
                "topics": ["0x" + t.hex() for t in topics],
                "data": "0x" + encode([_kind(i) for i in plain], [values[i["name"]] for i in plain]).hex(),
                "blockNumber": hex(block),
                "logIndex": hex(len(self.logs)),
                "transactionHash": transaction,
            }
        )

    # --- what happened ---

    def stake_store(self, stream: str, amount: int, block: int, partitions: int = 1) -> None:
        self.number("store_manager", "StoreIndexed", "store", stream, block)
        self.emit("store_manager", "StoreUpdated", block, store=stream, isNew=True, amount=amount)
        self.move("stores", stream, amount, block)
        self.partitions[stream] = partitions

    def number(self, contract: str, event: str, named: str, name: str, block: int) -> None:
        """The contract gives a name its index, once."""
        if (contract, name) not in self.indices:
            self.indices[contract, name] = 1 + sum(known == contract for known, _ in self.indices)
            self.emit(contract, event, block, index=self.indices[contract, name], **{named: name})

    def stake_consumer(self, consumer: bytes, amount: int, block: int) -> None:
        self.number("query_manager", "ConsumerIndexed", "consumer", _hex(consumer), block)
        self.emit("query_manager", "Stake", block, consumer=_hex(consumer), amount=amount)
        self.move("balanceOf", _hex(consumer), amount, block)

    def stake_node(self, address: bytes, amount: int, block: int, metadata: dict[str, Any]) -> None:
        node = _hex(address)
        self.number("node_manager", "NodeIndexed", "nodeAddress", node, block)
        self.emit(
            "node_manager",
            "StakeDelegateUpdated",
            block,
            delegate=node,
            node=node,
            amount=amount,
            totalStake=amount,
            totalDelegated=amount,
            delegated=True,
        )
        self.move("nodeStake", node, amount, block)
        self.metadata[node] = metadata

    def change_committee(self, config: Config, block: int, transaction: str = "0x00") -> None:
        self.emit(
            "report_manager",
            "CommitteeChanged",
            block,
            transaction,
            configDigest=config_digest(config),
            configCount=config.config_count,
            members=[_hex(m) for m in config.committee],
        )

    def accept(self, report: Report, bitmap: int, signatures: bytes, following: Config | None, block: int) -> None:
        """What submitReport does with a report that it accepts."""
        transaction = "0x" + keccak256(b"report %d" % report.number).hex()
        entry = _entry("report_manager", "function", "submitReport")
        arguments = [_hexed(report_values(report)), bitmap, signatures]
        data = _selector(entry) + encode([_kind(i) for i in entry["inputs"]], arguments)
        self.transactions[transaction] = {"to": _hex(CONTRACTS.report_manager), "input": "0x" + data.hex()}
        if following is not None:
            self.change_committee(following, block, transaction)
        for stream in report.streams:
            self.move("stores", stream.stream_id, -stream.capture, block)
        for consumer in report.consumers:
            self.move("balanceOf", _hex(consumer.consumer), -consumer.capture, block)
        for node in report.nodes:
            self.move("nodeStake", _hex(node.node), node.amount, block)
        self.move("treasurySupply", None, report.treasury, block)
        digest = report_digest(report, CHAIN_ID, CONTRACTS.report_manager)
        self.held[report.number] = (report.bundle_root, report.last_ms, block, bitmap, digest[:17])
        self.emit(
            "report_manager",
            "ReportAccepted",
            block,
            transaction,
            number=report.number,
            bundleRoot=report.bundle_root,
            storageId=report.storage_id,
            reportDigest=digest,
            ledgerRoot=report.ledger_root,
            uploader=_hex(report.uploader),
            signerBitmap=bitmap,
            captured=report.captured,
            treasury=report.treasury,
            lines=pack_lines(report),
        )

    # --- answers ---

    def _block(self, wanted: str, _full: bool) -> dict[str, str] | None:
        tags = {"latest": NEWEST_BLOCK, "finalized": NEWEST_BLOCK - 2}
        number = tags[wanted] if wanted in tags else int(wanted, 16)
        if number > NEWEST_BLOCK:
            return None
        return {
            "number": hex(number),
            "hash": _hex(block_hash(number)),
            "parentHash": _hex(block_hash(number - 1)),
            "timestamp": hex(FIRST_BLOCK_S + number),
        }

    def _number_of(self, wanted: str) -> int | None:
        return next((n for n in range(NEWEST_BLOCK + 1) if _hex(block_hash(n)) == wanted), None)

    def _block_of(self, wanted: str, _full: bool) -> dict[str, str] | None:
        number = self._number_of(wanted)
        return None if number is None else self._block(hex(number), False)

    def _call(self, request: dict[str, str], tag: Any) -> str:
        at = NEWEST_BLOCK if tag == "latest" else self._number_of(tag["blockHash"])
        if at is None:
            raise ValueError("header not found")
        data = bytes.fromhex(request["data"][2:])
        if data[:4] == ERC1271_SELECTOR:
            digest, _ = decode(["bytes32", "bytes"], data[4:])
            valid = (bytes.fromhex(request["to"][2:]), digest) in self.contract_signatures
            return "0x" + (ERC1271_SELECTOR + bytes(28) if valid else bytes(32)).hex()
        contract = {_hex(getattr(CONTRACTS, name)): name for name in ABI_NAMES}[request["to"]]
        for function, view in self._views(at).items():
            try:
                entry = _entry(contract, "function", function)
            except LookupError:
                continue
            if _selector(entry) == data[:4]:
                arguments = decode([_kind(i) for i in entry["inputs"]], data[4:])
                return "0x" + encode([_kind(o) for o in entry["outputs"]], view(*arguments)).hex()
        raise ValueError("execution reverted")

    def _views(self, at: int) -> Mapping[str, Callable[..., tuple[Any, ...]]]:
        return {
            "reportOf": lambda number: self.held[number],
            "verifyMessage": self.verify_message,
            "nextNumber": lambda: (len(self.held),),
            "lastReport": lambda: self._last_report(at),
            "stores": lambda stream: (self.amount("stores", stream, at),),
            "balanceOf": lambda who: (self.amount("balanceOf", who, at),),
            "balancesOf": lambda all_: (
                [self.amount("balanceOf", who, at) for who in all_],
                [self.indices.get(("query_manager", who), 0) for who in all_],
            ),
            "nodeStake": lambda node: (self.amount("nodeStake", node, at),),
            "treasurySupply": lambda: (self.amount("treasurySupply", None, at),),
            "stakedNodes": lambda start, count: self._staked_nodes(start, count, at),
            "getStreamMetadata": self._stream_metadata,
            "getPermissionsForUserId": self._permission,
        }

    def check_message(self, number: int, message: Any, proof: Any) -> tuple[bool]:
        stream, partition, ms, sequence, publisher, content, canonical_hash = message
        (index, count, signed, size, flags, path), (kind, start, rest, *window), bundle = proof
        hashes = (hash_publisher(publisher), hash_body(content), canonical_hash)
        leaf = hash_message(hash_stream_id(stream), partition, ms, sequence, *hashes)
        root = compute_root_above(leaf, index, count, path)
        if root is None:
            return (False,)
        step = WindowStep(InstanceId(InstanceKind(kind), start), rest, *window)
        entry = PartitionEntry(stream, partition, root, count, signed, size, Flag(flags))
        try:
            verify_entry(EntryProof(step, BundleStep(*bundle)), entry, self.held[number][0])
        except MalformedInput:
            return (False,)
        return (True,)

    def _last_report(self, at: int) -> tuple[Any, ...]:
        numbers = [number for number, held in self.held.items() if held[2] <= at]
        last = self.held[max(numbers)] if numbers else (bytes(32), 0, 0, 0, bytes(17))
        return (bool(numbers), max(numbers, default=0), *last)

    def _staked_nodes(self, start: int, count: int, at: int) -> tuple[Any, ...]:
        staked = [node for node in self.metadata if self.amount("nodeStake", node, at)]
        page = staked[start : start + count]
        stakes = [self.amount("nodeStake", node, at) for node in page]
        indices = [self.indices["node_manager", node] for node in page]
        return len(staked), page, stakes, [json.dumps(self.metadata[node]) for node in page], indices

    def _stream_metadata(self, stream: str) -> tuple[str]:
        return (json.dumps({"partitions": self.partitions[stream]}),)

    def _permission(self, stream: str, user: bytes) -> tuple[Any, ...]:
        return ((False, False, FOR_EVER if (stream, user) in self.publishers else 0, 0, False),)


def _hex(data: bytes) -> str:
    return "0x" + data.hex()


def _hexed(value: Any) -> Any:
    """Addresses as the encoder takes them."""
    if isinstance(value, tuple | list):
        return [_hexed(item) for item in value] if isinstance(value, list) else tuple(map(_hexed, value))
    return _hex(value) if isinstance(value, bytes) and len(value) == 20 else value
