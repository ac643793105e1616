"""Bundles, own uploads, and what peers announced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from validator.codec.statement import decode_upload, encode_upload
from validator.model import Address, Digest, Root, StorageId, UploadAnnouncement
from validator.ports import PreparedUpload
from validator.store import schema
from validator.store.rows import as_row, change_row, count_by, from_row, insert_new, require_word

BUNDLE_STATES = ("open", "sealed", "posted", "confirmed", "verified", "settled")
UPLOAD_STATES = ("prepared", "posted", "seeded", "confirmed", "verified", "dropped")
ANNOUNCEMENT_STATES = ("heard", "verified", "refused")


@dataclass(frozen=True, slots=True)
class BundleRow:
    """One bundle from its first agreed window on.

    ``first_ms``/``last_ms``: starts of its first and last window; ``end_ms``: end of the last. ``late_value``: digest
    of the late outcome. ``ledger_before``: canonical bytes of the ledger in the manifest. ``storage_id``: the upload
    that this validator has read back whole.
    """

    number: int
    config_digest: Digest
    epoch: int
    first_ms: int
    last_ms: int
    end_ms: int
    previous_root: Root
    opened_ms: int
    root: Root | None = None
    late_value: Digest | None = None
    state: str = "open"
    path: str = ""
    size: int = 0
    sha256: Digest | None = None
    message_count: int = 0
    manifest: bytes | None = None
    ledger_before: bytes = b""
    storage_id: StorageId | None = None
    wake_ms: int | None = None
    waits_for: str = ""
    sealed_ms: int | None = None
    verified_ms: int | None = None


@dataclass(frozen=True, slots=True)
class UploadRow:
    """An own upload, saved before its first byte leaves; ``attempt`` counts re-signed ones from 0."""

    bundle_root: Root
    signer: Address
    attempt: int
    number: int
    storage_id: StorageId
    owner: bytes
    header: str
    reward: int
    anchor_height: int
    data_size: int
    data_sha256: Digest
    prepared_ms: int
    state: str = "prepared"
    posted_ms: int | None = None
    confirmations: int = 0
    wake_ms: int | None = None
    reason: str = ""

    @property
    def prepared(self) -> PreparedUpload:
        return PreparedUpload(
            self.storage_id,
            self.owner,
            self.header,
            self.reward,
            self.anchor_height,
            self.data_size,
            self.data_sha256,
        )


@dataclass(frozen=True, slots=True)
class AnnouncementRow:
    """A member's signed word that a bundle is posted, and what reading it back has shown."""

    announcement: UploadAnnouncement
    state: str
    heard_ms: int
    checked_ms: int | None
    wake_ms: int | None
    reason: str


# --- bundles ----------------------------------------------------------------------------------------


def create_bundle(connection: Connection, row: BundleRow) -> bool:
    """Open a bundle; False if its number or first window is taken."""
    require_word(row.state, BUNDLE_STATES, "bundle.state")
    return insert_new(connection, schema.bundles, as_row(row))


def load_bundle(connection: Connection, number: int, *, lock: bool = False) -> BundleRow | None:
    query = select(schema.bundles).where(schema.bundles.c.number == number)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    return None if row is None else from_row(BundleRow, row)


def load_newest_bundle(connection: Connection) -> BundleRow | None:
    row = connection.execute(select(schema.bundles).order_by(schema.bundles.c.number.desc()).limit(1)).one_or_none()
    return None if row is None else from_row(BundleRow, row)


def load_bundles(
    connection: Connection, *, states: tuple[str, ...] | None = None, limit: int = 1000
) -> list[BundleRow]:
    """The oldest ``limit`` bundles in these states (all if None), in order."""
    query = select(schema.bundles).order_by(schema.bundles.c.number).limit(limit)
    if states is not None:
        query = query.where(schema.bundles.c.state.in_(states))
    return [from_row(BundleRow, row) for row in connection.execute(query)]


def due_bundles(connection: Connection, now_ms: int, limit: int = 100) -> list[BundleRow]:
    """Bundles whose wake time has passed, oldest first."""
    t = schema.bundles
    rows = connection.execute(select(t).where(t.c.wake_ms <= now_ms).order_by(t.c.number).limit(limit))
    return [from_row(BundleRow, row) for row in rows]


def save_bundle(connection: Connection, number: int, **changes: Any) -> None:
    """Change named columns. Raises InvariantError: unknown column, state or bundle."""
    if "state" in changes:
        require_word(changes["state"], BUNDLE_STATES, "bundle.state")
    change_row(connection, schema.bundles, {"number": number}, changes)


def count_bundles(connection: Connection) -> dict[str, int]:
    return dict.fromkeys(BUNDLE_STATES, 0) | count_by(connection, schema.bundles.c.state)


# --- own uploads --------------------------------------------------------------------------------------


def save_upload(connection: Connection, row: UploadRow) -> bool:
    """Save a signed transaction before its first byte leaves; False if this attempt is there: use that one."""
    require_word(row.state, UPLOAD_STATES, "upload.state")
    return insert_new(connection, schema.uploads, as_row(row))


def load_uploads(connection: Connection, number: int) -> list[UploadRow]:
    """Own uploads of a bundle, by attempt."""
    t = schema.uploads
    rows = connection.execute(select(t).where(t.c.number == number).order_by(t.c.bundle_root, t.c.attempt))
    return [from_row(UploadRow, row) for row in rows]


def load_unfinished_uploads(connection: Connection) -> list[UploadRow]:
    """Own uploads that are neither verified nor dropped, oldest first."""
    t = schema.uploads
    query = select(t).where(t.c.state.not_in(("verified", "dropped"))).order_by(t.c.number, t.c.attempt)
    return [from_row(UploadRow, row) for row in connection.execute(query)]


def change_upload(connection: Connection, storage_id: StorageId, **changes: Any) -> None:
    """Change named columns. Raises InvariantError: unknown column, state or upload."""
    if "state" in changes:
        require_word(changes["state"], UPLOAD_STATES, "upload.state")
    change_row(connection, schema.uploads, {"storage_id": storage_id}, changes)


# --- announcements ------------------------------------------------------------------------------------


def save_announcement(connection: Connection, announcement: UploadAnnouncement, now_ms: int) -> bool:
    """Keep a verified announcement (own ones too); False if it is known."""
    a = announcement
    row = {
        "number": a.number,
        "storage_id": a.storage_id,
        "signer": a.signer,
        "bundle_root": a.bundle_root,
        "bytes": encode_upload(a),
        "state": "heard",
        "heard_ms": now_ms,
        "reason": "",
    }
    return insert_new(connection, schema.announcements, row)


def load_announcements(
    connection: Connection, number: int | None = None, *, states: tuple[str, ...] | None = None
) -> list[AnnouncementRow]:
    """Announcements of a bundle (of all if None), in the order they were heard."""
    t = schema.announcements
    query = select(t).order_by(t.c.number, t.c.heard_ms, t.c.storage_id)
    if number is not None:
        query = query.where(t.c.number == number)
    if states is not None:
        query = query.where(t.c.state.in_(states))
    return [
        AnnouncementRow(decode_upload(r.bytes), r.state, r.heard_ms, r.checked_ms, r.wake_ms, r.reason)
        for r in connection.execute(query)
    ]


def change_announcement(
    connection: Connection, number: int, storage_id: StorageId, signer: Address, **changes: Any
) -> None:
    """Change named columns. Raises InvariantError: unknown column, state or announcement."""
    if "state" in changes:
        require_word(changes["state"], ANNOUNCEMENT_STATES, "announcement.state")
    key = {"number": number, "storage_id": storage_id, "signer": signer}
    change_row(connection, schema.announcements, key, changes)
