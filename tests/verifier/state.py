"""What the contracts held at one block: nodes, stores, balances, permissions. Read by block hash, each block once.

Texts on chain are anybody's. The rules for reading them are the network's: a node's metadata is a JSON object of at
most 4 KiB whose URLs are 1 to 256 printable ASCII characters and whose ``arweave`` is a wallet in base64url; a
stream's ``partitions`` is 1 to 100, else 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.verifier.chain import Chain, Reverted
from validator.protocol.codec.arweave_text import decode_storage_id
from validator.protocol.errors import MalformedInput
from validator.protocol.model import Address, Digest

NODES_AT_A_TIME = 50
MAX_NODE_METADATA = 4 << 10
MAX_STREAM_METADATA = 64 << 10
MAX_BRACKETS = 64
MAX_STREAM_ID_BYTES = 256
PUBLISH_EXPIRATION = 2
"""Place in Streamr's Permission: may edit, may delete, publish expiration, subscribe expiration, may grant."""


@dataclass(frozen=True, slots=True)
class StakedNode:
    """A staked node: what it has staked, and what its metadata says it is."""

    address: Address
    stake: int
    is_broker: bool
    is_validator: bool
    wallet: bytes | None
    """The Arweave address that its uploads are paid from."""


@dataclass(frozen=True, slots=True)
class FundedStore:
    """A store with a balance whose stream exists."""

    balance: int
    partitions: int


@dataclass(frozen=True, slots=True)
class State:
    """Everything that the network's rules ask of one block, publishers and consumers apart."""

    timestamp_s: int
    nodes: Mapping[Address, StakedNode]
    stores: Mapping[str, FundedStore]
    reports: int
    """How many reports the contract had accepted."""

    @property
    def brokers(self) -> set[Address]:
        return {node.address for node in self.nodes.values() if node.is_broker}


class States:
    """Reads states and single facts, and remembers them."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._states: dict[Digest, State] = {}
        self._permissions: dict[tuple[Digest, str, bytes], bool] = {}
        self._signatures: dict[tuple[Digest, bytes, Digest, bytes], bool] = {}

    def at(self, block_hash: Digest) -> State:
        """Raises ValueError where the block is not on the chain, or the node has forgotten its state."""
        if block_hash not in self._states:
            exists, number, *_ = self._chain.call("report_manager", "lastReport", at=block_hash)
            self._states[block_hash] = State(
                self._chain.block_of(block_hash).timestamp_s,
                self._read_nodes(block_hash),
                self._read_stores(block_hash),
                number + 1 if exists else 0,
            )
        return self._states[block_hash]

    def balances(self, consumers: Iterable[Address], block_hash: Digest) -> dict[Address, int]:
        """What consumers had in QueryManager."""
        asked = sorted(set(consumers))
        found, _ = self._chain.call("query_manager", "balancesOf", asked, at=block_hash)
        return dict(zip(asked, found, strict=True))

    def may_publish(self, stream_id: str, publisher: bytes, block_hash: Digest) -> bool:
        """Whether the registry lets a publisher publish in a stream; in one that does not exist nobody may."""
        key = (block_hash, stream_id, publisher)
        if key not in self._permissions:
            try:
                self._permissions[key] = self._ask_registry(stream_id, publisher, block_hash)
            except Reverted:
                self._permissions[key] = False
        return self._permissions[key]

    def is_signed_by_contract(self, contract: bytes, digest: Digest, signature: bytes, block_hash: Digest) -> bool:
        key = (block_hash, contract, digest, signature)
        if key not in self._signatures:
            valid = self._chain.find_valid_signature(Address(contract), digest, signature, block_hash)
            self._signatures[key] = valid
        return self._signatures[key]

    def _ask_registry(self, stream_id: str, publisher: bytes, block_hash: Digest) -> bool:
        """By user id, since publishers may be keys of any kind; a permission holds while it has not expired."""
        (permission,) = self._chain.call(
            "stream_registry", "getPermissionsForUserId", stream_id, publisher, at=block_hash
        )
        expiration: int = permission[PUBLISH_EXPIRATION]
        return expiration >= self.at(block_hash).timestamp_s

    def _read_nodes(self, block_hash: Digest) -> dict[Address, StakedNode]:
        nodes: dict[Address, StakedNode] = {}
        total, start = 1, 0
        while start < total:
            total, addresses, stakes, texts, _ = self._chain.call(
                "node_manager", "stakedNodes", start, NODES_AT_A_TIME, at=block_hash, raw=True
            )
            for text, stake, metadata in zip(addresses, stakes, texts, strict=True):
                address = Address(bytes.fromhex(text.removeprefix("0x")))
                said = read_object(metadata, MAX_NODE_METADATA)
                nodes[address] = StakedNode(
                    address, stake, is_url(said.get("http")), is_url(said.get("validator")), read_wallet(said)
                )
            start += NODES_AT_A_TIME
        return nodes

    def _read_stores(self, block_hash: Digest) -> dict[str, FundedStore]:
        """Every stream that anybody has ever staked for, as far as it has a balance; without partitions where it
        does not exist at the block."""
        named = sorted({e.values["store"] for e in self._chain.events_of("store_manager", "StoreUpdated")})
        stores = {}
        for stream_id in filter(is_stream_id, named):
            (balance,) = self._chain.call("store_manager", "stores", stream_id, at=block_hash)
            if not balance:
                continue
            try:
                (text,) = self._chain.call("stream_registry", "getStreamMetadata", stream_id, at=block_hash, raw=True)
            except Reverted:
                stores[stream_id] = FundedStore(balance, 0)
                continue
            stores[stream_id] = FundedStore(balance, read_partitions(text))
        return stores


# --- texts on chain -------------------------------------------------------------------------------


def is_stream_id(text: str) -> bool:
    """Whether a message could carry it."""
    try:
        return 0 < len(text.encode()) <= MAX_STREAM_ID_BYTES
    except UnicodeEncodeError:
        return False


def read_partitions(metadata: bytes) -> int:
    value = read_object(metadata, MAX_STREAM_METADATA).get("partitions", 1)
    return value if type(value) is int and 1 <= value <= 100 else 1


def is_url(value: Any) -> bool:
    printable = isinstance(value, str) and 1 <= len(value) <= 256 and all("!" <= c <= "~" for c in value)
    return printable and value.startswith(("http://", "https://"))


def read_wallet(said: Mapping[str, Any]) -> bytes | None:
    """``arweave`` of a node's metadata: 32 bytes in their one form of base64url."""
    try:
        return bytes(decode_storage_id(said.get("arweave")))
    except MalformedInput:
        return None


def read_object(text: bytes, max_bytes: int) -> dict[str, Any]:
    """A JSON object of bounded size and nesting; empty for anything else."""
    if len(text) > max_bytes or text.count(b"[") + text.count(b"{") > MAX_BRACKETS:
        return {}
    try:
        value = json.loads(text.decode(), parse_constant=_refuse, parse_int=_read_int)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _read_int(text: str) -> int | None:
    return int(text) if len(text) <= 20 else None
