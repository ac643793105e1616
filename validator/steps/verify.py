"""Verify: read every announced upload back whole, compare it with what was agreed, and complete what is not whole.

Order of checks: the announced header (owner, tags, size); then the bytes against its data root, by the adapter; then
the file in a child process with limits: footer, manifest bytes, certificates, only then rows, for their roots.

It is read back as soon as it is in a block, and once more when it is deep enough, never from the gateway alone that we
posted it to: only then is it reported.

Three answers: verified, refused, not yet. Only bytes that were read whole can be wrong; that a gateway, a child or this
machine failed says nothing about them. One upload is read back at a time, of the member whose uploads were tried least,
so large, slow or unreadable ones of one member hold up nobody else's.

Data that is not there is sent again, by whoever has the same file: the uploader first, then the others, each in its
place, so that one that died is replaced before its stage ends and all of them do not send at once.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from validator.log import get_logger
from validator.ports.queue import Ending, StepResult, Task
from validator.ports.states import AnnouncedState, BundleState, UploadState
from validator.ports.storage import ReaderFailed, StorageState, StorageStatus, is_seeded
from validator.ports.stored import AnnouncedUpload, StoredBundle
from validator.protocol.codec.arweave_text import encode_storage_id
from validator.protocol.codec.manifest import decode_manifest
from validator.protocol.errors import MalformedInput, RemoteFault, TransientError, UnknownOutcome, ValidatorError
from validator.protocol.model import StorageId, UploadAnnouncement
from validator.steps.context import Context
from validator.steps.cut_points import require_bundle
from validator.steps.seeding import describe_missing, seed_some
from validator.steps.upload_turns import look_for_uploads, why_give_way
from validator.steps.uploads import announce, announced_uploads, check_announcement, file_for, is_announced

log = get_logger(__name__)

LOOK_MS = 1_000
ANNOUNCE_AGAIN_MS = 5_000
MAX_PAUSE_MS = 600_000
"""Longest pause between two attempts to read an upload back."""
_SEEDED = (UploadState.SEEDED, UploadState.CONFIRMED, UploadState.VERIFIED)


def verify(context: Context, number: int) -> StepResult:
    """Look at all announced uploads of a sealed bundle; comes again until the report is final."""
    bundle = require_bundle(context.store, number)
    task, key = Task.BUNDLE_VERIFY, str(number)
    if bundle.state == BundleState.FINAL:
        context.store.due.done(task, key)
        return StepResult(Ending.ALREADY_DONE)
    if bundle.root is None:
        context.store.due.done(task, key)
        return StepResult(Ending.NOT_YET, "not sealed")
    context.store.due.postpone(task, key, context.clock.now_ms() + LOOK_MS)
    _tend_own(context, bundle)
    _look_for_unannounced(context, bundle)
    deep = context.cut_points.epoch_config(bundle.epoch).parameters.confirmations
    announced = [h for h in announced_uploads(context, bundle) if h.state != AnnouncedState.REFUSED]
    statuses = {h.announcement.storage_id: context.storage.fetch_status(h.announcement.storage_id) for h in announced}
    chosen = _choose(context, bundle, [h for h in announced if _is_to_be_read(h, statuses, deep)], announced)
    is_there = any(h.state == AnnouncedState.VERIFIED for h in announced)
    ready = 0
    details = []
    for upload in announced:
        status = statuses[upload.announcement.storage_id]
        if upload is chosen:
            upload = _read_back(context, bundle, upload, status.confirmations)
        if _is_to_be_completed(context, bundle, upload, announced, statuses, is_there=is_there):
            upload = _complete(context, bundle, upload, status)
        is_ready = upload.is_read_at(deep) and status.is_deep(deep)
        ready += is_ready
        if upload.announcement.signer == context.identity.address and status.state == StorageState.CONFIRMED:
            _climb(context, upload, UploadState.VERIFIED if is_ready else UploadState.CONFIRMED)
        details.append(_describe(upload, status, deep))
    if ready and bundle.state == BundleState.SEALED:
        context.store.bundles.save_bundle_state(number, BundleState.VERIFIED)
    if ready:
        context.store.due.schedule(Task.REPORT_ATTEST, key, context.clock.now_ms())
        context.tasks.enqueue(Task.REPORT_ATTEST, key)
        context.store.due.postpone(task, key, context.clock.now_ms() + 5 * LOOK_MS)
        return StepResult(Ending.VERIFIED, "; ".join(details))
    return StepResult(Ending.NOT_YET, "; ".join(details) or "nothing announced")


# --- reading back -------------------------------------------------------------------------------------


def _is_to_be_read(upload: AnnouncedUpload, statuses: Mapping[StorageId, StorageStatus], deep: int) -> bool:
    """Once it is in a block, and once more when it is deep."""
    status = statuses[upload.announcement.storage_id]
    if upload.state == AnnouncedState.VERIFIED:
        return status.is_deep(deep) and not upload.is_read_at(deep)
    return status.state == StorageState.CONFIRMED


def _choose(
    context: Context,
    bundle: StoredBundle,
    readable: Sequence[AnnouncedUpload],
    announced: Sequence[AnnouncedUpload],
) -> AnnouncedUpload | None:
    """The upload to read back now: of the member whose uploads were tried least the one that was tried least.

    It is tried at least twice in a stage, so that nobody pays anew for what has long been completed by others.
    """
    now_ms = context.clock.now_ms()
    longest_ms = context.cut_points.epoch_config(bundle.epoch).parameters.upload_stage_ms // 2
    tried = Counter[bytes]()
    for upload in announced:
        tried[upload.announcement.signer] += upload.tries
    waiting = [u for u in readable if now_ms >= u.checked_ms + min(_pause_ms(u.tries), longest_ms)]
    return min(waiting, key=lambda u: (tried[u.announcement.signer], u.tries, u.announced_ms), default=None)


def _pause_ms(tries: int) -> int:
    """Between two attempts to read one upload: twice as long after each that failed."""
    return min(LOOK_MS << min(tries, 20), MAX_PAUSE_MS) if tries else 0


def _read_back(
    context: Context, bundle: StoredBundle, announced: AnnouncedUpload, confirmations: int
) -> AnnouncedUpload:
    try:
        refusal = _compare(context, bundle, announced)
    except ReaderFailed as error:
        log.warning("bundle.reader_failed", bundle=bundle.number, tries=announced.tries + 1, reason=str(error))
        return _note(context, announced, AnnouncedState.UNREADABLE, str(error), announced.tries + 1)
    except (RemoteFault, TransientError, UnknownOutcome) as error:
        log.info("bundle.not_read_back", bundle=bundle.number, reason=str(error))
        return _note(context, announced, announced.state, str(error), announced.tries + 1)
    announcement = announced.announcement
    if refusal:
        log.warning("upload.refused", bundle=bundle.number, signer=announcement.signer, reason=refusal)
        return _note(context, announced, AnnouncedState.REFUSED, refusal, announced.tries)
    storage_id = encode_storage_id(announcement.storage_id)
    log.info("bundle.verified", bundle=bundle.number, storage_id=storage_id, confirmations=confirmations)
    return _note(context, announced, AnnouncedState.VERIFIED, "", 0, read=confirmations)


def _compare(context: Context, bundle: StoredBundle, announced: AnnouncedUpload) -> str:
    """What differs from the bundle that was agreed, or "": the verdict on bytes that were read whole.

    Of one that was judged before only the data root is compared, with the header's, by the adapter: the same bytes.

    Raises:
        TransientError, RemoteFault: they could not be read, from any gateway.
        ReaderFailed: they are here, and who was to read them did not come to an end.
    """
    announcement = announced.announcement
    transaction = check_announcement(context, bundle, announcement, is_found=True)
    manifest = decode_manifest(bundle.manifest)
    downloads = context.data_dir / "downloads"
    try:
        downloads.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{bundle.number}-", dir=downloads) as folder:
            path = Path(folder) / "bundle.parquet"
            context.storage.fetch_data(
                announcement.storage_id, path, transaction.data_size, posted_to=_posted_to(context, announcement)
            )
            if announced.state == AnnouncedState.VERIFIED:
                return ""
            try:
                verified = context.reader.verify(path, manifest)
            except MalformedInput as error:
                return str(error)
    except OSError as error:
        raise TransientError(f"{downloads}: {error.strerror or error}") from error
    return "" if verified.root == bundle.root else "bundle.root: not the agreed root"


def _posted_to(context: Context, announcement: UploadAnnouncement) -> str:
    """The gateway that took our own header; what it has is what we gave it."""
    uploads = context.store.bundles.load_uploads(announcement.number)
    return next((u.posted_to for u in uploads if u.prepared.storage_id == announcement.storage_id), "")


def _note(
    context: Context, announced: AnnouncedUpload, state: AnnouncedState, reason: str, tries: int, *, read: int = 0
) -> AnnouncedUpload:
    context.store.bundles.save_announced_state(announced.announcement, state, reason, tries, read=read)
    return replace(
        announced,
        state=state,
        reason=reason,
        tries=tries,
        checked_ms=context.clock.now_ms(),
        read_confirmations=max(read, announced.read_confirmations),
    )


# --- completing ---------------------------------------------------------------------------------------


def _is_to_be_completed(
    context: Context,
    bundle: StoredBundle,
    announced: AnnouncedUpload,
    others: Sequence[AnnouncedUpload],
    statuses: Mapping[StorageId, StorageStatus],
    *,
    is_there: bool,
) -> bool:
    """Whether it is for us, and time, to send header and chunks of an upload that is not all there.

    Missing: the header never left, or was lost; of two that are missing only one is sent. Confirmed and not readable,
    or not any more: its chunks were. Pending: who knows; it may be on its way in health, so we wait longest. Where
    another upload is verified nothing is sent for this one.
    """
    config = context.cut_points.epoch_config(bundle.epoch)
    status = statuses[announced.announcement.storage_id]
    stage_ms, now_ms = config.parameters.upload_stage_ms, context.clock.now_ms()
    verified = announced.state == AnnouncedState.VERIFIED
    if announced.state == AnnouncedState.REFUSED or (is_there and not verified) or status.state == StorageState.UNKNOWN:
        return False
    if verified and status.state == StorageState.PENDING:
        return False
    if status.state == StorageState.CONFIRMED and (not announced.tries or announced.state == AnnouncedState.UNREADABLE):
        return False  # not looked at yet; or its bytes are all there
    helpers = [m for m in config.committee if m != announced.announcement.signer]
    place = helpers.index(context.identity.address) + 1 if context.identity.address in helpers else 0
    wait_ms = stage_ms // (2 if status.state == StorageState.PENDING else 4)
    if context.identity.address == announced.announcement.signer and status.state == StorageState.CONFIRMED:
        wait_ms = 0
    if now_ms < announced.announced_ms + wait_ms + place * stage_ms // (4 * len(config.committee)):
        return False
    if status.state == StorageState.MISSING and why_give_way(
        context, bundle, announced.announcement.signer, others, statuses.__getitem__
    ):
        return False
    return context.noticed.once_per(stage_ms // 4, f"complete/{announced.announcement.storage_id.hex()}")


def _complete(
    context: Context, bundle: StoredBundle, announced: AnnouncedUpload, status: StorageStatus
) -> AnnouncedUpload:
    """Send an announced upload's header and chunks, if a file of ours carries the same bytes. That pays for nothing
    twice: it is the same signed header. What one run cannot send the next ones do, each in its time."""
    announcement = announced.announcement
    try:
        found = file_for(
            context, bundle, announcement, check_announcement(context, bundle, announcement, is_found=True)
        )
        if found is None:
            log.info("bundle.not_completed", bundle=bundle.number, reason="its file is not ours")
            return announced
        path, prepared = found
        if status.state == StorageState.MISSING:
            context.store.bundles.forget_seeds(announcement.storage_id)
        context.storage.post(prepared)
        seeds = seed_some(context, prepared, path)
    except ValidatorError as error:
        log.info("bundle.not_completed", bundle=bundle.number, reason=str(error))
        return announced
    if not is_seeded(seeds):
        log.info("bundle.not_completed", bundle=bundle.number, reason=describe_missing(seeds))
        return announced
    log.info("bundle.completed", bundle=bundle.number, storage_id=encode_storage_id(announcement.storage_id))
    state = AnnouncedState.VERIFIED if announced.state == AnnouncedState.VERIFIED else AnnouncedState.SEEDED
    return _note(context, announced, state, announced.reason, 0)  # it is all there now: to be read at once


# --- our own ------------------------------------------------------------------------------------------


def _tend_own(context: Context, bundle: StoredBundle) -> None:
    """Every few seconds until the report is final: announce own uploads again, and send again what gateways lost.

    Loss is normal. The same signed bytes go out for ever; only when it is certain that they can no longer be mined is
    the upload given up, and our turn comes again.
    """
    now_ms = context.clock.now_ms()
    if not context.noticed.once_per(ANNOUNCE_AGAIN_MS, f"announce/{bundle.number}"):
        return
    if context.identity.voting_key is None:
        return
    announced = announced_uploads(context, bundle)
    for own in context.store.bundles.load_uploads(bundle.number):
        if own.state == UploadState.DROPPED or not is_announced(own, announced):
            continue  # one that nobody has heard of is not to be completed by anybody: steps.upload decides
        announce(context, bundle, own)
        status = context.storage.fetch_status(own.prepared.storage_id)
        if status.state != StorageState.MISSING:
            continue
        if context.storage.fetch_is_dropped(own.prepared, status):
            log.warning("bundle.dropped", bundle=bundle.number, storage_id=encode_storage_id(own.prepared.storage_id))
            context.store.bundles.save_upload_state(bundle.number, own.attempt, UploadState.DROPPED)
        elif own.state != UploadState.PREPARED:
            context.store.bundles.forget_seeds(own.prepared.storage_id)
            context.store.bundles.save_upload_state(bundle.number, own.attempt, UploadState.PREPARED)
        context.store.due.schedule(Task.BUNDLE_UPLOAD, str(bundle.number), now_ms)


def _look_for_unannounced(context: Context, bundle: StoredBundle) -> None:
    """Half a stage without an upload that was read back: whose announcement was lost may have uploaded all the same."""
    stage_ms = context.cut_points.epoch_config(bundle.epoch).parameters.upload_stage_ms
    if bundle.state != BundleState.SEALED or context.clock.now_ms() < bundle.sealed_ms + stage_ms // 2:
        return
    if any(h.state == AnnouncedState.VERIFIED for h in announced_uploads(context, bundle)):
        return
    if not context.noticed.once_per(stage_ms // 4, f"look/{bundle.number}"):
        return
    try:
        look_for_uploads(context, bundle)
    except (TransientError, UnknownOutcome, RemoteFault) as error:
        log.info("upload.not_looked", bundle=bundle.number, reason=str(error))


def _climb(context: Context, upload: AnnouncedUpload, state: UploadState) -> None:
    """What became of our own upload since it was seeded, by us or, as reading it back showed, by others.

    One that is mined before that is still to be seeded.
    """
    below = (*_SEEDED, UploadState.POSTED) if upload.state == AnnouncedState.VERIFIED else _SEEDED
    for own in context.store.bundles.load_uploads(upload.announcement.number):
        if own.prepared.storage_id == upload.announcement.storage_id and own.state in below and own.state != state:
            context.store.bundles.save_upload_state(own.number, own.attempt, state)


def _describe(announced: AnnouncedUpload, status: StorageStatus, deep: int) -> str:
    confirmations = f"{status.confirmations}/{deep}" if status.state == StorageState.CONFIRMED else status.state
    return f"{encode_storage_id(announced.announcement.storage_id)} {announced.state} {confirmations}"
