"""The report of a sealed bundle and the ledger it leaves: pure functions of agreed data and chain state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from validator.ports.queue import NotYet
from validator.ports.stored import StoredBundle
from validator.protocol.charges import bundle_receipts
from validator.protocol.codec.manifest import (
    decode_ledger,
)
from validator.protocol.codec.outcome import set_root
from validator.protocol.codec.receipt import Receipt
from validator.protocol.errors import InvariantError
from validator.protocol.model import (
    NIL,
    Address,
    BundleHeader,
    ChainState,
    Digest,
    InstanceId,
    InstanceKind,
    Outcome,
    Record,
    StorageId,
)
from validator.protocol.report import Ledger, Report
from validator.protocol.settlement import build_report
from validator.steps.agreed import load_certified
from validator.steps.context import Context
from validator.steps.cut_points import EpochConfig, require_bundle, system_stream


def ledger_after(context: Context, number: int) -> Ledger:
    """The ledger that report ``number`` leaves, recomputed where no draft is stored; empty before the first."""
    if number < 0:
        return Ledger()
    saved = context.store.reports.load_ledger(number)
    if saved is not None:
        return decode_ledger(saved)
    bundle = require_bundle(context.store, number)
    if bundle.root is None:
        raise NotYet(f"bundle {number} is not sealed")
    _, ledger = draft_report(context, bundle, StorageId(NIL), Address(bytes(20)))
    return ledger


def draft_report(
    context: Context, bundle: StoredBundle, storage_id: StorageId, uploader: Address
) -> tuple[Report, Ledger]:
    """The report of a sealed bundle: a pure function of agreed data and chain state at ``B`` of its last window."""
    config = context.cut_points.epoch_config(bundle.epoch)
    ledger = ledger_after(context, bundle.number - 1)
    windows = [
        load_certified(context, InstanceId(InstanceKind.WINDOW, stored.window.start_ms)).outcome
        for stored in context.store.windows.load_windows(bundle.first_ms, bundle.end_ms)
    ]
    late = load_certified(context, InstanceId(InstanceKind.LATE, bundle.number)).outcome
    if bundle.root is None or bundle.previous_root is None:
        raise InvariantError(f"bundle {bundle.number} has no root")
    block = context.cut_points.block_for(bundle.last_ms, config.parameters)
    state = context.cut_points.state_at(block)
    receipts = _receipts(context, (*windows, late))
    consumers = {r.consumer for r in receipts} | {c for c, _ in (ledger.cumulative or {})}
    state = _with_consumers(context, state, sorted(consumers))
    last = context.chain.fetch_last_report(block)
    processed = range(0 if last is None else last.number + 1)
    committee, digest = _next_epoch(context, bundle, config)
    return build_report(
        ledger,
        BundleHeader(config.digest, bundle.number, bundle.previous_root, bundle.first_ms, bundle.last_ms),
        bundle.root,
        windows,
        late,
        receipts,
        state,
        processed,
        config.parameters,
        epoch=bundle.epoch,
        config_count=config.config.config_count,
        storage_id=storage_id,
        uploader=uploader,
        system_stream=system_stream(context.network),
        next_committee=committee,
        next_config_digest=digest,
    )


def _receipts(context: Context, outcomes: Sequence[Outcome]) -> tuple[Receipt, ...]:
    records: list[Record] = []
    system = system_stream(context.network)
    for outcome in outcomes:
        parts = [e.stream_part for e in outcome.entries if e.stream_id == system and e.count]
        if parts:
            records += context.store.sets.iterate(set_root(outcome.entries), parts)
    return bundle_receipts(records, system, context.network.chain_id, context.network.contracts.query_manager)


def _with_consumers(context: Context, state: ChainState, consumers: list[Address]) -> ChainState:
    return replace(state, consumers=context.chain.fetch_consumers(consumers, state.block))


def _next_epoch(context: Context, bundle: StoredBundle, config: EpochConfig) -> tuple[tuple[Address, ...], Digest]:
    """Committee and digest of the next epoch in an epoch's last report; the network's last repeats its own."""
    if bundle.end_ms != config.epoch.end_ms:
        return (), NIL
    if config.epoch.last:
        return config.committee, config.digest
    following = context.cut_points.epoch_config(config.epoch.number + 1)
    return following.committee, following.digest
