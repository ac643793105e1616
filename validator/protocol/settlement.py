"""Who pays and who earns for one bundle: a pure function of agreed data, chain state at one block, and the ledger.

Streams pay for their bytes and partitions, consumers for the bytes they signed receipts for; brokers earn by the bytes
they served, the uploader a part of the treasury's. Integers only; every division and where its rest goes:

price       lower median of the windows' prices (element (k - 1) // 2 of k sorted)
due         stream: floor(bytes x price / 2^20) once per bundle, plus rent per partition and window. Late bytes pay the
            same price and no rent. The system stream pays nothing
capture     stream: min(owed, balance - captures in flight); the ``report_lines`` largest that reach ``dust``, ties by
            UTF-8 of the id. What a taken line leaves uncovered is written off, a stream without free balance owes
            nothing any more, all other debts stay
read price  floor(price x read_ppm / 10^6)
charge      floor(growth x min(read price, max_price) / 2^20) per receipt, in canonical order; a consumer's charges are
            cut to its balance - captures in flight by largest remainder, ties by ascending broker
treasury    floor(captured x treasury_ppm / 10^6); the pool is the rest of what is captured from both
penalty     floor(pool x penalty_ppm x missed / (10^6 x signed bytes x brokers)), at most stake - negative changes in
            flight; goes to the pool. Signed bytes are those of the windows, which is where brokers can miss some
reward      pool and penalties by largest remainder over served bytes, ties by ascending address; with nothing served
            all of it is the treasury's
upload      floor(signed bytes x price x upload_ppm / (10^6 x 2^20)), at most the treasury's part before rewards that
            nobody earned; signed bytes are all in the bundle, late and system bytes too

So captures = node changes + treasury, exactly. Only nodes that are registered (staked) at the block take part in
penalties, rewards and uploads; what an absent broker served earns the others nothing less. The ledger never depends
on who uploaded: it holds negative changes as they were before the credit.

Two bounds that the contract needs and prices alone do not give. *Consumers*: the ``report_lines`` largest captures are
taken, ties by ascending address; receipts of a consumer that is left out count as not yet seen, so its next receipt
(or the same one, published again) is charged for them. *Ledger*: a consumer without any balance, and not yet in the
ledger, can pay nothing; its receipts are stored and not charged, since otherwise one broker could fill the ledger with
invented consumers for free. Source: design, section 10. Vectors: tests/vectors/settlement.json.

Decided against (docs/decisions): reporting to the contract as it was deployed in 2023 (0025).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from validator.protocol.codec.manifest import ledger_root
from validator.protocol.codec.receipt import Receipt, receipt_of
from validator.protocol.codec.report import MAX_AMOUNT, MAX_LINES, is_conserved, sort_report
from validator.protocol.errors import Disagreement, InvariantError
from validator.protocol.model import (
    MIB,
    NIL,
    PPM,
    Address,
    BundleHeader,
    ChainState,
    ConsumerLine,
    Digest,
    InFlight,
    InstanceId,
    InstanceKind,
    Ledger,
    NodeLine,
    Outcome,
    Record,
    Report,
    Root,
    StorageId,
    StreamLine,
)
from validator.protocol.parameters import ParameterSet

MAX_BYTES = (1 << 64) - 1
"""Largest byte count of a line; a consumer's receipts of several brokers could add up to more."""
MAX_BROKERS = MAX_LINES - 1
"""Brokers that one report pays or charges: one node line is kept for the uploader."""

Pair = tuple[Address, Address]
"""(consumer, broker)."""
Key = TypeVar("Key", str, Address)


# --- the report -----------------------------------------------------------------------------------


def build_report(
    ledger: Ledger,
    header: BundleHeader,
    bundle_root: Root,
    windows: Sequence[Outcome],
    late: Outcome,
    receipts: Sequence[Receipt],
    state: ChainState,
    processed: Collection[int],
    parameters: ParameterSet,
    *,
    storage_id: StorageId,
    uploader: Address,
    system_stream: str,
    next_committee: Sequence[Address] = (),
    next_config_digest: Digest = NIL,
) -> tuple[Report, Ledger]:
    """The report of a bundle, lines in the contract's order, and the ledger after it.

    ``ledger`` is the one after the previous report; ``receipts`` in canonical order, as ``bundle_receipts`` returns
    them; ``state`` is at B of the bundle's last window, with the balances of all consumers in ``receipts``;
    ``processed`` are the numbers of reports that the contract had settled at that block. Rounding: module docstring.

    Raises:
        InvariantError: the arguments do not belong together.
        Disagreement: the block that was agreed for the bundle's end is not the one of ``state``.
    """
    _require_one_bundle(header, windows, late, state)
    _require_balances(receipts, state)
    if header.number in processed or bool(next_committee) != (next_config_digest != NIL):
        raise InvariantError(f"report {header.number} is settled already, or changes half a committee")

    in_flight = tuple(r for r in ledger.in_flight if r.number not in processed)
    money = _settle(header.number, ledger, in_flight, windows, late, receipts, state, parameters, system_stream)
    credit = _compute_credit(money, uploader, windows, late, state, parameters)
    nodes = {**money.nodes, uploader: money.nodes.get(uploader, 0) + credit}
    report = Report(
        config_digest=header.config_digest,
        number=header.number,
        height=state.block.number,
        block_hash=state.block.hash,
        first_ms=header.first_ms,
        last_ms=header.last_ms,
        previous_root=header.previous_root,
        bundle_root=bundle_root,
        storage_id=storage_id,
        uploader=uploader,
        ledger_root=ledger_root(money.ledger),
        streams=money.streams,
        consumers=money.consumers,
        nodes=tuple(NodeLine(node, amount) for node, amount in nodes.items() if amount),
        treasury=money.treasury - credit + money.unearned,
        next_committee=tuple(next_committee),
        next_config_digest=next_config_digest,
    )
    if not is_conserved(report):
        raise InvariantError(f"report {header.number}: captures are not node changes + treasury")
    return sort_report(report), money.ledger


# --- the money ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Money:
    """What moves with a bundle before its uploader is credited, and the ledger after it."""

    price: int
    streams: tuple[StreamLine, ...]
    consumers: tuple[ConsumerLine, ...]
    nodes: dict[Address, int]
    treasury: int
    """The treasury's part of what is captured: an upload is paid from it."""
    unearned: int
    """Rewards that nobody earned: the treasury's as well, and no uploader's."""
    ledger: Ledger


def _settle(
    number: int,
    ledger: Ledger,
    in_flight: Sequence[InFlight],
    windows: Sequence[Outcome],
    late: Outcome,
    receipts: Sequence[Receipt],
    state: ChainState,
    parameters: ParameterSet,
    system_stream: str,
) -> _Money:
    """Price, dues and captures, rewards and penalties, ledger. It knows no uploader, and so the ledger does not."""
    if any(r.number >= number for r in in_flight):
        raise InvariantError(f"the ledger is not the one before report {number}")
    price = compute_price(windows)
    lines = min(parameters.report_lines, MAX_LINES)

    sizes = _count_bytes(windows, late, system_stream)
    owed = _add_dues(ledger.owed or {}, sizes, windows, price, parameters.rent, system_stream)
    free_streams = _subtract({s.stream_id: s.balance for s in state.stores}, [r.streams for r in in_flight])
    streams, owed = capture_streams(owed, free_streams, lines, parameters.dust)

    cumulative = ledger.cumulative or {}
    charges = charge_receipts(receipts, cumulative, price * parameters.read_ppm // PPM)
    free_consumers = _subtract(state.consumers, [r.consumers for r in in_flight])
    consumers, cumulative = capture_consumers(charges, cumulative, state.consumers, free_consumers, lines)

    captured = sum(streams.values()) + sum(line.capture for line in consumers)
    treasury = captured * parameters.treasury_ppm // PPM
    free_stakes = _subtract({n.address: n.stake for n in state.nodes}, [r.nodes for r in in_flight])
    nodes, unearned = share_pool(captured - treasury, windows, free_stakes, state, parameters)

    takes = {line.consumer: line.capture for line in consumers}
    this = InFlight(number, streams, takes, {node: -change for node, change in nodes.items() if change < 0})
    stream_lines = tuple(StreamLine(s, capture, min(sizes.get(s, 0), MAX_BYTES)) for s, capture in streams.items())
    after = Ledger((*in_flight, this), owed, cumulative)
    return _Money(price, stream_lines, consumers, nodes, treasury, unearned, after)


def _compute_credit(
    money: _Money,
    uploader: Address,
    windows: Sequence[Outcome],
    late: Outcome,
    state: ChainState,
    parameters: ParameterSet,
) -> int:
    """What the upload of a bundle earns: nothing for who is not registered at the block."""
    if uploader not in {node.address for node in state.nodes}:
        return 0
    total = late.signed_bytes + sum(w.signed_bytes for w in windows)
    return min(money.treasury, total * money.price * parameters.upload_ppm // (PPM * MIB))


def compute_price(windows: Sequence[Outcome]) -> int:
    """Price of a bundle, base units per MiB: the lower median of its windows' prices."""
    return sorted(w.price for w in windows)[(len(windows) - 1) // 2]


def split_by_remainder(total: int, weights: Mapping[Address, int]) -> dict[Address, int]:
    """``total`` in proportion to the weights, by largest remainder, ties by ascending address: the parts add up to it.

    Everybody gets floor(total x weight / sum); the units left go one each to the largest remainders.

    Raises:
        InvariantError: a negative number, or something to split and no weight.
    """
    whole = sum(weights.values())
    if total < 0 or any(w < 0 for w in weights.values()) or (total and not whole):
        raise InvariantError(f"{total} cannot be split over {whole}")
    if not total:
        return {}
    parts = {key: total * weight // whole for key, weight in weights.items()}
    ranked = sorted(weights, key=lambda key: (-(total * weights[key] % whole), key))
    for key in ranked[: total - sum(parts.values())]:
        parts[key] += 1
    return parts


# --- streams --------------------------------------------------------------------------------------


def capture_streams(
    owed: Mapping[str, int], free: Mapping[str, int], lines: int, dust: int
) -> tuple[dict[str, int], dict[str, int]]:
    """(captures of the lines taken, what streams owe afterwards), both in base units by stream id."""
    amounts = {stream: min(due, free.get(stream, 0)) for stream, due in owed.items()}
    reaching = [stream for stream, amount in amounts.items() if amount >= max(dust, 1)]
    taken = sorted(reaching, key=lambda stream: (-amounts[stream], stream.encode()))[:lines]
    captures = {stream: amounts[stream] for stream in taken}
    left = {s: due for s, due in owed.items() if due and s not in captures and free.get(s, 0)}
    return captures, left


def _count_bytes(windows: Sequence[Outcome], late: Outcome, system_stream: str) -> dict[str, int]:
    """Signed bytes by paying stream, of the windows and the late set."""
    sizes: dict[str, int] = defaultdict(int)
    for outcome in (*windows, late):
        for entry in outcome.entries:
            if entry.stream_id != system_stream:
                sizes[entry.stream_id] += entry.signed_bytes
    return dict(sizes)


def _add_dues(
    owed: Mapping[str, int],
    sizes: Mapping[str, int],
    windows: Sequence[Outcome],
    price: int,
    rent: int,
    system_stream: str,
) -> dict[str, int]:
    """What streams owe with this bundle; never more than there can be tokens."""
    total = defaultdict(int, owed)
    for stream, size in sizes.items():
        total[stream] += size * price // MIB
    for window in windows:
        for entry in window.entries:
            if entry.stream_id != system_stream:
                total[entry.stream_id] += rent
    return {stream: min(amount, MAX_AMOUNT) for stream, amount in total.items()}


# --- consumers ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Charge:
    """What the receipts of one consumer and broker come to: newly read bytes, their price, the new cumulative value."""

    bytes: int
    amount: int
    cumulative: int


def bundle_receipts(
    records: Iterable[Record], system_stream: str, chain_id: int, query_manager: Address
) -> tuple[Receipt, ...]:
    """The valid receipts among a bundle's records (windows and late set, in any order), in canonical order.

    The publisher is the broker, the signature is the consumer's. System messages of any other form are stored and not
    charged.
    """
    messages = sorted((r for r in records if r.message.stream_id == system_stream), key=lambda r: r.order)
    found = (receipt_of(r.message, chain_id, query_manager) for r in messages)
    return tuple(receipt for receipt in found if receipt is not None)


def charge_receipts(
    receipts: Sequence[Receipt], cumulative: Mapping[Pair, int], read_price: int
) -> dict[Address, dict[Address, Charge]]:
    """Charges by consumer and broker, before they are cut to balances. ``read_price`` in base units per MiB.

    A receipt is charged for its growth over the highest value before it, the ledger's included; one that does not grow
    is charged nothing.
    """
    charges: dict[Address, dict[Address, Charge]] = defaultdict(dict)
    for receipt in receipts:
        known = charges[receipt.consumer].get(receipt.broker)
        if known is None:
            known = Charge(0, 0, cumulative.get((receipt.consumer, receipt.broker), 0))
        growth = max(0, receipt.cumulative_bytes - known.cumulative)
        charges[receipt.consumer][receipt.broker] = Charge(
            known.bytes + growth,
            known.amount + growth * min(read_price, receipt.max_price) // MIB,
            known.cumulative + growth,
        )
    return dict(charges)


def cut_charges(charges: Mapping[Address, Charge], free: int) -> dict[Address, int]:
    """What one consumer pays per broker: its charges, cut in proportion where they exceed its free balance."""
    amounts = {broker: charge.amount for broker, charge in charges.items()}
    return amounts if sum(amounts.values()) <= free else split_by_remainder(free, amounts)


def capture_consumers(
    charges: Mapping[Address, Mapping[Address, Charge]],
    cumulative: Mapping[Pair, int],
    balances: Mapping[Address, int],
    free: Mapping[Address, int],
    lines: int,
) -> tuple[tuple[ConsumerLine, ...], dict[Pair, int]]:
    """(the lines taken, the ledger's cumulative values afterwards)."""
    captures = {who: sum(cut_charges(parts, free.get(who, 0)).values()) for who, parts in charges.items()}
    paying = sorted((who for who in captures if captures[who]), key=lambda who: (-captures[who], who))
    waiting = set(paying[lines:])
    known = {consumer for consumer, _ in cumulative}
    after = dict(cumulative)
    for consumer, parts in charges.items():
        if consumer in waiting or (consumer not in known and not balances.get(consumer, 0)):
            continue
        for broker, charge in parts.items():
            after[consumer, broker] = charge.cumulative
    taken = tuple(
        ConsumerLine(who, captures[who], min(sum(c.bytes for c in charges[who].values()), MAX_BYTES))
        for who in paying[:lines]
    )
    return taken, after


# --- nodes ----------------------------------------------------------------------------------------


def share_pool(
    pool: int,
    windows: Sequence[Outcome],
    free_stakes: Mapping[Address, int],
    state: ChainState,
    parameters: ParameterSet,
) -> tuple[dict[Address, int], int]:
    """(changes of registered nodes, what nobody earned): together exactly the pool.

    ``free_stakes``: stake at B less negative changes in flight, of every registered node.
    """
    served: dict[Address, int] = defaultdict(int)
    missed: dict[Address, int] = defaultdict(int)
    for window in windows:
        for share in window.shares:
            if share.broker in free_stakes:
                served[share.broker] += share.served
                missed[share.broker] += share.missed
    ranked = sorted(served, key=lambda node: (-served[node] - missed[node], node))[:MAX_BROKERS]
    signed_bytes = sum(w.signed_bytes for w in windows)
    brokers = len({n.address for n in state.brokers} | set(served))

    penalties = {
        node: min(pool * parameters.penalty_ppm * missed[node] // (PPM * signed_bytes * brokers), free_stakes[node])
        for node in ranked
        if missed[node] and signed_bytes
    }
    total = pool + sum(penalties.values())
    weights = {node: served[node] for node in ranked if served[node]}
    rewards = split_by_remainder(total, weights) if weights else {}
    changes = {node: rewards.get(node, 0) - penalties.get(node, 0) for node in ranked}
    return {node: change for node, change in changes.items() if change}, 0 if weights else total


# --- inside ---------------------------------------------------------------------------------------


def _subtract(balances: Mapping[Key, int], in_flight: Sequence[Mapping[Key, int]]) -> dict[Key, int]:
    """Balances at B less what reports in flight take of them, never below zero."""
    return {key: max(0, balance - sum(r.get(key, 0) for r in in_flight)) for key, balance in balances.items()}


def _require_balances(receipts: Sequence[Receipt], state: ChainState) -> None:
    unread = {receipt.consumer for receipt in receipts} - set(state.consumers)
    if unread:
        raise InvariantError(f"the chain state lacks the balances of {len(unread)} consumers with receipts")


def _require_one_bundle(header: BundleHeader, windows: Sequence[Outcome], late: Outcome, state: ChainState) -> None:
    """Raises InvariantError unless header and outcomes are of one bundle, Disagreement for a state at another block."""
    starts = [w.instance.number for w in windows]
    if not starts or any(w.instance.kind is not InstanceKind.WINDOW for w in windows):
        raise InvariantError(f"bundle {header.number} has no windows, or others among them")
    if starts != sorted(set(starts)) or (starts[0], starts[-1]) != (header.first_ms, header.last_ms):
        raise InvariantError(
            f"bundle {header.number}: windows {starts[0]}..{starts[-1]} are not the header's, in order"
        )
    if late.instance != InstanceId(InstanceKind.LATE, header.number):
        raise InvariantError(f"bundle {header.number}: {late.instance} is not its late set")
    if not windows[-1].block_hash == late.block_hash == state.block.hash:
        raise Disagreement(
            f"bundle {header.number}: the chain state is at another block than its last window and late set",
            number=header.number,
            block_hash=state.block.hash,
        )
