"""Scope: which partitions a window must have entries for, and how much each may hold, by the state of its block."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.verifier.bundles import Archived, instances_of
from tests.verifier.claims import Claim
from tests.verifier.findings import Findings
from tests.verifier.folder import Run
from tests.verifier.state import FundedStore, State, States
from validator.protocol.codec.ledger_changes import follow_ledger
from validator.protocol.model import MIB, Flag, InstanceKind, Outcome, PartitionEntry, Record, StreamPart
from validator.protocol.parameters import ParameterSet
from validator.protocol.report import Debt, Ledger


@dataclass(frozen=True, slots=True)
class Budget:
    """Signed bytes that an entry may hold in all, or of each publisher."""

    limit: int
    per_publisher: bool

    def spent(self, records: Sequence[Record]) -> int:
        """What counts against the limit: all bytes, or those of the publisher with the most."""
        sizes: dict[bytes, int] = defaultdict(int)
        for record in records:
            sizes[record.message.publisher_id if self.per_publisher else b""] += record.signed_bytes
        return max(sizes.values(), default=0)


Debts = Mapping[str, Debt]
"""What streams owed, by the last report that was accepted at a block."""


def debts_at(state: State, bundles: Sequence[Archived]) -> Debts:
    """A bundle says the ledger that the report before it has left, or what that report has changed in it."""
    ledger = Ledger()
    if state.reports not in {b.number for b in bundles}:
        return {}
    for bundle in bundles:
        if bundle.number <= state.reports:
            ledger = follow_ledger(ledger, bundle.manifest.ledger)
    return ledger.owed or {}


def budgets_at(state: State, debts: Debts, parameters: ParameterSet, system_stream: str) -> Mapping[StreamPart, Budget]:
    """Every partition in scope: of stores that exist and have the floor for each, and the network's own stream."""
    budgets = {(system_stream, 0): Budget(parameters.partition_limit, per_publisher=True)}
    for stream_id, store in state.stores.items():
        floor = max(1, parameters.scope_floor * store.partitions)
        if stream_id == system_stream or not store.partitions or store.balance < floor:
            continue
        funded = funded_bytes(free_of_debt(stream_id, store, debts), store.partitions, parameters)
        limit = min(parameters.partition_limit, funded)
        budgets |= {(stream_id, partition): Budget(limit, per_publisher=False) for partition in range(store.partitions)}
    return budgets


def funded_bytes(balance: int, partitions: int, parameters: ParameterSet) -> int:
    """What a store can pay for in one partition and window, were all windows that can be unsettled full."""
    return balance * MIB // (parameters.price_max * partitions * parameters.budget_windows)


def free_of_debt(stream_id: str, store: FundedStore, debts: Debts) -> int:
    """What a store holds beyond what its stream owes already."""
    return max(0, store.balance - debts[stream_id].amount) if stream_id in debts else store.balance


def former_budgets(
    state: State, debts: Debts, parameters: ParameterSet, windows: AgreedWindows, records: Sequence[Record]
) -> Mapping[StreamPart, Budget]:
    """Partitions of late messages whose own windows had them in scope: each holds what the balance still buys."""
    budgets = {}
    for record in records:
        stream_id, partition = part = record.message.stream_part
        if windows.entry_of(record) is not None:
            store = state.stores.get(stream_id)
            limit = 0
            if store is not None:
                count = max(store.partitions, partition + 1)
                limit = funded_bytes(free_of_debt(stream_id, store, debts), count, parameters)
            budgets[part] = Budget(min(parameters.partition_limit, limit), per_publisher=False)
    return budgets


def check_scope(run: Run, states: States, bundles: Sequence[Archived], findings: Findings) -> None:
    """Entries, none missing and none extra, and none above its budget; what was cut stays out."""
    windows = AgreedWindows(run, bundles)
    for bundle in bundles:
        for instance, outcome, where in instances_of(bundle):
            with findings.examining(Claim.SCOPE, where):
                state = states.at(outcome.block_hash)
                debts = debts_at(state, bundles)
                budgets = budgets_at(state, debts, bundle.parameters, run.system_stream)
                late = instance.kind is InstanceKind.LATE
                records = bundle.records_of.get(instance, [])
                if late:
                    budgets = {**former_budgets(state, debts, bundle.parameters, windows, records), **budgets}
                _check_entries(outcome.entries, budgets, late, where, findings)
                _check_budgets(bundle, outcome.entries, records, budgets, where, findings)
                for record in records if late else ():
                    behind = "holds a message that sorts behind the end of the full entry of its own window"
                    findings.expect(not is_cut(windows, record), Claim.BUDGETS, where, behind)


def _check_entries(
    entries: Sequence[PartitionEntry],
    budgets: Mapping[StreamPart, Budget],
    late: bool,
    where: str,
    findings: Findings,
) -> None:
    """A window has all partitions in scope, a late set only those of them that hold something."""
    there = {entry.stream_part: entry for entry in entries}
    for part in sorted(set(there) | (set() if late else set(budgets))):
        faults = []
        if part not in there:
            faults.append("has no entry although it is in scope")
        elif part not in budgets:
            faults.append("has an entry although it is not in scope")
        elif late and not there[part].count:
            faults.append("has an entry in a late set that holds nothing of it")
        findings.faultless(Claim.SCOPE, f"{where}, {part[0]}#{part[1]}", faults)


def _check_budgets(
    bundle: Archived,
    entries: Sequence[PartitionEntry],
    records: Sequence[Record],
    budgets: Mapping[StreamPart, Budget],
    where: str,
    findings: Findings,
) -> None:
    members: dict[StreamPart, list[Record]] = defaultdict(list)
    for record in records:
        members[record.message.stream_part].append(record)
    for entry in entries:
        budget = budgets.get(entry.stream_part)
        if budget is None:
            continue  # said already
        spent = budget.spent(members[entry.stream_part])
        faults = []
        if spent > budget.limit:
            faults.append(f"holds {spent} bytes where {budget.limit} are funded")
        if Flag.FULL in entry.flags and spent + bundle.parameters.message_limit <= budget.limit:
            faults.append(f"is marked full with {spent} of {budget.limit} bytes, where any message would fit")
        findings.faultless(Claim.BUDGETS, f"{where}, {entry.stream_id}#{entry.partition}", faults)


# --- what a full entry has cut --------------------------------------------------------------------


class AgreedWindows:
    """The windows of all bundles, by their start."""

    def __init__(self, run: Run, bundles: Sequence[Archived]) -> None:
        self._run = run
        self._found = {c.outcome.instance.number: (b, c.outcome) for b in bundles for c in b.manifest.windows}

    def of(self, record: Record) -> tuple[Archived, Outcome] | None:
        """The window in which a message's time lies, with its bundle; None where there is none."""
        window = self._run.network.window_at(record.message.timestamp_ms)
        return self._found.get(window.start_ms) if window is not None else None

    def entry_of(self, record: Record) -> tuple[PartitionEntry, list[Record]] | None:
        """The entry of a message's partition in its own window, and what it holds."""
        own = self.of(record)
        if own is None:
            return None
        bundle, outcome = own
        part = record.message.stream_part
        entry = next((e for e in outcome.entries if e.stream_part == part), None)
        held = bundle.records_of.get(outcome.instance, [])
        return None if entry is None else (entry, [r for r in held if r.message.stream_part == part])

    def may_be_full(self, record: Record, held: Sequence[Record]) -> bool:
        """Whether one more message of the largest size of this publisher's would not fit in its window."""
        own = self.of(record)
        limits = own[0].parameters if own is not None else None
        size = sum(r.signed_bytes for r in held)
        return limits is not None and size + limits.message_limit > limits.partition_limit

    def is_system(self, record: Record) -> bool:
        return record.message.stream_id == self._run.system_stream


def is_cut(windows: AgreedWindows, record: Record) -> bool:
    """Whether a message sorts behind the end of a full entry of its own window, which then holds it out for ever.

    The limit of the system stream is each publisher's own.
    """
    found = windows.entry_of(record)
    if found is None or Flag.FULL not in found[0].flags:
        return False
    held = found[1]
    if windows.is_system(record):
        held = [r for r in held if r.message.publisher_id == record.message.publisher_id]
        if not held or not windows.may_be_full(record, held):
            return False
    return not held or record.order > held[-1].order
