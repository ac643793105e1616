"""Who owes what: signed bytes given to each consumer, and the receipts that pay for them, in one small SQLite file.

A consumer pays after it has read: *unpaid* grows with every answer and falls by what a new receipt adds. Beyond the
limit the broker gives no more until a receipt comes. What was given is written down every few seconds: a crash forgives
so much. A receipt is on disk before it is answered.
"""

from __future__ import annotations

import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path

from validator.protocol.codec.receipt import Receipt
from validator.protocol.model import Address

_SCHEMA = """
CREATE TABLE IF NOT EXISTS accounts (
  consumer BLOB PRIMARY KEY, epoch INTEGER NOT NULL, cumulative INTEGER NOT NULL, unpaid INTEGER NOT NULL)
"""


@dataclass(slots=True)
class _Account:
    epoch: int = 0
    cumulative: int = 0
    unpaid: int = 0


class SqliteAccounts:
    """Thread-safe."""

    def __init__(self, path: Path, *, unpaid_limit: int) -> None:
        """``unpaid_limit``: bytes; 0: none."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._limit = unpaid_limit
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, 10.0, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute(_SCHEMA)
        self._accounts: dict[Address, _Account] = {}
        self._changed: set[Address] = set()

    def may_read(self, consumer: Address) -> bool:
        """Whether what it owes is below the limit."""
        if not self._limit:
            return True
        with self._lock:
            return self._of(consumer).unpaid < self._limit

    def charge(self, consumer: Address, signed_bytes: int) -> None:
        if not signed_bytes:
            return
        with self._lock:
            self._of(consumer).unpaid += signed_bytes
            self._changed.add(consumer)

    def credit(self, receipt: Receipt) -> bool:
        """Keep a receipt that promises more than the last; whether it does. Durable when this returns.

        In a new epoch the count begins anew.
        """
        with self._lock:
            account = self._of(receipt.consumer)
            if (receipt.epoch, receipt.cumulative_bytes) <= (account.epoch, account.cumulative):
                return False
            before = account.cumulative if receipt.epoch == account.epoch else 0
            account.unpaid -= receipt.cumulative_bytes - before
            account.epoch, account.cumulative = receipt.epoch, receipt.cumulative_bytes
            self._changed.add(receipt.consumer)
            self._save()
            return True

    def save(self) -> None:
        with self._lock:
            self._save()

    def count(self) -> int:
        with self._lock:
            self._save()
            found = self._connection.execute("SELECT count(*) FROM accounts WHERE cumulative > 0").fetchone()
            return int(found[0])

    def close(self) -> None:
        with self._lock:
            self._save()
            self._connection.close()

    def _of(self, consumer: Address) -> _Account:
        account = self._accounts.get(consumer)
        if account is None:
            found = self._connection.execute(
                "SELECT epoch, cumulative, unpaid FROM accounts WHERE consumer = ?", (consumer,)
            ).fetchone()
            account = self._accounts[consumer] = _Account(*found) if found else _Account()
        return account

    def _save(self) -> None:
        rows = [
            (consumer, account.epoch, account.cumulative, account.unpaid)
            for consumer in self._changed
            if (account := self._accounts.get(consumer))
        ]
        if rows:
            self._connection.executemany("INSERT OR REPLACE INTO accounts VALUES (?, ?, ?, ?)", rows)
            self._changed.clear()
