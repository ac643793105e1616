"""Whose turn it is to pay for a bundle: what is waited for, where one looks first, and which of two uploads gives way.

Two who announce at the same time each hear of the other, or one of them does, because everybody looks again between
its announcement and its post. Then the weave decides, and after it the order of turns: everybody, helpers too, sends
the same one of the two. What is left is a process that is stopped between that look and its post, for longer than
another waits; the weave knows no exclusion that spans wallets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from validator.log import get_logger
from validator.ports.peers import Gossip, HeldVotes
from validator.ports.states import AnnouncedState
from validator.ports.storage import StorageState, StorageStatus
from validator.ports.stored import AnnouncedUpload, StoredBundle
from validator.protocol.codec.arweave_text import encode_storage_id
from validator.protocol.codec.report import report_digest
from validator.protocol.errors import MalformedInput, TransientError, ValidatorError
from validator.protocol.model import Address, InstanceId, InstanceKind, StorageId, UploadAnnouncement
from validator.protocol.quorum import one_honest
from validator.steps.attestations import signatures_over
from validator.steps.context import Context
from validator.steps.drafts import draft_report
from validator.steps.uploads import UNSIGNED, announced_uploads, hear, uploaders_of

log = get_logger(__name__)

MINING_STAGES = 4
"""So long a transaction is waited for that the weave has and that we have completed, or that others have read back:
blocks come when they come, but a header with too small a reward would lie in the mempool until its anchor is old."""
PASSING_MS = 2_000
"""So long after another's announcement its header may still be on its way to a gateway."""

StatusOf = Callable[[StorageId], StorageStatus]


# --- what is waited for -----------------------------------------------------------------------------


def why_wait(context: Context, bundle: StoredBundle, announced: Sequence[AnnouncedUpload]) -> str:
    """Why nothing is paid for yet, or "". Who was heard once is waited for once, however often it announces."""
    reasons = (_why_wait_for(context, bundle, upload, announced, context.storage.fetch_status) for upload in announced)
    return next((reason for reason in reasons if reason), "")


def why_give_way(
    context: Context, bundle: StoredBundle, signer: Address, announced: Sequence[AnnouncedUpload], status_of: StatusOf
) -> str:
    """Why a member's header that the weave does not have is not sent, or "".

    Another is waited for that the weave has, that was announced just now, or whose turn is before this one's.
    """
    order = uploaders_of(context, bundle)
    for rival in announced:
        other = rival.announcement.signer
        reason = "" if other == signer else _why_wait_for(context, bundle, rival, announced, status_of)
        if not reason:
            continue
        is_first = signer in order and other in order and order.index(signer) < order.index(other)
        is_passing = context.clock.now_ms() < rival.announced_ms + PASSING_MS
        if is_passing or not is_first or status_of(rival.announcement.storage_id).state != StorageState.MISSING:
            return reason
    return ""


def _why_wait_for(
    context: Context,
    bundle: StoredBundle,
    upload: AnnouncedUpload,
    announced: Sequence[AnnouncedUpload],
    status_of: StatusOf,
) -> str:
    if upload.state == AnnouncedState.REFUSED:
        return ""
    config = context.cut_points.epoch_config(bundle.epoch)
    stage_ms, now_ms = config.parameters.upload_stage_ms, context.clock.now_ms()
    signer = upload.announcement.signer
    since_ms = now_ms - min(h.announced_ms for h in announced if h.announcement.signer == signer)
    if since_ms < stage_ms:
        return "an announced upload is being completed"
    status = status_of(upload.announcement.storage_id)
    if status.state == StorageState.UNKNOWN:
        return "no telling what became of an announced upload"
    if since_ms >= MINING_STAGES * stage_ms:
        return ""
    if upload.state == AnnouncedState.SEEDED and status.state != StorageState.MISSING:
        return "an announced upload that we have completed is being mined"
    report, _ = draft_report(context, bundle, upload.announcement.storage_id, signer)
    digest = report_digest(report, context.network.chain_id, context.network.contracts.report_manager)
    if len(signatures_over(context, config.committee, digest)) >= one_honest(len(config.committee)):
        return "others have read an announced upload back"
    return ""


# --- where one looks first --------------------------------------------------------------------------


def look_for_uploads(context: Context, bundle: StoredBundle) -> str:
    """Ask peers what they have heard and every gateway what it has; why that is not enough to pay upon, or "".

    Raises:
        TransientError, UnknownOutcome: no gateway answers, so there is no telling.
    """
    _ask_peers(context, bundle)
    return _ask_gateways(context, bundle)


def _ask_peers(context: Context, bundle: StoredBundle) -> None:
    """An announcement that was lost on its way to us has reached others. Nobody waits for the silent."""
    config = context.cut_points.epoch_config(bundle.epoch)
    held = HeldVotes(config.digest, InstanceId(InstanceKind.LATE, bundle.number), ())

    def ask(member: Address) -> Gossip:
        return context.peers.fetch_missing(member, held)

    answers = context.asking.gather(f"uploads/{bundle.number}", ask, context.identity.others(config.committee))
    for member, answer in answers:
        for upload in answer.uploads if isinstance(answer, Gossip) else ():
            if upload.number != bundle.number:
                continue
            try:
                hear(context, bundle, upload)
            except (MalformedInput, TransientError) as error:
                log.debug("upload.not_heard", bundle=bundle.number, member=member, reason=str(error))


def _ask_gateways(context: Context, bundle: StoredBundle) -> str:
    """A transaction with this bundle's root from a member's wallet is that member's upload, announced or not.

    The header says so itself: signed by the wallet that the member alone has named on chain, with exactly our tags.
    """
    assert bundle.root is not None
    wallets = context.cut_points.wallets_of(bundle)
    known = {h.announcement.storage_id for h in announced_uploads(context, bundle)}
    stage_ms = context.cut_points.epoch_config(bundle.epoch).parameters.upload_stage_ms
    waits = ""
    for storage_id in context.storage.find_uploads(bundle.root.hex(), sorted(wallets)):
        if storage_id in known:
            continue
        name = encode_storage_id(storage_id)
        try:
            header = context.storage.fetch_header(storage_id)
            owner = context.storage.read_header(storage_id, header).owner
            found = UploadAnnouncement(
                bundle.config_digest,
                bundle.number,
                bundle.root,
                storage_id,
                owner,
                wallets.get(owner, Address(bytes(20))),
                UNSIGNED,
                header,
            )
            hear(context, bundle, found, is_found=True)
        except MalformedInput as error:
            log.info("upload.foreign", bundle=bundle.number, storage_id=name, reason=str(error))
        except ValidatorError as error:
            log.info("upload.found_unread", bundle=bundle.number, storage_id=name, reason=str(error))
            if not context.noticed.lasts(MINING_STAGES * stage_ms, f"found/{storage_id.hex()}"):
                waits = "the weave has an upload whose header cannot be read yet"
    return waits
