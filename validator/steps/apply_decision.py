"""Apply a decision: hold what was decided, remember its identities, and find where the bundle ends."""

from __future__ import annotations

from validator.log import get_logger
from validator.ports.queue import Ending, NotYet, StepResult, Task
from validator.ports.states import BundleState, WindowState
from validator.ports.stored import StoredBundle
from validator.protocol.codec.outcome import decode_outcome, set_root
from validator.protocol.columns import all_pages
from validator.protocol.consensus.boundary import AgreedWindow, bundle_length
from validator.protocol.model import InstanceId, InstanceKind, Outcome, VoteQuorum
from validator.quantities import show_count
from validator.steps.agreed import require_outcome
from validator.steps.asking import Wanted
from validator.steps.context import Context
from validator.steps.late_candidates import keep_left_out

log = get_logger(__name__)

RETRY_MS = 1_000


def apply_decision(context: Context, instance: InstanceId) -> StepResult:
    """Make a decision's value durable here. Safe to run twice."""
    certificate = context.store.instances.load_certificate(instance)
    if certificate is None:
        return StepResult(Ending.UNDECIDED)
    task, key = Task.ROUND_ADVANCE, str(instance)
    if instance.kind is InstanceKind.WINDOW:
        stored = context.store.windows.load_window(instance.number)
        if stored is None:
            raise NotYet("the window is not opened yet")  # its certificate was here before beat's first look
        context.store.windows.save_state(instance.number, WindowState.AGREED)
        if stored.state == WindowState.HELD:
            if key in context.store.due.pending(task):  # else whoever held it has come to the end
                close_bundles(context)
                context.store.due.done(task, key)
            return StepResult(Ending.ALREADY_DONE)
    outcome = _hold(context, instance, certificate)
    if outcome is None:
        context.store.due.postpone(task, key, context.clock.now_ms() + RETRY_MS)
        return StepResult(Ending.AGREED, "the value is being fetched")
    held = context.store.sets.open_set(set_root(outcome.entries))
    identities = (row.identity for page in all_pages(held) for row in page.rows())
    context.store.archive.save_identities(instance, identities)
    if instance.kind is InstanceKind.WINDOW:
        keep_left_out(context, instance, held)
        context.store.windows.save_state(instance.number, WindowState.HELD)
        close_bundles(context)
    else:
        context.store.due.schedule(Task.BUNDLE_SEAL, str(instance.number), context.clock.now_ms())
        context.tasks.enqueue(Task.BUNDLE_SEAL, str(instance.number))
    context.store.due.done(task, key)
    return StepResult(Ending.AGREED, show_count(outcome.count, "message"))


def close_bundles(context: Context) -> None:
    """Create every bundle whose end is certain, and have its late set collected."""
    while True:
        last = context.store.bundles.last_bundle()
        start_ms = context.network.genesis_ms if last is None else last.end_ms
        epoch = context.network.epoch_at(start_ms)
        if epoch is None:
            return
        agreed = []
        for stored in context.store.windows.load_windows(start_ms, epoch.end_ms):
            if stored.state != WindowState.HELD:
                break
            size = _canonical_bytes(context, InstanceId(InstanceKind.WINDOW, stored.window.start_ms))
            agreed.append(AgreedWindow(stored.window.start_ms, stored.window.end_ms, size))
        length = bundle_length(agreed, epoch.end_ms, epoch.parameters)
        if length is None:
            return
        number = 0 if last is None else last.number + 1
        bundle = StoredBundle(
            number=number,
            config_digest=context.cut_points.epoch_config(epoch.number).digest,
            epoch=epoch.number,
            first_ms=agreed[0].start_ms,
            last_ms=agreed[length - 1].start_ms,
            end_ms=agreed[length - 1].end_ms,
            state=BundleState.OPEN,
        )
        # Due first: a crash in between leaves a row without a bundle, never a bundle whose late set nobody collects.
        context.store.due.schedule(Task.LATE_COLLECT, str(number), context.clock.now_ms())
        context.store.due.schedule(Task.WALLET_LOOK, str(number), context.clock.now_ms())
        if context.store.bundles.create_bundle(bundle):
            log.info("bundle.opened", bundle=number, windows=length)
        context.tasks.enqueue(Task.LATE_COLLECT, str(number))


def _canonical_bytes(context: Context, instance: InstanceId) -> int:
    """Size of a held window; remembered, since each window that is held looks at all that wait for their bundle."""
    known = context.sizes.get(instance)
    if known is None:
        outcome = require_outcome(context, instance)
        known = context.sizes.put(instance, outcome.canonical_bytes)
    return known


def _hold(context: Context, instance: InstanceId, certificate: VoteQuorum) -> Outcome | None:
    """The decided outcome with its set here, or None while it is being fetched from the certificate's signers."""
    sources = context.identity.others(signer for signer, _ in certificate.signatures)
    body = context.store.instances.load_body(certificate.value)
    outcome = decode_outcome(body) if body is not None else None
    if outcome is None or not context.store.sets.has_set(set_root(outcome.entries)):
        context.asking.fetch_soon(instance, Wanted.VALUE, certificate.value, sources)
        return None
    return outcome
