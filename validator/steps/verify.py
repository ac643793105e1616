"""Verify: read every announced upload back whole, and compare it with what was agreed.

Order of checks: transaction (id and signature by the adapter), owner, tags, size; then the file in a child process with
limits: footer, manifest bytes, certificates, and only then rows, whose roots are recomputed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from validator.codec.bundle_file import bundle_tags
from validator.codec.manifest import decode_manifest
from validator.errors import MalformedInput, RemoteFault, TransientError
from validator.log import get_logger
from validator.ports import HeardUpload, StepResult, StorageStatus, StoredBundle
from validator.steps.child import verify_in_child
from validator.steps.context import Context, epoch_config, require_bundle
from validator.steps.upload import announce

log = get_logger(__name__)

LOOK_MS = 1_000
MAX_FILE_BYTES = 2 << 30
ANNOUNCE_AGAIN_MS = 5_000


def verify(context: Context, number: int) -> StepResult:
    """Look at all announced uploads of a sealed bundle; comes again until the report is final."""
    bundle = require_bundle(context, number)
    task, key = "bundle.verify", str(number)
    if bundle.state == "final":
        context.store.due.done(task, key)
        return StepResult("already done")
    if bundle.root is None:
        context.store.due.done(task, key)
        return StepResult("not yet", "not sealed")
    context.store.due.postpone(task, key, context.clock.now_ms() + LOOK_MS)
    _tend_own(context, bundle)
    deep = epoch_config(context, bundle.epoch).parameters.confirmations
    ready = 0
    details = []
    for heard in context.store.bundles.load_heard(number):
        if heard.state == "refused":
            continue
        status = context.storage.fetch_status(heard.announcement.storage_id)
        if heard.state == "heard" and status.state == "confirmed":
            heard = _read_back(context, bundle, heard)
        if heard.state == "verified" and status.state == "confirmed" and status.confirmations >= deep:
            ready += 1
        details.append(_describe(heard, status, deep))
    if ready and bundle.state == "sealed":
        context.store.bundles.save_bundle_state(number, "verified")
    if ready:
        context.store.due.schedule("report.attest", key, context.clock.now_ms())
        context.tasks.enqueue("report.attest", key)
        context.store.due.postpone(task, key, context.clock.now_ms() + 5 * LOOK_MS)
        return StepResult("verified", "; ".join(details))
    return StepResult("not yet", "; ".join(details) or "nothing announced")


def confirmed_uploads(context: Context, bundle: StoredBundle) -> list[HeardUpload]:
    """Uploads read back whole that have enough confirmations now."""
    deep = epoch_config(context, bundle.epoch).parameters.confirmations
    found = []
    for heard in context.store.bundles.load_heard(bundle.number):
        if heard.state == "verified":
            status = context.storage.fetch_status(heard.announcement.storage_id)
            if status.state == "confirmed" and status.confirmations >= deep:
                found.append(heard)
    return found


def _read_back(context: Context, bundle: StoredBundle, heard: HeardUpload) -> HeardUpload:
    announcement = heard.announcement
    try:
        _compare(context, bundle, heard)
    except MalformedInput as error:
        return _refuse(context, heard, str(error))
    except RemoteFault as error:
        log.warning("bundle.read_back_failed", bundle=bundle.number, reason=str(error))
        return heard
    except TransientError as error:
        log.info("bundle.not_read_back", bundle=bundle.number, reason=str(error))
        return heard
    context.store.bundles.save_heard_state(bundle.number, announcement.storage_id, "verified", "")
    log.info("bundle.verified", bundle=bundle.number, storage_id=announcement.storage_id.hex())
    return HeardUpload(announcement, "verified", "", heard.heard_ms)


def _compare(context: Context, bundle: StoredBundle, heard: HeardUpload) -> None:
    """Raises MalformedInput naming what differs from the bundle that was agreed."""
    announcement = heard.announcement
    transaction = context.storage.fetch_transaction(announcement.storage_id)
    manifest = decode_manifest(bundle.manifest)
    assert bundle.root is not None
    if announcement.bundle_root != bundle.root:
        raise MalformedInput("announcement.bundle_root", "another bundle root")
    if transaction.owner != announcement.owner:
        raise MalformedInput("transaction.owner", "not the announced owner")
    if transaction.tags != bundle_tags(manifest.header, bundle.root, context.signing, bundle.end_ms):
        raise MalformedInput("transaction.tags", "not exactly the bundle's tags")
    if not 0 < transaction.data_size <= MAX_FILE_BYTES:
        raise MalformedInput("transaction.data_size", f"{transaction.data_size} bytes")
    downloads = context.data_dir / "downloads"
    try:
        downloads.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{bundle.number}-", dir=downloads) as folder:
            path = Path(folder) / "bundle.parquet"
            context.storage.fetch_data(announcement.storage_id, path, transaction.data_size)
            verified = verify_in_child(path, expected=manifest)
    except OSError as error:
        raise TransientError(f"{downloads}: {error.strerror or error}") from error
    if verified.root != bundle.root:
        raise MalformedInput("bundle.root", "not the agreed root")


def _refuse(context: Context, heard: HeardUpload, reason: str) -> HeardUpload:
    announcement = heard.announcement
    log.warning("upload.refused", bundle=announcement.number, signer=announcement.signer.hex(), reason=reason)
    context.store.bundles.save_heard_state(announcement.number, announcement.storage_id, "refused", reason)
    return HeardUpload(announcement, "refused", reason, heard.heard_ms)


def _tend_own(context: Context, bundle: StoredBundle) -> None:
    """Every few seconds until the report is final: announce own uploads again, and send again what gateways lost.

    Loss is normal. The same signed bytes go out for ever; only when it is certain that they can no longer be mined is
    the upload given up, and our turn comes again.
    """
    now_ms = context.clock.now_ms()
    with context.lock:
        if context.in_flight.get(f"announce/{bundle.number}", 0) > now_ms:
            return
        context.in_flight[f"announce/{bundle.number}"] = now_ms + ANNOUNCE_AGAIN_MS
    if context.voting_key is None:
        return
    for own in context.store.bundles.load_uploads(bundle.number):
        if own.state not in ("posted", "seeded", "confirmed"):
            continue
        announce(context, bundle, own)
        status = context.storage.fetch_status(own.prepared.storage_id)
        if status.state != "missing":
            continue
        if context.storage.fetch_is_dropped(own.prepared, status):
            log.warning("bundle.dropped", bundle=bundle.number, storage_id=own.prepared.storage_id.hex())
            context.store.bundles.save_upload_state(bundle.number, own.attempt, "dropped")
        else:
            context.store.bundles.save_upload_state(bundle.number, own.attempt, "prepared")
        context.store.due.schedule("bundle.upload", str(bundle.number), now_ms)


def _describe(heard: HeardUpload, status: StorageStatus, deep: int) -> str:
    confirmations = f"{status.confirmations}/{deep}" if status.state == "confirmed" else status.state
    return f"{heard.announcement.storage_id.hex()[:12]} {heard.state} {confirmations}"
