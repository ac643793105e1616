"""The network's account, kept by a hand of its own: what each report takes and gives, from what was stored and agreed.

Nothing here comes from the network's own settlement. One function per rule; integers only, every division rounds down.

price       a bundle's price is the lower median of its windows' prices, base units per MiB of signed bytes
dues        a stream owes bytes x price / 2^20 once per bundle, and rent per partition and window; late bytes pay the
            same price and no rent; the system stream owes nothing
taken       of each stream what it owes, at most what is free of its balance; of those that reach ``dust`` the
            ``report_lines`` that have owed for longest, then the largest, ties by id. What a taken line leaves
            uncovered is written off, a stream of which less than ``dust`` is free owes nothing any more; all other
            debts stay, for ``ledger_epochs`` epochs at most
receipts    each costs growth x min(read price, its highest price) / 2^20; a consumer pays at most what is free of its
            balance, by broker in proportion; the largest ``report_lines`` consumers are taken, ties by address, the
            others' receipts count as not yet seen. Who has less than ``consumer_floor`` is not charged. Counts begin
            anew with each epoch that receipts name; one to come, or one ``ledger_epochs`` ago, is charged nothing
treasury    a part of all that is captured; the pool is the rest of what streams pay
fees        the rest of what consumers pay, to the brokers that they pay for, by largest remainder, ties by address;
            the treasury's for a broker that is not staked
penalties   pool x penalty_ppm x missed / (10^6 x signed bytes x brokers), at most the free stake; into the pool
rewards     the pool in proportion to served bytes, by largest remainder, ties by address; nobody served: the treasury
upload      signed bytes x price x upload_ppm / (10^6 x 2^20), at most the treasury's part, to the uploader

Signed bytes are those of paying streams everywhere. While the captures under way fill their part of the ledger, nothing
is taken at all.

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
from validator.protocol.model import MIB, PPM, Address, BrokerShare, Outcome
from validator.protocol.parameters import ParameterSet
from validator.protocol.report import Debt, InFlight, Ledger, Reading

MOST_LINES = 1024
"""As many lines of a kind as the contract takes."""
MOST_AMOUNT = (1 << 96) - 1
MOST_BYTES = (1 << 64) - 1
MOST_PAIRS = 40_960
MOST_BYTES_OWED = 4 << 20
MOST_BYTES_UNDER_WAY = 1 << 20
LINE_SIZE = 35
"""Most bytes that the ledger spends on one amount, a stream's id apart."""

Pair = tuple[Address, Address]
"""(consumer, broker)."""
Key = TypeVar("Key", str, Address)


@dataclass(frozen=True, slots=True)
class Sold:
    """What a bundle brings into the account."""

    number: int
    epoch: int
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

    def is_rested(self, epoch: int) -> bool:
        """Whether what is of that epoch has left the ledger by now."""
        return epoch <= self.epoch - self.parameters.ledger_epochs

    def paid_bytes(self, outcomes: Iterable[Outcome]) -> int:
        """Signed bytes that somebody pays for."""
        entries = (entry for outcome in outcomes for entry in outcome.entries)
        return sum(entry.signed_bytes for entry in entries if entry.stream_id != self.system_stream)


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
    owed: dict[str, Debt] = field(default_factory=dict)
    cumulative: dict[Pair, Reading] = field(default_factory=dict)

    @property
    def ledger(self) -> Ledger:
        return Ledger(tuple(self.in_flight), dict(self.owed), dict(self.cumulative))

    def settle(self, sold: Sold) -> Settlement:
        """Enter one bundle."""
        flying = [taken for taken in self.in_flight if taken.number >= sold.state.reports]
        lines = sold.lines if bytes_under_way(flying) <= MOST_BYTES_UNDER_WAY else 0
        balances = {stream: store.balance for stream, store in sold.state.stores.items()}
        free = subtract(balances, (taken.streams for taken in flying))
        sizes = paying_bytes(sold)
        owed = add_dues(self.owed, sizes, sold)
        streams = take_from_streams(owed, free, lines, sold)
        self.owed = remaining_debts({s: debt for s, debt in owed.items() if s not in streams}, free, sold)

        free_consumers = subtract(sold.balances, (taken.consumers for taken in flying))
        self.cumulative = {pair: r for pair, r in self.cumulative.items() if not sold.is_rested(r.epoch)}
        charges = charge_receipts(sold, self.cumulative)
        consumers = take_from_consumers(charges, free_consumers, lines)
        self.cumulative |= {
            (who, broker): charge.reading
            for who, payment in consumers.items()
            for broker, charge in charges[who].items()
            if payment.by_broker[broker]
        }

        written, read = sum(streams.values()), sum(payment.amount for payment in consumers.values())
        treasury = (written + read) * sold.parameters.treasury_ppm // PPM
        pool = written - written * sold.parameters.treasury_ppm // PPM
        fees = broker_fees(consumers, written + read - treasury - pool)
        stakes = subtract({a: n.stake for a, n in sold.state.nodes.items()}, (taken.nodes for taken in flying))
        changes, unearned = share_pool(pool, stakes, sold)
        for broker, fee in fees.items():
            if broker in stakes:
                changes[broker] = changes.get(broker, 0) + fee
            else:
                unearned += fee
        nodes = dict(changes)
        credit = upload_credit(treasury, sold)
        if credit:
            nodes[sold.uploader] = nodes.get(sold.uploader, 0) + credit
        this = InFlight(
            sold.number,
            streams,
            {who: payment.amount for who, payment in consumers.items()},
            {node: -change for node, change in changes.items() if change < 0},
        )
        self.in_flight = [*flying, *([this] if this.streams or this.consumers or this.nodes else [])]
        return Settlement(
            streams={s: (amount, min(sizes.get(s, 0), MOST_BYTES)) for s, amount in streams.items()},
            consumers={who: (payment.amount, payment.bytes) for who, payment in consumers.items()},
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


def add_dues(owed: Mapping[str, Debt], sizes: Mapping[str, int], sold: Sold) -> dict[str, Debt]:
    """What every stream owes with this bundle: bytes at the bundle's price, rent per partition and window."""
    dues = {stream: size * sold.price // MIB for stream, size in sizes.items()}
    for entry in (entry for window in sold.windows for entry in window.entries):
        if entry.stream_id != sold.system_stream:
            dues[entry.stream_id] = dues.get(entry.stream_id, 0) + sold.parameters.rent
    after = dict(owed)
    for stream, due in dues.items():
        old = after.get(stream, Debt(0, sold.number, sold.epoch))
        after[stream] = Debt(min(old.amount + due, MOST_AMOUNT), old.since, old.epoch)
    return after


def take_from_streams(owed: Mapping[str, Debt], free: Mapping[str, int], lines: int, sold: Sold) -> dict[str, int]:
    """The lines of a report: what is owed, as far as it is free, first of those that have owed for longest."""
    payable = {stream: min(debt.amount, free.get(stream, 0)) for stream, debt in owed.items()}
    worth = [stream for stream, amount in payable.items() if amount >= max(1, sold.parameters.dust)]
    worth.sort(key=lambda stream: (owed[stream].since, -payable[stream], stream.encode()))
    return {stream: payable[stream] for stream in worth[:lines]}


def remaining_debts(unpaid: Mapping[str, Debt], free: Mapping[str, int], sold: Sold) -> dict[str, Debt]:
    """What stays due: of streams that could pay a line, not for too long, as much as the ledger may hold."""
    worth = max(1, sold.parameters.dust)
    stays = [s for s, d in unpaid.items() if d.amount and free.get(s, 0) >= worth and not sold.is_rested(d.epoch)]
    stays.sort(key=lambda s: (unpaid[s].since, -unpaid[s].amount, s.encode()))
    kept, size = {}, 0
    for stream in stays:
        size += LINE_SIZE + len(stream.encode())
        if size > MOST_BYTES_OWED:
            break
        kept[stream] = unpaid[stream]
    return kept


def bytes_under_way(flying: Iterable[InFlight]) -> int:
    """What captures that are not settled yet take of the ledger, at most."""
    lines = 0
    for taken in flying:
        lines += sum(len(stream.encode()) + LINE_SIZE for stream in taken.streams)
        lines += LINE_SIZE * (1 + len(taken.consumers) + len(taken.nodes))
    return lines


# --- consumers ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Charge:
    """What the receipts of one consumer for one broker come to, and where its count stands then."""

    amount: int
    bytes: int
    reading: Reading


@dataclass(frozen=True, slots=True)
class Payment:
    """What a consumer pays."""

    by_broker: dict[Address, int]
    bytes: int

    @property
    def amount(self) -> int:
        return sum(self.by_broker.values())


def charge_receipts(sold: Sold, cumulative: Mapping[Pair, Reading]) -> dict[Address, dict[Address, Charge]]:
    """By consumer and broker: every receipt for what it grew beyond the highest before it, at the price it allows."""
    read_price = sold.price * sold.parameters.read_ppm // PPM
    charges: dict[Pair, Charge] = {}
    for receipt in sold.receipts:
        pair = (receipt.consumer, receipt.broker)
        if receipt.epoch > sold.epoch or sold.is_rested(receipt.epoch):
            continue
        if sold.balances.get(receipt.consumer, 0) < sold.parameters.consumer_floor:
            continue
        known = charges.get(pair, Charge(0, 0, cumulative.get(pair, Reading(receipt.epoch, 0))))
        if known.reading.epoch > receipt.epoch:
            continue
        start = known.reading.bytes if known.reading.epoch == receipt.epoch else 0
        end = max(start, receipt.cumulative_bytes)
        cost = (end - start) * min(read_price, receipt.max_price) // MIB
        charges[pair] = Charge(known.amount + cost, known.bytes + end - start, Reading(receipt.epoch, end))
    worth = {pair: charge for pair, charge in charges.items() if charge.amount}
    strangers = sorted((-charge.amount, pair) for pair, charge in worth.items() if pair not in cumulative)
    for _, pair in strangers[max(0, MOST_PAIRS - len(cumulative)) :]:
        del worth[pair]
    by_consumer: dict[Address, dict[Address, Charge]] = defaultdict(dict)
    for (consumer, broker), charge in worth.items():
        by_consumer[consumer][broker] = charge
    return dict(by_consumer)


def take_from_consumers(
    charges: Mapping[Address, Mapping[Address, Charge]], free: Mapping[Address, int], lines: int
) -> dict[Address, Payment]:
    """What each consumer pays: its charges as far as its balance goes; the largest that a report has lines for."""
    payments = {}
    for who, parts in charges.items():
        wanted = {broker: charge.amount for broker, charge in parts.items()}
        paid = split(min(sum(wanted.values()), free.get(who, 0)), wanted)
        size = sum(parts[broker].bytes for broker, amount in paid.items() if amount)
        payments[who] = Payment(paid, min(size, MOST_BYTES))
    paying = sorted((who for who in payments if payments[who].amount), key=lambda who: (-payments[who].amount, who))
    return {who: payments[who] for who in paying[:lines]}


def broker_fees(payments: Mapping[Address, Payment], total: int) -> dict[Address, int]:
    """What is left of read fees, in proportion to what was paid for each broker."""
    paid: dict[Address, int] = defaultdict(int)
    for payment in payments.values():
        for broker, amount in payment.by_broker.items():
            paid[broker] += amount
    return split(total, paid)


# --- nodes ----------------------------------------------------------------------------------------


def share_pool(pool: int, stakes: Mapping[Address, int], sold: Sold) -> tuple[dict[Address, int], int]:
    """(what staked brokers gain or lose, what nobody earned)."""
    shares = add_shares(sold.windows, stakes)
    brokers = len(sold.state.brokers | set(shares))
    entered = sorted(shares.values(), key=lambda s: (-s.served - s.missed, s.broker))[: MOST_LINES - 1]
    signed_bytes = sold.paid_bytes(sold.windows)
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
    size = sold.paid_bytes((*sold.windows, sold.late))
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
