"""The chain: state at a block, reports accepted, transactions of our own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from validator.protocol.model import Account, Address, Block, ChainState, Digest, Root, StorageId
from validator.protocol.report import Report


@dataclass(frozen=True, slots=True)
class AcceptedReport:
    """What the contract holds of a report, and said in its event."""

    number: int
    bundle_root: Root
    storage_id: StorageId
    report_digest: Digest
    block_number: int
    last_ms: int
    transaction: Digest
    """That carried it, whoever sent it."""


@dataclass(frozen=True, slots=True)
class PreparedTransaction:
    """A signed transaction, saved before it is sent."""

    hash: Digest
    raw: bytes
    nonce: int
    max_fee_per_gas: int


class TransactionState(StrEnum):
    MINED = "mined"
    PENDING = "pending"
    """A source has it."""
    MISSING = "missing"
    """Nobody has any, and the nonce is free."""
    OVERTAKEN = "overtaken"
    """The account's nonce is beyond it, and none of ours has a receipt."""
    UNREACHABLE = "unreachable"
    """A nonce below it is free and nobody has a transaction for that one."""


class SendRefusal(StrEnum):
    """Why a transaction is not taken: ``reason`` of the RemoteFault."""

    FUNDS = "funds"
    """The balance does not cover it."""
    FEES = "fees"
    """For its fee, by the words."""
    FEE_CAP = "fee cap"
    """It costs more than our own cap, or a node's."""
    REFUSED = "refused"
    """The chain does not tell why."""


@dataclass(frozen=True, slots=True)
class TransactionStatus:
    """Of one transaction; ``success``, block and gas where it is mined."""

    state: TransactionState
    success: bool = False
    block_number: int = 0
    gas_used: int = 0


@dataclass(frozen=True, slots=True)
class TransactionFate:
    """What the chain says of one call for which one or more transactions were signed: of ``hash``, the one that counts;
    ``success``, block and gas where it is mined."""

    state: TransactionState
    hash: Digest
    success: bool = False
    block_number: int = 0
    gas_used: int = 0


class Chain(Protocol):
    """Contracts on Polygon, read by block hash, several sources compared."""

    def fetch_head(self) -> Block: ...

    def fetch_finalised(self) -> Block: ...

    def fetch_block_at(self, timestamp_s: int) -> Block | None:
        """Highest block with timestamp <= ``timestamp_s``; None until a finalised block with a later one exists."""

    def fetch_blocks(self, numbers: Sequence[int]) -> list[Block]:
        """Blocks by number as the chain is now."""

    def fetch_state(self, block: Block) -> ChainState: ...

    def fetch_publish_permission(self, stream_id: str, publisher: bytes, block: Block) -> bool: ...

    def fetch_consumers(self, consumers: Sequence[Address], block: Block) -> Mapping[Address, Account]: ...

    def fetch_last_report(self, block: Block | None = None) -> AcceptedReport | None: ...

    def fetch_report(self, number: int) -> AcceptedReport | None: ...

    def fetch_gas_used(self, transaction: Digest) -> int | None:
        """Gas of anybody's transaction in a block; None if the sources have no receipt of it."""

    def fetch_is_valid_signature(self, contract: Address, digest: Digest, signature: bytes, block: Block) -> bool: ...


class ReportSender(Protocol):
    """Simulates, signs and sends reports with the gas key."""

    def prepare(self, report: Report, bitmap: int, signatures: bytes) -> PreparedTransaction: ...

    def replace(self, transaction: PreparedTransaction, refusal: str = "") -> PreparedTransaction: ...

    def send(self, transaction: PreparedTransaction) -> None: ...

    def fetch_fate(self, transactions: Sequence[PreparedTransaction]) -> TransactionFate: ...

    def fetch_status(self, transaction_hash: Digest) -> TransactionStatus: ...
