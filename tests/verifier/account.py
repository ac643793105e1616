"""The network's account, kept by a hand of its own: what each report takes and gives, from what was stored and agreed.

Nothing here comes from the network's own settlement. One function per rule; integers only, every division rounds down.

price       a bundle's price is the lower median of its windows' prices, base units per MiB of signed bytes
dues        a stream owes bytes x price / 2^20 once per bundle, and rent per partition and window; late bytes pay the
            same price and no rent; the system stream owes nothing
taken       of each stream what it owes, at most what is free of its balance; the largest ``report_lines`` that reach
            ``dust``, ties by id. What a taken line leaves uncovered is written off, and a stream without free balance
            owes nothing any more; all other debts stay
receipts    each costs growth x min(read price, its highest price) / 2^20; a consumer pays at most what is free of its
            balance; the largest ``report_lines`` consumers are taken, ties by address, the others' receipts count as
            not yet seen. A consumer without balance whom the ledger does not know is not charged
treasury    a part of all that is captured; the pool is the rest
penalties   pool x penalty_ppm x missed / (10^6 x signed bytes x brokers), at most the free stake; into the pool
rewards     the pool in proportion to served bytes, by largest remainder, ties by address; nobody served: the treasury
upload      signed bytes x price x upload_ppm / (10^6 x 2^20), at most the treasury's part, to the uploader

*Free* is what was there at the block of the bundle's last window, less what reports take that were not yet accepted
there. The ledger that goes on holds these, the debts, and how many bytes each consumer has paid each broker for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from tests.verifier.state import State
from validator.protocol.codec.receipt import Receipt
from validator.protocol.model import MIB, PPM, Address, BrokerShare, InFlight, Ledger, Outcome
from validator.protocol.parameters import ParameterSet

MOST_LINES = 1024
"""As many lines of a kind as the contract takes."""
MOST_AMOUNT = (1 << 96) - 1
MOST_BYTES = (1 << 64) - 1

Pair = tuple[Address, Address]
"""(consumer, broker)."""
Key = TypeVar("Key", str, Address)


@dataclass(frozen=True, slots=True)
class Sold:
    """What a bundle brings into the account."""

    number: int
    windows: Sequence[Outcome]
    late: Outcome
    receipts: Sequence[Receipt]
    """In canonical order."""
    state: State
    """At the block of the last window."""
    balances: Mapping[Address, int]
    """Of consumers, at that block."""
    parameters: ParameterSet
    system_stream: str
    uploader: Address

    @property
    def price(self) -> int:
        return lower_median([window.price for window in self.windows])

    @property
    def lines(self) -> int:
        return min(self.parameters.report_lines, MOST_LINES)


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a report should say."""

    streams: dict[str, tuple[int, int]]
    """(captured, bytes) of each line."""
    consumers: dict[Address, tuple[int, int]]
    nodes: dict[Address, int]
    treasury: int
    ledger: Ledger
    """What it leaves to the next."""


@dataclass(slots=True)
class Account:
    """What is known after the bundles so far."""

    in_flight: list[InFlight] = field(default_factory=list)
    owed: dict[str, int] = field(default_factory=dict)
    cumulative: dict[Pair, int] = field(default_factory=dict)

    @property
    def ledger(self) -> Ledger:
        return Ledger(tuple(self.in_flight), dict(self.owed), dict(self.cumulative))

    def settle(self, sold: Sold) -> Settlement:
        """Enter one bundle."""
        flying = [taken for taken in self.in_flight if taken.number >= sold.state.reports]
        balances = {stream: store.balance for stream, store in sold.state.stores.items()}
        free = subtract(balances, (taken.streams for taken in flying))
        sizes = paying_bytes(sold)
        owed = add_dues(self.owed, sizes, sold)
        streams = take_from_streams(owed, free, sold)
        self.owed = {s: due for s, due in owed.items() if due and s not in streams and free.get(s, 0)}

        free_consumers = subtract(sold.balances, (taken.consumers for taken in flying))
        charges = charge_receipts(sold, self.cumulative)
        consumers = take_from_consumers(charges, free_consumers, sold)
        self.cumulative |= remembered(charges, consumers, self.cumulative, free_consumers, sold)

        captured = sum(streams.values()) + sum(consumers.values())
        treasury = captured * sold.parameters.treasury_ppm // PPM
        stakes = subtract({a: n.stake for a, n in sold.state.nodes.items()}, (taken.nodes for taken in flying))
        changes, unearned = share_pool(captured - treasury, stakes, sold)
        nodes = dict(changes)
        credit = upload_credit(treasury, sold)
        if credit:
            nodes[sold.uploader] = nodes.get(sold.uploader, 0) + credit
        penalties = {node: -change for node, change in changes.items() if change < 0}
        self.in_flight = [*flying, InFlight(sold.number, streams, consumers, penalties)]
        return Settlement(
            streams={s: (amount, min(sizes.get(s, 0), MOST_BYTES)) for s, amount in streams.items()},
            consumers={who: (amount, charges[who].bytes) for who, amount in consumers.items()},
            nodes={node: amount for node, amount in nodes.items() if amount},
            treasury=treasury - credit + unearned,
            ledger=self.ledger,
        )


# --- streams --------------------------------------------------------------------------------------


def paying_bytes(sold: Sold) -> dict[str, int]:
    """Signed bytes by stream, late ones too; the system stream pays nothing."""
    sizes: dict[str, int] = defaultdict(int)
    for outcome in (*sold.windows, sold.late):
        for entry in outcome.entries:
            sizes[entry.stream_id] += entry.signed_bytes
    sizes.pop(sold.system_stream, None)
    return dict(sizes)


def add_dues(owed: Mapping[str, int], sizes: Mapping[str, int], sold: Sold) -> dict[str, int]:
    """What every stream owes with this bundle: bytes at the bundle's price, rent per partition and window."""
    dues = defaultdict(int, owed)
    for stream, size in sizes.items():
        dues[stream] += size * sold.price // MIB
    for entry in (entry for window in sold.windows for entry in window.entries):
        if entry.stream_id != sold.system_stream:
            dues[entry.stream_id] += sold.parameters.rent
    return {stream: min(due, MOST_AMOUNT) for stream, due in dues.items()}


def take_from_streams(owed: Mapping[str, int], free: Mapping[str, int], sold: Sold) -> dict[str, int]:
    """The lines of a report: what is owed, as far as it is free, of the largest that are worth a line."""
    payable = {stream: min(due, free.get(stream, 0)) for stream, due in owed.items()}
    worth = [stream for stream, amount in payable.items() if amount >= max(1, sold.parameters.dust)]
    worth.sort(key=lambda stream: (-payable[stream], stream.encode()))
    return {stream: payable[stream] for stream in worth[: sold.lines]}


# --- consumers ------------------------------------------------------------------------------------


@dataclass(slots=True)
class Charge:
    """What all receipts of one consumer in a bundle come to."""

    amount: int = 0
    bytes: int = 0
    reached: dict[Address, int] = field(default_factory=dict)
    """The cumulative bytes that its receipts have reached, by broker."""


def charge_receipts(sold: Sold, cumulative: Mapping[Pair, int]) -> dict[Address, Charge]:
    """By consumer: every receipt for what it grew beyond the highest before it, at the price it allows."""
    read_price = sold.price * sold.parameters.read_ppm // PPM
    charges: dict[Address, Charge] = defaultdict(Charge)
    for receipt in sold.receipts:
        charge = charges[receipt.consumer]
        before = charge.reached.get(receipt.broker, cumulative.get((receipt.consumer, receipt.broker), 0))
        growth = max(0, receipt.cumulative_bytes - before)
        charge.reached[receipt.broker] = before + growth
        charge.amount += growth * min(read_price, receipt.max_price) // MIB
        charge.bytes = min(charge.bytes + growth, MOST_BYTES)
    return dict(charges)


def take_from_consumers(
    charges: Mapping[Address, Charge], free: Mapping[Address, int], sold: Sold
) -> dict[Address, int]:
    """What each consumer pays: its charges as far as its balance goes; the largest that a report has lines for."""
    payable = {who: min(charge.amount, free.get(who, 0)) for who, charge in charges.items()}
    paying = sorted((who for who, amount in payable.items() if amount), key=lambda who: (-payable[who], who))
    return {who: payable[who] for who in paying[: sold.lines]}


def remembered(
    charges: Mapping[Address, Charge],
    taken: Collection[Address],
    cumulative: Mapping[Pair, int],
    free: Mapping[Address, int],
    sold: Sold,
) -> dict[Pair, int]:
    """The cumulative bytes that the ledger takes over.

    Not of a consumer that would pay and got no line: its next receipt is charged for these too. Nor of one that has no
    balance and is not known: it could fill the ledger for free.
    """
    known = {consumer for consumer, _ in cumulative}
    result: dict[Pair, int] = {}
    for consumer, charge in charges.items():
        waits = consumer not in taken and min(charge.amount, free.get(consumer, 0)) > 0
        stranger = consumer not in known and not sold.balances.get(consumer, 0)
        if not waits and not stranger:
            result |= {(consumer, broker): reached for broker, reached in charge.reached.items() if reached}
    return result


# --- nodes ----------------------------------------------------------------------------------------


def share_pool(pool: int, stakes: Mapping[Address, int], sold: Sold) -> tuple[dict[Address, int], int]:
    """(what staked brokers gain or lose, what nobody earned)."""
    shares = add_shares(sold.windows, stakes)
    brokers = len(sold.state.brokers | set(shares))
    entered = sorted(shares.values(), key=lambda s: (-s.served - s.missed, s.broker))[: MOST_LINES - 1]
    signed_bytes = sum(window.signed_bytes for window in sold.windows)
    penalties = {s.broker: penalty(pool, s.missed, signed_bytes, brokers, stakes[s.broker], sold) for s in entered}
    total = pool + sum(penalties.values())
    rewards = split(total, {s.broker: s.served for s in entered if s.served})
    changes = {s.broker: rewards.get(s.broker, 0) - penalties[s.broker] for s in entered}
    return {node: change for node, change in changes.items() if change}, total - sum(rewards.values())


def add_shares(windows: Sequence[Outcome], staked: Collection[Address]) -> dict[Address, BrokerShare]:
    """What each staked broker served and missed in all windows."""
    totals: dict[Address, BrokerShare] = {}
    for share in (share for window in windows for share in window.shares):
        if share.broker in staked:
            sofar = totals.get(share.broker, BrokerShare(share.broker, 0, 0))
            totals[share.broker] = BrokerShare(share.broker, sofar.served + share.served, sofar.missed + share.missed)
    return totals


def penalty(pool: int, missed: int, signed_bytes: int, brokers: int, stake: int, sold: Sold) -> int:
    """What a broker loses for what it missed."""
    if not missed or not signed_bytes:
        return 0
    return min(pool * sold.parameters.penalty_ppm * missed // (PPM * signed_bytes * brokers), stake)


def split(total: int, weights: Mapping[Address, int]) -> dict[Address, int]:
    """By largest remainder: everybody the whole part, the units that are left one each to the largest remainders."""
    whole = sum(weights.values())
    if not whole:
        return {}
    parts = {who: total * weight // whole for who, weight in weights.items()}
    order = sorted(weights, key=lambda who: (-(total * weights[who] % whole), who))
    for who in order[: total - sum(parts.values())]:
        parts[who] += 1
    return parts


def upload_credit(treasury: int, sold: Sold) -> int:
    """The uploader's part of the treasury's: by signed bytes of the bundle, nothing where it is not staked."""
    if sold.uploader not in sold.state.nodes:
        return 0
    size = sum(outcome.signed_bytes for outcome in (*sold.windows, sold.late))
    return min(treasury, size * sold.price * sold.parameters.upload_ppm // (PPM * MIB))


# --- arithmetic -----------------------------------------------------------------------------------


def lower_median(values: Sequence[int]) -> int:
    """Element (k - 1) // 2 of the k sorted values."""
    return sorted(values)[(len(values) - 1) // 2]


def subtract(balances: Mapping[Key, int], taken: Iterable[Mapping[Key, int]]) -> dict[Key, int]:
    """What is free: balances less all that is under way, never below zero."""
    free = dict(balances)
    for amounts in taken:
        for key in set(amounts) & set(free):
            free[key] -= amounts[key]
    return {key: max(0, amount) for key, amount in free.items()}
