"""Payments: what streams and consumers pay is recomputed from the bundles alone, by the rules of the network.

Prices are base units per MiB. A bundle's price is the lower median of its windows' prices; a stream owes floor(bytes x
price / 2^20) plus rent per partition and window; a receipt costs floor(growth x min(read price, max price) / 2^20).
Free balances are stakes up to the report's block less all earlier captures, processed by then or not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from tests.verifier.bundles import Archived
from tests.verifier.chain import Chain
from tests.verifier.findings import Findings
from tests.verifier.folder import Run
from validator.codec.config import decode_config
from validator.codec.manifest import decode_ledger
from validator.codec.receipt import Receipt, receipt_of
from validator.model import MIB, PPM, Address, Outcome
from validator.parameters import ParameterSet

Pair = tuple[Address, Address]
Key = TypeVar("Key")


@dataclass(slots=True)
class Books:
    """What the check has added up so far, bundle after bundle."""

    owed: dict[str, int] = field(default_factory=dict)
    cumulative: dict[Pair, int] = field(default_factory=dict)
    paid_by_stream: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    paid_by_consumer: dict[Address, int] = field(default_factory=lambda: defaultdict(int))
    signed_for: dict[Pair, tuple[int, int]] = field(default_factory=dict)
    """Per consumer and broker the largest cumulative bytes and the highest price that a receipt names."""
    archived: int = 0
    charged_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Stakes:
    """Additions to a balance over time: (block, amount) by stream or consumer."""

    streams: Mapping[str, Sequence[tuple[int, int]]]
    consumers: Mapping[Address, Sequence[tuple[int, int]]]


def check_payments(run: Run, chain: Chain, bundles: list[Archived], published: int, findings: Findings) -> None:
    """Every stream and consumer line of every report; then the balances that are left."""
    stakes = read_stakes(chain)
    books = Books()
    for bundle in bundles:
        with findings.examining(f"report {bundle.number}, payments"):
            _check_ledger(bundle, books, findings)
            parameters = decode_config(bundle.manifest.config_preimage).parameters
            _check_streams(run, bundle, parameters, stakes, books, findings)
            _check_consumers(run, bundle, parameters, stakes, books, findings)
    _check_consumers_paid(run, books, findings)
    _check_balances(chain, stakes, bundles, books, findings)
    findings.figures["receipts"] = {
        "published": published,
        "archived": books.archived,
        "charged_bytes": books.charged_bytes,
        "captured": sum(books.paid_by_consumer.values()),
    }


def read_stakes(chain: Chain) -> Stakes:
    streams: dict[str, list[tuple[int, int]]] = defaultdict(list)
    consumers: dict[Address, list[tuple[int, int]]] = defaultdict(list)
    for event in chain.events_of("store_manager", "StoreUpdated"):
        streams[event.values["store"]].append((event.place[0], event.values["amount"]))
    for event in chain.events_of("query_manager", "Stake"):
        consumer = Address(bytes.fromhex(event.values["consumer"].removeprefix("0x")))
        consumers[consumer].append((event.place[0], event.values["amount"]))
    return Stakes(streams, consumers)


def staked_until(additions: Sequence[tuple[int, int]], block: int) -> int:
    return sum(amount for at, amount in additions if at <= block)


def price_of(windows: Sequence[Outcome]) -> int:
    """Lower median."""
    prices = sorted(w.price for w in windows)
    return prices[(len(prices) - 1) // 2]


def _check_ledger(bundle: Archived, books: Books, findings: Findings) -> None:
    """The ledger in the manifest is the one that the bundles before it give."""
    ledger = decode_ledger(bundle.manifest.ledger)
    claim = f"bundle {bundle.number}, ledger"
    findings.expect(dict(ledger.owed or {}) == _without_zeros(books.owed), claim, "streams owe other amounts")
    findings.expect(
        dict(ledger.cumulative or {}) == _without_zeros(books.cumulative), claim, "other receipts are known"
    )


def _without_zeros(amounts: Mapping[Key, int]) -> dict[Key, int]:
    return {key: amount for key, amount in amounts.items() if amount}


# --- streams --------------------------------------------------------------------------------------


def _check_streams(
    run: Run, bundle: Archived, parameters: ParameterSet, stakes: Stakes, books: Books, findings: Findings
) -> None:
    windows = [c.outcome for c in bundle.manifest.windows]
    price = price_of(windows)
    height = bundle.accepted.report.height
    sizes: dict[str, int] = defaultdict(int)
    owed: dict[str, int] = defaultdict(int, books.owed)
    for outcome in (*windows, bundle.manifest.late.outcome):
        for entry in outcome.entries:
            if entry.stream_id != run.system_stream:
                sizes[entry.stream_id] += entry.signed_bytes
                owed[entry.stream_id] += 0 if outcome is bundle.manifest.late.outcome else parameters.rent
    for stream, size in sizes.items():
        owed[stream] += size * price // MIB
    free = {
        stream: max(0, staked_until(stakes.streams.get(stream, ()), height) - books.paid_by_stream[stream])
        for stream in owed
    }
    payable = {s: min(amount, free[s]) for s, amount in owed.items() if min(amount, free[s]) >= max(1, parameters.dust)}
    largest = sorted(payable, key=lambda s: (-payable[s], s.encode()))[: parameters.report_lines]
    expected = {stream: payable[stream] for stream in largest}
    charged = {line.stream_id: line.capture for line in bundle.accepted.report.streams}
    for stream in sorted(set(expected) | set(charged)):
        right, said = expected.get(stream, 0), charged.get(stream, 0)
        findings.expect(right == said, f"report {bundle.number}", f"stream {stream} pays {said}, not {right}")
        books.paid_by_stream[stream] += said
    books.owed = {s: amount for s, amount in owed.items() if s not in expected and free[s]}


# --- consumers ------------------------------------------------------------------------------------


def receipts_of(run: Run, bundle: Archived) -> list[Receipt]:
    """Valid receipts of a bundle in canonical order."""
    system = [record for _, record in bundle.records if record.message.stream_id == run.system_stream]
    system.sort(key=lambda record: record.order)
    found = (receipt_of(r.message, run.chain_id, run.contracts["query_manager"]) for r in system)
    return [receipt for receipt in found if receipt is not None]


def _check_consumers(
    run: Run, bundle: Archived, parameters: ParameterSet, stakes: Stakes, books: Books, findings: Findings
) -> None:
    read_price = price_of([c.outcome for c in bundle.manifest.windows]) * parameters.read_ppm // PPM
    height = bundle.accepted.report.height
    amounts: dict[Address, dict[Address, int]] = defaultdict(lambda: defaultdict(int))
    sizes: dict[Address, int] = defaultdict(int)
    known = {consumer for consumer, _ in books.cumulative}
    seen = dict(books.cumulative)
    for receipt in receipts_of(run, bundle):
        books.archived += 1
        pair = (receipt.consumer, receipt.broker)
        growth = max(0, receipt.cumulative_bytes - seen.get(pair, 0))
        seen[pair] = seen.get(pair, 0) + growth
        amounts[receipt.consumer][receipt.broker] += growth * min(read_price, receipt.max_price) // MIB
        sizes[receipt.consumer] += growth
        most, highest = books.signed_for.get(pair, (0, 0))
        books.signed_for[pair] = (max(most, receipt.cumulative_bytes), max(highest, receipt.max_price))
    expected = {}
    for consumer, parts in amounts.items():
        staked = staked_until(stakes.consumers.get(consumer, ()), height)
        expected[consumer] = min(sum(parts.values()), max(0, staked - books.paid_by_consumer[consumer]))
    # A consumer without any balance that the ledger does not know can pay nothing and is not remembered.
    for pair, cumulative in seen.items():
        if pair[0] in known or staked_until(stakes.consumers.get(pair[0], ()), height):
            books.cumulative[pair] = cumulative
    if sum(amount > 0 for amount in expected.values()) > parameters.report_lines:
        findings.fail(f"report {bundle.number}", "more consumers pay than a report has lines: not recomputed here")
    charged = {line.consumer: (line.capture, line.bytes) for line in bundle.accepted.report.consumers}
    for consumer in sorted(set(expected) | set(charged)):
        right = (expected.get(consumer, 0), sizes.get(consumer, 0) if expected.get(consumer) else 0)
        said = charged.get(consumer, (0, 0))
        claim = f"report {bundle.number}, consumer 0x{consumer.hex()}"
        findings.expect(right == said, claim, f"pays {said[0]} for {said[1]} bytes, not {right[0]} for {right[1]}")
        books.paid_by_consumer[consumer] += said[0]
        books.charged_bytes += said[1]


def _check_consumers_paid(run: Run, books: Books, findings: Findings) -> None:
    """Never more than a consumer signed for, and more than nothing for each that reads."""
    for consumer in sorted({*run.consumers, *books.paid_by_consumer}):
        signed = sum(most * price for (who, _), (most, price) in books.signed_for.items() if who == consumer)
        paid = books.paid_by_consumer[consumer]
        claim = f"consumer 0x{consumer.hex()}"
        findings.expect(paid * MIB <= signed, claim, f"paid {paid}, more than it signed for")
        if consumer in run.consumers:
            findings.expect(paid > 0, claim, "paid nothing")


# --- what is left ---------------------------------------------------------------------------------


def _check_balances(chain: Chain, stakes: Stakes, bundles: list[Archived], books: Books, findings: Findings) -> None:
    """Balances are what was put in less what reports took, stakes what was put in and what reports gave."""
    newest = chain.block("latest")
    until = newest.number if newest is not None else 0
    for stream, additions in stakes.streams.items():
        (left,) = chain.call("store_manager", "stores", stream)
        right = staked_until(additions, until) - books.paid_by_stream[stream]
        findings.expect(left == right, f"balance of stream {stream}", f"is {left}, not {right}")
    for consumer, additions in stakes.consumers.items():
        (left,) = chain.call("query_manager", "balanceOf", consumer)
        right = staked_until(additions, until) - books.paid_by_consumer[consumer]
        findings.expect(left == right, f"balance of consumer 0x{consumer.hex()}", f"is {left}, not {right}")
    changes: dict[Address, int] = defaultdict(int)
    for event in chain.events_of("node_manager", "StakeDelegateUpdated"):
        node = Address(bytes.fromhex(event.values["node"].removeprefix("0x")))
        changes[node] += event.values["amount"] if event.values["delegated"] else -event.values["amount"]
    for accepted in chain.reports:
        for line in accepted.report.nodes:
            changes[line.node] += line.amount
    for node, right in changes.items():
        (left,) = chain.call("node_manager", "nodeStake", node)
        findings.expect(left == right, f"stake of node 0x{node.hex()}", f"is {left}, not {right}")
    (treasury,) = chain.call("node_manager", "treasurySupply")
    right = sum(a.report.treasury for a in chain.reports)
    findings.expect(treasury == right, "treasury", f"holds {treasury}, not {right}")
