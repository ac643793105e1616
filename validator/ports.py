"""What the steps need of the world, as protocols. Adapters fulfil them; steps and adapters never import each other.

All calls are synchronous and thread-safe, have their own total deadline, and raise only errors of
``validator.errors``. A fake that fulfils a port passes the same port tests as the real adapter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from validator.model import (
    Address,
    Block,
    ChainState,
    Digest,
    InstanceId,
    PartitionEntry,
    Report,
    Root,
    Statement,
    StatementKind,
    StorageId,
    StreamPart,
    UploadAnnouncement,
    VoteQuorum,
    Window,
)


class Clock(Protocol):
    def now_ms(self) -> int:
        """Unix time in milliseconds."""


# --- brokers --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker to pull from: its node address and HTTP URL."""

    address: Address
    url: str


@dataclass(frozen=True, slots=True)
class PulledRecord:
    """One line or body of a broker's answer as received, and which broker served it."""

    broker: Address
    position: int
    data: bytes
    form: str
    """"array" (legacy JSON array) or "protobuf"."""


@dataclass(frozen=True, slots=True)
class Pull:
    """What one broker answered for one stream partition and window.

    ``complete``: every page arrived, the last one after ``until_ms``. ``unchanged``: 304, ``records`` is empty and the
    earlier pull still stands. ``error`` names why it is not complete.
    """

    broker: Address
    stream_part: StreamPart
    records: tuple[PulledRecord, ...]
    complete: bool
    unchanged: bool = False
    etag: str | None = None
    error: str = ""


class MessageSource(Protocol):
    """Brokers over HTTP (reference: Log Store broker layer, HTTP API)."""

    def fetch_window(
        self,
        brokers: Sequence[Broker],
        parts: Sequence[StreamPart],
        window: Window,
        *,
        etags: Mapping[tuple[Address, StreamPart], str],
        deadline_ms: int,
    ) -> list[Pull]:
        """Pull [start, end) of every part from every broker at once: one Pull per (broker, part); never raises for one."""


# --- peers ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Attestation:
    """A member's signature (65 bytes) over a report's EIP-712 digest."""

    number: int
    report_digest: Digest
    signer: Address
    signature: bytes


@dataclass(frozen=True, slots=True)
class Gossip:
    """What peers tell each other in one request; every part carries its own signature.

    ``bodies`` are canonical observations and outcomes, content-addressed by SHA-256; each is named by a statement.
    """

    statements: tuple[Statement, ...] = ()
    quorums: tuple[VoteQuorum, ...] = ()
    bodies: tuple[bytes, ...] = ()
    uploads: tuple[UploadAnnouncement, ...] = ()
    attestations: tuple[Attestation, ...] = ()


@dataclass(frozen=True, slots=True)
class HeldVotes:
    """The statements of one instance that a peer holds: per (kind, round, value) the signers."""

    config_digest: Digest
    instance: InstanceId
    held: tuple[tuple[StatementKind, int, Digest, tuple[Address, ...]], ...]


@dataclass(frozen=True, slots=True)
class Handshake:
    """Who a peer is and which configs it runs: preimages by epoch, protocol versions, its clock, its newest block."""

    member: Address
    versions: tuple[int, ...]
    configs: tuple[bytes, ...]
    now_ms: int
    head: int


class Peers(Protocol):
    """The committee over HTTP. Endpoints come from NodeManager metadata."""

    def broadcast(self, gossip: Gossip, members: Iterable[Address]) -> Mapping[Address, str]:
        """Send to all given members at once; returns "" or the error per member. Never raises."""

    def send(self, member: Address, gossip: Gossip) -> None: ...

    def fetch_missing(self, member: Address, held: HeldVotes) -> Gossip:
        """Tell which votes we hold of one instance; the answer is what we lack (vote relay)."""

    def fetch_entries(self, member: Address, set_root: Root) -> tuple[PartitionEntry, ...]:
        """The partition entries of a set (flags zero)."""

    def reconcile(
        self, member: Address, set_root: Root, parts: Sequence[StreamPart], message: bytes, *, strong: bool
    ) -> bytes:
        """One Negentropy V1 message to the member's set, restricted to ``parts``; its answer.

        ``strong``: SHA-256 over sorted ids as fingerprint."""

    def fetch_messages(self, member: Address, set_root: Root, leaves: Sequence[Digest]) -> list[bytes]:
        """Canonical messages by leaf hash, in pages, decompressed with bounds; only those asked for."""

    def fetch_body(self, member: Address, digest: Digest) -> bytes:
        """A canonical observation or outcome by its digest; checked."""

    def fetch_certified(
        self, member: Address, instances: Sequence[InstanceId]
    ) -> list[tuple[InstanceId, bytes, VoteQuorum]]:
        """(instance, outcome bytes, certificate) of those the member has decided."""

    def push_late(self, member: Address, messages: Sequence[bytes]) -> None:
        """Canonical messages that are valid and in no agreed set."""

    def handshake(self, member: Address) -> Handshake: ...


class PeerService(Protocol):
    """The other side of ``Peers``: what the peers listener calls. ``sender`` is the verified committee member."""

    def members(self) -> Mapping[Address, str]:
        """Members (of current and coming epochs) whose requests are served, with their URLs."""

    def receive(self, sender: Address, gossip: Gossip) -> None: ...

    def missing(self, sender: Address, held: HeldVotes) -> Gossip: ...

    def entries(self, sender: Address, set_root: Root) -> tuple[PartitionEntry, ...]: ...

    def reconcile(
        self, sender: Address, set_root: Root, parts: Sequence[StreamPart], message: bytes, *, strong: bool
    ) -> bytes: ...

    def messages(self, sender: Address, set_root: Root, leaves: Sequence[Digest]) -> list[bytes]: ...

    def body(self, sender: Address, digest: Digest) -> bytes: ...

    def certified(
        self, sender: Address, instances: Sequence[InstanceId]
    ) -> list[tuple[InstanceId, bytes, VoteQuorum]]: ...

    def receive_late(self, sender: Address, messages: Sequence[bytes]) -> None: ...

    def handshake(self, sender: Address | None) -> Handshake: ...


# --- storage --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PreparedUpload:
    """A signed Arweave transaction before its first byte leaves: saved, then sent as it is, for ever.

    ``header`` is the wire JSON. ``reward`` in winston.
    """

    storage_id: StorageId
    owner: bytes
    header: str
    reward: int
    anchor_height: int
    data_size: int
    data_sha256: Digest


@dataclass(frozen=True, slots=True)
class StorageStatus:
    """What the gateways say of a transaction: "confirmed" (with confirmations), "pending", "missing" or "unknown"."""

    state: str
    confirmations: int = 0
    height: int = 0


@dataclass(frozen=True, slots=True)
class StoredTransaction:
    """A transaction read back; id and signature are verified."""

    storage_id: StorageId
    owner: bytes
    tags: tuple[tuple[str, str], ...]
    data_size: int
    data_root: bytes


class BundleStorage(Protocol):
    """Arweave through gateways."""

    def prepare(self, path: Path, tags: Sequence[tuple[str, str]]) -> PreparedUpload: ...

    def post(self, prepared: PreparedUpload) -> None:
        """Accepted or already known. RemoteFault: refused for good; UnknownOutcome: the answer was lost."""

    def seed(self, prepared: PreparedUpload, path: Path) -> None: ...

    def fetch_status(self, storage_id: StorageId) -> StorageStatus: ...

    def fetch_transaction(self, storage_id: StorageId) -> StoredTransaction: ...

    def fetch_data(self, storage_id: StorageId, destination: Path, max_bytes: int) -> int:
        """Download whole to ``destination``; returns the size. Bounded in bytes and time."""

    def fetch_balance(self) -> int: ...


# --- chain ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AcceptedReport:
    """What the contract holds of a report."""

    number: int
    bundle_root: Root
    storage_id: StorageId
    report_digest: Digest
    block_number: int
    last_ms: int


@dataclass(frozen=True, slots=True)
class PreparedTransaction:
    """A signed transaction, saved before it is sent."""

    hash: Digest
    raw: bytes
    nonce: int
    max_fee_per_gas: int


@dataclass(frozen=True, slots=True)
class TransactionStatus:
    """ "mined" (``success``, block, gas), "pending" or "missing"."""

    state: str
    success: bool = False
    block_number: int = 0
    gas_used: int = 0


class Chain(Protocol):
    """Contracts on Polygon, read by block hash, several sources compared."""

    def fetch_head(self) -> Block: ...

    def fetch_finalised(self) -> Block: ...

    def fetch_block_at(self, timestamp_s: int) -> Block | None:
        """Highest block with timestamp <= ``timestamp_s``; None until a finalised block with a later one exists."""

    def fetch_state(self, block: Block) -> ChainState: ...

    def fetch_publish_permission(self, stream_id: str, publisher: Address, block: Block) -> bool: ...

    def fetch_consumer_balances(self, consumers: Sequence[Address], block: Block) -> Mapping[Address, int]: ...

    def fetch_last_report(self, block: Block | None = None) -> AcceptedReport | None: ...

    def fetch_report(self, number: int) -> AcceptedReport | None: ...

    def fetch_is_valid_signature(self, contract: Address, digest: Digest, signature: bytes, block: Block) -> bool: ...


class ReportSender(Protocol):
    """Simulates, signs and sends reports with the gas key."""

    def prepare(self, report: Report, bitmap: int, signatures: bytes) -> PreparedTransaction: ...

    def replace(self, transaction: PreparedTransaction) -> PreparedTransaction: ...

    def send(self, transaction: PreparedTransaction) -> None: ...

    def fetch_status(self, transaction_hash: Digest) -> TransactionStatus: ...


@dataclass(frozen=True, slots=True)
class StepResult:
    """How a step ended, for Flower and logs: a name such as "agreed", "not yet", "already done", and a detail."""

    name: str
    detail: str = ""
    fields: Mapping[str, object] = field(default_factory=dict)
