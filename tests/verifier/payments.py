"""Payments: every line of every report is what the account gives, and the contracts hold what is left.

What is compared here is recomputed by ``account`` from what was stored and agreed, and from the chain's state at the
block of each bundle's last window.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from tests.verifier.account import Account, Settlement, Sold
from tests.verifier.bundles import Archived
from tests.verifier.chain import Chain
from tests.verifier.claims import Claim
from tests.verifier.findings import Findings
from tests.verifier.folder import Run
from tests.verifier.state import States
from validator.protocol.codec.ledger_changes import encode_ledger_part, follow_ledger
from validator.protocol.codec.manifest import encode_ledger
from validator.protocol.codec.receipt import Receipt, receipt_of
from validator.protocol.hashing import hash_object
from validator.protocol.model import MIB, Address
from validator.protocol.report import Ledger

Key = TypeVar("Key", str, Address)


def check_payments(
    run: Run, chain: Chain, states: States, bundles: Sequence[Archived], published: int, findings: Findings
) -> None:
    """Every line of every report, the ledgers between them, and the balances that are left."""
    account = Account()
    former = Ledger()
    receipts: list[Receipt] = []
    for bundle in bundles:
        where = f"report {bundle.number}"
        with findings.examining(Claim.LEDGER, where):
            _check_ledger(run, bundle, former, account.ledger, findings)
            former = account.ledger
            found = receipts_of(run, bundle)
            settlement = account.settle(sold_of(run, states, bundle, found, account))
            _check_lines(bundle, settlement, where, findings)
            right = hash_object(encode_ledger(settlement.ledger)) == bundle.accepted.report.ledger_root
            findings.expect(right, Claim.LEDGER, where, "leaves another ledger than the account")
            receipts += found
    paid = _paid_by_consumers(bundles)
    _check_signed_for(run, receipts, paid, findings)
    with findings.examining(Claim.BALANCES, "contracts"):
        check_balances(chain, findings)
    findings.figures["receipts"] = {
        "published": published,
        "archived": len(receipts),
        "charged_bytes": sum(line.bytes for b in bundles for line in b.accepted.report.consumers),
        "captured": sum(paid.values()),
    }


def receipts_of(run: Run, bundle: Archived) -> list[Receipt]:
    """Valid receipts of a bundle in canonical order; system messages of any other form are charged nothing."""
    system = [record for _, record in bundle.records if record.message.stream_id == run.system_stream]
    system.sort(key=lambda record: record.order)
    found = (receipt_of(r.message, run.chain_id, run.contracts["query_manager"]) for r in system)
    return [receipt for receipt in found if receipt is not None]


def sold_of(run: Run, states: States, bundle: Archived, receipts: Sequence[Receipt], account: Account) -> Sold:
    """What a bundle brings into the account."""
    consumers = {receipt.consumer for receipt in receipts} | {consumer for consumer, _ in account.cumulative}
    return Sold(
        number=bundle.number,
        epoch=bundle.config.epoch,
        windows=[c.outcome for c in bundle.manifest.windows],
        late=bundle.manifest.late.outcome,
        receipts=receipts,
        state=states.at(bundle.block_hash),
        balances=states.balances(consumers, bundle.block_hash),
        parameters=bundle.parameters,
        system_stream=run.system_stream,
        uploader=bundle.accepted.report.uploader,
    )


# --- reports --------------------------------------------------------------------------------------


def _check_lines(bundle: Archived, right: Settlement, where: str, findings: Findings) -> None:
    """All amounts of a report, line by line; a line that should not be there is wrong too."""
    report = bundle.accepted.report
    streams = {line.stream_id: (line.capture, line.bytes) for line in report.streams}
    for stream in sorted(set(streams) | set(right.streams)):
        s, r = streams.get(stream, (0, 0)), right.streams.get(stream, (0, 0))
        wrong = f"stream {stream} pays {s[0]} for {s[1]} bytes, not {r[0]} for {r[1]}"
        findings.expect(s == r, Claim.STREAMS, where, wrong)
    consumers = {line.consumer: (line.capture, line.bytes) for line in report.consumers}
    for consumer in sorted(set(consumers) | set(right.consumers)):
        s, r = consumers.get(consumer, (0, 0)), right.consumers.get(consumer, (0, 0))
        wrong = f"consumer 0x{consumer.hex()} pays {s[0]} for {s[1]} bytes, not {r[0]} for {r[1]}"
        findings.expect(s == r, Claim.CONSUMERS, where, wrong)
    nodes = {line.node: line.amount for line in report.nodes}
    for node in sorted(set(nodes) | set(right.nodes)):
        said, due = nodes.get(node, 0), right.nodes.get(node, 0)
        findings.expect(said == due, Claim.NODES, where, f"node 0x{node.hex()} gets {said}, not {due}")
    wrong = f"the treasury gets {report.treasury}, not {right.treasury}"
    findings.expect(report.treasury == right.treasury, Claim.TREASURY, where, wrong)


def _check_ledger(run: Run, bundle: Archived, former: Ledger, right: Ledger, findings: Findings) -> None:
    """The ledger that a manifest says is the one that the bundles before it leave, in the form that is due."""
    faults = []
    epoch = run.network.epoch_at(bundle.manifest.header.first_ms)
    first = epoch is not None and epoch.start_ms == bundle.manifest.header.first_ms
    if bundle.manifest.ledger != encode_ledger_part(former, right, first=first):
        said = follow_ledger(former, bundle.manifest.ledger)
        faults = [f"{what} differ from the account's" for what in _differing(said, right)]
        faults = faults or ["the ledger is written in the other way"]
    findings.faultless(Claim.LEDGER, f"bundle {bundle.number}", faults)


def _differing(said: Ledger, right: Ledger) -> Iterable[str]:
    if encode_ledger(Ledger(in_flight=said.in_flight)) != encode_ledger(Ledger(in_flight=right.in_flight)):
        yield "captures in flight"
    if encode_ledger(Ledger(owed=said.owed)) != encode_ledger(Ledger(owed=right.owed)):
        yield "debts of streams"
    if encode_ledger(Ledger(cumulative=said.cumulative)) != encode_ledger(Ledger(cumulative=right.cumulative)):
        yield "bytes that consumers have paid for"


# --- consumers ------------------------------------------------------------------------------------


def _paid_by_consumers(bundles: Sequence[Archived]) -> dict[Address, int]:
    paid: dict[Address, int] = defaultdict(int)
    for bundle in bundles:
        for line in bundle.accepted.report.consumers:
            paid[line.consumer] += line.capture
    return dict(paid)


def _check_signed_for(run: Run, receipts: Iterable[Receipt], paid: Mapping[Address, int], findings: Findings) -> None:
    """Never more than a consumer signed for, whatever was computed; and more than nothing for each that reads."""
    most: dict[tuple[Address, Address], tuple[int, int]] = {}
    for receipt in receipts:
        size, price = most.get((receipt.consumer, receipt.broker), (0, 0))
        best = max(size, receipt.cumulative_bytes), max(price, receipt.max_price)
        most[receipt.consumer, receipt.broker] = best
    for consumer in sorted({*run.consumers, *paid}):
        signed = sum(size * price for (who, _), (size, price) in most.items() if who == consumer)
        faults = []
        if paid.get(consumer, 0) * MIB > signed:
            faults.append(f"paid {paid[consumer]}, more than it signed for")
        if consumer in run.consumers and not paid.get(consumer, 0):
            faults.append("paid nothing")
        findings.faultless(Claim.CONSUMERS, f"consumer 0x{consumer.hex()}", faults)


# --- what is left ---------------------------------------------------------------------------------


@dataclass(slots=True)
class PutIn:
    """What events say was put into the contracts, by stream, consumer and node."""

    streams: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    consumers: dict[Address, int] = field(default_factory=lambda: defaultdict(int))
    nodes: dict[Address, int] = field(default_factory=lambda: defaultdict(int))


def read_put_in(chain: Chain) -> PutIn:
    put = PutIn()
    for event in chain.events_of("store_manager", "StoreUpdated"):
        put.streams[event.values["store"]] += event.values["amount"]
    for event in chain.events_of("query_manager", "Stake"):
        put.consumers[_address(event.values["consumer"])] += event.values["amount"]
    for event in chain.events_of("node_manager", "StakeDelegateUpdated"):
        sign = 1 if event.values["delegated"] else -1
        put.nodes[_address(event.values["node"])] += sign * event.values["amount"]
    return put


def check_balances(chain: Chain, findings: Findings) -> None:
    """Balances are what was put in less what reports took, stakes what was put in and what reports gave."""
    put = read_put_in(chain)
    reports = [accepted.report for accepted in chain.reports]
    for report in reports:
        for stream_line in report.streams:
            put.streams[stream_line.stream_id] -= stream_line.capture
        for consumer_line in report.consumers:
            put.consumers[consumer_line.consumer] -= consumer_line.capture
        for node_line in report.nodes:
            put.nodes[node_line.node] += node_line.amount
    for stream, right in put.streams.items():
        (left,) = chain.call("store_manager", "stores", stream)
        findings.expect(left == right, Claim.BALANCES, f"stream {stream}", f"has {left}, not {right}")
    for consumer, right in put.consumers.items():
        (left,) = chain.call("query_manager", "balanceOf", consumer)
        findings.expect(left == right, Claim.BALANCES, f"consumer 0x{consumer.hex()}", f"has {left}, not {right}")
    for node, right in put.nodes.items():
        (left,) = chain.call("node_manager", "nodeStake", node)
        findings.expect(left == right, Claim.BALANCES, f"node 0x{node.hex()}", f"has {left} staked, not {right}")
    (treasury,) = chain.call("node_manager", "treasurySupply")
    right = sum(report.treasury for report in reports)
    findings.expect(treasury == right, Claim.BALANCES, "treasury", f"holds {treasury}, not {right}")


def _address(text: str) -> Address:
    return Address(bytes.fromhex(text.removeprefix("0x")))
