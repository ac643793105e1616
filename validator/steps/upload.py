"""Upload: the validator whose turn it is signs and saves the Arweave transaction, announces it, and then posts it.

The k-th uploader acts after k stages without an upload that it has read back whole. The signed transaction is saved
before its first byte leaves, so a crash resumes the same transaction and never pays twice.

Before anything is paid for, peers are asked what they have heard and gateways what they have, and the announcement has
reached others before the post begins; then both are asked once more (steps.upload_turns).

Waiting for another's word is bounded by the stage. An announcement carries the signed header, so what its uploader
does not finish anybody else can (steps.verify): until a stage has passed since a member was first announced the next in
turn waits for it, longer only for a transaction that the weave has and whose data we have sent ourselves, or that
others have read back, as their signatures show. Then it pays anew; it never does so on an unknown answer.
"""

from __future__ import annotations

from dataclasses import replace

from validator.log import get_logger
from validator.ports.queue import Ending, StepResult, Task
from validator.ports.states import AnnouncedState, BundleState, UploadState
from validator.ports.storage import is_seeded
from validator.ports.stored import StoredBundle, StoredUpload
from validator.protocol.codec.arweave_text import encode_storage_id
from validator.protocol.errors import RemoteFault, TransientError, UnknownOutcome
from validator.protocol.quorum import one_honest
from validator.steps.bundle_files import require_file
from validator.steps.context import Context
from validator.steps.cut_points import require_bundle
from validator.steps.seeding import describe_missing, seed_some
from validator.steps.upload_turns import look_for_uploads, why_give_way, why_wait
from validator.steps.uploads import announce_before_posting, announced_uploads, is_announced, tags_of, uploaders_of

log = get_logger(__name__)

RETRY_MS = 2_000
LOOK_MS = 1_000


def upload(context: Context, number: int) -> StepResult:
    """Take our turn as uploader. Safe to run twice and to stop anywhere."""
    bundle = require_bundle(context.store, number)
    task, key = Task.BUNDLE_UPLOAD, str(number)
    if bundle.state in (BundleState.VERIFIED, BundleState.FINAL) or bundle.root is None:
        context.store.due.done(task, key)
        return StepResult(Ending.ALREADY_DONE, bundle.state)
    own = own_upload(context, number)
    announced = announced_uploads(context, bundle)
    if any(h.state == AnnouncedState.VERIFIED for h in announced):
        context.store.due.done(task, key)
        return StepResult(Ending.SKIPPED, "uploaded already")
    context.store.due.postpone(task, key, context.clock.now_ms() + RETRY_MS)
    if own is None or not is_announced(own, announced):
        over = _why_never(context, bundle, own)
        if over:
            context.store.due.done(task, key)
            return StepResult(Ending.SKIPPED, over)
        reason = _look(context, bundle) or why_wait(context, bundle, announced_uploads(context, bundle))
        if reason:
            return StepResult(Ending.NOT_YET, reason)
        own = own or _prepare(context, bundle)
    if own.state == UploadState.PREPARED:
        reason = _announce_and_look(context, bundle, own)
        if reason:
            return StepResult(Ending.NOT_YET, reason)
        own = _post(context, own)
    if own.state == UploadState.POSTED:
        seeds = seed_some(context, own.prepared, require_file(context, bundle))
        if not is_seeded(seeds):
            if any(seed.is_stopped_by_time for seed in seeds):
                context.tasks.enqueue(task, key)  # gateways take what they are sent: the next run goes on at once
            return StepResult(Ending.NOT_YET, describe_missing(seeds))
        context.store.bundles.save_upload_state(number, own.attempt, UploadState.SEEDED)
        log.info("bundle.seeded", bundle=number, bytes=own.prepared.data_size, kept=all(s.is_kept for s in seeds))
    context.store.due.done(task, key)
    context.store.due.postpone(Task.BUNDLE_VERIFY, key, context.clock.now_ms() + LOOK_MS)
    context.tasks.enqueue(Task.BUNDLE_VERIFY, key)
    return StepResult(Ending.SEEDED, encode_storage_id(own.prepared.storage_id))


def own_upload(context: Context, number: int) -> StoredUpload | None:
    """The newest upload of ours that is not given up."""
    uploads = [u for u in context.store.bundles.load_uploads(number) if u.state != UploadState.DROPPED]
    return uploads[-1] if uploads else None


def _why_never(context: Context, bundle: StoredBundle, own: StoredUpload | None) -> str:
    """Why we do not pay for this bundle at all, or ""."""
    wallet = context.storage.wallet_address()
    if own is None and (
        wallet is None or context.cut_points.wallets_of(bundle).get(wallet) != context.identity.address
    ):
        log.warning("upload.no_wallet", bundle=bundle.number)
        return "our wallet is not the one that we alone have named on chain"
    return "its report is accepted" if context.chain.fetch_report(bundle.number) is not None else ""


def _look(context: Context, bundle: StoredBundle) -> str:
    """Why what peers and gateways say keeps us from paying, or "".

    Where no gateway answers nobody can have uploaded, and the stages of those who come after the first begin anew:
    else all whose turn came meanwhile would pay at once when the gateways are back.
    """
    try:
        return look_for_uploads(context, bundle)
    except (TransientError, UnknownOutcome, RemoteFault) as error:
        config, order = context.cut_points.epoch_config(bundle.epoch), uploaders_of(context, bundle)
        own = context.identity.address
        place = order.index(own) if own in order else len(order)
        wait_ms = max(RETRY_MS, place * config.parameters.upload_stage_ms)
        context.store.due.postpone(Task.BUNDLE_UPLOAD, str(bundle.number), context.clock.now_ms() + wait_ms)
        return f"no gateway tells what was uploaded: {error}"


def _announce_and_look(context: Context, bundle: StoredBundle, own: StoredUpload) -> str:
    """Others have our header before a gateway does, and we know what they have; why we do not post, or "".

    Preparing may take longer than a stage where gateways stall, and a process may be stopped anywhere: so what counts
    is what is so now. A header that nobody has heard of is ours to keep back.
    """
    config = context.cut_points.epoch_config(bundle.epoch)
    announced = announced_uploads(context, bundle)
    reason = "" if is_announced(own, announced) else why_wait(context, bundle, announced)
    if reason:
        return reason
    heard_by = announce_before_posting(context, bundle, own)
    needed = min(one_honest(len(config.committee)), len(context.identity.others(config.committee)))
    if heard_by < needed:
        return f"{heard_by} members have taken our announcement, {needed} must"
    key = context.identity.voting_key
    assert key is not None
    return _look(context, bundle) or why_give_way(
        context, bundle, key.address, announced_uploads(context, bundle), context.storage.fetch_status
    )


def _prepare(context: Context, bundle: StoredBundle) -> StoredUpload:
    """Sign the next attempt, and save it: it names the one before, which can no longer be mined."""
    prepared = context.storage.prepare(
        require_file(context, bundle),
        tags_of(context, bundle),
        open_uploads=context.store.bundles.count_open_uploads(),
    )
    before = context.store.bundles.load_uploads(bundle.number)
    replaces = before[-1].attempt if before else None
    stored = StoredUpload(bundle.number, len(before), prepared, UploadState.PREPARED, replaces)
    context.store.bundles.save_upload(stored)
    return stored


def _post(context: Context, own: StoredUpload) -> StoredUpload:
    posted_to = context.storage.post(own.prepared)
    context.store.bundles.save_posted(own.number, own.attempt, posted_to)
    storage_id = encode_storage_id(own.prepared.storage_id)
    log.info("bundle.posted", bundle=own.number, storage_id=storage_id, reward=own.prepared.reward, to=posted_to)
    return replace(own, state=UploadState.POSTED)
