"""Fees of replacements: nodes take them, and they end at the caps."""

from __future__ import annotations

from fractions import Fraction
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from validator.net.chain.pricing import FAR_ABOVE, GWEI, Fees, raised_fees, repriced_fees, tip_floor, todays_fees

amounts = st.one_of(st.integers(1, 20), st.integers(1, 10_000 * GWEI))
caps = st.integers(1, 20_000 * GWEI)
fees = st.tuples(amounts, amounts).map(lambda pair: Fees(max(pair), min(pair)))


@given(base=st.integers(0, 1 << 70), tip=st.integers(0, 1 << 70), floor=amounts, cap=caps)
def test_no_offer_is_above_the_cap_or_below_the_floor_without_need(base: int, tip: int, floor: int, cap: int) -> None:
    offer = todays_fees(base, tip, floor, cap)
    assert 0 < offer.tip <= offer.max_fee <= cap
    assert offer.tip >= min(floor, cap)
    assert offer.max_fee == cap or offer.max_fee >= 2 * base + floor


@given(old=fees, today=fees, cap=caps, refused=st.sampled_from([None, True, False]))
def test_a_replacement_is_one_that_nodes_take_or_the_cap_is_reached(
    old: Fees, today: Fees, cap: int, refused: bool | None
) -> None:
    reprice = partial(repriced_fees, for_its_fee=bool(refused))
    new = (raised_fees if refused is None else reprice)(old, today, cap)
    if new is None:
        assert Fraction(cap) < Fraction(11, 10) * old.max_fee + 1 or (not refused and old.tip >= FAR_ABOVE * today.tip)
        return
    assert 0 < new.tip <= new.max_fee <= cap
    assert 10 * new.max_fee >= 11 * old.max_fee
    assert 10 * new.tip >= 11 * old.tip or new.tip == new.max_fee == cap
    assert (new.tip >= today.tip and new.max_fee >= today.max_fee) or new.max_fee == cap


@given(old=fees, today=fees, cap=caps, needed=amounts)
def test_whatever_tip_nodes_demand_is_reached_in_few_steps_or_the_cap_is(
    old: Fees, today: Fees, cap: int, needed: int
) -> None:
    offer: Fees | None = old
    for _ in range(64):
        if offer is None or offer.tip >= needed:
            break
        offer = repriced_fees(offer, today, cap, for_its_fee=True)
    assert offer is None or offer.tip >= needed


@given(old=fees, today=fees, cap=caps)
def test_refusals_without_a_word_of_fees_do_not_raise_the_tip_without_end(old: Fees, today: Fees, cap: int) -> None:
    offer = old
    for _ in range(400):
        more = repriced_fees(offer, today, cap, for_its_fee=False)
        if more is None:
            return
        offer = more
        assert offer.tip <= max(2 * FAR_ABOVE * today.tip, today.tip + old.tip)
    raise AssertionError("it never ends")


def test_polygons_floor_is_taken_on_polygons_chains_only() -> None:
    assert (tip_floor(137), tip_floor(80002), tip_floor(31337)) == (30 * GWEI, 30 * GWEI, GWEI)
