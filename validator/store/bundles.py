"""Bundles, own uploads, and what members announced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, bindparam, case, delete, func, select, update

from validator.ports.clock import Clock
from validator.ports.states import AnnouncedState, BundleState, UploadState
from validator.ports.storage import PreparedUpload
from validator.ports.stored import AnnouncedUpload, StoredBundle, StoredUpload
from validator.protocol.codec.statement import decode_upload, encode_upload
from validator.protocol.errors import AlreadyDone, InvariantError
from validator.protocol.model import Digest, StorageId, UploadAnnouncement
from validator.store import schema
from validator.store.database import Database
from validator.store.rows import as_row, from_row, insert_new, insert_or_replace, states_below

MAX_ANNOUNCED = 16
"""Announcements kept per bundle and member: an honest one signs anew only when an upload can no longer be mined."""


class BundleRows:
    """The port ``Bundles``."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    # --- bundles ---

    def load_bundle(self, number: int) -> StoredBundle | None:
        with self._database.read() as connection:
            row = connection.execute(_ONE_BUNDLE, {"at_number": number}).one_or_none()
        return None if row is None else from_row(StoredBundle, row, state=BundleState)

    def last_bundle(self) -> StoredBundle | None:
        """The bundle with the highest number."""
        with self._database.read() as connection:
            row = connection.execute(_LAST_BUNDLE).one_or_none()
        return None if row is None else from_row(StoredBundle, row, state=BundleState)

    def create_bundle(self, bundle: StoredBundle) -> bool:
        """Open a bundle and put its windows into it; False if its number is taken."""
        now_ms = self._clock.now_ms()
        t = schema.windows
        with self._database.write() as connection:
            row = as_row(bundle) | {"opened_ms": now_ms, "changed_ms": now_ms}
            if not insert_new(connection, schema.bundles, row):
                return False
            windows = update(t).where(t.c.start_ms.between(bundle.first_ms, bundle.last_ms))
            connection.execute(windows.values(bundle=bundle.number))
        return True

    def save_sealed(self, bundle: StoredBundle) -> None:
        """The sealed file and manifest of an open bundle; sealing the same root again changes nothing.

        Raises:
            InvariantError: never opened, or sealed before with another root.
        """
        t = schema.bundles
        names = ("previous_root", "root", "path", "size", "sha256", "manifest", "sealed_ms", "messages")
        changes = {name: getattr(bundle, name) for name in names}
        changes |= {"state": BundleState.SEALED, "changed_ms": self._clock.now_ms()}
        with self._database.write() as connection:
            change = update(t).where(t.c.number == bundle.number, t.c.state == BundleState.OPEN).values(**changes)
            if connection.execute(change).rowcount == 1:
                return
            held = connection.execute(select(t.c.root).where(t.c.number == bundle.number)).one_or_none()
        if held is None or held.root != bundle.root:
            raise InvariantError(f"bundle {bundle.number} was never opened, or is sealed with another root")

    def save_file(self, number: int, size: int, sha256: Digest) -> None:
        """A sealed bundle's file was written again, and differs."""
        t = schema.bundles
        with self._database.write() as connection:
            change = update(t).where(t.c.number == number, t.c.state != BundleState.OPEN)
            connection.execute(change.values(size=size, sha256=sha256))

    def save_bundle_state(self, number: int, state: BundleState) -> None:
        """Climb the ladder open, sealed, verified, final; a bundle that stands there or higher stays."""
        t = schema.bundles
        below = states_below(state)
        with self._database.write() as connection:
            change = update(t).where(t.c.number == number, t.c.state.in_(below))
            connection.execute(change.values(state=state, changed_ms=self._clock.now_ms()))

    # --- own uploads ---

    def load_uploads(self, number: int) -> list[StoredUpload]:
        """Own uploads of a bundle, by attempt."""
        t = schema.uploads
        with self._database.read() as connection:
            rows = connection.execute(select(t).where(t.c.number == number).order_by(t.c.attempt))
            return [
                StoredUpload(number, r.attempt, _prepared(r), UploadState(r.state), r.replaces, r.posted_to)
                for r in rows
            ]

    def count_open_uploads(self) -> int:
        t = schema.uploads
        states = (UploadState.PREPARED, UploadState.POSTED, UploadState.SEEDED)
        with self._database.read() as connection:
            over = select(schema.bundles.c.number).where(schema.bundles.c.state == BundleState.FINAL)
            query = select(func.count()).select_from(t).where(t.c.state.in_(states), t.c.number.not_in(over))
            return int(connection.execute(query).scalar_one())

    def save_upload(self, upload: StoredUpload) -> None:
        """Save a signed transaction before its first byte leaves.

        Raises:
            AlreadyDone: this attempt is saved; load it and go on with that one.
        """
        now_ms = self._clock.now_ms()
        row = as_row(upload.prepared) | {
            "number": upload.number,
            "attempt": upload.attempt,
            "state": upload.state,
            "replaces": upload.replaces,
            "posted_to": upload.posted_to,
            "prepared_ms": now_ms,
            "changed_ms": now_ms,
        }
        with self._database.write() as connection:
            saved = insert_new(connection, schema.uploads, row)
        if not saved:
            raise AlreadyDone(
                f"bundle {upload.number}: upload attempt {upload.attempt} is saved already",
                number=upload.number,
                attempt=upload.attempt,
            )

    def save_upload_state(self, number: int, attempt: int, state: UploadState) -> None:
        """Any state of the ladder: a posted upload may be dropped, one thought missing may be posted again."""
        t = schema.uploads
        with self._database.write() as connection:
            change = update(t).where(t.c.number == number, t.c.attempt == attempt)
            connection.execute(change.values(state=state, changed_ms=self._clock.now_ms()))

    def save_posted(self, number: int, attempt: int, posted_to: str) -> None:
        """Posted; the first host that took it stays."""
        t = schema.uploads
        first = case((t.c.posted_to == "", posted_to), else_=t.c.posted_to)
        with self._database.write() as connection:
            change = update(t).where(t.c.number == number, t.c.attempt == attempt)
            changed = {"state": UploadState.POSTED, "posted_to": first, "changed_ms": self._clock.now_ms()}
            connection.execute(change.values(**changed))

    # --- what gateways have taken ---

    def load_seeds(self, storage_id: StorageId) -> dict[str, int]:
        """Which chunks of an upload each gateway has taken: bits by host."""
        with self._database.read() as connection:
            return _load_seeds(connection, storage_id)

    def save_seeds(self, storage_id: StorageId, taken: Mapping[str, int]) -> None:
        """What gateways have taken, beside what is known of them already: two runs may end at the same time."""
        now_ms = self._clock.now_ms()
        with self._database.write() as connection:
            known = _load_seeds(connection, storage_id)
            for host, bits in taken.items():
                both = bits | known.get(host, 0)
                data = both.to_bytes((both.bit_length() + 7) // 8, "little")
                row = {"storage_id": storage_id, "gateway": host, "taken": data, "changed_ms": now_ms}
                insert_or_replace(connection, schema.seeds, row)

    def forget_seeds(self, storage_id: StorageId) -> None:
        with self._database.write() as connection:
            connection.execute(delete(schema.seeds).where(schema.seeds.c.storage_id == storage_id))

    # --- announcements ---

    def save_announced(self, announcement: UploadAnnouncement, now_ms: int) -> bool:
        """Keep an announcement that counts; False if it is known, or its signer has ``MAX_ANNOUNCED`` already."""
        a, t = announcement, schema.announcements
        row = {
            "number": a.number,
            "storage_id": a.storage_id,
            "signer": a.signer,
            "bytes": encode_upload(a),
            "state": AnnouncedState.HEARD,
            "reason": "",
            "heard_ms": now_ms,
            "tries": 0,
        }
        with self._database.write() as connection:
            query = select(func.count()).where(t.c.number == a.number, t.c.signer == a.signer)
            if connection.execute(query).scalar_one() >= MAX_ANNOUNCED:
                return False
            return insert_new(connection, t, row)

    def save_announcement_signed(self, announcement: UploadAnnouncement, unsigned: bytes) -> None:
        """What was found on the weave is announced now: with its signature, and the certificates of its file."""
        a, t = announcement, schema.announcements
        row = (t.c.number == a.number) & (t.c.storage_id == a.storage_id) & (t.c.signer == a.signer)
        with self._database.read() as connection:
            held = connection.execute(select(t.c.bytes).where(row)).scalar_one_or_none()
        if held is None or decode_upload(held).signature != unsigned:
            return
        with self._database.write() as connection:
            connection.execute(update(t).where(row, t.c.bytes == held).values(bytes=encode_upload(a)))

    def save_announced_state(
        self, announcement: UploadAnnouncement, state: AnnouncedState, reason: str, tries: int = 0, *, read: int = 0
    ) -> None:
        """What looking at the upload has shown. Only one member can announce it: whose wallet signed it.

        ``read``: confirmations at which it was read back whole; what was higher stays.
        """
        t = schema.announcements
        deepest = case((t.c.read_confirmations < read, read), else_=t.c.read_confirmations)
        changed = {"state": state, "reason": reason, "tries": tries, "checked_ms": self._clock.now_ms()}
        with self._database.write() as connection:
            change = update(t).where(t.c.number == announcement.number, t.c.storage_id == announcement.storage_id)
            connection.execute(change.values(read_confirmations=deepest, **changed))

    def load_announced(self, number: int) -> list[AnnouncedUpload]:
        """Announcements of a bundle in the order they came."""
        t = schema.announcements
        query = select(t).where(t.c.number == number).order_by(t.c.heard_ms, t.c.storage_id, t.c.signer)
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return [
            AnnouncedUpload(
                decode_upload(r.bytes),
                r.state,
                r.reason,
                r.heard_ms,
                r.tries,
                r.checked_ms or 0,
                r.read_confirmations,
            )
            for r in rows
        ]


_BUNDLE = select(*(schema.bundles.c[name] for name in StoredBundle.__dataclass_fields__))
_ONE_BUNDLE = _BUNDLE.where(schema.bundles.c.number == bindparam("at_number"))
_LAST_BUNDLE = _BUNDLE.order_by(schema.bundles.c.number.desc()).limit(1)


def _load_seeds(connection: Connection, storage_id: StorageId) -> dict[str, int]:
    t = schema.seeds
    rows = connection.execute(select(t.c.gateway, t.c.taken).where(t.c.storage_id == storage_id))
    return {row.gateway: int.from_bytes(row.taken, "little") for row in rows}


def _prepared(row: Any) -> PreparedUpload:
    return PreparedUpload(**{name: getattr(row, name) for name in PreparedUpload.__dataclass_fields__})
