"""What was last seen of gateways and wallet: for screen and metrics, nothing is decided by it."""

from __future__ import annotations

from validator.ports.clock import Clock
from validator.ports.storage import Tariff
from validator.store import schema
from validator.store.database import Database
from validator.store.rows import insert_or_replace


class WeaveRows:
    """The port ``Weave``."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def save_gateway(self, host: str, state: str, failures: int, error: str) -> None:
        """State of a gateway's circuit, as the process saw it that asked last."""
        row = {"host": host, "state": state, "failures": failures, "error": error, "changed_ms": self._clock.now_ms()}
        with self._database.write() as connection:
            insert_or_replace(connection, schema.gateways, row)

    def save_wallet(self, address: bytes, balance: int, tariff: Tariff) -> None:
        """Balance, and what a header costs."""
        row = {"address": address, "balance": balance, "base": tariff.base, "step": tariff.step}
        with self._database.write() as connection:
            insert_or_replace(connection, schema.wallets, row | {"seen_ms": self._clock.now_ms()})
