"""Upload: the validator whose turn it is signs, saves, then posts the Arweave transaction, and announces it.

The k-th uploader acts after k stages without an upload that it has read back whole. The signed transaction is saved
before its first byte leaves, so a crash resumes the same transaction and never pays twice.
"""

from __future__ import annotations

from validator.codec.bundle_file import bundle_tags
from validator.codec.manifest import decode_manifest
from validator.codec.statement import sign_upload
from validator.log import get_logger
from validator.model import UploadAnnouncement
from validator.ports import Gossip, StepResult, StoredBundle, StoredUpload
from validator.steps.context import Context, epoch_config, require_bundle
from validator.steps.seal import require_file

log = get_logger(__name__)

RETRY_MS = 2_000
LOOK_MS = 1_000


def upload(context: Context, number: int) -> StepResult:
    """Take our turn as uploader. Safe to run twice and to stop anywhere."""
    bundle = require_bundle(context, number)
    task, key = "bundle.upload", str(number)
    if bundle.state in ("verified", "final") or bundle.root is None:
        context.store.due.done(task, key)
        return StepResult("already done", bundle.state)
    own = _own_upload(context, number)
    heard = context.store.bundles.load_heard(number)
    if own is None and any(h.state == "verified" for h in heard):
        context.store.due.done(task, key)
        return StepResult("skipped", "uploaded by another")
    if own is None and any(h.state == "heard" for h in heard):
        context.store.due.postpone(task, key, context.clock.now_ms() + RETRY_MS)
        return StepResult("not yet", "an announced upload is being read back")
    if own is None and context.chain.fetch_report(number) is not None:
        context.store.due.done(task, key)
        return StepResult("skipped", "its report is accepted")
    context.store.due.postpone(task, key, context.clock.now_ms() + RETRY_MS)
    if own is None:
        own = _prepare(context, bundle)
    if own.state == "prepared":
        context.storage.post(own.prepared)
        own = _save_state(context, own, "posted")
        log.info("bundle.posted", bundle=number, storage_id=own.prepared.storage_id.hex(), reward=own.prepared.reward)
    if own.state == "posted":
        announce(context, bundle, own)
        context.storage.seed(own.prepared, require_file(context, bundle))
        own = _save_state(context, own, "seeded")
        log.info("bundle.seeded", bundle=number, bytes=own.prepared.data_size)
    context.store.due.done(task, key)
    context.store.due.postpone("bundle.verify", key, context.clock.now_ms() + LOOK_MS)
    context.tasks.enqueue("bundle.verify", key)
    return StepResult("seeded", own.prepared.storage_id.hex())


def announce(context: Context, bundle: StoredBundle, own: StoredUpload) -> None:
    """Tell the committee, and ourselves, under our voting key: an upload exists only through its announcement."""
    key = context.voting_key
    assert key is not None
    assert bundle.root is not None
    config = epoch_config(context, bundle.epoch)
    announcement = sign_upload(
        UploadAnnouncement(
            config.digest, bundle.number, bundle.root, own.prepared.storage_id, own.prepared.owner, key.address
        ),
        key,
        context.signing,
    )
    context.store.bundles.save_heard(announcement, context.clock.now_ms())
    gossip = Gossip(uploads=(announcement,))
    context.background(context.peers.broadcast, gossip, context.others(config.committee))


def _own_upload(context: Context, number: int) -> StoredUpload | None:
    uploads = [u for u in context.store.bundles.load_uploads(number) if u.state != "dropped"]
    return uploads[-1] if uploads else None


def _prepare(context: Context, bundle: StoredBundle) -> StoredUpload:
    path = require_file(context, bundle)
    header = decode_manifest(bundle.manifest).header
    assert bundle.root is not None
    tags = bundle_tags(header, bundle.root, context.signing, bundle.end_ms)
    prepared = context.storage.prepare(path, tags)
    attempt = len(context.store.bundles.load_uploads(bundle.number))
    stored = StoredUpload(bundle.number, attempt, prepared, "prepared")
    context.store.bundles.save_upload(stored)
    return stored


def _save_state(context: Context, own: StoredUpload, state: str) -> StoredUpload:
    context.store.bundles.save_upload_state(own.number, own.attempt, state)
    return StoredUpload(own.number, own.attempt, own.prepared, state)
