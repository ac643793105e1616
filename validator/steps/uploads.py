"""Announced uploads: which announcements count, and files made again for others' headers.

One function, ``check_announcement``, says what an announcement must be, at the door and whenever one is loaded: what an
older release kept and this one would not is as if it had never been announced.

Whose upload it is follows from the chain, never from who spoke first: from the wallet that signed the transaction to
the member that it belongs to (``bind_wallets``). So all drafts name the same uploader: one report per storage id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from validator.log import get_logger
from validator.ports.peers import Gossip
from validator.ports.queue import Task
from validator.ports.states import AnnouncedState
from validator.ports.storage import PreparedUpload, StoredTransaction
from validator.ports.stored import AnnouncedUpload, StoredBundle, StoredUpload
from validator.protocol.codec.bundle import bundle_tags
from validator.protocol.codec.bundle_front import max_file_bytes
from validator.protocol.codec.certificate import verify_certificate
from validator.protocol.codec.manifest import decode_manifest
from validator.protocol.codec.outcome import outcome_digest
from validator.protocol.codec.statement import sign_upload, verify_upload
from validator.protocol.errors import MalformedInput
from validator.protocol.hashing import order_committee, sha256
from validator.protocol.model import (
    Address,
    BundleHeader,
    Certified,
    Digest,
    InstanceId,
    InstanceKind,
    Manifest,
    UploadAnnouncement,
)
from validator.steps.bundle_files import require_file
from validator.steps.context import Context

log = get_logger(__name__)

ANNOUNCE_S = 5.0
"""So long the announcement before a post waits for the slowest member."""
UNSIGNED = bytes(65)
"""In the place of a signature, where an upload was found on the weave and its announcement never came."""


# --- whose turn it is ------------------------------------------------------------------------------


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


# --- what counts ------------------------------------------------------------------------------------


def check_announcement(
    context: Context, bundle: StoredBundle, announcement: UploadAnnouncement, *, is_found: bool = False
) -> StoredTransaction:
    """The announced transaction, if its announcement counts; with ``is_found`` also one that we have found ourselves.

    Raises:
        MalformedInput: field "config_digest", "signature", "owner", or what of the header is not the bundle's.
        NotYet: the block that binds wallets to members is not final yet.
    """
    if announcement.config_digest != bundle.config_digest:
        raise MalformedInput("config_digest", "of another epoch or network")
    if not (is_found and announcement.signature == UNSIGNED):
        verify_upload(announcement, context.identity.signing)
    if context.cut_points.wallets_of(bundle).get(announcement.owner) != announcement.signer:
        raise MalformedInput("owner", "not the wallet that the signer alone has named on chain")
    transaction = context.storage.read_header(announcement.storage_id, announcement.header)
    if transaction.owner != announcement.owner:
        raise MalformedInput("header.owner", "not the announced owner")
    if bundle.root is not None:
        if announcement.bundle_root != bundle.root:
            raise MalformedInput("bundle_root", "another bundle root")
        header, largest = _read_manifest(bundle.manifest)
        if transaction.tags != bundle_tags(header, bundle.root, context.identity.signing, bundle.end_ms):
            raise MalformedInput("header.tags", "not exactly the bundle's tags")
        if not 0 < transaction.data_size <= largest:
            raise MalformedInput("header.data_size", f"{transaction.data_size} bytes")
    return transaction


def hear(context: Context, bundle: StoredBundle, announcement: UploadAnnouncement, *, is_found: bool = False) -> None:
    """Keep an announcement that counts, and look at what it announces. Raises as ``check_announcement``."""
    check_announcement(context, bundle, announcement, is_found=is_found)
    if context.store.bundles.save_announced(announcement, context.clock.now_ms()):
        log.info("upload.heard", bundle=announcement.number, signer=announcement.signer, found=is_found)
        context.tasks.enqueue(Task.BUNDLE_VERIFY, str(announcement.number))
    elif announcement.signature != UNSIGNED:
        context.store.bundles.save_announcement_signed(announcement, UNSIGNED)


def is_announced(own: StoredUpload, announced: Sequence[AnnouncedUpload]) -> bool:
    """Whether an upload of ours was ever announced; else nobody has its header."""
    return any(h.announcement.storage_id == own.prepared.storage_id for h in announced)


def announced_uploads(context: Context, bundle: StoredBundle) -> list[AnnouncedUpload]:
    """The announced uploads of a bundle that count, in the order they were announced. Raises NotYet."""
    counting = []
    for announced in context.store.bundles.load_announced(bundle.number):
        try:
            check_announcement(context, bundle, announced.announcement, is_found=True)
        except MalformedInput as error:
            log.debug("upload.ignored", bundle=bundle.number, reason=str(error))
            continue
        counting.append(announced)
    return counting


def announcements_for_peers(context: Context, instance: InstanceId) -> tuple[UploadAnnouncement, ...]:
    """What members have announced of the bundle whose late set this is, the first of each: for who asks for it."""
    if instance.kind is not InstanceKind.LATE:
        return ()
    found: dict[Address, UploadAnnouncement] = {}
    for announced in context.store.bundles.load_announced(instance.number):
        if announced.state != AnnouncedState.REFUSED and announced.announcement.signature != UNSIGNED:
            found.setdefault(announced.announcement.signer, announced.announcement)
    return tuple(found.values())


def confirmed_uploads(context: Context, bundle: StoredBundle) -> list[AnnouncedUpload]:
    """Uploads read back whole at enough confirmations, which they have now."""
    deep = context.cut_points.epoch_config(bundle.epoch).parameters.confirmations
    found = []
    for announced in announced_uploads(context, bundle):
        if announced.is_read_at(deep):
            status = context.storage.fetch_status(announced.announcement.storage_id)
            if status.is_deep(deep):
                found.append(announced)
    return found


def tags_of(context: Context, bundle: StoredBundle) -> tuple[tuple[str, str], ...]:
    """The tags of a sealed bundle's transaction."""
    assert bundle.root is not None
    return bundle_tags(_read_manifest(bundle.manifest)[0], bundle.root, context.identity.signing, bundle.end_ms)


@lru_cache(maxsize=8)
def _read_manifest(manifest: bytes) -> tuple[BundleHeader, int]:
    """Header, and the most bytes of a file: asked of the same manifest every second, until its report is final."""
    decoded = decode_manifest(manifest)
    return decoded.header, max_file_bytes(decoded)


# --- saying it ---------------------------------------------------------------------------------------


def announce(context: Context, bundle: StoredBundle, own: StoredUpload) -> None:
    """Say it again, in the background, until the report is final."""
    gossip, others = _announcement(context, bundle, own)
    context.asking.in_background(context.peers.broadcast, gossip, others)


def announce_before_posting(context: Context, bundle: StoredBundle, own: StoredUpload) -> int:
    """Tell the committee, and ourselves, that we are about to post; how many others have it when this returns."""
    gossip, others = _announcement(context, bundle, own)

    def tell(member: Address) -> None:
        context.peers.send(member, gossip)

    subject = f"announce/{own.prepared.storage_id.hex()}"
    told = context.asking.gather(subject, tell, others, wait_s=ANNOUNCE_S)
    return sum(error is None for _, error in told)


def _announcement(context: Context, bundle: StoredBundle, own: StoredUpload) -> tuple[Gossip, Sequence[Address]]:
    """Under our voting key, kept here first: an upload exists only through its announcement. And who is to hear it."""
    key = context.identity.voting_key
    assert key is not None
    assert bundle.root is not None
    config = context.cut_points.epoch_config(bundle.epoch)
    manifest = decode_manifest(bundle.manifest)
    unsigned = UploadAnnouncement(
        config.digest,
        bundle.number,
        bundle.root,
        own.prepared.storage_id,
        own.prepared.owner,
        key.address,
        header=own.prepared.header.encode(),
        certificates=tuple(certified.certificate for certified in (*manifest.windows, manifest.late)),
    )
    kept = (held.announcement for held in context.store.bundles.load_announced(bundle.number))
    signed = (k for k in kept if k.signature != UNSIGNED and replace(k, signature=unsigned.signature) == unsigned)
    announcement = next(signed, None) or sign_upload(unsigned, key, context.identity.signing)
    context.store.bundles.save_announced(announcement, context.clock.now_ms())
    return Gossip(uploads=(announcement,)), context.identity.others(config.committee)


# --- files ------------------------------------------------------------------------------------------


def file_for(
    context: Context, bundle: StoredBundle, announcement: UploadAnnouncement, transaction: StoredTransaction
) -> tuple[Path, PreparedUpload] | None:
    """A file of ours that is byte for byte what another's header carries, and what is to be sent; None if it is not.

    Two validators may hold certificates of other signers for the same outcomes, and their files differ in nothing
    else: with the certificates that were announced the same file is made again.
    """
    path = require_file(context, bundle)
    if context.storage.compute_data_root(path) != transaction.data_root:
        manifest = _with_certificates(context, bundle, announcement)
        if manifest is None:
            return None
        path = path.with_name(f"{bundle.number}-{announcement.storage_id.hex()[:16]}.parquet")
        if not path.exists():
            context.writer.write(path, manifest)
        if context.storage.compute_data_root(path) != transaction.data_root:
            path.unlink()
            return None
    header, owner = announcement.header.decode(), announcement.owner
    size = path.stat().st_size
    return path, PreparedUpload(announcement.storage_id, owner, header, 0, 0, size, _hash_file(path))


def _hash_file(path: Path) -> Digest:
    with path.open("rb") as file:
        return Digest(hashlib.file_digest(file, sha256).digest())


def _with_certificates(context: Context, bundle: StoredBundle, announcement: UploadAnnouncement) -> Manifest | None:
    """The manifest with the announced certificates, if there is a genuine one for each of its outcomes."""
    manifest = decode_manifest(bundle.manifest)
    announced = {votes.instance: votes for votes in announcement.certificates}
    config = context.cut_points.epoch_config(bundle.epoch)

    def certify(certified: Certified) -> Certified:
        outcome = certified.outcome
        votes = announced.get(outcome.instance)
        if votes is None:
            raise MalformedInput("certificates", f"none for {outcome.instance}")
        verify_certificate(
            votes,
            config.digest,
            outcome.instance,
            config.committee,
            context.identity.signing,
            outcome_digest(outcome),
        )
        return Certified(outcome, votes)

    try:
        windows = tuple(certify(certified) for certified in manifest.windows)
        return replace(manifest, windows=windows, late=certify(manifest.late))
    except MalformedInput as error:
        log.debug("upload.not_made_again", bundle=manifest.header.number, reason=str(error))
        return None
