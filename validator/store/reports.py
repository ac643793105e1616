"""Reports, attestations, and the transactions that carry them."""

from __future__ import annotations

from sqlalchemy import func, select, update

from validator.model import Digest, StorageId
from validator.ports import Attestation, Clock, PreparedTransaction, StoredReport
from validator.store import schema
from validator.store.database import Database
from validator.store.rows import as_row, from_row, insert_new, require_word

STATES = ("drafted", "attested", "submitted", "final", "reverted")
MAX_DIGESTS = 64
"""Attestations kept per bundle and signer: one for every upload that it has read back whole, which are few."""


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
            return [from_row(StoredReport, row) for row in connection.execute(query)]

    def save_report(self, report: StoredReport) -> None:
        """Keep a draft; one of the same number and storage id that is there stays as it is."""
        require_word(report.state, STATES, "report.state")
        now_ms = self._clock.now_ms()
        with self._database.write() as connection:
            insert_new(connection, schema.reports, as_row(report) | {"drafted_ms": now_ms, "changed_ms": now_ms})

    def save_report_state(self, number: int, storage_id: StorageId, state: str) -> None:
        """Any state of the ladder but out of "final": a reverted report may be submitted again."""
        require_word(state, STATES, "report.state")
        t = schema.reports
        with self._database.write() as connection:
            change = update(t).where(t.c.number == number, t.c.storage_id == storage_id, t.c.state != "final")
            connection.execute(change.values(state=state, changed_ms=self._clock.now_ms()))

    def save_attestation(self, attestation: Attestation) -> bool:
        """Keep a verified signature, one per report and signer; False if it is known, or its signer has signed
        ``MAX_DIGESTS`` of this number already."""
        t = schema.attestations
        with self._database.write() as connection:
            mine = select(func.count()).where(t.c.number == attestation.number, t.c.signer == attestation.signer)
            if connection.execute(mine).scalar_one() >= MAX_DIGESTS:
                return False
            row = as_row(attestation) | {"received_ms": self._clock.now_ms()}
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

    def load_transaction(self, number: int) -> PreparedTransaction | None:
        """The newest transaction of a report: the one that replaced the others, if any."""
        t = schema.transactions
        columns = [t.c[name] for name in PreparedTransaction.__dataclass_fields__]
        query = select(*columns).where(t.c.number == number).order_by(t.c.id.desc()).limit(1)
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else from_row(PreparedTransaction, row)

    def save_final(self, number: int, storage_id: StorageId, transaction: Digest | None, gas_used: int) -> None:
        """The contract holds this report in a final block."""
        t = schema.reports
        changes = {"state": "final", "transaction": transaction, "gas_used": gas_used}
        with self._database.write() as connection:
            change = update(t).where(t.c.number == number, t.c.storage_id == storage_id)
            connection.execute(change.values(**changes, changed_ms=self._clock.now_ms()))

    def load_ledger(self, number: int) -> bytes | None:
        """The ledger after report ``number``: that of the final report, else of the newest draft."""
        t = schema.reports
        query = select(t.c.ledger).where(t.c.number == number)
        with self._database.read() as connection:
            return connection.scalar(query.order_by((t.c.state == "final").desc(), t.c.drafted_ms.desc()).limit(1))


_REPORT = select(*(schema.reports.c[name] for name in StoredReport.__dataclass_fields__))
