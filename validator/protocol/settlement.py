"""Who pays and who earns for one bundle: a pure function of agreed data, chain state at one block, and the ledger.

Streams pay for their bytes and partitions, consumers for the bytes they signed receipts for; brokers earn by the bytes
of paying streams that they served and by what consumers paid for their answers, the uploader a part of the treasury's.
The system stream is free, so its bytes count nowhere. Integers only; every division and where its rest goes:

price       lower median of the windows' prices (element (k - 1) // 2 of k sorted)
due         stream: floor(bytes x price / 2^20) once per bundle, plus rent per partition and window. Late bytes pay the
            same price and no rent. The system stream pays nothing
capture     stream: min(owed, balance and what is leaving - captures in flight); of those that reach ``dust`` the
            ``report_lines`` with the oldest debt, then the largest, ties by UTF-8 of the id. What a taken line leaves
            uncovered is written off, a stream whose free balance does not reach ``dust`` owes nothing any more, all
            other debts stay
read price  floor(price x read_ppm / 10^6)
charge      floor(growth x min(read price, max_price) / 2^20) per receipt, in canonical order; a consumer's charges are
            cut to its balance - captures in flight by largest remainder, ties by ascending broker
treasury    floor(captured x treasury_ppm / 10^6), of which floor(streams' captures x treasury_ppm / 10^6) come from the
            write fees: their rest is the pool. The rest of the read fees is split over the brokers by what was paid for
            each, by largest remainder, ties by ascending address; the part of one that is not registered is the
            treasury's
penalty     floor(pool x penalty_ppm x missed / (10^6 x signed bytes x brokers)), at most stake - negative changes in
            flight; goes to the pool. Signed bytes are those of the windows, which is where brokers can miss some
reward      pool and penalties by largest remainder over served bytes, ties by ascending address; with nothing served
            all of it is the treasury's
upload      floor(signed bytes x price x upload_ppm / (10^6 x 2^20)), at most the treasury's part before rewards that
            nobody earned; late bytes too

So captures = node changes + treasury, exactly. Only nodes that are registered (staked) at the block take part in
penalties, rewards and uploads; what an absent broker served earns the others nothing less. The ledger never depends
on who uploaded: it holds negative changes as they were before the credit.

The ledger is bounded when it is written (``ledger``): no more can be written than is read. A (consumer, broker) pair
enters it only if something was charged; a consumer whose balance is below ``consumer_floor`` is charged nothing. The
``report_lines`` largest consumers are taken, ties by ascending address; receipts of one that is left out count as not
yet seen, so its next receipt (or the same one, published again) is charged for them. Receipts name their epoch, and a
consumer's count begins anew with each: what has rested for ``ledger_epochs`` epochs leaves the ledger, and no receipt
of an epoch as old is charged again, nor one of an epoch to come. Source: design, section 10. Vectors:
tests/vectors/settlement.json.

Decided against (docs/decisions): reporting to the contract as it was deployed in 2023 (0025).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from validator.protocol.charges import MAX_BYTES, admit_pairs, capture_consumers, charge_receipts, split_by_remainder
from validator.protocol.codec.manifest import ledger_root
from validator.protocol.codec.receipt import Receipt
from validator.protocol.codec.report import MAX_AMOUNT, MAX_LINES, is_conserved, sort_report
from validator.protocol.errors import Disagreement, InvariantError
from validator.protocol.model import (
    MIB,
    NIL,
    PPM,
    Address,
    BundleHeader,
    ChainState,
    Digest,
    InstanceId,
    InstanceKind,
    Outcome,
    Root,
    StorageId,
)
from validator.protocol.parameters import ParameterSet
from validator.protocol.report import ConsumerLine, Debt, InFlight, Ledger, NodeLine, Report, StreamLine

MAX_BROKERS = MAX_LINES - 1
"""Brokers that one report pays or charges: one node line is kept for the uploader."""

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
    epoch: int,
    config_count: int,
    storage_id: StorageId,
    uploader: Address,
    system_stream: str,
    next_committee: Sequence[Address] = (),
    next_config_digest: Digest = NIL,
) -> tuple[Report, Ledger]:
    """The report of a bundle, lines in the contract's order, and the ledger after it.

    ``ledger`` is the one after the previous report; ``receipts`` in canonical order, as ``bundle_receipts`` returns
    them; ``state`` is at B of the bundle's last window, with the balances of all consumers in ``receipts``;
    ``processed`` are the numbers of reports that the contract had settled at that block; ``epoch`` is the bundle's.
    Rounding: module docstring.

    Raises:
        InvariantError: the arguments do not belong together.
        Disagreement: the block that was agreed for the bundle's end is not the one of ``state``.
    """
    _require_one_bundle(header, windows, late, state)
    _require_balances(receipts, state)
    if header.number in processed or bool(next_committee) != (next_config_digest != NIL):
        raise InvariantError(f"report {header.number} is settled already, or changes half a committee")
    bundle = _Bundle(header.number, epoch, windows, late, receipts, state, parameters, system_stream)
    money = _settle(ledger, tuple(r for r in ledger.in_flight if r.number not in processed), bundle)
    credit = _compute_credit(money, uploader, bundle)
    report = Report(
        config_digest=header.config_digest,
        config_count=config_count,
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
        nodes=_list_nodes(money, uploader, credit, state),
        treasury=money.treasury - credit + money.unearned,
        next_committee=tuple(next_committee),
        next_config_digest=next_config_digest,
    )
    if not is_conserved(report):
        raise InvariantError(f"report {header.number}: captures are not node changes + treasury")
    return sort_report(report), money.ledger


# --- the money ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Bundle:
    """What a bundle brings."""

    number: int
    epoch: int
    windows: Sequence[Outcome]
    late: Outcome
    receipts: Sequence[Receipt]
    state: ChainState
    parameters: ParameterSet
    system_stream: str

    def paying_bytes(self, outcomes: Iterable[Outcome]) -> dict[str, int]:
        """Signed bytes by stream that pays for them."""
        sizes: dict[str, int] = defaultdict(int)
        for outcome in outcomes:
            for entry in outcome.entries:
                if entry.stream_id != self.system_stream:
                    sizes[entry.stream_id] += entry.signed_bytes
        return dict(sizes)

    def forgets(self, epoch: int) -> bool:
        """Whether what comes from that epoch has rested so long that the ledger does not hold it any more."""
        return self.epoch - epoch >= self.parameters.ledger_epochs


@dataclass(frozen=True, slots=True)
class _Money:
    """What moves with a bundle before its uploader is credited, and the ledger after it."""

    price: int
    bytes: int
    """Signed bytes that are paid for, late ones too."""
    streams: tuple[StreamLine, ...]
    consumers: tuple[ConsumerLine, ...]
    nodes: dict[Address, int]
    treasury: int
    """The treasury's part of what is captured: an upload is paid from it."""
    unearned: int
    """Rewards that nobody earned: the treasury's as well, and no uploader's."""
    ledger: Ledger


def _settle(ledger: Ledger, in_flight: Sequence[InFlight], bundle: _Bundle) -> _Money:
    """Price, dues and captures, rewards and penalties, ledger. It knows no uploader, and so the ledger does not."""
    if any(r.number >= bundle.number for r in in_flight):
        raise InvariantError(f"the ledger is not the one before report {bundle.number}")
    state, parameters = bundle.state, bundle.parameters
    price = compute_price(bundle.windows)
    lines = 0 if is_flight_full(in_flight) else min(parameters.report_lines, MAX_LINES)

    sizes = bundle.paying_bytes((*bundle.windows, bundle.late))
    owed = _add_dues(ledger.owed or {}, sizes, price, bundle)
    stores = {s.stream_id: s for s in state.stores}
    free_streams = _subtract({s.stream_id: s.balance + s.leaving for s in state.stores}, [r.streams for r in in_flight])
    streams, owed = capture_streams(owed, free_streams, lines, parameters.dust)

    known = {pair: r for pair, r in (ledger.cumulative or {}).items() if not bundle.forgets(r.epoch)}
    current = [r for r in bundle.receipts if r.epoch <= bundle.epoch and not bundle.forgets(r.epoch)]
    charges = charge_receipts(current, known, price * parameters.read_ppm // PPM)
    balances = {consumer: account.balance for consumer, account in state.consumers.items()}
    rich = {c: parts for c, parts in charges.items() if balances[c] >= parameters.consumer_floor}
    free_consumers = _subtract(balances, [r.consumers for r in in_flight])
    consumers, fees, known = capture_consumers(admit_pairs(rich, known), known, free_consumers, lines)
    consumers = tuple(replace(line, index=state.consumers[line.consumer].index) for line in consumers)

    written, read = sum(streams.values()), sum(fees.values())
    treasury = (written + read) * parameters.treasury_ppm // PPM
    pool = written - written * parameters.treasury_ppm // PPM
    free_stakes = _subtract({n.address: n.stake for n in state.nodes}, [r.nodes for r in in_flight])
    earned = split_by_remainder(written + read - treasury - pool, fees)
    nodes, unearned = share_pool(pool, earned, free_stakes, bundle)

    takes = {line.consumer: line.capture for line in consumers}
    this = InFlight(bundle.number, streams, takes, {node: -change for node, change in nodes.items() if change < 0})
    flying = (*in_flight, this) if this.streams or this.consumers or this.nodes else tuple(in_flight)
    stream_lines = tuple(
        StreamLine(stores[s].index, s, capture, min(sizes.get(s, 0), MAX_BYTES)) for s, capture in streams.items()
    )
    after = Ledger(flying, keep_debts({s: d for s, d in owed.items() if not bundle.forgets(d.epoch)}), known)
    return _Money(price, sum(sizes.values()), stream_lines, consumers, nodes, treasury, unearned, after)


def _compute_credit(money: _Money, uploader: Address, bundle: _Bundle) -> int:
    """What the upload of a bundle earns: nothing for who is not registered at the block."""
    if uploader not in {node.address for node in bundle.state.nodes}:
        return 0
    return min(money.treasury, money.bytes * money.price * bundle.parameters.upload_ppm // (PPM * MIB))


def _list_nodes(money: _Money, uploader: Address, credit: int, state: ChainState) -> tuple[NodeLine, ...]:
    """Every node that gains or loses something, its uploader's credit included."""
    indices = {node.address: node.index for node in state.nodes}
    nodes = {**money.nodes, uploader: money.nodes.get(uploader, 0) + credit}
    return tuple(NodeLine(indices[node], node, amount) for node, amount in nodes.items() if amount)


def compute_price(windows: Sequence[Outcome]) -> int:
    """Price of a bundle, base units per MiB: the lower median of its windows' prices."""
    return sorted(w.price for w in windows)[(len(windows) - 1) // 2]


# --- streams --------------------------------------------------------------------------------------


def capture_streams(
    owed: Mapping[str, Debt], free: Mapping[str, int], lines: int, dust: int
) -> tuple[dict[str, int], dict[str, Debt]]:
    """(captures of the lines taken, what streams owe afterwards), by stream id."""
    least = max(dust, 1)
    amounts = {stream: min(debt.amount, free.get(stream, 0)) for stream, debt in owed.items()}
    reaching = [stream for stream, amount in amounts.items() if amount >= least]
    taken = sorted(reaching, key=lambda s: (owed[s].since, -amounts[s], s.encode()))[:lines]
    captures = {stream: amounts[stream] for stream in taken}
    left = {s: d for s, d in owed.items() if d.amount and s not in captures and free.get(s, 0) >= least}
    return captures, left


def _add_dues(owed: Mapping[str, Debt], sizes: Mapping[str, int], price: int, bundle: _Bundle) -> dict[str, Debt]:
    """What streams owe with this bundle; never more than there can be tokens."""
    due: dict[str, int] = defaultdict(int)
    for stream, size in sizes.items():
        due[stream] += size * price // MIB
    for window in bundle.windows:
        for entry in window.entries:
            if entry.stream_id != bundle.system_stream:
                due[entry.stream_id] += bundle.parameters.rent
    total = dict(owed)
    for stream, amount in due.items():
        before = owed.get(stream) or Debt(0, bundle.number, bundle.epoch)
        total[stream] = replace(before, amount=min(before.amount + amount, MAX_AMOUNT))
    return total


# --- nodes ----------------------------------------------------------------------------------------


def share_pool(
    pool: int, earned: Mapping[Address, int], free_stakes: Mapping[Address, int], bundle: _Bundle
) -> tuple[dict[Address, int], int]:
    """(changes of registered nodes, what nobody earned): together exactly the pool and what was earned by answers.

    ``earned``: read fees by broker. ``free_stakes``: stake at B less negative changes in flight, of every registered
    node.
    """
    served: dict[Address, int] = defaultdict(int)
    missed: dict[Address, int] = defaultdict(int)
    for window in bundle.windows:
        for share in window.shares:
            if share.broker in free_stakes:
                served[share.broker] += share.served
                missed[share.broker] += share.missed
    brokers = len({n.address for n in bundle.state.brokers} | set(served))
    present = set(served) | (set(earned) & set(free_stakes))
    ranked = sorted(present, key=lambda node: (-served[node] - missed[node], node))[:MAX_BROKERS]
    signed_bytes = sum(bundle.paying_bytes(bundle.windows).values())

    at_stake = pool * bundle.parameters.penalty_ppm
    penalties = {
        node: min(at_stake * missed[node] // (PPM * signed_bytes * brokers), free_stakes[node])
        for node in ranked
        if missed[node] and signed_bytes
    }
    total = pool + sum(penalties.values())
    weights = {node: served[node] for node in ranked if served[node]}
    rewards = split_by_remainder(total, weights) if weights else {}
    fees = {node: earned.get(node, 0) for node in ranked}
    unearned = sum(earned.values()) - sum(fees.values()) + (0 if weights else total)
    changes = {node: rewards.get(node, 0) + fees[node] - penalties.get(node, 0) for node in ranked}
    return {node: change for node, change in changes.items() if change}, unearned


# --- what the ledger holds ------------------------------------------------------------------------

MAX_DEBT_BYTES = 4 << 20
"""Of what streams owe."""
MAX_FLIGHT_BYTES = 1 << 20
"""While captures in flight take more, a report takes nothing, and all stays due. One report has at most 370 kB."""
LINE_BYTES = 35
"""Most bytes of an amount with its address, or of a debt beside its stream's id."""


def is_flight_full(in_flight: Sequence[InFlight]) -> bool:
    """Whether reports that the contract has not settled leave no room for another's lines."""
    size = 0
    for report in in_flight:
        size += LINE_BYTES * (1 + len(report.streams) + len(report.consumers) + len(report.nodes))
        size += sum(len(stream.encode()) for stream in report.streams)
    return size > MAX_FLIGHT_BYTES


def keep_debts(owed: Mapping[str, Debt]) -> dict[str, Debt]:
    """The debts that there is room for: the oldest, then the largest, ties by stream id. The rest is written off."""
    kept: dict[str, Debt] = {}
    room = MAX_DEBT_BYTES
    for stream in sorted(owed, key=lambda s: (owed[s].since, -owed[s].amount, s.encode())):
        room -= LINE_BYTES + len(stream.encode())
        if room < 0:
            break
        kept[stream] = owed[stream]
    return kept


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
