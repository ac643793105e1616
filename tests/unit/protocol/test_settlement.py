"""Reports: who pays what, where every rest goes, and what the ledger remembers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.builders import a_key, a_p256_message, a_record
from tests.settlement_network import (
    ALICE,
    BOB,
    CAROL,
    ONE,
    STRANGER,
    SYSTEM,
    THREE,
    TWO,
    UNIT_PRICE,
    WINDOW_MS,
    Bundle,
    a_block,
    a_receipt,
    amounts_of,
    an_address,
    an_entry,
    an_outcome,
    bytes_of,
    consumers_of,
    nodes_of,
    settle,
    some_debts,
    streams_of,
    the_parameters,
)
from validator.protocol import charges, settlement
from validator.protocol.charges import bundle_receipts, split_by_remainder
from validator.protocol.codec.manifest import MAX_LEDGER_BYTES, decode_ledger, encode_ledger, ledger_root
from validator.protocol.codec.message import make_record
from validator.protocol.codec.receipt import sign_receipt, write_receipt
from validator.protocol.codec.report import MAX_LINES, decode_report, encode_report, is_conserved
from validator.protocol.errors import Disagreement, InvariantError
from validator.protocol.model import MIB, NIL, Address, BrokerShare, Digest, InstanceId, InstanceKind
from validator.protocol.report import Debt, InFlight, Ledger, Reading, Report
from validator.protocol.settlement import build_report

# --- streams --------------------------------------------------------------------------------------


def test_a_stream_pays_its_bytes_at_the_price_per_mib_and_rent_per_partition_and_window() -> None:
    two_partitions = [an_entry("s", 3 * MIB), an_entry("s", 0, partition=1)]
    bundle = Bundle(
        windows=(two_partitions, two_partitions), prices=(10,), stores={"s": 1_000}, parameters=the_parameters(rent=7)
    )
    report, ledger = settle(bundle)
    assert streams_of(report) == {"s": 6 * 10 + 4 * 7}
    assert report.streams[0].bytes == 6 * MIB
    assert not ledger.owed


def test_a_due_is_rounded_down_once_per_bundle_and_not_once_per_window() -> None:
    half = MIB // 2
    report, _ = settle(Bundle(windows=({"s": half}, {"s": half - 1}), prices=(1,), stores={"s": 9}))
    assert not report.streams
    report, _ = settle(Bundle(windows=({"s": half}, {"s": half}), prices=(1,), stores={"s": 9}))
    assert streams_of(report) == {"s": 1}


def test_late_bytes_pay_the_bundles_price_and_no_rent() -> None:
    bundle = Bundle(
        windows=({"s": 0},), late={"s": 5, "t": 6}, stores={"s": 99, "t": 99}, parameters=the_parameters(rent=2)
    )
    report, _ = settle(bundle)
    assert streams_of(report) == {"s": 5 + 2, "t": 6}
    assert [line.bytes for line in report.streams] == [5, 6]


def test_the_system_stream_pays_neither_bytes_nor_rent() -> None:
    bundle = Bundle(
        windows=({SYSTEM: 500},), late={SYSTEM: 5}, stores={SYSTEM: 10**6}, parameters=the_parameters(rent=2)
    )
    report, ledger = settle(bundle)
    assert not report.streams
    assert not ledger.owed


def test_the_largest_lines_are_taken_ties_by_the_bytes_of_the_id_and_the_rest_stays_due() -> None:
    # U+FF5E comes before U+1F600 by code point and by UTF-8, and behind it by UTF-16.
    sizes = {"z": 9, "\U0001f600": 5, "～": 5, "a": 5, "b": 2}
    stores = dict.fromkeys(sizes, 100)
    report, ledger = settle(Bundle(windows=(sizes,), stores=stores, parameters=the_parameters(report_lines=3)))
    assert streams_of(report) == {"z": 9, "a": 5, "～": 5}
    assert amounts_of(ledger.owed) == {"\U0001f600": 5, "b": 2}


def test_what_stays_due_is_taken_by_a_later_report_without_new_bytes() -> None:
    sizes = {"a": 5, "b": 2}
    few = the_parameters(report_lines=1)
    first, ledger = settle(Bundle(windows=(sizes,), stores={"a": 100, "b": 100}, parameters=few))
    second, ledger = settle(Bundle(number=1, stores={"a": 100, "b": 100}, parameters=few), ledger)
    assert (streams_of(first), streams_of(second)) == ({"a": 5}, {"b": 2})
    assert second.streams[0].bytes == 0
    assert not ledger.owed


def test_an_amount_below_dust_stays_due_until_it_reaches_dust() -> None:
    dusty = the_parameters(dust=10)
    report, ledger = settle(Bundle(windows=({"s": 6},), stores={"s": 100}, parameters=dusty))
    assert not report.streams
    assert amounts_of(ledger.owed) == {"s": 6}
    report, ledger = settle(Bundle(number=1, windows=({"s": 4},), stores={"s": 100}, parameters=dusty), ledger)
    assert streams_of(report) == {"s": 10}


def test_what_a_taken_line_cannot_cover_is_written_off() -> None:
    report, ledger = settle(Bundle(windows=({"s": 80},), stores={"s": 50}))
    assert streams_of(report) == {"s": 50}
    assert not ledger.owed


@pytest.mark.parametrize("stores", [{}, {"s": 0}], ids=["unknown", "empty"])
def test_a_stream_without_free_balance_owes_nothing_any_more(stores: dict[str, int]) -> None:
    report, ledger = settle(Bundle(windows=({"s": 80},), stores=stores), Ledger(owed=some_debts(s=7, gone=3)))
    assert not report.streams
    assert not ledger.owed


def test_the_oldest_debts_come_first_so_that_large_streams_never_keep_small_ones_out() -> None:
    few = the_parameters(report_lines=2)
    stores = {"big": 10**6, "large": 10**6, "small": 10**6}
    sizes = {"big": 900, "large": 800, "small": 1}
    first, ledger = settle(Bundle(windows=(sizes,), stores=stores, parameters=few))
    assert streams_of(first) == {"big": 900, "large": 800}
    second, ledger = settle(Bundle(number=1, windows=(sizes,), stores=stores, parameters=few), ledger)
    assert streams_of(second) == {"small": 2, "big": 900}
    assert ledger.owed == {"large": Debt(800, 1, 0)}


def test_a_stream_whose_free_balance_does_not_reach_dust_owes_nothing_any_more() -> None:
    dusty = the_parameters(dust=10)
    _, ledger = settle(Bundle(windows=({"s": 6, "t": 6},), stores={"s": 9, "t": 10}, parameters=dusty))
    assert amounts_of(ledger.owed) == {"t": 6}


def test_a_deleted_streams_store_pays_what_the_stream_owes() -> None:
    bundle = Bundle(windows=({"s": 80},), stores={"s": 100})
    (header, root, windows, late, receipts, state), fixed = bundle.arguments()
    deleted = replace(state, stores=tuple(replace(store, partitions=0) for store in state.stores))
    report, _ = build_report(Ledger(), header, root, windows, late, receipts, deleted, (), bundle.parameters, **fixed)
    assert streams_of(report) == {"s": 80}


def test_captures_in_flight_are_not_free_until_their_report_is_processed() -> None:
    waiting = Ledger(in_flight=(InFlight(0, {"s": 70}, {}, {}), InFlight(1, {"s": 20}, {}, {})))
    bundle = Bundle(number=2, windows=({"s": 500},), stores={"s": 100})
    assert streams_of(settle(bundle, waiting)[0]) == {"s": 10}
    assert streams_of(settle(bundle, waiting, processed=(0,))[0]) == {"s": 80}
    report, ledger = settle(bundle, waiting, processed=(0, 1))
    assert streams_of(report) == {"s": 100}
    assert [r.number for r in ledger.in_flight] == [2]


@pytest.mark.parametrize(
    ("prices", "expected"),
    [((3,), 3), ((9, 1), 1), ((9, 1, 2), 2), ((1, 2, 100, 200), 2), ((5, 5, 5, 1000), 5)],
)
def test_the_price_is_the_lower_median_of_the_windows_prices(prices: tuple[int, ...], expected: int) -> None:
    windows = [{"s": MIB}, *[{}] * (len(prices) - 1)]
    report, _ = settle(Bundle(windows=windows, prices=prices, stores={"s": 10**6}))
    assert streams_of(report) == {"s": expected}


# --- consumers ------------------------------------------------------------------------------------


def test_a_consumer_pays_growth_at_the_lower_of_read_price_and_its_own_price() -> None:
    bundle = Bundle(
        prices=(1_001,),
        receipts=(a_receipt(ALICE, ONE, 10 * MIB, 10**6), a_receipt(BOB, ONE, 10 * MIB, 3)),
        consumers={ALICE: 10**6, BOB: 10**6},
        parameters=the_parameters(read_ppm=50_000),
    )
    report, ledger = settle(bundle)
    assert consumers_of(report) == {ALICE: 10 * 50, BOB: 10 * 3}  # 1001 x 5 % = 50.05, rounded down first
    assert bytes_of(ledger.cumulative) == {(ALICE, ONE): 10 * MIB, (BOB, ONE): 10 * MIB}


def test_each_receipt_is_charged_for_its_own_growth_at_its_own_price_and_rounded_down_alone() -> None:
    receipts = (
        a_receipt(ALICE, ONE, MIB + MIB // 2, 10),
        a_receipt(ALICE, ONE, 2 * MIB, 3),
        a_receipt(ALICE, ONE, 3 * MIB, 5),
    )
    report, _ = settle(Bundle(receipts=receipts, consumers={ALICE: 10**6}))
    assert consumers_of(report) == {ALICE: 15 + 1 + 5}
    assert report.consumers[0].bytes == 3 * MIB


def test_a_receipt_that_does_not_grow_is_charged_nothing() -> None:
    before = Ledger(cumulative={(ALICE, ONE): Reading(0, 100)})
    again = (a_receipt(ALICE, ONE, 100), a_receipt(ALICE, ONE, 60), a_receipt(ALICE, ONE, 0))
    report, ledger = settle(Bundle(receipts=again, consumers={ALICE: 1_000}), before)
    assert not report.consumers
    assert ledger.cumulative == before.cumulative


def test_a_receipt_published_twice_is_charged_once_in_one_bundle_and_over_two() -> None:
    twice = (a_receipt(ALICE, ONE, 70), a_receipt(ALICE, ONE, 70))
    report, ledger = settle(Bundle(receipts=twice, consumers={ALICE: 1_000}))
    assert consumers_of(report) == {ALICE: 70}
    report, _ = settle(Bundle(number=1, receipts=twice, consumers={ALICE: 1_000}), ledger)
    assert not report.consumers


def test_charges_above_the_free_balance_are_cut_and_the_ledger_takes_the_full_value() -> None:
    before = Ledger(in_flight=(InFlight(0, {}, {ALICE: 40}, {}),))
    receipts = (a_receipt(ALICE, ONE, 100), a_receipt(ALICE, TWO, 200))
    report, ledger = settle(Bundle(number=1, receipts=receipts, consumers={ALICE: 50}), before)
    assert consumers_of(report) == {ALICE: 10}
    assert report.consumers[0].bytes == 300
    assert bytes_of(ledger.cumulative) == {(ALICE, ONE): 100, (ALICE, TWO): 200}


def test_a_pair_enters_the_ledger_only_if_something_was_charged() -> None:
    before = Ledger(cumulative={(ALICE, ONE): Reading(0, 5)})
    receipts = (
        a_receipt(ALICE, TWO, 100),
        a_receipt(BOB, TWO, 100),
        a_receipt(CAROL, TWO, 100),
        a_receipt(CAROL, ONE, 100, 3),
    )
    report, ledger = settle(Bundle(receipts=receipts, consumers={ALICE: 0, BOB: 0, CAROL: 1}), before)
    assert consumers_of(report) == {CAROL: 1}
    assert bytes_of(ledger.cumulative) == {(ALICE, ONE): 5, (CAROL, TWO): 100}


def test_a_consumer_below_the_floor_is_not_charged() -> None:
    receipts = (a_receipt(ALICE, ONE, 30), a_receipt(BOB, ONE, 30))
    floor = the_parameters(consumer_floor=50)
    report, ledger = settle(Bundle(receipts=receipts, consumers={ALICE: 49, BOB: 50}, parameters=floor))
    assert consumers_of(report) == {BOB: 30}
    assert bytes_of(ledger.cumulative) == {(BOB, ONE): 30}


def test_what_was_paid_for_answers_goes_to_the_brokers_that_gave_them_less_the_treasurys_part() -> None:
    bundle = Bundle(
        windows=({"s": 1_000},),
        shares=([BrokerShare(ONE, 1_000, 0)],),
        stores={"s": 5_000},
        receipts=(a_receipt(ALICE, TWO, 300), a_receipt(ALICE, THREE, 100), a_receipt(BOB, STRANGER, 50)),
        consumers={ALICE: 1_000, BOB: 1_000},
        parameters=the_parameters(treasury_ppm=100_000),
    )
    report, _ = settle(bundle)
    assert nodes_of(report) == {ONE: 900, TWO: 270, THREE: 90}
    assert report.treasury == 145 + 45  # its part of all, and what an unregistered broker served
    cut, _ = settle(replace(bundle, consumers={ALICE: 40, BOB: 0}))
    assert nodes_of(cut) == {ONE: 900, TWO: 27, THREE: 9}


def test_free_bytes_earn_nothing() -> None:
    shares = ([BrokerShare(ONE, 400, 0), BrokerShare(TWO, 0, 400)],)
    paid = Bundle(
        windows=({"s": 1_000},),
        shares=shares,
        stores={"s": 5_000},
        parameters=the_parameters(penalty_ppm=500_000, treasury_ppm=100_000, upload_ppm=500_000),
        uploader=THREE,
    )
    beside = replace(paid, windows=({"s": 1_000, SYSTEM: 50_000},), late={SYSTEM: 50_000})
    assert nodes_of(settle(beside)[0]) == nodes_of(settle(paid)[0])
    assert nodes_of(settle(paid)[0])[TWO] < 0


# --- receipts' epochs -----------------------------------------------------------------------------


def test_a_consumers_count_begins_anew_with_every_epoch_that_it_signs_for() -> None:
    before = Ledger(cumulative={(ALICE, ONE): Reading(3, 500)})
    receipts = (a_receipt(ALICE, ONE, 510, epoch=3), a_receipt(ALICE, ONE, 70, epoch=4))
    report, ledger = settle(Bundle(epoch=4, receipts=receipts, consumers={ALICE: 1_000}), before)
    assert consumers_of(report) == {ALICE: 10 + 70}
    assert ledger.cumulative == {(ALICE, ONE): Reading(4, 70)}


def test_no_receipt_of_an_epoch_before_the_newest_charged_comes_back() -> None:
    receipts = (a_receipt(ALICE, ONE, 70, epoch=4), a_receipt(ALICE, ONE, 900, epoch=3))
    report, ledger = settle(Bundle(epoch=4, receipts=receipts, consumers={ALICE: 1_000}))
    assert consumers_of(report) == {ALICE: 70}
    assert ledger.cumulative == {(ALICE, ONE): Reading(4, 70)}


def test_what_has_rested_for_so_many_epochs_leaves_the_ledger_and_its_receipts_are_charged_no_more() -> None:
    before = Ledger(owed={"s": Debt(5, 1, 2), "t": Debt(5, 1, 3)}, cumulative={(ALICE, ONE): Reading(2, 500)})
    rested = the_parameters(ledger_epochs=3, dust=100)
    old, next_oldest = a_receipt(ALICE, ONE, 600, epoch=2), a_receipt(BOB, ONE, 60, epoch=3)
    bundle = Bundle(
        number=9,
        epoch=5,
        receipts=(old, next_oldest),
        stores={"s": 1_000, "t": 1_000},
        consumers={ALICE: 1_000, BOB: 1_000},
        parameters=rested,
    )
    report, ledger = settle(bundle, before)
    assert consumers_of(report) == {BOB: 60}
    assert ledger.cumulative == {(BOB, ONE): Reading(3, 60)}
    assert ledger.owed == {"t": Debt(5, 1, 3)}


def test_a_receipt_of_an_epoch_to_come_is_not_charged_yet() -> None:
    """Else a pair could stay in the ledger for ever."""
    receipts = (a_receipt(ALICE, ONE, 70, epoch=5),)
    report, ledger = settle(Bundle(epoch=4, receipts=receipts, consumers={ALICE: 1_000}))
    assert not report.consumers
    assert not ledger.cumulative
    assert consumers_of(settle(Bundle(epoch=5, receipts=receipts, consumers={ALICE: 1_000}))[0]) == {ALICE: 70}


def test_of_too_many_consumers_the_largest_are_taken_and_the_others_are_charged_later_once() -> None:
    receipts = (a_receipt(ALICE, ONE, 30), a_receipt(BOB, ONE, 50), a_receipt(CAROL, ONE, 30))
    few = the_parameters(report_lines=2)
    balances = {ALICE: 1_000, BOB: 1_000, CAROL: 1_000}
    report, ledger = settle(Bundle(receipts=receipts, consumers=balances, parameters=few))
    assert consumers_of(report) == {ALICE: 30, BOB: 50}
    assert bytes_of(ledger.cumulative) == {(ALICE, ONE): 30, (BOB, ONE): 50}
    again = (a_receipt(CAROL, ONE, 33),)
    report, _ = settle(Bundle(number=1, receipts=again, consumers=balances, parameters=few), ledger)
    assert consumers_of(report) == {CAROL: 33}


def test_lines_never_exceed_what_the_contract_takes_whatever_the_parameter_says() -> None:
    many = [an_address(0x10000 + i) for i in range(MAX_LINES + 5)]
    bundle = Bundle(
        windows=({f"s{i:05}": 3 for i in range(MAX_LINES + 5)},),
        stores={f"s{i:05}": 9 for i in range(MAX_LINES + 5)},
        shares=([BrokerShare(a, 1, 0) for a in many],),
        stakes=dict.fromkeys([*many, ONE], 10),
        receipts=[a_receipt(a, ONE, 1) for a in many],
        consumers=dict.fromkeys(many, 9),
        parameters=the_parameters(report_lines=10_000, upload_ppm=500_000, treasury_ppm=500_000),
        uploader=ONE,
    )
    report, _ = settle(bundle)
    assert len(report.streams) == len(report.consumers) == len(report.nodes) == MAX_LINES
    assert decode_report(encode_report(report)) == report


def test_the_largest_receipts_that_can_be_signed_still_fit_the_report() -> None:
    most, price = (1 << 63) - 1, (1 << 96) - 1
    brokers = [an_address(0x20000 + i) for i in range(4)]
    bundle = Bundle(
        receipts=[a_receipt(ALICE, b, most, price) for b in brokers],
        consumers={ALICE: (1 << 96) - 1},
        parameters=the_parameters(price_max=1 << 120),
        prices=(1 << 120,),
    )
    report, ledger = settle(bundle)
    assert consumers_of(report) == {ALICE: (1 << 96) - 1}
    assert decode_report(encode_report(report)) == report
    assert decode_ledger(encode_ledger(ledger)).cumulative == ledger.cumulative


def test_a_debt_is_never_more_than_there_can_be_tokens() -> None:
    few = the_parameters(report_lines=1, price_max=1 << 120)
    bundle = Bundle(
        windows=({"s": 1 << 60, "t": 1 << 60},), prices=(1 << 120,), stores={"s": 1 << 90, "t": 5}, parameters=few
    )
    _, ledger = settle(bundle)
    assert amounts_of(ledger.owed) == {"t": (1 << 96) - 1}


# --- what the ledger may hold ---------------------------------------------------------------------


def test_no_number_of_consumers_makes_a_ledger_that_nobody_can_read() -> None:
    consumers = [an_address(1 << 80 | i) for i in range(60_000)]
    few = the_parameters(report_lines=MAX_LINES)
    full = {(consumer, ONE): Reading(0, 1 << 62) for consumer in consumers[: charges.MAX_PAIRS - 1]}
    receipts = [a_receipt(c, ONE, 5 + i % 2) for i, c in enumerate(consumers[-5:])]
    bundle = Bundle(receipts=receipts, consumers=dict.fromkeys(consumers[-5:], 9), parameters=few)
    report, ledger = settle(bundle, Ledger(cumulative=full))
    assert [line.capture for line in report.consumers] == [6]  # the largest, for which there was room
    assert ledger.cumulative is not None and len(ledger.cumulative) == charges.MAX_PAIRS
    assert decode_ledger(encode_ledger(ledger)) == replace(ledger)


def test_no_number_of_streams_makes_a_ledger_that_nobody_can_read() -> None:
    ids = [f"0x{'ab' * 20}/{'x' * 205}{i:08}" for i in range(20_000)]
    few = the_parameters(report_lines=MAX_LINES)
    report, ledger = settle(Bundle(windows=(dict.fromkeys(ids, 7),), stores=dict.fromkeys(ids, 9), parameters=few))
    assert len(report.streams) == MAX_LINES
    assert ledger.owed is not None and len(ledger.owed) > 14_000
    assert len(encode_ledger(ledger)) < MAX_LEDGER_BYTES
    assert decode_ledger(encode_ledger(ledger)).owed == ledger.owed


def test_while_captures_in_flight_fill_the_ledger_a_report_takes_nothing_and_all_stays_due() -> None:
    names = [f"{'x' * 248}{i:08}" for i in range(settlement.MAX_FLIGHT_BYTES // 291 + 1)]
    before = Ledger(in_flight=(InFlight(0, dict.fromkeys(names, 1), {}, {}),))
    bundle = Bundle(
        number=1,
        windows=({"s": 80},),
        shares=([BrokerShare(ONE, 80, 0), BrokerShare(TWO, 0, 80)],),
        stores={"s": 100},
        receipts=(a_receipt(ALICE, ONE, 100),),
        consumers={ALICE: 500},
        parameters=the_parameters(penalty_ppm=1_000_000),
    )
    report, ledger = settle(bundle, before)
    assert (report.streams, report.consumers, report.nodes) == ((), (), ())
    assert amounts_of(ledger.owed) == {"s": 80}
    assert (ledger.in_flight, ledger.cumulative) == (before.in_flight, {})
    assert streams_of(settle(replace(bundle, number=2), ledger, processed=(0,))[0]) == {"s": 100}


# --- nodes ----------------------------------------------------------------------------------------


def test_the_treasury_takes_its_part_rounded_down_and_the_pool_follows_served_bytes() -> None:
    bundle = Bundle(
        windows=({"s": 600}, {"s": 401}),
        shares=([BrokerShare(ONE, 600, 0), BrokerShare(TWO, 300, 0)], [BrokerShare(TWO, 100, 0)]),
        stores={"s": 5_000},
        receipts=(a_receipt(ALICE, THREE, 10),),
        consumers={ALICE: 100},
        parameters=the_parameters(treasury_ppm=100_000),
    )
    report, _ = settle(bundle)
    assert report.treasury == 101  # 10 % of 1001 + 10
    assert nodes_of(report) == {ONE: 541, TWO: 360, THREE: 9}  # 901 as 600 : 400, and 10 less the treasury's part


@pytest.mark.parametrize(
    ("total", "weights", "expected"),
    [
        (10, {ONE: 1, TWO: 1, THREE: 1}, {ONE: 4, TWO: 3, THREE: 3}),
        (11, {THREE: 1, TWO: 1, ONE: 1}, {ONE: 4, TWO: 4, THREE: 3}),
        (10, {ONE: 1, TWO: 2}, {ONE: 3, TWO: 7}),
        (2, {ONE: 1, TWO: 1, THREE: 5}, {ONE: 0, TWO: 0, THREE: 2}),
        (1, {ONE: 0, TWO: 3}, {ONE: 0, TWO: 1}),
        (0, {ONE: 1}, {}),
    ],
)
def test_units_left_over_go_to_the_largest_remainders_ties_by_ascending_address(
    total: int, weights: dict[Address, int], expected: dict[Address, int]
) -> None:
    assert split_by_remainder(total, weights) == expected


@pytest.mark.parametrize(("total", "weights"), [(-1, {ONE: 1}), (1, {}), (1, {ONE: 0}), (1, {ONE: 2, TWO: -1})])
def test_what_cannot_be_split_is_our_own_mistake(total: int, weights: dict[Address, int]) -> None:
    with pytest.raises(InvariantError):
        split_by_remainder(total, weights)


def test_with_nothing_served_the_pool_and_the_penalties_are_the_treasurys() -> None:
    bundle = Bundle(
        windows=({"s": 100},),
        shares=([BrokerShare(ONE, 0, 100)],),
        stores={"s": 500},
        parameters=the_parameters(penalty_ppm=300_000, treasury_ppm=10_000),
    )
    report, _ = settle(bundle)
    assert nodes_of(report) == {ONE: -9}  # 99 x 30 % x 100 / (100 x 3), rounded down
    assert report.treasury == 109


def test_an_unregistered_broker_gets_no_line_and_its_bytes_do_not_count() -> None:
    bundle = Bundle(
        windows=({"s": 90},),
        shares=([BrokerShare(ONE, 10, 0), BrokerShare(TWO, 20, 0), BrokerShare(STRANGER, 60, 30)],),
        stores={"s": 500},
        parameters=the_parameters(penalty_ppm=1_000_000),
    )
    report, ledger = settle(bundle)
    assert nodes_of(report) == {ONE: 30, TWO: 60}
    assert not ledger.in_flight[0].nodes


def test_a_penalty_is_the_missed_part_of_a_brokers_part_of_the_pool_and_goes_to_the_pool() -> None:
    bundle = Bundle(
        windows=({"s": 1_000},),
        shares=([BrokerShare(ONE, 1_000, 0), BrokerShare(TWO, 400, 600)],),
        stores={"s": 10_000},
        parameters=the_parameters(penalty_ppm=500_000),
    )
    report, ledger = settle(bundle)
    penalty = 1_000 * 500_000 * 600 // (10**6 * 1_000 * 3)
    assert penalty == 100
    assert nodes_of(report) == {ONE: 786, TWO: 314 - penalty}  # 1100 as 1000 : 400
    assert not ledger.in_flight[0].nodes


def test_a_penalty_takes_at_most_the_stake_less_negative_changes_in_flight() -> None:
    before = Ledger(in_flight=(InFlight(0, {}, {}, {TWO: 70}),))
    bundle = Bundle(
        number=1,
        windows=({"s": 1_000},),
        shares=([BrokerShare(ONE, 1_000, 0), BrokerShare(TWO, 0, 1_000)],),
        stores={"s": 10_000},
        stakes={ONE: 100, TWO: 100},
        parameters=the_parameters(penalty_ppm=1_000_000),
    )
    report, ledger = settle(bundle, before)
    assert nodes_of(report) == {ONE: 1_030, TWO: -30}
    assert [r.nodes for r in ledger.in_flight] == [{TWO: 70}, {TWO: 30}]
    assert nodes_of(settle(bundle, before, processed=(0,))[0]) == {ONE: 1_100, TWO: -100}


def test_the_uploader_earns_by_signed_bytes_of_the_whole_bundle_out_of_the_treasurys_part() -> None:
    bundle = Bundle(
        windows=({"s": 600, SYSTEM: 9_000},),
        late={"s": 400, SYSTEM: 9_000},
        shares=([BrokerShare(ONE, 1, 0)],),
        stores={"s": 5_000},
        parameters=the_parameters(treasury_ppm=500_000, upload_ppm=100_000),
        uploader=TWO,
    )
    report, _ = settle(bundle)
    assert nodes_of(report) == {ONE: 500, TWO: 100}
    assert report.treasury == 400


def test_an_upload_is_credited_at_most_the_treasurys_part_also_where_nobody_earned_the_pool() -> None:
    bundle = Bundle(
        windows=({"s": 1_000},),
        stores={"s": 5_000},
        parameters=the_parameters(treasury_ppm=30_000, upload_ppm=900_000),
        uploader=TWO,
    )
    report, _ = settle(bundle)
    assert nodes_of(report) == {TWO: 30}
    assert report.treasury == 970


def test_an_unregistered_uploader_earns_nothing() -> None:
    bundle = Bundle(
        windows=({"s": 1_000},), stores={"s": 5_000}, parameters=the_parameters(treasury_ppm=1_000_000, upload_ppm=9)
    )
    report, _ = settle(replace(bundle, uploader=STRANGER))
    assert (nodes_of(report), report.treasury) == ({}, 1_000)


def test_the_ledger_holds_a_penalty_as_it_was_before_the_upload_was_credited() -> None:
    bundle = Bundle(
        windows=({"s": 1_000},),
        shares=([BrokerShare(ONE, 1_000, 0), BrokerShare(TWO, 0, 1_000)],),
        stores={"s": 10_000},
        parameters=the_parameters(treasury_ppm=200_000, penalty_ppm=300_000, upload_ppm=50_000),
    )
    by_two, ledger = settle(replace(bundle, uploader=TWO))
    by_one, same = settle(replace(bundle, uploader=ONE))
    assert nodes_of(by_two)[TWO] == -80 + 50
    assert nodes_of(by_one)[TWO] == -80
    assert encode_ledger(ledger) == encode_ledger(same)
    assert ledger.in_flight[0].nodes == {TWO: 80}


# --- the whole ------------------------------------------------------------------------------------


def a_mixed_bundle(**fields: Any) -> Bundle:
    values: dict[str, Any] = {
        "windows": ({"b": 700, "a": 300, SYSTEM: 90}, {"b": 10, "a": 0}),
        "late": {"c": 40},
        "prices": (UNIT_PRICE, UNIT_PRICE + 5),
        "shares": ([BrokerShare(TWO, 500, 590), BrokerShare(ONE, 1_000, 0)], []),
        "receipts": (a_receipt(BOB, ONE, 77), a_receipt(ALICE, TWO, 33), a_receipt(ALICE, ONE, 44)),
        "stores": {"c": 100, "a": 1_000, "b": 500},
        "consumers": {ALICE: 60, BOB: 1_000},
        "parameters": the_parameters(rent=3, treasury_ppm=123_456, penalty_ppm=200_000, upload_ppm=77_777),
        "uploader": TWO,
    }
    return Bundle(**{**values, **fields})


def test_a_report_is_conserved_canonical_and_names_block_bundle_and_ledger() -> None:
    report, ledger = settle(a_mixed_bundle())
    assert is_conserved(report)
    assert decode_report(encode_report(report)) == report
    assert report.ledger_root == ledger_root(ledger)
    assert encode_ledger(decode_ledger(encode_ledger(ledger))) == encode_ledger(ledger)
    assert (report.height, report.block_hash) == (a_block(100).number, a_block(100).hash)
    assert (report.first_ms, report.last_ms) == (0, WINDOW_MS)
    assert (report.next_committee, report.next_config_digest) == ((), NIL)


def test_an_empty_bundle_settles_nothing_and_still_counts() -> None:
    report, ledger = settle(Bundle(number=3))
    assert (report.streams, report.consumers, report.nodes, report.treasury) == ((), (), (), 0)
    assert report.number == 3
    assert not ledger.in_flight


def test_the_last_report_of_an_epoch_carries_the_next_committee_in_ascending_order() -> None:
    digest = Digest(b"\x77" * 32)

    def last_of_epoch(*arguments: Any, **named: Any) -> tuple[Report, Ledger]:
        return build_report(*arguments, **named, next_committee=(TWO, ONE), next_config_digest=digest)

    report, ledger = settle(Bundle(), build=last_of_epoch)
    assert (report.next_committee, report.next_config_digest) == ((ONE, TWO), digest)
    assert encode_ledger(ledger) == encode_ledger(settle(Bundle())[1])


def test_arguments_that_do_not_belong_together_are_our_own_mistake() -> None:
    bundle = Bundle(number=2, windows=({"s": 1}, {"s": 1}), stores={"s": 9})
    (header, root, windows, late, _, state), fixed = bundle.arguments()

    def build(ledger: Ledger = Ledger(), processed: tuple[int, ...] = (), **changed: Any) -> None:
        arguments = {"header": header, "windows": windows, "late": late, "receipts": (), "state": state, **changed}
        build_report(
            ledger,
            bundle_root=root,
            processed=processed,
            parameters=bundle.parameters,
            **{**fixed, **arguments},
        )

    build()
    other = an_outcome(InstanceId(InstanceKind.LATE, 3), {}, block=state.block)
    elsewhere = an_outcome(InstanceId(InstanceKind.LATE, 2), {}, block=a_block(5))
    wrong: list[dict[str, Any]] = [
        {"windows": []},
        {"windows": windows[::-1]},
        {"windows": [windows[0], windows[0]]},
        {"windows": [windows[0], late]},
        {"windows": windows[:1]},
        {"header": replace(header, first_ms=header.first_ms - WINDOW_MS)},
        {"late": other},
        {"late": windows[0]},
        {"receipts": (a_receipt(ALICE, ONE, 1),)},
        {"processed": (2,)},
        {"ledger": Ledger(in_flight=(InFlight(2, {}, {}, {}),))},
        {"next_committee": (ONE,)},
        {"next_config_digest": Digest(b"\x01" * 32)},
    ]
    for changed in wrong:
        with pytest.raises(InvariantError):
            build(**changed)
    for changed in ({"late": elsewhere}, {"state": replace(state, block=a_block(5))}):
        with pytest.raises(Disagreement):
            build(**changed)


# --- receipts in records --------------------------------------------------------------------------

CHAIN = 31337
MANAGER = Address(b"\x33" * 20)


def receipt_record(consumer: int, broker: int, cumulative: int, timestamp_ms: int, **fields: Any) -> Any:
    receipt = sign_receipt(
        a_key(consumer), a_key(broker).address, 0, cumulative, 9, chain_id=CHAIN, query_manager=MANAGER
    )
    values: dict[str, Any] = {"stream_id": SYSTEM, "content": write_receipt(receipt), "timestamp_ms": timestamp_ms}
    return a_record(a_key(broker), **{**values, **fields})


def test_receipts_come_in_canonical_order_whatever_order_the_records_have() -> None:
    records = [receipt_record(7, 8, 10 * i, 1_000 + i) for i in (3, 1, 2)]
    receipts = bundle_receipts(records, SYSTEM, CHAIN, MANAGER)
    assert [r.cumulative_bytes for r in receipts] == [10, 20, 30]
    assert bundle_receipts(records[::-1], SYSTEM, CHAIN, MANAGER) == receipts
    assert {(r.consumer, r.broker) for r in receipts} == {(a_key(7).address, a_key(8).address)}


def test_only_valid_receipts_on_the_system_stream_are_charged() -> None:
    good = receipt_record(7, 8, 10, 1)
    stolen = receipt_record(7, 8, 10, 2, content=receipt_record(7, 9, 10, 2).message.content)
    unsigned = receipt_record(7, 8, 10, 3, content=good.message.content.replace(b'"10"', b'"11"'))
    elsewhere = receipt_record(7, 8, 10, 4, stream_id="0x" + "45" * 20 + "/system")
    other_form = receipt_record(7, 8, 10, 5, content=b'{"receipt":true}')
    by_key = make_record(a_p256_message(stream_id=SYSTEM, content=good.message.content))
    records = [good, stolen, unsigned, elsewhere, other_form, by_key]
    assert len(bundle_receipts(records, SYSTEM, CHAIN, MANAGER)) == 1
    assert bundle_receipts(records, SYSTEM, CHAIN + 1, MANAGER) == ()
    assert bundle_receipts(records, SYSTEM, CHAIN, Address(b"\x34" * 20)) == ()
