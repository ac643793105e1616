"""The newest bundles with their uploads, and the newest reports with who attested them."""

from __future__ import annotations

from sqlalchemy import Connection, select

from validator.protocol.codec.statement import decode_upload
from validator.protocol.model import Address
from validator.store import schema
from validator.store.view.status import BundleView, ReportView, UploadView

SHOWN_BUNDLES = 20


def load_bundles(connection: Connection) -> tuple[BundleView, ...]:
    t, heard, own = schema.bundles, schema.announcements, schema.uploads
    rows = connection.execute(select(t).order_by(t.c.number.desc()).limit(SHOWN_BUNDLES)).all()
    numbers = [row.number for row in rows]
    uploads: dict[int, dict[bytes, UploadView]] = {number: {} for number in numbers}
    for row in connection.execute(select(heard).where(heard.c.number.in_(numbers)).order_by(heard.c.heard_ms)):
        announced = decode_upload(row.bytes)
        uploads[row.number][row.storage_id] = UploadView(
            row.storage_id, announced.signer, row.state, row.reason, own=False
        )
    for row in connection.execute(select(own).where(own.c.number.in_(numbers)).order_by(own.c.attempt)):
        known = uploads[row.number].get(row.storage_id)
        by = None if known is None else known.by
        uploads[row.number][row.storage_id] = UploadView(row.storage_id, by, row.state, "", own=True)
    return tuple(
        BundleView(
            row.number,
            row.epoch,
            row.state,
            row.first_ms,
            row.last_ms,
            row.messages,
            row.size,
            row.root,
            row.sealed_ms,
            tuple(uploads[row.number].values()),
        )
        for row in reversed(rows)
    )


def load_reports(connection: Connection) -> tuple[ReportView, ...]:
    t, a = schema.reports, schema.attestations
    query = select(t).order_by(t.c.number.desc(), t.c.drafted_ms.desc()).limit(SHOWN_BUNDLES)
    rows = connection.execute(query).all()
    signers: dict[bytes, list[Address]] = {}
    signed = select(a.c.report_digest, a.c.signer).where(a.c.report_digest.in_([row.digest for row in rows]))
    for digest, signer in connection.execute(signed.order_by(a.c.signer)):
        signers.setdefault(digest, []).append(Address(signer))
    return tuple(
        ReportView(
            row.number,
            row.storage_id,
            row.digest,
            row.state,
            tuple(signers.get(row.digest, ())),
            row.transaction,
            row.gas_used,
        )
        for row in reversed(rows)
    )
