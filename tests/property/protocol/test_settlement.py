"""Settlement over many bundles, reports settled late, inputs in any order; and that each planted mistake is caught."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    Build,
    Bundle,
    Contract,
    a_receipt,
    amounts_of,
    an_entry,
    bytes_of,
    consumers_of,
    nodes_of,
    settle,
    some_debts,
    streams_of,
    the_parameters,
)
from validator.protocol.charges import split_by_remainder
from validator.protocol.codec.manifest import decode_ledger, encode_ledger
from validator.protocol.codec.receipt import Receipt
from validator.protocol.codec.report import decode_report, encode_report, is_conserved
from validator.protocol.model import MIB, PPM, Address, BrokerShare, ChainState, Outcome, StorageId
from validator.protocol.parameters import ParameterSet
from validator.protocol.report import Ledger, Reading, Report
from validator.protocol.settlement import build_report

STREAMS = ("a", "b", "c", "ö", SYSTEM)
CONSUMERS = (ALICE, BOB, CAROL)
BROKERS = (ONE, TWO, THREE, STRANGER)
amounts = st.integers(0, 2_000)
ppm = st.sampled_from((0, 1, 50_000, 333_333, 1_000_000))


@st.composite
def some_parameters(draw: st.DrawFn) -> ParameterSet:
    return the_parameters(
        rent=draw(st.integers(0, 20)),
        dust=draw(st.integers(0, 300)),
        report_lines=draw(st.integers(1, 5)),
        read_ppm=draw(ppm),
        treasury_ppm=draw(ppm),
        penalty_ppm=draw(ppm),
        upload_ppm=draw(ppm),
    )


@st.composite
def some_shares(draw: st.DrawFn, signed_bytes: int) -> list[BrokerShare]:
    part = st.integers(0, signed_bytes)
    return [BrokerShare(b, draw(part), draw(part)) for b in BROKERS if draw(st.booleans())]


@st.composite
def some_bundles(draw: st.DrawFn, number: int = 0, parameters: ParameterSet | None = None) -> Bundle:
    sizes = st.dictionaries(st.sampled_from(STREAMS), amounts, max_size=4)
    windows = draw(st.lists(sizes, min_size=1, max_size=4))
    receipt = st.builds(
        a_receipt,
        st.sampled_from(CONSUMERS),
        st.sampled_from(BROKERS),
        st.integers(0, 3_000),
        st.sampled_from((0, 1, UNIT_PRICE // 2, UNIT_PRICE, 3 * UNIT_PRICE)),
    )
    return Bundle(
        number=number,
        windows=windows,
        late=draw(sizes),
        prices=[draw(st.sampled_from((1, UNIT_PRICE, UNIT_PRICE + 7, 2 * UNIT_PRICE))) for _ in windows],
        shares=[draw(some_shares(sum(w.values()))) for w in windows],
        receipts=draw(st.lists(receipt, max_size=8)),
        stores={s: draw(amounts) for s in STREAMS if draw(st.booleans())},
        stakes={b: draw(st.integers(0, 500)) for b in (ONE, TWO, THREE)},
        consumers={c: draw(amounts) for c in CONSUMERS},
        parameters=parameters or draw(some_parameters()),
        uploader=draw(st.sampled_from(BROKERS)),
    )


# --- a chain of reports, settled late -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Story:
    """Bundles in order, and before each: how many waiting reports the contract settles, and what is paid in."""

    contract: Callable[[], Contract]
    bundles: Sequence[Bundle]
    settled: Sequence[int]
    top_ups: Sequence[int]


@st.composite
def some_stories(draw: st.DrawFn) -> Story:
    parameters = draw(some_parameters())
    count = draw(st.integers(1, 6))
    bundles = [draw(some_bundles(number, parameters)) for number in range(count)]
    stores = {s: draw(amounts) for s in STREAMS}
    consumers = {c: draw(amounts) for c in CONSUMERS}
    stakes = {b: draw(st.integers(0, 300)) for b in (ONE, TWO, THREE)}
    return Story(
        lambda: Contract(stores, consumers, stakes),
        bundles,
        [draw(st.integers(0, 2)) for _ in bundles],
        [draw(st.sampled_from((0, 0, 400))) for _ in bundles],
    )


def tell(story: Story, build: Build = build_report) -> tuple[Contract, list[Report]]:
    """Every report of the story; the contract asserts that no balance and no stake ever falls below zero."""
    contract, ledger, reports = story.contract(), Ledger(), []
    for bundle, settled, top_up in zip(story.bundles, story.settled, story.top_ups, strict=True):
        contract.process(settled)
        for stream in contract.stores:
            contract.stores[stream] += top_up
        tokens = contract.tokens
        report, ledger = settle(contract.fund(bundle), ledger, tuple(contract.processed), build)
        assert is_conserved(report), f"report {report.number} is not conserved"
        ledger = decode_ledger(encode_ledger(ledger))  # as the next bundle's manifest hands it over
        contract.waiting.append(report)
        reports.append(report)
        assert contract.tokens == tokens
    tokens = contract.tokens
    contract.process(len(contract.waiting))
    assert contract.tokens == tokens, "settling made or lost tokens"
    return contract, reports


@given(some_stories())
def test_nothing_falls_below_zero_over_any_number_of_reports_in_flight(story: Story) -> None:
    tell(story)


@given(some_stories())
def test_a_consumer_never_pays_more_than_it_signed_for_over_all_reports(story: Story) -> None:
    paid: Counter[Address] = Counter()
    for report in tell(story)[1]:
        paid.update(consumers_of(report))
    for consumer in CONSUMERS:
        best: dict[Address, list[Receipt]] = {}
        for receipt in (r for b in story.bundles for r in b.receipts if r.consumer == consumer):
            best.setdefault(receipt.broker, []).append(receipt)
        signed = sum(
            max(r.cumulative_bytes for r in received) * max(r.max_price for r in received) // MIB
            for received in best.values()
        )
        assert paid[consumer] <= signed


@given(some_stories())
def test_what_streams_pay_is_never_more_than_bytes_and_rent_of_all_bundles(story: Story) -> None:
    paid: Counter[str] = Counter()
    for report in tell(story)[1]:
        paid.update(streams_of(report))
    due: Counter[str] = Counter()
    for bundle in story.bundles:
        for sizes in (*bundle.windows, bundle.late):
            assert isinstance(sizes, Mapping)
            for stream, size in sizes.items():
                due[stream] += -(-size * max(bundle.prices) // MIB)
        for sizes in bundle.windows:
            assert isinstance(sizes, Mapping)
            for stream in sizes:
                due[stream] += bundle.parameters.rent
    assert SYSTEM not in paid
    assert all(paid[stream] <= due[stream] for stream in paid)


# --- one report against a second, slow account of the same rules ----------------------------------


def slow_split(total: int, weights: Mapping[Address, int]) -> dict[Address, int]:
    exact = {k: Fraction(total * w, sum(weights.values())) for k, w in weights.items()}
    parts = {k: int(v) for k, v in exact.items()}
    for key in sorted(exact, key=lambda k: (int(exact[k]) - exact[k], k))[: total - sum(parts.values())]:
        parts[key] += 1
    return parts


def slow_settlement(bundle: Bundle, ledger: Ledger) -> tuple[dict[str, int], dict[Address, int], dict[Address, int]]:
    """(streams, consumers, nodes without the uploader's credit) by fractions, with nothing in flight."""
    p = bundle.parameters
    price = sorted(bundle.prices)[(len(bundle.prices) - 1) // 2]
    owed = amounts_of(ledger.owed)
    for stream in STREAMS[:-1]:
        held = [w for w in bundle.windows if isinstance(w, Mapping) and stream in w]
        assert isinstance(bundle.late, Mapping)
        size = sum(w[stream] for w in held) + bundle.late.get(stream, 0)
        if stream in owed or held or stream in bundle.late:
            owed[stream] = owed.get(stream, 0) + int(Fraction(size * price, MIB)) + p.rent * len(held)
    possible = {s: min(due, bundle.stores.get(s, 0)) for s, due in owed.items()}
    order = sorted((s for s in possible if possible[s] >= p.dust and possible[s]), key=lambda s: s.encode())
    order = sorted(order, key=lambda s: -possible[s])
    order = sorted(order, key=lambda s: s not in (ledger.owed or {}))[: p.report_lines]
    streams = {s: possible[s] for s in order}

    charges: dict[Address, Counter[Address]] = {}
    seen = bytes_of(ledger.cumulative)
    for r in bundle.receipts:
        pair = (r.consumer, r.broker)
        growth = max(r.cumulative_bytes - seen.get(pair, 0), 0)
        seen[pair] = max(r.cumulative_bytes, seen.get(pair, 0))
        asked = min(int(Fraction(price * p.read_ppm, PPM)), r.max_price)
        charges.setdefault(r.consumer, Counter())[r.broker] += int(Fraction(growth * asked, MIB))
    paid: dict[Address, dict[Address, int]] = {}
    for consumer, parts in charges.items():
        wanted = {broker: amount for broker, amount in parts.items() if amount}
        whole = min(sum(wanted.values()), bundle.consumers[consumer])
        paid[consumer] = slow_split(whole, wanted) if whole else {}
    totals = {c: sum(parts.values()) for c, parts in paid.items()}
    ranked = sorted((c for c in totals if totals[c]), key=lambda c: (-totals[c], c))[: p.report_lines]
    consumers = {c: totals[c] for c in ranked}

    written, read = sum(streams.values()), sum(consumers.values())
    pool = written - int(Fraction(written * p.treasury_ppm, PPM))
    treasury = int(Fraction((written + read) * p.treasury_ppm, PPM))
    shares = [s for window in bundle.shares for s in window if s.broker in bundle.stakes]
    served = Counter({b: sum(s.served for s in shares if s.broker == b) for b in bundle.stakes})
    missed = Counter({b: sum(s.missed for s in shares if s.broker == b) for b in bundle.stakes})
    windows = [w for w in bundle.windows if isinstance(w, Mapping)]
    signed = sum(size for w in windows for stream, size in w.items() if stream != SYSTEM)
    nodes: Counter[Address] = Counter()
    for broker, stake in bundle.stakes.items():
        if missed[broker] and signed:
            part = Fraction(pool, len(bundle.stakes)) * Fraction(p.penalty_ppm, PPM) * Fraction(missed[broker], signed)
            nodes[broker] -= min(int(part), stake)
    if served.total():
        nodes.update(slow_split(pool - nodes.total(), {b: n for b, n in served.items() if n}))
    fees = Counter[Address]()
    for consumer in ranked:
        fees.update(paid[consumer])
    if fees.total():
        earned = slow_split(written + read - treasury - pool, fees)
        nodes.update({b: fee for b, fee in earned.items() if b in bundle.stakes})
    return streams, consumers, dict(nodes)


@given(some_bundles())
def test_a_second_account_of_the_same_rules_agrees(bundle: Bundle) -> None:
    before = Ledger(owed=some_debts(a=55, ö=3), cumulative={(ALICE, ONE): Reading(0, 700)})
    report, _ = settle(replace(bundle, number=1, uploader=STRANGER), before)
    streams, consumers, nodes = slow_settlement(bundle, before)
    assert streams_of(report) == streams
    assert consumers_of(report) == consumers
    assert nodes_of(report) == {node: change for node, change in nodes.items() if change}
    assert is_conserved(report)
    assert decode_report(encode_report(report)) == report


@given(total=st.integers(0, 1 << 100), weights=st.dictionaries(st.sampled_from(BROKERS), st.integers(1, 1 << 70)))
def test_parts_add_up_and_each_is_within_one_of_its_exact_part(total: int, weights: dict[Address, int]) -> None:
    if not weights:
        return
    parts = split_by_remainder(total, weights)
    assert sum(parts.values()) == total
    assert not total or parts == slow_split(total, weights)
    for key, part in parts.items():
        assert abs(part - Fraction(total * weights[key], sum(weights.values()))) < 1


# --- order and uploader ---------------------------------------------------------------------------


@given(bundle=some_bundles(), data=st.data())
def test_the_order_of_inputs_never_changes_a_byte(bundle: Bundle, data: st.DataObject) -> None:
    (header, root, windows, late, receipts, state), fixed = bundle.arguments()
    before = Ledger(owed=some_debts(a=5, b=6), cumulative={(ALICE, ONE): Reading(0, 7), (BOB, TWO): Reading(0, 8)})

    def shuffled(items: Any) -> Any:
        return tuple(data.draw(st.permutations(list(items))))

    def reordered(outcome: Outcome) -> Outcome:
        return replace(outcome, entries=shuffled(outcome.entries), shares=shuffled(outcome.shares))

    other = ChainState(
        state.block,
        shuffled(state.nodes),
        shuffled(state.stores),
        state.system_stream,
        dict(shuffled(state.consumers.items())),
    )
    again = Ledger(
        owed=dict(shuffled((before.owed or {}).items())), cumulative=dict(shuffled((before.cumulative or {}).items()))
    )
    report, ledger = build_report(before, header, root, windows, late, receipts, state, (), bundle.parameters, **fixed)
    permuted = build_report(
        again,
        header,
        root,
        [reordered(w) for w in windows],
        reordered(late),
        receipts,
        other,
        (),
        bundle.parameters,
        **fixed,
    )
    assert encode_report(permuted[0]) == encode_report(report)
    assert encode_ledger(permuted[1]) == encode_ledger(ledger)


@given(bundle=some_bundles(), uploader=st.sampled_from(BROKERS))
def test_the_ledger_never_depends_on_who_uploaded_where(bundle: Bundle, uploader: Address) -> None:
    report, ledger = settle(bundle)
    other, same = settle(replace(bundle, uploader=uploader, storage_id=StorageId(b"\x52" * 32)))
    assert encode_ledger(ledger) == encode_ledger(same)
    assert report.ledger_root == other.ledger_root
    assert (report.streams, report.consumers) == (other.streams, other.consumers)
    assert sum(nodes_of(report).values()) + report.treasury == sum(nodes_of(other).values()) + other.treasury


# --- planted mistakes -----------------------------------------------------------------------------


def balance_at_b_only(ledger: Ledger, *arguments: Any, **named: Any) -> tuple[Report, Ledger]:
    """Captures in flight are not deducted."""
    return build_report(replace(ledger, in_flight=()), *arguments, **named)


def ledger_local(_: Ledger, *arguments: Any, **named: Any) -> tuple[Report, Ledger]:
    """A validator starts with an empty ledger."""
    return build_report(Ledger(), *arguments, **named)


def median_mean(ledger: Ledger, header: Any, root: Any, windows: Any, *arguments: Any, **named: Any) -> Any:
    """The price is the mean of the windows'."""
    mean = sum(w.price for w in windows) // len(windows)
    return build_report(ledger, header, root, [replace(w, price=mean) for w in windows], *arguments, **named)


def median_upper(ledger: Ledger, header: Any, root: Any, windows: Any, *arguments: Any, **named: Any) -> Any:
    """The price is the upper median of the windows'."""
    upper = sorted(w.price for w in windows)[len(windows) // 2]
    return build_report(ledger, header, root, [replace(w, price=upper) for w in windows], *arguments, **named)


def carry_rewards(
    ledger: Ledger, header: Any, root: Any, windows: Any, late: Any, receipts: Any, state: Any, *rest: Any, **named: Any
) -> tuple[Report, Ledger]:
    """Rewards are computed on what is owed instead of what is captured."""
    arguments = (ledger, header, root, windows, late, receipts)
    rich = replace(state, stores=tuple(replace(s, balance=1 << 90) for s in state.stores))
    owed, _ = build_report(*arguments, rich, *rest, **named)
    report, after = build_report(*arguments, state, *rest, **named)
    return replace(report, nodes=owed.nodes, treasury=owed.treasury), after


def claim_nothing_is_short(build: Build) -> None:
    """Three bundles that each want the whole balance of stream and consumer, and a penalty as large as the stake."""
    bundles = [
        Bundle(
            number=number,
            windows=({"s": 1_000},),
            shares=([BrokerShare(ONE, 1_000, 0), BrokerShare(TWO, 0, 1_000)],),
            receipts=(a_receipt(ALICE, ONE, 1_000 * (number + 1)),),
            parameters=the_parameters(penalty_ppm=1_000_000),
        )
        for number in range(3)
    ]
    story = Story(lambda: Contract({"s": 1_500}, {ALICE: 1_500}, {ONE: 100, TWO: 500}), bundles, (0, 0, 0), (0, 0, 0))
    contract, reports = tell(story, build)
    assert (contract.stores["s"], contract.consumers[ALICE], contract.stakes[TWO]) == (0, 0, 0)
    assert [sum(streams_of(r).values()) for r in reports] == [1_000, 500, 0]


def claim_same_ledger_for_all(build: Build) -> None:
    """One who follows from the start and one who has the ledger from a manifest only build the same report."""
    few = the_parameters(report_lines=1)
    stores = {"a": 100, "b": 100}
    receipt = (a_receipt(ALICE, ONE, 40),)
    first = Bundle(windows=({"a": 9, "b": 5},), stores=stores, receipts=receipt, consumers={ALICE: 90}, parameters=few)
    second = Bundle(number=1, stores=stores, receipts=receipt, consumers={ALICE: 90}, parameters=few)
    _, ledger = settle(first)
    followed, _ = settle(second, ledger)
    joined, _ = settle(second, decode_ledger(encode_ledger(ledger)), build=build)
    assert encode_report(joined) == encode_report(followed)


def claim_lower_median(build: Build) -> None:
    bundle = Bundle(windows=({"s": MIB}, {}, {}, {}), prices=(2, 4, 50, 1_000), stores={"s": 10**6})
    assert streams_of(settle(bundle, build=build)[0]) == {"s": 4}


def claim_rewards_follow_captures(build: Build) -> None:
    bundle = Bundle(windows=({"s": 900},), shares=([BrokerShare(ONE, 900, 0)],), stores={"s": 100})
    report, _ = settle(bundle, build=build)
    assert is_conserved(report)
    assert nodes_of(report) == {ONE: 100}


@pytest.mark.parametrize(
    ("mutation", "claim"),
    [
        (balance_at_b_only, claim_nothing_is_short),
        (ledger_local, claim_nothing_is_short),
        (ledger_local, claim_same_ledger_for_all),
        (median_mean, claim_lower_median),
        (median_upper, claim_lower_median),
        (carry_rewards, claim_rewards_follow_captures),
    ],
)
def test_a_planted_mistake_breaks_its_claim_and_the_real_thing_keeps_it(
    mutation: Build, claim: Callable[[Build], None]
) -> None:
    claim(build_report)
    with pytest.raises(AssertionError):
        claim(mutation)


def test_partitions_of_one_stream_pay_together() -> None:
    entries = [an_entry("s", 5), an_entry("s", 7, partition=1)]
    assert streams_of(settle(Bundle(windows=(entries,), stores={"s": 99}))[0]) == {"s": 12}
