"""What consumers pay for a bundle: their receipts, the charges that follow, and how an amount is split exactly.

The rules stand in ``settlement``, which is the only caller outside tests, but for the receipts that a bundle holds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from validator.protocol.codec.receipt import Receipt, receipt_of
from validator.protocol.errors import InvariantError
from validator.protocol.model import MIB, Address, Record
from validator.protocol.report import ConsumerLine, Reading

MAX_BYTES = (1 << 64) - 1
"""Largest byte count of a line; a consumer's receipts of several brokers could add up to more."""
MAX_PAIRS = 40_960
"""(consumer, broker) pairs, of at most 61 bytes each."""

Pair = tuple[Address, Address]
"""(consumer, broker)."""


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


@dataclass(frozen=True, slots=True)
class Charge:
    """What the receipts of one consumer and broker come to: newly read bytes, their price, the new cumulative value."""

    bytes: int
    amount: int
    reading: Reading


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
    receipts: Sequence[Receipt], cumulative: Mapping[Pair, Reading], read_price: int
) -> dict[Address, dict[Address, Charge]]:
    """Charges by consumer and broker, before they are cut to balances. ``read_price`` in base units per MiB.

    A receipt is charged for its growth over the highest value before it of its epoch, the ledger's included. One that
    does not grow, or names an epoch before that, is charged nothing.
    """
    charges: dict[Address, dict[Address, Charge]] = defaultdict(dict)
    for receipt in receipts:
        known = charges[receipt.consumer].get(receipt.broker)
        if known is None:
            known = Charge(0, 0, cumulative.get((receipt.consumer, receipt.broker), Reading(receipt.epoch, 0)))
        if receipt.epoch < known.reading.epoch:
            continue
        before = known.reading.bytes if receipt.epoch == known.reading.epoch else 0
        growth = max(0, receipt.cumulative_bytes - before)
        charges[receipt.consumer][receipt.broker] = Charge(
            known.bytes + growth,
            known.amount + growth * min(read_price, receipt.max_price) // MIB,
            Reading(receipt.epoch, before + growth),
        )
    return dict(charges)


def admit_pairs(
    charges: Mapping[Address, Mapping[Address, Charge]], cumulative: Mapping[Pair, Reading]
) -> dict[Address, dict[Address, Charge]]:
    """Charges that are something, of pairs that the ledger holds or has room for: first the largest."""
    found = [((c, b), charge) for c, parts in charges.items() for b, charge in parts.items() if charge.amount]
    new = sorted((-charge.amount, pair) for pair, charge in found if pair not in cumulative)
    shut_out = {pair for _, pair in new[max(0, MAX_PAIRS - len(cumulative)) :]}
    admitted: dict[Address, dict[Address, Charge]] = defaultdict(dict)
    for (consumer, broker), charge in found:
        if (consumer, broker) not in shut_out:
            admitted[consumer][broker] = charge
    return dict(admitted)


def cut_charges(charges: Mapping[Address, Charge], free: int) -> dict[Address, int]:
    """What one consumer pays per broker: its charges, cut in proportion where they exceed its free balance."""
    amounts = {broker: charge.amount for broker, charge in charges.items()}
    return amounts if sum(amounts.values()) <= free else split_by_remainder(free, amounts)


def capture_consumers(
    charges: Mapping[Address, Mapping[Address, Charge]],
    cumulative: Mapping[Pair, Reading],
    free: Mapping[Address, int],
    lines: int,
) -> tuple[tuple[ConsumerLine, ...], dict[Address, int], dict[Pair, Reading]]:
    """(the lines taken, without indices, what is paid for each broker, the ledger's cumulative values afterwards)."""
    cuts = {who: cut_charges(parts, free.get(who, 0)) for who, parts in charges.items()}
    captures = {who: sum(parts.values()) for who, parts in cuts.items()}
    paying = sorted((who for who in captures if captures[who]), key=lambda who: (-captures[who], who))
    fees: dict[Address, int] = defaultdict(int)
    after = dict(cumulative)
    taken = []
    for who in paying[:lines]:
        paid = {broker: amount for broker, amount in cuts[who].items() if amount}
        for broker, amount in paid.items():
            fees[broker] += amount
            after[who, broker] = charges[who][broker].reading
        size = sum(charges[who][broker].bytes for broker in paid)
        taken.append(ConsumerLine(0, who, captures[who], min(size, MAX_BYTES)))
    return tuple(taken), dict(fees), after
