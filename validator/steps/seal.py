"""Seal: the next bundle is complete; write its file, and compute the ledger that its report leaves."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from validator.log import get_logger
from validator.ports.queue import NotYet, StepResult
from validator.ports.store import StoredBundle
from validator.protocol.codec.bundle_file import BundleFile, write_bundle
from validator.protocol.codec.manifest import (
    decode_ledger,
    decode_manifest,
    encode_ledger,
    encode_manifest,
    manifest_root,
)
from validator.protocol.codec.outcome import set_root
from validator.protocol.codec.receipt import Receipt
from validator.protocol.errors import InvariantError, TransientError
from validator.protocol.hashing import order_committee
from validator.protocol.model import (
    NIL,
    Address,
    BundleHeader,
    Certified,
    ChainState,
    Digest,
    InstanceId,
    InstanceKind,
    Ledger,
    Manifest,
    Outcome,
    Record,
    Report,
    Root,
    StorageId,
)
from validator.protocol.settlement import build_report, bundle_receipts
from validator.steps.context import Context
from validator.steps.cut_points import EpochConfig, require_bundle, system_stream
from validator.steps.late import require_outcome
from validator.steps.records import load_records

log = get_logger(__name__)

HEARING_MS = 12_000
"""Who seals a whole stage after the bundle's end was away or in trouble: another may have uploaded. Announcements are
repeated every 5 s; so long it listens before it pays."""
FIRST_PREVIOUS_ROOT = Root(NIL)
"""What stands for the previous bundle's root in the first bundle."""


def seal(context: Context, number: int) -> StepResult:
    """Write the bundle's file once everything of it is held. Safe to run twice: the root decides, not the file.

    Raises:
        NotYet: an outcome or set is still missing, or the previous bundle is not sealed.
    """
    bundle = require_bundle(context.store, number)
    if bundle.state != "open":
        schedule_upload(context, bundle)
        _let_next_follow(context, number)
        return StepResult("already done")
    config = context.cut_points.epoch_config(bundle.epoch)
    manifest = build_manifest(context, bundle, config)
    path = context.data_dir / "bundles" / f"{number}.parquet"
    file = write_file(context, path, manifest)
    root = manifest_root(manifest)
    now_ms = context.clock.now_ms()
    sealed = replace(
        bundle,
        state="sealed",
        previous_root=manifest.header.previous_root,
        root=root,
        path=str(path),
        size=file.size,
        sha256=file.sha256,
        manifest=encode_manifest(manifest),
        sealed_ms=now_ms,
        messages=file.rows,
    )
    context.store.bundles.save_sealed(sealed)
    log.info("bundle.sealed", bundle=number, messages=file.rows, bytes=file.size, root=root)
    schedule_upload(context, sealed)
    _let_next_follow(context, number)
    return StepResult("sealed", f"{file.rows} messages, {file.size} bytes")


def require_file(context: Context, bundle: StoredBundle) -> Path:
    """The file of a sealed bundle, whole; one that is gone or altered is written again.

    Raises:
        TransientError: the disk does not let us look or write, or a set is not here now.
    """
    path = Path(bundle.path)
    try:
        with path.open("rb") as held:
            if hashlib.file_digest(held, "sha256").digest() == bundle.sha256:
                return path
            reason = "altered"
    except FileNotFoundError:
        reason = "gone"
    except OSError as error:
        raise TransientError(f"{path}: cannot read: {error.strerror}") from error
    log.error("bundle.file_damaged", bundle=bundle.number, reason=reason)
    file = write_file(context, path, decode_manifest(bundle.manifest))
    if file.sha256 != bundle.sha256:  # another version of the library; roots and votes cover messages, never the file
        context.store.bundles.save_file(bundle.number, file.size, file.sha256)
    return path


def write_file(context: Context, path: Path, manifest: Manifest) -> BundleFile:
    """Write a bundle's file from what is held. Raises TransientError: the disk is full or refuses, or a set is not here
    now."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_bundle(path, manifest, bundle_records(context, manifest))
    except OSError as error:
        raise TransientError(f"{path}: cannot write: {error.strerror or error}") from error


def _let_next_follow(context: Context, number: int) -> None:
    """Last of all: as long as the own row stands, a crash loses nothing of what follows from a sealed bundle."""
    if context.store.bundles.load_bundle(number + 1) is not None:
        context.store.due.schedule("bundle.seal", str(number + 1), context.clock.now_ms())
    context.store.due.done("bundle.seal", str(number))


def schedule_upload(context: Context, bundle: StoredBundle) -> None:
    """Our turn as uploader, and the first look at what others upload."""
    config = context.cut_points.epoch_config(bundle.epoch)
    order = uploaders_of(context, bundle)
    now_ms = context.clock.now_ms()
    if context.identity.address in order:
        stage_ms = config.parameters.upload_stage_ms
        turn_ms = bundle.sealed_ms + order.index(context.identity.address) * stage_ms
        if bundle.sealed_ms >= bundle.end_ms + stage_ms:
            turn_ms += HEARING_MS  # for all alike: turns stay a stage apart
        context.store.due.schedule("bundle.upload", str(bundle.number), turn_ms)
        if turn_ms <= now_ms:
            context.tasks.enqueue("bundle.upload", str(bundle.number))
    context.store.due.schedule("bundle.verify", str(bundle.number), now_ms)
    context.store.due.schedule("report.watch", str(bundle.number), now_ms)


def uploaders_of(context: Context, bundle: StoredBundle) -> list[Address]:
    """Whose turn it is, in order: the committee's permutation without those that have no wallet of their own on chain,
    whose turn passes."""
    config = context.cut_points.epoch_config(bundle.epoch)
    able = set(context.cut_points.wallets_of(bundle).values())
    order = order_committee(config.committee, config.digest, upload_subject(bundle.number))
    return [member for member in order if member in able]


def upload_subject(number: int) -> bytes:
    """What the uploaders' permutation is keyed by, beside the config digest."""
    return b"upload" + number.to_bytes(8, "big")


def build_manifest(context: Context, bundle: StoredBundle, config: EpochConfig) -> Manifest:
    """The bundle's manifest from agreed data. Raises NotYet if some of it is not here."""
    previous = FIRST_PREVIOUS_ROOT
    if bundle.number:
        before = require_bundle(context.store, bundle.number - 1)
        if before.root is None:
            raise NotYet(f"bundle {bundle.number - 1} is not sealed")
        previous = before.root
    windows = [
        load_certified(context, InstanceId(InstanceKind.WINDOW, stored.window.start_ms))
        for stored in context.store.windows.load_windows(bundle.first_ms, bundle.end_ms)
    ]
    return Manifest(
        header=BundleHeader(config.digest, bundle.number, previous, bundle.first_ms, bundle.last_ms),
        config_preimage=config.preimage,
        windows=tuple(windows),
        late=load_certified(context, InstanceId(InstanceKind.LATE, bundle.number)),
        ledger=encode_ledger(ledger_after(context, bundle.number - 1)),
    )


def load_certified(context: Context, instance: InstanceId) -> Certified:
    """A decided outcome with its certificate. Raises NotYet."""
    outcome = require_outcome(context, instance)
    certificate = context.store.instances.load_certificate(instance)
    assert certificate is not None  # a decision, once saved, stays
    return Certified(outcome, certificate)


def bundle_records(context: Context, manifest: Manifest) -> Iterator[tuple[InstanceId, Record]]:
    """All records of a bundle in canonical order, each with the instance it belongs to."""
    streams = []
    for certified in (*manifest.windows, manifest.late):
        records = load_records(context, set_root(certified.outcome.entries))
        streams.append([(certified.outcome.instance, record) for record in records])
    return heapq.merge(*streams, key=lambda item: item[1].order)


# --- the report that follows -----------------------------------------------------------------------


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
        records += [r for r in load_records(context, set_root(outcome.entries)) if r.message.stream_id == system]
    records.sort(key=lambda r: r.order)
    return bundle_receipts(records, system, context.network.chain_id, context.network.contracts.query_manager)


def _with_consumers(context: Context, state: ChainState, consumers: list[Address]) -> ChainState:
    return replace(state, consumers=context.chain.fetch_consumer_balances(consumers, state.block))


def _next_epoch(context: Context, bundle: StoredBundle, config: EpochConfig) -> tuple[tuple[Address, ...], Digest]:
    """Committee and digest of the next epoch in an epoch's last report; the network's last repeats its own."""
    if bundle.end_ms != config.epoch.end_ms:
        return (), NIL
    if config.epoch.last:
        return config.committee, config.digest
    following = context.cut_points.epoch_config(config.epoch.number + 1)
    return following.committee, following.digest
