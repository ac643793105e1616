"""Evidence of all machines (``ports.broker_state.EvidenceShelf``): it is small, rare, and bytes already."""

from __future__ import annotations

from validator.broker.postgres.database import Database


class PostgresShelf:
    """Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def names(self) -> set[str]:
        with self._database.use() as cursor:
            return {name for (name,) in cursor.execute("SELECT name FROM evidence").fetchall()}

    def load(self, name: str) -> bytes | None:
        with self._database.use() as cursor:
            found = cursor.execute("SELECT data FROM evidence WHERE name = %b", (name,)).fetchone()
        return None if found is None else bytes(found[0])

    def save(self, name: str, data: bytes) -> None:
        with self._database.use() as cursor:
            cursor.execute("INSERT INTO evidence VALUES (%b, %b) ON CONFLICT DO NOTHING", (name, data))

    def delete(self, name: str) -> None:
        with self._database.use() as cursor:
            cursor.execute("DELETE FROM evidence WHERE name = %b", (name,))
