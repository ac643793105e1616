"""Streamr's registries of streams, storage nodes and storage: what their events say, range by range.

Source: StreamRegistryV5, NodeRegistry and StreamStorageRegistryV2 of @streamr/network-contracts 8.2.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any

import msgspec

from validator.net.chain.abi import decode_values, interface
from validator.net.chain.jsonrpc import Request, Reverted
from validator.net.chain.rpc import Rpc
from validator.net.chain.values import parse_bytes, parse_logs, parse_quantity
from validator.protocol.errors import MalformedInput, RemoteFault
from validator.protocol.model import Address

BLOCKS_PER_REQUEST = 1_000
MAX_LOGS = 10_000
MAX_PARTITIONS = 100


class Registry(StrEnum):
    STREAMS = "StreamRegistry"
    NODES = "NodeRegistry"
    STORAGE = "StreamStorageRegistry"


class Change(StrEnum):
    """Events of theirs, by their names."""

    STREAM_CREATED = "StreamCreated"
    STREAM_UPDATED = "StreamUpdated"
    STREAM_DELETED = "StreamDeleted"
    NODE_UPDATED = "NodeUpdated"
    NODE_REMOVED = "NodeRemoved"
    ADDED = "Added"
    REMOVED = "Removed"


_EVENTS: Mapping[Registry, Mapping[Change, tuple[str, ...]]] = {
    Registry.STREAMS: {
        Change.STREAM_CREATED: ("string", "string"),
        Change.STREAM_UPDATED: ("string", "string"),
        Change.STREAM_DELETED: ("string",),
    },
    Registry.NODES: {Change.NODE_UPDATED: ("string", "uint256"), Change.NODE_REMOVED: ()},
    Registry.STORAGE: {Change.ADDED: ("string",), Change.REMOVED: ("string",)},
}
"""Types of what is not indexed; the first indexed value is the node's address, where there is one."""


@dataclass(frozen=True, slots=True)
class RegistryEvent:
    """One event. What it does not tell is empty; ``metadata`` is a stream's or a node's."""

    change: Change
    stream_id: str = ""
    node: Address = Address(b"")
    metadata: str = ""
    seen_s: int = 0
    """When the node was registered, Unix s."""


class _StreamMetadata(msgspec.Struct):
    partitions: int = 1


def read_partitions(metadata: str) -> int:
    """Partitions of a stream, 1 where its metadata does not say. Raises MalformedInput."""
    try:
        partitions = msgspec.json.decode(metadata or "{}", type=_StreamMetadata).partitions
    except msgspec.MsgspecError as error:
        raise MalformedInput("metadata", str(error)) from error
    if not 1 <= partitions <= MAX_PARTITIONS:
        raise MalformedInput("metadata", f"{partitions} partitions, 1 to {MAX_PARTITIONS} go")
    return partitions


class StreamrRegistries:
    """Reads the registries whose addresses it is given. Synchronous and thread-safe, as its ``rpc``."""

    def __init__(self, rpc: Rpc, addresses: Mapping[Registry, Address]) -> None:
        self._rpc = rpc
        self._addresses = dict(addresses)

    def fetch_head(self) -> int:
        """Number of the newest block. Raises TransientError, RemoteFault."""
        head: int = self._rpc.agree([Request("eth_blockNumber", (), parse_quantity)])[0]
        return head

    def fetch_events(self, first: int, last: int) -> list[RegistryEvent]:
        """Events of blocks ``first`` to ``last``, in order per registry. Raises TransientError, RemoteFault."""
        requests = [
            _logs_request(registry, address, start, min(start + BLOCKS_PER_REQUEST - 1, last))
            for registry, address in self._addresses.items()
            for start in range(first, last + 1, BLOCKS_PER_REQUEST)
        ]
        return [event for events in self._rpc.agree(requests) for event in events] if requests else []

    def fetch_stream_partitions(self, stream_id: str) -> int:
        """Raises TransientError, RemoteFault."""
        function = interface(Registry.STREAMS).function("getStreamMetadata")
        call = {
            "to": f"0x{self._addresses[Registry.STREAMS].hex()}",
            "data": f"0x{function.encode((stream_id,)).hex()}",
        }
        answer = self._rpc.agree([Request("eth_call", (call, "latest"), parse_bytes)])[0]
        if isinstance(answer, Reverted):
            raise RemoteFault(f"the stream registry knows no {stream_id[:200]}")
        return read_partitions(function.decode(answer)[0].decode(errors="replace"))


def _logs_request(registry: Registry, address: Address, first: int, last: int) -> Request[tuple[RegistryEvent, ...]]:
    span = {
        "address": f"0x{address.hex()}",
        "fromBlock": hex(first),
        "toBlock": hex(last),
        "topics": [[f"0x{topic.hex()}" for topic in _topics(registry)]],
    }
    return Request("eth_getLogs", (span,), lambda value: tuple(parse_events(value, registry, address)))


@cache
def _topics(registry: Registry) -> Mapping[bytes, Change]:
    events = interface(registry).events
    return {events[change]: change for change in _EVENTS[registry]}


def parse_events(value: Any, registry: Registry, address: Address) -> list[RegistryEvent]:
    """The answer of an ``eth_getLogs``. Raises MalformedInput."""
    found = []
    for log in parse_logs(value, address, MAX_LOGS):
        topics = log.get("topics")
        if not isinstance(topics, list) or not topics:
            raise MalformedInput("log.topics", "none")
        change = _topics(registry).get(parse_bytes(topics[0], "log.topic", 32))
        if change is None:
            raise MalformedInput("log.topics", "of another event")
        values = decode_values(_EVENTS[registry][change], parse_bytes(log.get("data"), "log.data"), change)
        texts = [text.decode(errors="surrogateescape") for text in values if isinstance(text, bytes)]
        if registry is Registry.STREAMS:
            found.append(RegistryEvent(change, texts[0], metadata=texts[1] if len(texts) > 1 else ""))
            continue
        if len(topics) < 2:
            raise MalformedInput("log.topics", "no node")
        node = Address(parse_bytes(topics[1], "log.topic", 32)[12:])
        if registry is Registry.STORAGE:
            found.append(RegistryEvent(change, texts[0], node))
        elif change is Change.NODE_UPDATED:
            found.append(RegistryEvent(change, node=node, metadata=texts[0], seen_s=values[1]))
        else:
            found.append(RegistryEvent(change, node=node))
    return found
