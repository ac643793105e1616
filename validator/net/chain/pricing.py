"""What a transaction offers per gas (EIP-1559): pure, integer-only, in wei.

The rule: a transaction that is not taken is priced anew, never sent unchanged for ever; and never beyond the caps, per
gas and for the whole transaction. A replacement raises both fees by at least a tenth, rounded up, which is what nodes
ask of one (geth, bor, erigon, besu, reth 10 %; nethermind 10 % of either); we raise by a quarter where the caps allow.
"""

from __future__ import annotations

from dataclasses import dataclass

GWEI = 10**9
LEAST_RISE = (11, 10)
USUAL_RISE = (5, 4)
FAR_ABOVE = 32
"""A refusal that does not speak of fees raises the tip to at most this many times today's: nodes refuse for other
reasons too, and one that takes the transaction then would take the tip as well."""

TIP_FLOORS = {137: 30 * GWEI, 80002: 30 * GWEI}
"""Least tip by chain id. Polygon's nodes drop a transaction below 25 gwei (older ones 30), whatever they suggest."""
TIP_FLOOR = GWEI


@dataclass(frozen=True, slots=True)
class Fees:
    """``max_fee``: most per gas altogether; ``tip``: of it at most to the block's producer. tip <= max_fee."""

    max_fee: int
    tip: int


def tip_floor(chain_id: int) -> int:
    """The least tip that the chain's nodes are known to take."""
    return TIP_FLOORS.get(chain_id, TIP_FLOOR)


def todays_fees(base_fee: int, suggested_tip: int, floor: int, cap: int) -> Fees:
    """Twice the base fee, so that six full blocks in a row do no harm, and the tip; under the cap."""
    tip = max(suggested_tip, floor)
    max_fee = min(2 * base_fee + tip, cap)
    return Fees(max_fee, min(tip, max_fee))


def raised_fees(old: Fees, today: Fees, cap: int) -> Fees | None:
    """Of a replacement of a transaction that is pending: a quarter more, or today's; None: the cap is reached."""
    return _under(
        old, max(today.max_fee, _rise(old.max_fee, USUAL_RISE)), max(today.tip, _rise(old.tip, USUAL_RISE)), cap
    )


def repriced_fees(old: Fees, today: Fees, cap: int, *, for_its_fee: bool) -> Fees | None:
    """Of a transaction that nodes refused: twice the tip, or today's. None: the cap is reached.

    ``for_its_fee``: they said so; else the rise is small and ends ``FAR_ABOVE`` today's tip.
    """
    if not for_its_fee and old.tip >= FAR_ABOVE * today.tip:
        return None
    tip = max(today.tip, 2 * old.tip if for_its_fee else _rise(old.tip, USUAL_RISE))
    max_fee = max(today.max_fee - today.tip + tip, _rise(old.max_fee, USUAL_RISE))
    return _under(old, max_fee, tip, cap)


def _under(old: Fees, max_fee: int, tip: int, cap: int) -> Fees | None:
    """As wanted, at most the cap; None if the cap leaves less than what nodes ask of a replacement."""
    if _rise(old.max_fee, LEAST_RISE) > cap:
        return None
    max_fee = min(max_fee, cap)
    return Fees(max_fee, min(tip, max_fee))


def _rise(value: int, rise: tuple[int, int]) -> int:
    """More by the ratio, rounded up, and by one at least."""
    numerator, denominator = rise
    return max(-(-value * numerator // denominator), value + 1)
