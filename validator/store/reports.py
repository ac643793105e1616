"""Reports, attestations, the transactions that carry them, and ledgers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from validator.model import Digest, StorageId
from validator.ports import Attestation, PreparedTransaction
from validator.store import schema
from validator.store.rows import as_row, change_row, count_by, from_row, insert_new, require_word

REPORT_STATES = ("drafted", "attested", "submitted", "final", "reverted")
TRANSACTION_STATES = ("prepared", "sent", "mined", "replaced", "reverted")


@dataclass(frozen=True, slots=True)
class ReportRow:
    """A report with one storage id; several may be attested, the contract accepts the first.

    ``body``: canonical report. ``ledger_after``: canonical ledger after it. ``signers``: attestations held.
    """

    number: int
    storage_id: StorageId
    report_digest: Digest
    body: bytes
    ledger_after: bytes
    drafted_ms: int
    state: str = "drafted"
    signers: int = 0
    tx_hash: Digest | None = None
    gas_used: int | None = None
    block_number: int | None = None
    attested_ms: int | None = None
    final_ms: int | None = None
    wake_ms: int | None = None
    waits_for: str = ""


@dataclass(frozen=True, slots=True)
class TransactionRow:
    """A signed transaction, saved before it is sent."""

    hash: Digest
    number: int
    raw: bytes
    nonce: int
    max_fee_per_gas: int
    prepared_ms: int
    state: str = "prepared"
    sent_ms: int | None = None

    @property
    def prepared(self) -> PreparedTransaction:
        return PreparedTransaction(self.hash, self.raw, self.nonce, self.max_fee_per_gas)


# --- reports ----------------------------------------------------------------------------------------


def save_report(connection: Connection, row: ReportRow) -> bool:
    """Keep a drafted report; False if this number and storage id are there."""
    require_word(row.state, REPORT_STATES, "report.state")
    return insert_new(connection, schema.reports, as_row(row))


def load_report(connection: Connection, number: int, storage_id: StorageId, *, lock: bool = False) -> ReportRow | None:
    t = schema.reports
    query = select(t).where(t.c.number == number, t.c.storage_id == storage_id)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    return None if row is None else from_row(ReportRow, row)


def load_reports(
    connection: Connection, number: int | None = None, *, states: tuple[str, ...] | None = None, limit: int = 1000
) -> list[ReportRow]:
    """Reports of a bundle (of all if None) in these states, by number, oldest draft first."""
    t = schema.reports
    query = select(t).order_by(t.c.number, t.c.drafted_ms, t.c.storage_id).limit(limit)
    if number is not None:
        query = query.where(t.c.number == number)
    if states is not None:
        query = query.where(t.c.state.in_(states))
    return [from_row(ReportRow, row) for row in connection.execute(query)]


def due_reports(connection: Connection, now_ms: int, limit: int = 100) -> list[ReportRow]:
    """Reports whose wake time has passed, in order."""
    t = schema.reports
    rows = connection.execute(select(t).where(t.c.wake_ms <= now_ms).order_by(t.c.number, t.c.storage_id).limit(limit))
    return [from_row(ReportRow, row) for row in rows]


def change_report(connection: Connection, number: int, storage_id: StorageId, **changes: Any) -> None:
    """Change named columns. Raises InvariantError: unknown column, state or report."""
    if "state" in changes:
        require_word(changes["state"], REPORT_STATES, "report.state")
    change_row(connection, schema.reports, {"number": number, "storage_id": storage_id}, changes)


def count_reports(connection: Connection) -> dict[str, int]:
    return dict.fromkeys(REPORT_STATES, 0) | count_by(connection, schema.reports.c.state)


# --- attestations -------------------------------------------------------------------------------------


def save_attestations(connection: Connection, attestations: Iterable[Attestation], now_ms: int) -> int:
    """Keep verified signatures, one per report and signer; returns how many were new."""
    return sum(insert_new(connection, schema.attestations, {**as_row(a), "received_ms": now_ms}) for a in attestations)


def load_attestations(
    connection: Connection, *, report_digest: Digest | None = None, number: int | None = None
) -> list[Attestation]:
    """By report or by number, sorted by signer."""
    t = schema.attestations
    query = select(t.c.number, t.c.report_digest, t.c.signer, t.c.signature).order_by(t.c.report_digest, t.c.signer)
    if report_digest is not None:
        query = query.where(t.c.report_digest == report_digest)
    if number is not None:
        query = query.where(t.c.number == number)
    return [from_row(Attestation, row) for row in connection.execute(query)]


# --- transactions -------------------------------------------------------------------------------------


def save_transaction(connection: Connection, number: int, prepared: PreparedTransaction, now_ms: int) -> bool:
    """Save a signed transaction before it is sent; False if it is known."""
    return insert_new(connection, schema.transactions, as_row(TransactionRow(**_own(prepared, number, now_ms))))


def load_transactions(connection: Connection, number: int) -> list[TransactionRow]:
    """Transactions of a report, by nonce and time."""
    t = schema.transactions
    rows = connection.execute(select(t).where(t.c.number == number).order_by(t.c.nonce, t.c.prepared_ms, t.c.hash))
    return [from_row(TransactionRow, row) for row in rows]


def change_transaction(connection: Connection, tx_hash: Digest, **changes: Any) -> None:
    """Change named columns. Raises InvariantError: unknown column, state or transaction."""
    if "state" in changes:
        require_word(changes["state"], TRANSACTION_STATES, "transaction.state")
    change_row(connection, schema.transactions, {"hash": tx_hash}, changes)


def _own(prepared: PreparedTransaction, number: int, now_ms: int) -> dict[str, Any]:
    return as_row(prepared) | {"number": number, "prepared_ms": now_ms}


# --- ledgers ------------------------------------------------------------------------------------------


def save_ledger(connection: Connection, number: int, data: bytes) -> bool:
    """Keep the canonical ledger after report ``number``; False if it is there."""
    return insert_new(connection, schema.ledgers, {"number": number, "bytes": data})


def load_ledger(connection: Connection, number: int) -> bytes | None:
    return connection.scalar(select(schema.ledgers.c.bytes).where(schema.ledgers.c.number == number))
