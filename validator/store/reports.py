"""Reports, attestations, and the transactions that carry them."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import delete, select, update

from validator.ports.chain import PreparedTransaction
from validator.ports.clock import Clock
from validator.ports.peers import Attestation
from validator.ports.states import ReportState
from validator.ports.stored import StoredReport
from validator.protocol.codec.secp256k1 import verify_signature
from validator.protocol.errors import MalformedInput
from validator.protocol.model import Digest, StorageId
from validator.store import schema
from validator.store.database import Database
from validator.store.rows import as_row, from_row, insert_new

MAX_DIGESTS = 64
"""Attestations kept per bundle and signer of reports that are not drafted here: the newest. Those of drafts stay."""


class ReportRows:
    """The port ``Reports``. One bundle may have several reports, one per storage id; the contract takes the first."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def load_reports(self, number: int) -> list[StoredReport]:
        """Reports of a bundle, oldest draft first."""
        t = schema.reports
        query = _REPORT.where(t.c.number == number).order_by(t.c.drafted_ms, t.c.storage_id)
        with self._database.read() as connection:
            return [from_row(StoredReport, row, state=ReportState) for row in connection.execute(query)]

    def save_report(self, report: StoredReport) -> None:
        """Keep a draft; one of the same number and storage id that is there stays as it is."""
        now_ms = self._clock.now_ms()
        with self._database.write() as connection:
            insert_new(connection, schema.reports, as_row(report) | {"drafted_ms": now_ms, "changed_ms": now_ms})

    def save_report_state(self, number: int, storage_id: StorageId, state: ReportState) -> None:
        """Any state of the ladder but out of "final": a reverted report may be submitted again."""
        t = schema.reports
        with self._database.write() as connection:
            change = update(t).where(t.c.number == number, t.c.storage_id == storage_id, t.c.state != ReportState.FINAL)
            connection.execute(change.values(state=state, changed_ms=self._clock.now_ms()))

    def save_attestation(self, attestation: Attestation) -> bool:
        """Keep a verified signature, one per report and signer; False if it is known.

        However many other digests somebody shows signatures of, the one over a report that is drafted here, or will be
        and comes again, is never kept out: beyond ``MAX_DIGESTS`` of a number and signer the oldest that belong to no
        draft give way. A stored signature that the contract does not accept (an older release kept such) is replaced.
        """
        t = schema.attestations
        row = as_row(attestation) | {"received_ms": self._clock.now_ms()}
        place = (t.c.report_digest == attestation.report_digest, t.c.signer == attestation.signer)
        mine = (t.c.number == attestation.number, t.c.signer == attestation.signer)
        drafts = select(schema.reports.c.digest)
        with self._database.write() as connection:
            held = connection.execute(select(t.c.signature).where(*place)).one_or_none()
            if held is not None:
                if _is_accepted(replace(attestation, signature=held.signature)) or not _is_accepted(attestation):
                    return False
                connection.execute(update(t).where(*place).values(**row))
                return True
            undrafted = select(t.c.report_digest).where(*mine, t.c.report_digest.not_in(drafts))
            surplus = connection.scalars(
                undrafted.order_by(t.c.received_ms.desc(), t.c.report_digest).offset(MAX_DIGESTS - 1)
            ).all()
            if surplus:
                connection.execute(delete(t).where(*mine, t.c.report_digest.in_(surplus)))
            return insert_new(connection, t, row)

    def load_attestations(self, report_digest: Digest) -> list[Attestation]:
        """Sorted by signer."""
        t = schema.attestations
        query = select(t.c.number, t.c.report_digest, t.c.signer, t.c.signature).where(
            t.c.report_digest == report_digest
        )
        with self._database.read() as connection:
            return [from_row(Attestation, row) for row in connection.execute(query.order_by(t.c.signer))]

    def save_transaction(self, number: int, storage_id: StorageId, transaction: PreparedTransaction) -> None:
        """Save a signed transaction before it is sent."""
        row = {"number": number, "storage_id": storage_id, "prepared_ms": self._clock.now_ms()}
        with self._database.write() as connection:
            insert_new(connection, schema.transactions, as_row(transaction) | row)

    def load_transactions(self, number: int) -> list[PreparedTransaction]:
        """All transactions of a report, the newest last: any of them may be the one that is mined."""
        t = schema.transactions
        columns = [t.c[name] for name in PreparedTransaction.__dataclass_fields__]
        query = select(*columns).where(t.c.number == number).order_by(t.c.id)
        with self._database.read() as connection:
            return [from_row(PreparedTransaction, row) for row in connection.execute(query)]

    def save_final(self, number: int, storage_id: StorageId, transaction: Digest, gas_used: int | None) -> None:
        """The contract holds this report in a final block; ``transaction``, anybody's, carried it."""
        t = schema.reports
        changes = {"state": ReportState.FINAL, "transaction": transaction, "gas_used": gas_used}
        with self._database.write() as connection:
            change = update(t).where(t.c.number == number, t.c.storage_id == storage_id)
            connection.execute(change.values(**changes, changed_ms=self._clock.now_ms()))

    def load_ledger(self, number: int) -> bytes | None:
        """The ledger after report ``number``: that of the final report, else of the newest draft."""
        t = schema.reports
        query = select(t.c.ledger).where(t.c.number == number)
        with self._database.read() as connection:
            return connection.scalar(
                query.order_by((t.c.state == ReportState.FINAL).desc(), t.c.drafted_ms.desc()).limit(1)
            )


def _is_accepted(attestation: Attestation) -> bool:
    try:
        verify_signature(attestation.report_digest, attestation.signature, attestation.signer)
    except MalformedInput:
        return False
    return True


_REPORT = select(*(schema.reports.c[name] for name in StoredReport.__dataclass_fields__))
