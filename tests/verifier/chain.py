"""The chain as an outsider reads it: events, transactions, blocks and views, by JSON-RPC and the contracts' ABI.

Texts in contracts are whatever bytes somebody put there: they are read as bytes, and what is no UTF-8 survives as
surrogates, so that no stranger's text stops the check.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import httpx
from eth_abi.abi import decode, encode

import contracts_abi
from tests.verifier.findings import Unreachable
from validator.protocol.hashing import keccak256
from validator.protocol.model import Address, Digest, Root, StorageId
from validator.protocol.report import ConsumerLine, NodeLine, Report, StreamLine

CONTRACTS = {
    "token": "Token",
    "node_manager": "NodeManager",
    "store_manager": "StoreManager",
    "query_manager": "QueryManager",
    "report_manager": "ReportManager",
    "stream_registry": "StreamRegistry",
}
"""ABI of each contract by the name it has in ``network.toml``."""
ERC1271_SELECTOR = bytes.fromhex("1626ba7e")
"""Of ``isValidSignature(bytes32,bytes)``, and what it answers where the signature is valid."""
ERC1271_GAS = 5_000_000


class Reverted(ValueError):
    """The contract refused the call."""


class Rpc(Protocol):
    def ask(self, method: str, *params: Any) -> Any:
        """The result of a JSON-RPC call. Raises Unreachable, Reverted, or ValueError for any other error answer."""


class HttpRpc:
    """JSON-RPC over HTTP."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = httpx.Client(timeout=30.0, trust_env=False)
        self._numbers = itertools.count(1)

    def ask(self, method: str, *params: Any) -> Any:
        body = {"jsonrpc": "2.0", "id": next(self._numbers), "method": method, "params": list(params)}
        try:
            response = self._client.post(self._url, json=body)
        except httpx.TransportError as error:
            raise Unreachable(f"the EVM node at {self._url} does not answer: {type(error).__name__}") from error
        if response.status_code != 200:
            raise ValueError(f"{method}: status {response.status_code}")
        answer = response.json()
        if "error" in answer:
            refused = answer["error"].get("code") == 3 or "revert" in str(answer["error"].get("message", ""))
            raise (Reverted if refused else ValueError)(f"{method}: {answer['error']}")
        return answer["result"]

    def close(self) -> None:
        self._client.close()


@dataclass(frozen=True, slots=True)
class Event:
    """One log entry, decoded. ``place`` orders events: (block, index of the log)."""

    contract: str
    name: str
    values: dict[str, Any]
    place: tuple[int, int]
    transaction: str


@dataclass(frozen=True, slots=True)
class ChainBlock:
    number: int
    hash: Digest
    parent_hash: Digest
    timestamp_s: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """A report as the contract took it: event, call data, and what the view holds."""

    number: int
    report: Report
    bitmap: int
    signatures: bytes
    committee: tuple[Address, ...]
    config_digest: Digest
    config_count: int
    event: Event
    gas_used: int


@dataclass(frozen=True, slots=True)
class Committee:
    """What one CommitteeChanged set."""

    digest: Digest
    count: int
    members: tuple[Address, ...]
    event: Event


class Chain:
    """Reads through ``rpc``; ``addresses`` by the names of ``CONTRACTS``."""

    def __init__(self, rpc: Rpc, addresses: dict[str, Address], deployment_block: int) -> None:
        self._rpc = rpc
        self._addresses = addresses
        self._deployment_block = deployment_block

    def chain_id(self) -> int:
        return int(self._rpc.ask("eth_chainId"), 16)

    def block(self, number: int | str) -> ChainBlock | None:
        """A block by number or tag; None where there is none."""
        wanted = hex(number) if isinstance(number, int) else number
        found = self._rpc.ask("eth_getBlockByNumber", wanted, False)
        return None if found is None else _block(found)

    def block_of(self, block_hash: Digest) -> ChainBlock:
        """The block with this hash. Raises ValueError where there is none."""
        found = self._rpc.ask("eth_getBlockByHash", _hex(block_hash), False)
        if found is None:
            raise ValueError(f"there is no block {block_hash.hex()}")
        return _block(found)

    def block_at_or_before(self, timestamp_s: int) -> ChainBlock:
        """The highest block that is not later, by bisection. Raises ValueError where there is none."""
        newest = self.block("latest")
        low, high = 0, newest.number if newest is not None else 0
        while low < high:
            middle = (low + high + 1) // 2
            found = self.block(middle)
            if found is not None and found.timestamp_s <= timestamp_s:
                low = middle
            else:
                high = middle - 1
        block = self.block(low)
        if block is None or block.timestamp_s > timestamp_s:
            raise ValueError(f"the chain has no block at {timestamp_s} s")
        return block

    def call(
        self, contract: str, function: str, *arguments: Any, at: Digest | None = None, raw: bool = False
    ) -> tuple[Any, ...]:
        """Values of a view at the block with hash ``at``, or at the newest one. ``raw``: texts as bytes.

        Raises Reverted where the contract refuses.
        """
        entry = _entry(contract, "function", function)
        inputs, outputs = [_kind(i) for i in entry["inputs"]], [_kind(o) for o in entry["outputs"]]
        values = [_out(kind, a) for kind, a in zip(inputs, arguments, strict=True)]
        data = _selector(entry) + encode([_plain(kind) for kind in inputs], values)
        request = {"to": _hex(self._addresses[contract]), "data": _hex(data)}
        block = "latest" if at is None else {"blockHash": _hex(at), "requireCanonical": True}
        answer = _bytes(self._rpc.ask("eth_call", request, block))
        found = decode([_plain(kind) for kind in outputs], answer)
        return found if raw else tuple(_text(kind, v) for kind, v in zip(outputs, found, strict=True))

    def find_valid_signature(self, contract: Address, digest: Digest, signature: bytes, at: Digest) -> bool:
        """ERC-1271 at a block: exactly the magic word; a contract that refuses or is none says no."""
        data = ERC1271_SELECTOR + encode(["bytes32", "bytes"], [digest, signature])
        request = {"to": _hex(contract), "data": _hex(data), "gas": hex(ERC1271_GAS)}
        try:
            answer = _bytes(self._rpc.ask("eth_call", request, {"blockHash": _hex(at), "requireCanonical": True}))
        except ValueError:
            return False
        return answer[:32] == ERC1271_SELECTOR + bytes(28)

    @cached_property
    def events(self) -> tuple[Event, ...]:
        """All events of the contracts since their deployment, in order."""
        names = {address: name for name, address in self._addresses.items()}
        logs = self._rpc.ask(
            "eth_getLogs",
            {
                "fromBlock": hex(self._deployment_block),
                "toBlock": "latest",
                "address": [_hex(a) for a in self._addresses.values()],
            },
        )
        decoded = [_decode_log(names[Address(_bytes(log["address"]))], log) for log in logs]
        return tuple(sorted((e for e in decoded if e is not None), key=lambda e: e.place))

    def events_of(self, contract: str, name: str) -> list[Event]:
        return [e for e in self.events if (e.contract, e.name) == (contract, name)]

    @cached_property
    def committees(self) -> tuple[Committee, ...]:
        return tuple(
            Committee(
                Digest(e.values["configDigest"]),
                e.values["configCount"],
                tuple(_address(m) for m in e.values["members"]),
                e,
            )
            for e in self.events_of("report_manager", "CommitteeChanged")
        )

    @cached_property
    def reports(self) -> tuple[Accepted, ...]:
        """Accepted reports in the order of their acceptance, each with the committee that it found."""
        return tuple(self._read_report(e) for e in self.events_of("report_manager", "ReportAccepted"))

    @cached_property
    def _names(self) -> _Names:
        """Whom the contracts have given which number."""
        return _Names(
            {e.values["index"]: e.values["store"] for e in self.events_of("store_manager", "StoreIndexed")},
            {
                e.values["index"]: _address(e.values["consumer"])
                for e in self.events_of("query_manager", "ConsumerIndexed")
            },
            {
                e.values["index"]: _address(e.values["nodeAddress"])
                for e in self.events_of("node_manager", "NodeIndexed")
            },
        )

    def _read_report(self, event: Event) -> Accepted:
        transaction = self._rpc.ask("eth_getTransactionByHash", event.transaction)
        receipt = self._rpc.ask("eth_getTransactionReceipt", event.transaction)
        if _bytes(transaction["to"]) != self._addresses["report_manager"]:
            raise ValueError(f"report {event.values['number']} was not sent to the ReportManager itself")
        data = _bytes(transaction["input"])
        entry = _entry("report_manager", "function", "submitReport")
        if data[:4] != _selector(entry):
            raise ValueError(f"report {event.values['number']} came by another call than submitReport")
        values, bitmap, signatures = decode([_kind(i) for i in entry["inputs"]], data[4:])
        before = [
            c for c in self.committees if c.event.place < event.place and c.event.transaction != event.transaction
        ]
        if not before:
            raise ValueError(f"report {event.values['number']} was accepted before there was a committee")
        return Accepted(
            event.values["number"],
            _report(values, self._names),
            bitmap,
            signatures,
            before[-1].members,
            before[-1].digest,
            before[-1].count,
            event,
            int(receipt["gasUsed"], 16),
        )


def _block(found: dict[str, Any]) -> ChainBlock:
    return ChainBlock(
        int(found["number"], 16),
        Digest(_bytes(found["hash"])),
        Digest(_bytes(found["parentHash"])),
        int(found["timestamp"], 16),
    )


# --- the ABI --------------------------------------------------------------------------------------


def _entry(contract: str, kind: str, name: str) -> dict[str, Any]:
    for entry in contracts_abi.load(CONTRACTS[contract]).abi:
        if entry["type"] == kind and entry["name"] == name:
            return entry
    raise LookupError(f"{contract} has no {kind} {name}")


def _kind(item: dict[str, Any]) -> str:
    kind: str = item["type"]
    if not kind.startswith("tuple"):
        return kind
    return "(" + ",".join(_kind(c) for c in item["components"]) + ")" + kind.removeprefix("tuple")


def _signature(entry: dict[str, Any]) -> bytes:
    return f"{entry['name']}({','.join(_kind(i) for i in entry['inputs'])})".encode()


def _selector(entry: dict[str, Any]) -> bytes:
    return keccak256(_signature(entry))[:4]


def _decode_log(contract: str, log: dict[str, Any]) -> Event | None:
    topics = [_bytes(t) for t in log["topics"]]
    for entry in contracts_abi.load(CONTRACTS[contract]).abi:
        if entry["type"] == "event" and topics and keccak256(_signature(entry)) == topics[0]:
            indexed = [i for i in entry["inputs"] if i["indexed"]]
            plain = [i for i in entry["inputs"] if not i["indexed"]]
            values = {i["name"]: decode([_kind(i)], t)[0] for i, t in zip(indexed, topics[1:], strict=True)}
            found = decode([_plain(_kind(i)) for i in plain], _bytes(log["data"]))
            values |= {i["name"]: _text(_kind(i), v) for i, v in zip(plain, found, strict=True)}
            place = (int(log["blockNumber"], 16), int(log["logIndex"], 16))
            return Event(contract, entry["name"], values, place, log["transactionHash"])
    return None


@dataclass(frozen=True, slots=True)
class _Names:
    """Streams, consumers and nodes by the numbers that reports name them with."""

    streams: Mapping[int, str]
    consumers: Mapping[int, Address]
    nodes: Mapping[int, Address]


def _read_lines(data: bytes, names: _Names) -> tuple[list[StreamLine], list[ConsumerLine], list[NodeLine]]:
    """Lines from their bytes; one with a number that was never given keeps it for a name."""
    counts = [int.from_bytes(data[at : at + 2], "big") for at in (0, 2, 4)]
    rest = data[6:]

    def take(*sizes: int) -> list[int]:
        nonlocal rest
        found = []
        for size in sizes:
            found.append(int.from_bytes(rest[:size], "big"))
            rest = rest[size:]
        return found

    streams, consumers, nodes = [], [], []
    for _ in range(counts[0]):
        index, capture, size = take(4, 12, 8)
        streams.append(StreamLine(index, names.streams.get(index, f"number {index}"), capture, size))
    for _ in range(counts[1]):
        index, capture, size = take(4, 12, 8)
        consumers.append(ConsumerLine(index, names.consumers.get(index, _nameless(index)), capture, size))
    for _ in range(counts[2]):
        signed, amount = take(4, 12)
        index = signed & 0x7FFFFFFF
        nodes.append(NodeLine(index, names.nodes.get(index, _nameless(index)), -amount if signed >> 31 else amount))
    if rest:
        raise ValueError(f"{len(rest)} bytes behind a report's lines")
    return streams, consumers, nodes


def _nameless(index: int) -> Address:
    return Address(index.to_bytes(20, "big"))


def _report(values: Sequence[Any], names: _Names) -> Report:
    """The contract's struct as the report it is. Raises ValueError where its total is not that of its lines."""
    v = list(values)
    streams, consumers, nodes = _read_lines(v[14], names)
    if v[12] != sum(s.capture for s in streams) + sum(c.capture for c in consumers):
        raise ValueError(f"report {v[2]} says that it captures {v[12]}, its lines say another sum")
    return Report(
        config_digest=Digest(v[0]),
        config_count=v[1],
        number=v[2],
        height=v[3],
        block_hash=Digest(v[4]),
        first_ms=v[5],
        last_ms=v[6],
        previous_root=Root(v[7]),
        bundle_root=Root(v[8]),
        storage_id=StorageId(v[9]),
        uploader=_address(v[10]),
        ledger_root=Digest(v[11]),
        streams=tuple(streams),
        consumers=tuple(consumers),
        nodes=tuple(nodes),
        treasury=v[13],
        next_committee=tuple(_address(m) for m in v[15]),
        next_config_digest=Digest(v[16]),
    )


def _address(text: str) -> Address:
    return Address(_bytes(text))


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def _hex(data: bytes) -> str:
    return "0x" + data.hex()


def _plain(kind: str) -> str:
    """A text's bytes have the same encoding as the text."""
    return {"string": "bytes", "string[]": "bytes[]"}.get(kind, kind)


def _text(kind: str, value: Any) -> Any:
    if kind == "string":
        return value.decode(errors="surrogateescape")
    return [item.decode(errors="surrogateescape") for item in value] if kind == "string[]" else value


def _out(kind: str, value: Any) -> Any:
    """An argument as the encoder takes it."""
    if isinstance(value, list | tuple):
        return [_out(kind.removesuffix("[]"), item) for item in value]
    if kind == "string":
        return value.encode(errors="surrogateescape")
    return _hex(value) if kind == "address" and isinstance(value, bytes) else value
