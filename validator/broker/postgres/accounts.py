"""Who owes what, at whichever machine it reads (``ports.broker_state.Accounts``).

What a consumer is given is added up here and written with the next look at its account, in one statement that adds and
answers: page by page, before the next page goes out. So a limit holds over all machines together as it does over the
answers of one, but for the page that each has under way.
"""

from __future__ import annotations

import threading
from collections import Counter

from validator.broker.postgres.database import Database
from validator.protocol.codec.receipt import Receipt
from validator.protocol.model import Address

_ADD = """
INSERT INTO accounts AS a (consumer, epoch, cumulative, unpaid) VALUES (%b, 0, 0, %b)
ON CONFLICT (consumer) DO UPDATE SET unpaid = a.unpaid + excluded.unpaid RETURNING a.unpaid
"""
_CREDIT = """
INSERT INTO accounts AS a (consumer, epoch, cumulative, unpaid) VALUES (%b, %b, %b, %b)
ON CONFLICT (consumer) DO UPDATE SET epoch = excluded.epoch, cumulative = excluded.cumulative, unpaid = greatest(
  a.unpaid - (excluded.cumulative - CASE WHEN a.epoch = excluded.epoch THEN a.cumulative ELSE 0 END)::numeric,
  -4611686018427387904)::bigint
WHERE (a.epoch, a.cumulative) < (excluded.epoch, excluded.cumulative) RETURNING 1
"""


class PostgresAccounts:
    """Thread-safe."""

    def __init__(self, database: Database, *, unpaid_limit: int) -> None:
        """``unpaid_limit``: bytes; 0: none."""
        self._database = database
        self._limit = unpaid_limit
        self._lock = threading.Lock()
        self._charged: Counter[Address] = Counter()
        self._paying = 0

    def may_read(self, consumer: Address) -> bool:
        return not self._limit or self._write(consumer) < self._limit

    def charge(self, consumer: Address, signed_bytes: int) -> None:
        if signed_bytes:
            with self._lock:
                self._charged[consumer] += signed_bytes

    def credit(self, receipt: Receipt) -> bool:
        paid = receipt.cumulative_bytes
        if (receipt.epoch, paid) <= (0, 0):
            return False
        with self._database.use() as cursor:
            found = cursor.execute(_CREDIT, (receipt.consumer, receipt.epoch, paid, max(-paid, -(1 << 62)))).fetchone()
        return found is not None

    def save(self) -> None:
        with self._lock:
            consumers = list(self._charged)
        for consumer in consumers:
            self._write(consumer)
        with self._database.use() as cursor:
            found = cursor.execute("SELECT count(*) FROM accounts WHERE cumulative > 0").fetchone()
        self._paying = 0 if found is None else int(found[0])

    def count(self) -> int:
        return self._paying

    def close(self) -> None:
        self.save()

    def _write(self, consumer: Address) -> int:
        """Add what was charged here; what is unpaid then. What could not be written is charged still."""
        with self._lock:
            charged = self._charged.pop(consumer, 0)
        try:
            with self._database.use() as cursor:
                found = cursor.execute(_ADD, (consumer, charged)).fetchone()
        except BaseException:
            self.charge(consumer, charged)
            raise
        assert found is not None
        return int(found[0])
