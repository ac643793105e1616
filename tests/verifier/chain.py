"""The chain as an outsider reads it: events, transactions, blocks and views, by JSON-RPC and the contracts' ABI."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import httpx
from eth_abi.abi import decode, encode

import contracts_abi
from validator.hashing import keccak256
from validator.model import (
    Address,
    ConsumerLine,
    Digest,
    NodeLine,
    Report,
    Root,
    StorageId,
    StreamLine,
)

CONTRACTS = {
    "token": "Token",
    "node_manager": "NodeManager",
    "store_manager": "StoreManager",
    "query_manager": "QueryManager",
    "report_manager": "ReportManager",
    "stream_registry": "StreamRegistry",
}
"""ABI of each contract by the name it has in ``network.toml``."""


class Rpc(Protocol):
    def ask(self, method: str, *params: Any) -> Any:
        """The result of a JSON-RPC call. Raises ValueError for an error answer."""


class HttpRpc:
    """JSON-RPC over HTTP."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = httpx.Client(timeout=30.0, trust_env=False)
        self._numbers = itertools.count(1)

    def ask(self, method: str, *params: Any) -> Any:
        body = {"jsonrpc": "2.0", "id": next(self._numbers), "method": method, "params": list(params)}
        answer = self._client.post(self._url, json=body).raise_for_status().json()
        if "error" in answer:
            raise ValueError(f"{method}: {answer['error']}")
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
        if found is None:
            return None
        return ChainBlock(
            int(found["number"], 16),
            Digest(_bytes(found["hash"])),
            Digest(_bytes(found["parentHash"])),
            int(found["timestamp"], 16),
        )

    def call(self, contract: str, function: str, *arguments: Any) -> tuple[Any, ...]:
        """Values of a view at the newest block."""
        entry = _entry(contract, "function", function)
        inputs, outputs = [_kind(i) for i in entry["inputs"]], [_kind(o) for o in entry["outputs"]]
        data = _selector(entry) + encode(inputs, [_out(a) for a in arguments])
        request = {"to": _hex(self._addresses[contract]), "data": _hex(data)}
        return tuple(decode(outputs, _bytes(self._rpc.ask("eth_call", request, "latest"))))

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
            _report(values),
            bitmap,
            signatures,
            before[-1].members,
            before[-1].digest,
            before[-1].count,
            event,
            int(receipt["gasUsed"], 16),
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
            kinds = [_kind(i) for i in plain]
            raw = decode([kind.replace("string", "bytes") for kind in kinds], _bytes(log["data"]))
            found = [_text(v) if kind == "string" else v for kind, v in zip(kinds, raw, strict=True)]
            values |= dict(zip([i["name"] for i in plain], found, strict=True))
            place = (int(log["blockNumber"], 16), int(log["logIndex"], 16))
            return Event(contract, entry["name"], values, place, log["transactionHash"])
    return None


def _report(values: Sequence[Any]) -> Report:
    """The contract's struct as the report it is."""
    v = list(values)
    return Report(
        config_digest=Digest(v[0]),
        number=v[1],
        height=v[2],
        block_hash=Digest(v[3]),
        first_ms=v[4],
        last_ms=v[5],
        previous_root=Root(v[6]),
        bundle_root=Root(v[7]),
        storage_id=StorageId(v[8]),
        uploader=_address(v[9]),
        ledger_root=Digest(v[10]),
        streams=tuple(StreamLine(*line) for line in v[11]),
        consumers=tuple(ConsumerLine(_address(who), capture, size) for who, capture, size in v[12]),
        nodes=tuple(NodeLine(_address(node), amount) for node, amount in v[13]),
        treasury=v[14],
        next_committee=tuple(_address(m) for m in v[15]),
        next_config_digest=Digest(v[16]),
    )


def _text(raw: bytes) -> str:
    """A stranger's text in an event, which need not be UTF-8: a byte that is none stays as a lone surrogate."""
    return raw.decode(errors="surrogateescape")


def _address(text: str) -> Address:
    return Address(_bytes(text))


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def _hex(data: bytes) -> str:
    return "0x" + data.hex()


def _out(value: Any) -> Any:
    return _hex(value) if isinstance(value, bytes) and len(value) == 20 else value
