"""What settlement tests share: bundles with valid defaults, and a small contract that settles reports late."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from validator.protocol.codec.outcome import entries_root
from validator.protocol.codec.receipt import Receipt
from validator.protocol.model import (
    MIB,
    Account,
    Address,
    Block,
    BrokerShare,
    BundleHeader,
    ChainState,
    Digest,
    InstanceId,
    InstanceKind,
    Node,
    Outcome,
    PartitionEntry,
    Root,
    StorageId,
    Store,
)
from validator.protocol.parameters import ParameterSet
from validator.protocol.report import Debt, Ledger, Reading, Report
from validator.protocol.settlement import build_report

SYSTEM = "0x" + "44" * 20 + "/system"
BUNDLE_WINDOWS = 4
WINDOW_MS = 1_000
UNIT_PRICE = MIB
"""One base unit per byte."""
STORAGE = StorageId(b"\x51" * 32)

Build = Callable[..., tuple[Report, Ledger]]


def an_address(number: int) -> Address:
    return Address(number.to_bytes(20, "big"))


ALICE, BOB, CAROL = (an_address(0xA0 + i) for i in range(3))
"""Consumers."""
ONE, TWO, THREE, STRANGER = (an_address(0xB0 + i) for i in range(4))
"""Brokers; the last is not registered."""


def the_parameters(**fields: Any) -> ParameterSet:
    """No cuts, no rent, reads as dear as writes, unless said otherwise."""
    values: dict[str, Any] = {
        "first_epoch": 0,
        "epoch_windows": 1_000,
        "price_default": UNIT_PRICE,
        "read_ppm": 1_000_000,
        "treasury_ppm": 0,
        "penalty_ppm": 0,
        "upload_ppm": 0,
    }
    return ParameterSet(**{**values, **fields})


def an_entry(stream_id: str, signed_bytes: int, partition: int = 0) -> PartitionEntry:
    count = min(1, signed_bytes)
    return PartitionEntry(stream_id, partition, Root(b"\x01" * 32), count, signed_bytes, signed_bytes)


def a_block(number: int) -> Block:
    return Block(number, Digest(number.to_bytes(32, "big")), number)


def a_receipt(
    consumer: Address, broker: Address, cumulative: int, max_price: int = UNIT_PRICE, *, epoch: int = 0
) -> Receipt:
    return Receipt(consumer, broker, epoch, cumulative, max_price)


def some_debts(since: int = 0, epoch: int = 0, /, **amounts: int) -> dict[str, Debt]:
    """What streams owe, all since one bundle."""
    return {stream: Debt(amount, since, epoch) for stream, amount in amounts.items()}


def amounts_of(owed: Mapping[str, Debt] | None) -> dict[str, int]:
    return {stream: debt.amount for stream, debt in (owed or {}).items()}


def bytes_of(cumulative: Mapping[tuple[Address, Address], Reading] | None) -> dict[tuple[Address, Address], int]:
    return {pair: reading.bytes for pair, reading in (cumulative or {}).items()}


def an_outcome(
    instance: InstanceId,
    sizes: Mapping[str, int] | Sequence[PartitionEntry],
    *,
    price: int = 0,
    shares: Sequence[BrokerShare] = (),
    block: Block | None = None,
) -> Outcome:
    entries = tuple(an_entry(s, n) for s, n in sizes.items()) if isinstance(sizes, Mapping) else tuple(sizes)
    block = block or a_block(1)
    root = entries_root(entries)
    return Outcome(instance, block.number, block.hash, entries, root, price, tuple(shares), observations=())


@dataclass(frozen=True, slots=True)
class Bundle:
    """The arguments of ``build_report`` beside ledger and processed numbers, each with a plain default."""

    number: int = 0
    epoch: int = 0
    windows: Sequence[Mapping[str, int] | Sequence[PartitionEntry]] = ({},)
    late: Mapping[str, int] | Sequence[PartitionEntry] = field(default_factory=dict)
    prices: Sequence[int] = (UNIT_PRICE,)
    shares: Sequence[Sequence[BrokerShare]] = ((),)
    receipts: Sequence[Receipt] = ()
    stores: Mapping[str, int] = field(default_factory=dict)
    stakes: Mapping[Address, int] = field(default_factory=lambda: {ONE: 10**9, TWO: 10**9, THREE: 10**9})
    consumers: Mapping[Address, int] = field(default_factory=dict)
    parameters: ParameterSet = field(default_factory=the_parameters)
    storage_id: StorageId = STORAGE
    uploader: Address = STRANGER

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        block = a_block(100 + self.number)
        first_ms = self.number * BUNDLE_WINDOWS * WINDOW_MS
        starts = [first_ms + i * WINDOW_MS for i in range(len(self.windows))]
        header = BundleHeader(Digest(b"\xcd" * 32), self.number, Root(b"\x11" * 32), first_ms, starts[-1])
        windows = [
            an_outcome(
                InstanceId(InstanceKind.WINDOW, start),
                sizes,
                price=self.prices[i % len(self.prices)],
                shares=self.shares[i % len(self.shares)],
                block=block,
            )
            for i, (start, sizes) in enumerate(zip(starts, self.windows, strict=True))
        ]
        late = an_outcome(InstanceId(InstanceKind.LATE, self.number), self.late, block=block)
        state = ChainState(
            block,
            tuple(
                Node(a, stake, f"https://{a.hex()}.example", None, index=index)
                for index, (a, stake) in enumerate(self.stakes.items(), 1)
            ),
            tuple(Store(stream, balance, 1, index=i) for i, (stream, balance) in enumerate(self.stores.items(), 1)),
            SYSTEM,
            {c: Account(balance, index) for index, (c, balance) in enumerate(self.consumers.items(), 1)},
        )
        fixed = {
            "epoch": self.epoch,
            "config_count": 0,
            "storage_id": self.storage_id,
            "uploader": self.uploader,
            "system_stream": SYSTEM,
        }
        return (header, Root(b"\x22" * 32), windows, late, self.receipts, state), fixed


def settle(
    bundle: Bundle, ledger: Ledger | None = None, processed: Collection[int] = (), build: Build = build_report
) -> tuple[Report, Ledger]:
    """Build the bundle's report on a ledger; an empty one by default."""
    positional, fixed = bundle.arguments()
    header, root, windows, late, receipts, state = positional
    return build(
        ledger or Ledger(), header, root, windows, late, receipts, state, processed, bundle.parameters, **fixed
    )


def streams_of(report: Report) -> dict[str, int]:
    return {line.stream_id: line.capture for line in report.streams}


def consumers_of(report: Report) -> dict[Address, int]:
    return {line.consumer: line.capture for line in report.consumers}


def nodes_of(report: Report) -> dict[Address, int]:
    return {line.node: line.amount for line in report.nodes}


class Contract:
    """Balances, stakes and a queue of accepted reports; settling one asserts that nothing falls short."""

    def __init__(
        self, stores: Mapping[str, int], consumers: Mapping[Address, int], stakes: Mapping[Address, int]
    ) -> None:
        self.stores = dict(stores)
        self.consumers = dict(consumers)
        self.stakes = dict(stakes)
        self.treasury = 0
        self.waiting: list[Report] = []
        self.processed: list[int] = []

    @property
    def tokens(self) -> int:
        balances = (self.stores, self.consumers, self.stakes)
        return self.treasury + sum(sum(amounts.values()) for amounts in balances)

    def fund(self, bundle: Bundle) -> Bundle:
        """The bundle with the balances that the contract holds now."""
        return replace(bundle, stores=dict(self.stores), consumers=dict(self.consumers), stakes=dict(self.stakes))

    def process(self, count: int) -> None:
        """Settle the oldest reports in the queue."""
        for report in self.waiting[:count]:
            for stream in report.streams:
                self.stores[stream.stream_id] -= stream.capture
                assert self.stores[stream.stream_id] >= 0, f"{stream.stream_id} is short in report {report.number}"
            for consumer in report.consumers:
                self.consumers[consumer.consumer] -= consumer.capture
                assert self.consumers[consumer.consumer] >= 0, f"a consumer is short in report {report.number}"
            for node in sorted(report.nodes, key=lambda line: line.amount):
                self.stakes[node.node] += node.amount
                assert self.stakes[node.node] >= 0, f"a stake is short in report {report.number}"
            self.treasury += report.treasury
            self.processed.append(report.number)
        del self.waiting[:count]
