"""Upload: the validator whose turn it is signs and saves the Arweave transaction, announces it, and then posts it.

The k-th uploader acts after k stages without an upload that it has read back whole. The signed transaction is saved
before its first byte leaves, so a crash resumes the same transaction and never pays twice.

Waiting for another's word is bounded by the stage. An announcement carries the signed header, so what its uploader
does not finish anybody else can (steps.verify): until a stage has passed since a member was first announced the next in
turn waits for it, longer only for a transaction that the weave has and whose data we have sent ourselves, or that
others have read back, as their signatures show. Then it pays anew; it never does so on an unknown answer.
"""

from __future__ import annotations

from collections.abc import Sequence

from validator.log import get_logger
from validator.ports.queue import StepResult, Task
from validator.ports.states import AnnouncedState, BundleState, UploadState
from validator.ports.storage import StorageState
from validator.ports.store import AnnouncedUpload, StoredBundle, StoredUpload
from validator.protocol.codec.arweave_text import encode_storage_id
from validator.protocol.codec.report import report_digest
from validator.protocol.quorum import one_honest
from validator.steps.attestations import signatures_over
from validator.steps.bundle_files import require_file
from validator.steps.context import Context
from validator.steps.cut_points import require_bundle
from validator.steps.drafts import draft_report
from validator.steps.uploads import announce, announced_uploads, tags_of

log = get_logger(__name__)

RETRY_MS = 2_000
LOOK_MS = 1_000
MINING_STAGES = 4
"""So long a transaction is waited for that the weave has and that we have completed, or that others have read back:
blocks come when they come, but a header with too small a reward would lie in the mempool until its anchor is old."""


def upload(context: Context, number: int) -> StepResult:
    """Take our turn as uploader. Safe to run twice and to stop anywhere."""
    bundle = require_bundle(context.store, number)
    task, key = Task.BUNDLE_UPLOAD, str(number)
    if bundle.state in (BundleState.VERIFIED, BundleState.FINAL) or bundle.root is None:
        context.store.due.done(task, key)
        return StepResult("already done", bundle.state)
    own = own_upload(context, number)
    announced = announced_uploads(context, bundle)
    if any(h.state == AnnouncedState.VERIFIED for h in announced):
        context.store.due.done(task, key)
        return StepResult("skipped", "uploaded already")
    context.store.due.postpone(task, key, context.clock.now_ms() + RETRY_MS)
    if own is None:
        wallet = context.storage.wallet_address()
        if wallet is None or context.cut_points.wallets_of(bundle).get(wallet) != context.identity.address:
            context.store.due.done(task, key)
            log.warning("upload.no_wallet", bundle=number)
            return StepResult("skipped", "our wallet is not the one that we alone have named on chain")
        reason = _why_wait(context, bundle, announced)
        if reason:
            return StepResult("not yet", reason)
        if context.chain.fetch_report(number) is not None:
            context.store.due.done(task, key)
            return StepResult("skipped", "its report is accepted")
        own = _prepare(context, bundle)
    announce(context, bundle, own)
    if own.state == UploadState.PREPARED:
        context.storage.post(own.prepared)
        own = _save_state(context, own, UploadState.POSTED)
        log.info(
            "bundle.posted",
            bundle=number,
            storage_id=encode_storage_id(own.prepared.storage_id),
            reward=own.prepared.reward,
        )
    if own.state == UploadState.POSTED:
        context.storage.seed(own.prepared, require_file(context, bundle))
        own = _save_state(context, own, UploadState.SEEDED)
        log.info("bundle.seeded", bundle=number, bytes=own.prepared.data_size)
    context.store.due.done(task, key)
    context.store.due.postpone(Task.BUNDLE_VERIFY, key, context.clock.now_ms() + LOOK_MS)
    context.tasks.enqueue(Task.BUNDLE_VERIFY, key)
    return StepResult("seeded", encode_storage_id(own.prepared.storage_id))


def own_upload(context: Context, number: int) -> StoredUpload | None:
    """The newest upload of ours that is not given up."""
    uploads = [u for u in context.store.bundles.load_uploads(number) if u.state != UploadState.DROPPED]
    return uploads[-1] if uploads else None


def _why_wait(context: Context, bundle: StoredBundle, announced: Sequence[AnnouncedUpload]) -> str:
    """Why nothing is paid for yet, or "". Who was heard once is waited for once, however often it announces."""
    config = context.cut_points.epoch_config(bundle.epoch)
    stage_ms, now_ms = config.parameters.upload_stage_ms, context.clock.now_ms()
    for upload in announced:
        if upload.state == AnnouncedState.REFUSED:
            continue
        signer = upload.announcement.signer
        since_ms = now_ms - min(h.announced_ms for h in announced if h.announcement.signer == signer)
        if since_ms < stage_ms:
            return "an announced upload is being completed"
        status = context.storage.fetch_status(upload.announcement.storage_id)
        if status.state == StorageState.UNKNOWN:
            return "no telling what became of an announced upload"
        if since_ms >= MINING_STAGES * stage_ms:
            continue
        if upload.state == AnnouncedState.SEEDED and status.state != StorageState.MISSING:
            return "an announced upload that we have completed is being mined"
        report, _ = draft_report(context, bundle, upload.announcement.storage_id, signer)
        digest = report_digest(report, context.network.chain_id, context.network.contracts.report_manager)
        if len(signatures_over(context, config, digest)) >= one_honest(len(config.committee)):
            return "others have read an announced upload back"
    return ""


def _prepare(context: Context, bundle: StoredBundle) -> StoredUpload:
    prepared = context.storage.prepare(require_file(context, bundle), tags_of(context, bundle))
    attempt = len(context.store.bundles.load_uploads(bundle.number))
    stored = StoredUpload(bundle.number, attempt, prepared, UploadState.PREPARED)
    context.store.bundles.save_upload(stored)
    return stored


def _save_state(context: Context, own: StoredUpload, state: UploadState) -> StoredUpload:
    context.store.bundles.save_upload_state(own.number, own.attempt, state)
    return StoredUpload(own.number, own.attempt, own.prepared, state)
