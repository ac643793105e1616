"""What a report moves, and what reports owe each other: lines, debts, what is charged. Frozen, as all of ``model``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from validator.protocol.model import NIL, Address, Digest, Root, StorageId


@dataclass(frozen=True, slots=True)
class StreamLine:
    """``index``: the number by which StoreManager knows the stream."""

    index: int
    stream_id: str
    capture: int
    bytes: int


@dataclass(frozen=True, slots=True)
class ConsumerLine:
    """``index``: the number by which QueryManager knows the consumer."""

    index: int
    consumer: Address
    capture: int
    bytes: int


@dataclass(frozen=True, slots=True)
class NodeLine:
    """``index``: the number by which NodeManager knows the node."""

    index: int
    node: Address
    amount: int


@dataclass(frozen=True, slots=True)
class Report:
    """What the contract settles for one bundle (contracts_abi/src/ReportManager.sol, struct Report).

    Amounts are LSAN base units. Sum of captures = sum of node amounts + treasury. ``next_committee`` and
    ``next_config_digest`` are set in the last report of an epoch only.
    """

    config_digest: Digest
    config_count: int
    number: int
    height: int
    block_hash: Digest
    first_ms: int
    last_ms: int
    previous_root: Root
    bundle_root: Root
    storage_id: StorageId
    uploader: Address
    ledger_root: Digest
    streams: tuple[StreamLine, ...]
    consumers: tuple[ConsumerLine, ...]
    nodes: tuple[NodeLine, ...]
    treasury: int
    next_committee: tuple[Address, ...] = ()
    next_config_digest: Digest = NIL

    @property
    def captured(self) -> int:
        return sum(x.capture for x in self.streams) + sum(x.capture for x in self.consumers)


@dataclass(frozen=True, slots=True)
class InFlight:
    """What one accepted-or-pending report takes: captures per stream and consumer, negative node changes."""

    number: int
    streams: Mapping[str, int]
    consumers: Mapping[Address, int]
    nodes: Mapping[Address, int]


@dataclass(frozen=True, slots=True)
class Debt:
    """What a stream still owes, base units, and the oldest bundle and epoch that it owes for."""

    amount: int
    since: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Reading:
    """The cumulative bytes of a consumer's receipts for one broker that are charged, and the epoch that they name."""

    epoch: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """What reports owe each other; equal at all validators, its SHA-256 is in the report.

    ``in_flight``: reports not yet processed at the last report's block. ``owed``: by stream. ``cumulative``: by
    (consumer, broker).
    """

    in_flight: tuple[InFlight, ...] = ()
    owed: Mapping[str, Debt] | None = None
    cumulative: Mapping[tuple[Address, Address], Reading] | None = None
