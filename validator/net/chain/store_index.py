"""What is known of which streams are stored, and up to which block: read once, then kept up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from validator.net.chain.abi import decode_values, interface
from validator.net.chain.values import parse_bytes, parse_logs
from validator.protocol.errors import MalformedInput
from validator.protocol.model import Address

MAX_LOGS = 50_000


@dataclass(frozen=True, slots=True)
class StoreList:
    """Streams that a StoreUpdated event has named up to and including block ``upto``."""

    upto: int
    stream_ids: frozenset[str]


class StoreIndex(Protocol):
    """Where the list of stores is kept between runs."""

    def load(self) -> StoreList | None: ...

    def save(self, stores: StoreList) -> None: ...


@dataclass(slots=True)
class MemoryIndex:
    """An index that is grown again after a restart."""

    stores: StoreList | None = field(default=None)

    def load(self) -> StoreList | None:
        return self.stores

    def save(self, stores: StoreList) -> None:
        self.stores = stores


def parse_store_events(value: Any, store_manager: Address) -> frozenset[str]:
    """Streams that the logs of one range name. Raises MalformedInput."""
    topic = interface("StoreManager").events["StoreUpdated"]
    found: set[str] = set()
    for log in parse_logs(value, store_manager, MAX_LOGS):
        topics = log.get("topics")
        if not isinstance(topics, list) or not topics or parse_bytes(topics[0], "log.topic", 32) != topic:
            raise MalformedInput("logs", "a log of another event")
        raw = decode_values(("string", "bool", "uint256"), parse_bytes(log.get("data"), "log.data"), "StoreUpdated")
        found.add(raw[0].decode(errors="surrogateescape"))
    return frozenset(found)
