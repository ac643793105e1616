"""Everything outside a small network, as fakes of the ports: chain and contract, brokers, the gateway. One clock."""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from tests.builders import a_key
from tests.compact_signature import expand_compact
from validator.ports.chain import (
    AcceptedReport,
    PreparedTransaction,
    TransactionFate,
    TransactionState,
    TransactionStatus,
)
from validator.ports.sources import Broker, Pull, TakeRecords
from validator.ports.storage import GatewaySeed, PreparedUpload, StorageState, StorageStatus, StoredTransaction, Tariff
from validator.protocol.codec.message import make_record
from validator.protocol.codec.protobuf import write_protobuf
from validator.protocol.codec.report import encode_report, report_digest
from validator.protocol.codec.secp256k1 import SigningKey, recover_address
from validator.protocol.codec.signatures import publish_message
from validator.protocol.errors import Disagreement, MalformedInput, RemoteFault, TransientError
from validator.protocol.model import (
    Account,
    Address,
    Block,
    ChainState,
    Digest,
    Message,
    Node,
    Record,
    StorageId,
    Store,
    StreamPart,
    Window,
)
from validator.protocol.parameters import Contracts, Network, ParameterSet
from validator.protocol.quorum import quorum
from validator.protocol.report import Report

START_S = 1_700_000_000
GENESIS_MS = (START_S + 20) * 1000
WINDOW_MS = 2_000
STREAM = "stream0.eth/data"
PART: StreamPart = (STREAM, 0)
CONTRACTS = Contracts(*(Address(bytes([0xC0 + i]) * 20) for i in range(6)))
PUBLISHER = a_key(9_001)
CONFIRMATIONS = 3
MINE_MS = 500
REPORT_GAS = 100_000


def some_parameters(**changed: Any) -> ParameterSet:
    """Two windows of two seconds, one bundle, one epoch, the network's last."""
    values: dict[str, Any] = {
        "first_epoch": 0,
        "epoch_windows": 2,
        "bundle_windows": 2,
        "last": True,
        "window_ms": WINDOW_MS,
        "grace_ms": 1_000,
        "horizon_ms": 8_000,
        "margin_ms": 60_000,
        "lag_s": 4,
        "fresh_wait_windows": 0,
        "timeout_max_ms": 10_000,
        "budget_windows": 12,
        "scope_floor": 1,
        "rent": 1_000,
        "price_max": 1 << 21,
        "read_ppm": 1_000_000,
        "message_limit": 10_000,
        "confirmations": CONFIRMATIONS,
        "upload_stage_ms": 10_000,
        "transmit_stage_ms": 10_000,
    }
    return ParameterSet(**{**values, **changed})


def some_network(**changed: Any) -> Network:
    """One parameter set, ``some_parameters`` unless changed."""
    return Network("small", 31337, 1, Digest(b"\x01" * 32), CONTRACTS, GENESIS_MS, (some_parameters(**changed),))


def wallet_of(member: bytes) -> bytes:
    """The address that a member pays uploads from."""
    return hashlib.sha256(b"owner" + member).digest()


class Clock:
    """The port ``Clock``; moves only when told. A forked process sees the same time."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 8)
        self.at_ms = (START_S + 10) * 1000

    @property
    def at_ms(self) -> int:
        return int.from_bytes(self._shared[:8], "little")

    @at_ms.setter
    def at_ms(self, at_ms: int) -> None:
        self._shared[:8] = at_ms.to_bytes(8, "little")

    def now_ms(self) -> int:
        return self.at_ms


@dataclass
class Delivery:
    """One record at one broker, from ``at_ms`` on; ``form`` as brokers' answers have it."""

    at_ms: int
    part: StreamPart
    timestamp_ms: int
    data: bytes
    form: str = "protobuf"


@dataclass
class Posted:
    """A transaction that the gateway has; ``data`` once it is seeded."""

    prepared: PreparedUpload
    at_ms: int
    data: bytes | None = None


def index_of(name: bytes) -> int:
    """The number that a contract of this world gives a name."""
    return 1 + int.from_bytes(hashlib.sha256(name).digest()[:4], "big") % ((1 << 31) - 1)


Named = TypeVar("Named", Node, Store)


def numbered(found: Sequence[Named]) -> tuple[Named, ...]:
    return tuple(
        replace(one, index=index_of(one.address if isinstance(one, Node) else one.stream_id.encode())) for one in found
    )


class World:
    """Everything outside: chain and contract, brokers, the gateway. Counts what is paid for."""

    def __init__(self, network: Network, clock: Clock, members: Sequence[Address], brokers: Sequence[Address]) -> None:
        self.network = network
        self.clock = clock
        self.members = tuple(sorted(members))
        self.brokers = tuple(brokers)
        self.stores: tuple[Store, ...] = (Store(STREAM, 10**15, 1),)
        self.publishers: set[tuple[str, bytes]] = {(STREAM, PUBLISHER.address)}
        self.permits: Callable[[str, bytes, Block], bool] = lambda stream, who, _block: (stream, who) in self.publishers
        self.stores_at: Callable[[Block], tuple[Store, ...]] = lambda _block: self.stores
        """What the chain says block by block; a test may have it change."""
        self.valid_for: set[tuple[bytes, bytes]] = set()
        self.deliveries: dict[Address, list[Delivery]] = {broker: [] for broker in brokers}
        self.brokers_down: set[Address] = set()
        self.transactions: dict[StorageId, Posted] = {}
        self.confirms_without_data = False
        self.accepted: dict[int, AcceptedReport] = {}
        self.reports: dict[int, Report] = {}
        self.sent: dict[Digest, tuple[bool, int]] = {}
        self.replaced_from: list[int] = []
        """Times from which on the chain has replaced its blocks."""
        self.nodes = (
            *(Node(m, 10**18, None, f"http://127.0.0.1:{4000 + i}", wallet_of(m)) for i, m in enumerate(self.members)),
            *(Node(b, 10**18, f"http://127.0.0.1:{5000 + i}", None) for i, b in enumerate(self.brokers)),
        )
        self.nodes_from: dict[int, tuple[Node, ...]] = {}
        """Staked nodes from a block number on, where they change."""

    # --- chain ---

    def block(self, timestamp_s: int) -> Block:
        branch = sum(timestamp_s >= from_s for from_s in self.replaced_from)
        return Block(timestamp_s - START_S, _block_hash(timestamp_s, branch), timestamp_s)

    def reorganise(self, depth: int) -> None:
        """The newest ``depth`` blocks are replaced by others."""
        self.replaced_from.append(self.head().timestamp_s - depth + 1)

    def require_present(self, block: Block) -> None:
        """Raises TransientError: the chain has replaced this block, and no node has its state any more."""
        old = {_block_hash(block.timestamp_s, branch) for branch in range(len(self.replaced_from) + 1)}
        if block.hash in old - {self.block(block.timestamp_s).hash}:
            raise TransientError("resource not found", reason="unavailable")

    def head(self) -> Block:
        return self.block(self.clock.now_ms() // 1000)

    def finalised(self) -> Block:
        return self.block(self.clock.now_ms() // 1000 - 2)

    def nodes_at(self, number: int) -> tuple[Node, ...]:
        changes = [first for first in self.nodes_from if first <= number]
        return self.nodes_from[max(changes)] if changes else self.nodes

    # --- brokers ---

    def publish(
        self,
        offset_ms: int,
        content: bytes,
        *,
        delays: Mapping[int, int] | None = None,
        key: SigningKey = PUBLISHER,
        **fields: Any,
    ) -> Record:
        """A message at genesis + offset; ``delays``: by broker, how much later it arrives (at once if absent)."""
        values: dict[str, Any] = {"stream_id": STREAM, "msg_chain_id": "c" * 20, **fields}
        message = publish_message(key, timestamp_ms=GENESIS_MS + offset_ms, content=content, **values)
        self.deliver(message, dict.fromkeys(range(len(self.brokers)), 0) if delays is None else delays)
        return make_record(message)

    def deliver(self, message: Message, delays: Mapping[int, int]) -> None:
        for broker, delay_ms in delays.items():
            self.deliveries[self.brokers[broker]].append(
                Delivery(
                    message.timestamp_ms + delay_ms,
                    message.stream_part,
                    message.timestamp_ms,
                    write_protobuf(message),
                )
            )

    def paid(self) -> list[StorageId]:
        """Transactions that were posted: each is paid for."""
        return list(self.transactions)


def _block_hash(timestamp_s: int, branch: int) -> Digest:
    return Digest(hashlib.sha256(b"block%d" % timestamp_s + b"+" * branch).digest())


class WorldChain:
    """The port ``Chain``."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.block_of: Callable[[Block], Block] = lambda block: block
        """A test may have one validator's chain show another block."""
        self.signature_answer: bool | None = None
        """What contracts answer here, where it differs from the world's."""

    def fetch_head(self) -> Block:
        return self.world.head()

    def fetch_finalised(self) -> Block:
        return self.world.finalised()

    def fetch_block_at(self, timestamp_s: int) -> Block | None:
        if self.world.finalised().timestamp_s <= timestamp_s:
            return None
        return self.block_of(self.world.block(timestamp_s))

    def fetch_blocks(self, numbers: Sequence[int]) -> list[Block]:
        return [self.block_of(self.world.block(START_S + number)) for number in numbers]

    def fetch_state(self, block: Block) -> ChainState:
        world = self.world
        world.require_present(block)
        return ChainState(
            block,
            numbered(world.nodes_at(block.number)),
            numbered(world.stores_at(block)),
            f"0x{CONTRACTS.node_manager.hex()}/system",
            {},
        )

    def fetch_publish_permission(self, stream_id: str, publisher: bytes, block: Block) -> bool:
        self.world.require_present(block)
        return self.world.permits(stream_id, publisher, block)

    def fetch_consumers(self, consumers: Sequence[Address], block: Block) -> Mapping[Address, Account]:
        self.world.require_present(block)
        return {who: Account(10**12, index_of(who)) for who in consumers}

    def fetch_last_report(self, block: Block | None = None) -> AcceptedReport | None:
        if block is not None:
            self.world.require_present(block)
        known = [r for r in self.world.accepted.values() if block is None or r.block_number <= block.number]
        return max(known, key=lambda r: r.number, default=None)

    def fetch_report(self, number: int) -> AcceptedReport | None:
        return self.world.accepted.get(number)

    def fetch_gas_used(self, transaction: Digest) -> int | None:
        return REPORT_GAS if transaction in self.world.sent else None

    def fetch_is_valid_signature(self, contract: Address, digest: Digest, signature: bytes, block: Block) -> bool:
        if self.signature_answer is not None:
            return self.signature_answer
        return (contract, digest) in self.world.valid_for


class WorldSource:
    """The port ``MessageSource``: what each broker had at the time of asking."""

    def __init__(self, world: World, down: set[Address]) -> None:
        self.world = world
        self.down = down

    def stream_window(
        self,
        brokers: Sequence[Broker],
        parts: Sequence[StreamPart],
        window: Window,
        take: TakeRecords,
        *,
        etags: Mapping[tuple[Address, StreamPart], str],
        deadline_ms: int,
    ) -> list[Pull]:
        return [
            self._pull(b.address, part, window, take, etags.get((b.address, part))) for b in brokers for part in parts
        ]

    def _pull(self, broker: Address, part: StreamPart, window: Window, take: TakeRecords, etag: str | None) -> Pull:
        if broker in self.down | self.world.brokers_down:
            return Pull(broker, part, complete=False, error="connection refused")
        now_ms = self.world.clock.now_ms()
        held = [
            d
            for d in self.world.deliveries[broker]
            if d.part == part and d.at_ms <= now_ms and d.timestamp_ms in window
        ]
        tag = f'"{len(held)}-{max((d.at_ms for d in held), default=0)}"'
        if tag == etag:
            return Pull(broker, part, complete=True, unchanged=True, etag=tag)
        for position, delivery in enumerate(held):
            take(broker, part, position, [delivery.data], delivery.form)
        return Pull(broker, part, complete=True, etag=tag)


class WorldStorage:
    """The port ``BundleStorage``: a gateway that confirms what is posted and seeded, a block every half second.

    A header is a JSON text; the hash of it is the transaction's id, that of the file its data root.
    """

    def __init__(self, world: World, name: bytes) -> None:
        self.world = world
        self.owner = wallet_of(name)
        self.prepared = 0
        self.unavailable = False
        self.shown: dict[StorageId, StorageStatus] = {}
        """What the gateways tell this validator, where it differs from what is."""
        self.lost_seeds = 0
        """So many times chunks are taken and lost."""

    def wallet_address(self) -> bytes:
        return self.owner

    def prepare(self, path: Path, tags: Sequence[tuple[str, str]], *, open_uploads: int = 0) -> PreparedUpload:
        """Another id each time: two prepared and posted uploads are two payments."""
        self.prepared += 1
        data = path.read_bytes()
        digest = Digest(hashlib.sha256(data).digest())
        header = a_header(self.owner, tags, len(data), digest, self.prepared)
        storage_id = StorageId(hashlib.sha256(header.encode()).digest())
        return PreparedUpload(storage_id, self.owner, header, 1, 0, len(data), digest)

    def read_header(self, storage_id: StorageId, header: bytes) -> StoredTransaction:
        if hashlib.sha256(header).digest() != storage_id:
            raise MalformedInput("id", "another transaction")
        owner, tags, size, root, _ = json.loads(header)
        pairs = tuple((name, value) for name, value in tags)
        return StoredTransaction(storage_id, bytes.fromhex(owner), pairs, size, bytes.fromhex(root))

    def compute_data_root(self, path: Path) -> bytes:
        return hashlib.sha256(path.read_bytes()).digest()

    def post(self, prepared: PreparedUpload) -> str:
        self._require()
        self.world.transactions.setdefault(prepared.storage_id, Posted(prepared, self.world.clock.now_ms()))
        return "gateway"

    def seed(
        self, prepared: PreparedUpload, path: Path, taken: Mapping[str, int] | None = None
    ) -> tuple[GatewaySeed, ...]:
        """The only chunk."""
        self._require()
        data = path.read_bytes()
        if hashlib.sha256(data).digest() != self.read_header(prepared.storage_id, prepared.header.encode()).data_root:
            raise Disagreement("not the file that was prepared")
        if self.lost_seeds:
            self.lost_seeds -= 1
        else:
            self.world.transactions[prepared.storage_id].data = data
        return (GatewaySeed("gateway", 1, 1),)

    def fetch_status(self, storage_id: StorageId) -> StorageStatus:
        self._require()
        if storage_id in self.shown:
            return self.shown[storage_id]
        posted = self.world.transactions.get(storage_id)
        if posted is None:
            return StorageStatus(StorageState.MISSING)
        if posted.data is None and not self.world.confirms_without_data:
            return StorageStatus(StorageState.PENDING)
        return StorageStatus(StorageState.CONFIRMED, (self.world.clock.now_ms() - posted.at_ms) // MINE_MS, 1)

    def fetch_is_dropped(self, prepared: PreparedUpload, status: StorageStatus) -> bool:
        return False

    def find_uploads(self, bundle_root: str, owners: Iterable[bytes]) -> list[StorageId]:
        self._require()
        return [
            storage_id
            for storage_id, posted in self.world.transactions.items()
            if posted.prepared.owner in owners and bundle_root in posted.prepared.header
        ]

    def fetch_header(self, storage_id: StorageId) -> bytes:
        return self._find(storage_id).prepared.header.encode()

    def fetch_transaction(self, storage_id: StorageId) -> StoredTransaction:
        return self.read_header(storage_id, self.fetch_header(storage_id))

    def fetch_data(self, storage_id: StorageId, destination: Path, max_bytes: int, *, posted_to: str = "") -> int:
        data = self._find(storage_id).data
        if data is None:
            raise TransientError("gateway: HTTP 404, not readable yet")
        if len(data) > max_bytes:
            raise RemoteFault(f"data of {len(data)} bytes, limit {max_bytes}", size=len(data))
        return destination.write_bytes(data)

    def _find(self, storage_id: StorageId) -> Posted:
        self._require()
        posted = self.world.transactions.get(storage_id)
        if posted is None:
            raise TransientError("gateway: HTTP 404, not confirmed here")
        return posted

    def fetch_balance(self) -> int:
        return 10**12

    def fetch_tariff(self) -> Tariff:
        return Tariff(1, 0)

    def _require(self) -> None:
        if self.unavailable:
            raise TransientError("no gateway answers")


def a_header(owner: bytes, tags: Sequence[tuple[str, str]], size: int, root: bytes, number: int) -> str:
    """What ``WorldStorage`` takes for a signed header."""
    return json.dumps([owner.hex(), [list(tag) for tag in tags], size, root.hex(), number])


class WorldSender:
    """The port ``ReportSender`` with the contract behind it: order, quorum and signatures are checked."""

    def __init__(self, world: World, name: bytes) -> None:
        self.world = world
        self.name = name
        self.prepared = 0
        self.stuck: set[int] = set()
        """Fees too low to be mined."""
        self.reverting = 0
        """So many transactions, the next ones, are mined and do nothing."""
        self._pool: set[Digest] = set()
        self._calls: dict[Digest, tuple[Report, int, bytes]] = {}

    def prepare(self, report: Report, bitmap: int, signatures: bytes) -> PreparedTransaction:
        self._check(report, bitmap, signatures)
        self.prepared += 1
        raw = self.name + self.prepared.to_bytes(4, "big") + encode_report(report)
        digest = Digest(hashlib.sha256(raw).digest())
        self._calls[digest] = (report, bitmap, signatures)
        return PreparedTransaction(digest, raw, self.prepared, 1)

    def replace(self, transaction: PreparedTransaction, refusal: str = "") -> PreparedTransaction:
        """The same call and nonce for a higher fee."""
        raw = transaction.raw + b"again"
        digest = Digest(hashlib.sha256(raw).digest())
        self._calls[digest] = self._calls[transaction.hash]
        return PreparedTransaction(digest, raw, transaction.nonce, transaction.max_fee_per_gas + 1)

    def send(self, transaction: PreparedTransaction) -> None:
        """One transaction is mined once, however often it is sent; a refused one costs its fee too."""
        self._pool.add(transaction.hash)
        if transaction.hash in self.world.sent or transaction.max_fee_per_gas in self.stuck:
            return
        report, bitmap, signatures = self._calls[transaction.hash]
        number = self.world.head().number + 1
        if self.reverting:
            self.reverting -= 1
            self.world.sent[transaction.hash] = (False, number)
            return
        try:
            self._check(report, bitmap, signatures)
        except RemoteFault:
            self.world.sent[transaction.hash] = (False, number)
            return
        self.world.sent[transaction.hash] = (True, number)
        self.world.reports[report.number] = report
        self.world.accepted[report.number] = AcceptedReport(
            report.number,
            report.bundle_root,
            report.storage_id,
            self._digest(report),
            number,
            report.last_ms,
            transaction.hash,
        )

    def fetch_fate(self, transactions: Sequence[PreparedTransaction]) -> TransactionFate:
        found = [(t.hash, self.fetch_status(t.hash)) for t in reversed(transactions)]
        for state in (TransactionState.MINED, TransactionState.PENDING):
            for digest, status in found:
                if status.state == state:
                    return TransactionFate(state, digest, status.success, status.block_number, status.gas_used)
        return TransactionFate(TransactionState.MISSING, found[0][0])

    def fetch_status(self, transaction_hash: Digest) -> TransactionStatus:
        if transaction_hash not in self.world.sent:
            is_pooled = transaction_hash in self._pool
            return TransactionStatus(TransactionState.PENDING if is_pooled else TransactionState.MISSING)
        success, number = self.world.sent[transaction_hash]
        return TransactionStatus(TransactionState.MINED, success, number, REPORT_GAS)

    def _check(self, report: Report, bitmap: int, signatures: bytes) -> None:
        if report.number in self.world.accepted:
            raise RemoteFault("the contract has this report already")
        if report.number != len(self.world.accepted):
            raise RemoteFault("reports are out of order")
        members = self.world.members
        signers = [m for i, m in enumerate(members) if bitmap >> i & 1]
        if len(signers) != quorum(len(members)):
            raise RemoteFault(f"{len(signers)} signers")
        digest = self._digest(report)
        found = [recover_address(digest, expand_compact(signatures[i : i + 64])) for i in range(0, len(signatures), 64)]
        if found != signers:
            raise RemoteFault("signatures are not the signers'")

    def _digest(self, report: Report) -> Digest:
        return report_digest(report, self.world.network.chain_id, CONTRACTS.report_manager)
