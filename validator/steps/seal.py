"""Seal: the next bundle is complete; write its file, and compute the ledger that its report leaves."""

from __future__ import annotations

from dataclasses import replace

from validator.log import get_logger
from validator.ports.queue import Ending, NotYet, StepResult, Task
from validator.ports.states import BundleState
from validator.ports.stored import StoredBundle
from validator.protocol.codec.ledger_changes import encode_ledger_part
from validator.protocol.codec.manifest import encode_manifest, manifest_root
from validator.protocol.model import (
    NIL,
    BundleHeader,
    InstanceId,
    InstanceKind,
    Manifest,
    Root,
)
from validator.quantities import show_count
from validator.steps.agreed import load_certified
from validator.steps.context import Context
from validator.steps.cut_points import EpochConfig, require_bundle
from validator.steps.drafts import ledger_after
from validator.steps.uploads import uploaders_of

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
    if bundle.state != BundleState.OPEN:
        schedule_upload(context, bundle)
        _let_next_follow(context, number)
        return StepResult(Ending.ALREADY_DONE)
    config = context.cut_points.epoch_config(bundle.epoch)
    manifest = build_manifest(context, bundle, config)
    path = context.data_dir / "bundles" / f"{number}.parquet"
    file = context.writer.write(path, manifest)
    root = manifest_root(manifest)
    now_ms = context.clock.now_ms()
    sealed = replace(
        bundle,
        state=BundleState.SEALED,
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
    return StepResult(Ending.SEALED, f"{show_count(file.rows, 'message')}, {file.size} bytes")


def _let_next_follow(context: Context, number: int) -> None:
    """Last of all: as long as the own row stands, a crash loses nothing of what follows from a sealed bundle."""
    if context.store.bundles.load_bundle(number + 1) is not None:
        context.store.due.schedule(Task.BUNDLE_SEAL, str(number + 1), context.clock.now_ms())
    context.store.due.done(Task.BUNDLE_SEAL, str(number))


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
        context.store.due.schedule(Task.BUNDLE_UPLOAD, str(bundle.number), turn_ms)
        if turn_ms <= now_ms:
            context.tasks.enqueue(Task.BUNDLE_UPLOAD, str(bundle.number))
    context.store.due.schedule(Task.BUNDLE_VERIFY, str(bundle.number), now_ms)
    context.store.due.schedule(Task.REPORT_WATCH, str(bundle.number), now_ms)


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
        ledger=_ledger_part(context, bundle, config),
    )


def _ledger_part(context: Context, bundle: StoredBundle, config: EpochConfig) -> bytes:
    """The ledger that the report before leaves, or what that report has changed in it."""
    ledger = ledger_after(context, bundle.number - 1)
    if bundle.first_ms == config.epoch.start_ms:
        return encode_ledger_part(ledger, ledger, first=True)
    return encode_ledger_part(ledger_after(context, bundle.number - 2), ledger, first=False)


# --- the report that follows -----------------------------------------------------------------------
