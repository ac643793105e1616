"""PostgreSQL beside SQLite under a broker: the same messages into both, batch by batch, in turn; then the same pages.

The server runs on this machine, with the tests' settings but for synchronous commits; it has its own process, so this
is a matter of the wall clock. What counts is the ratio.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.broker_parts import PART
from tests import servers
from tests.broker_parts import NOW_MS
from validator.broker.postgres.database import Database
from validator.broker.postgres.messages import PostgresMessageStore
from validator.broker.postgres.schema import migrate
from validator.broker.store import SqliteMessageStore
from validator.ports.message_store import MessageStore
from validator.protocol.model import Address, Record

BATCH, PAGE = 2_000, 1_000


def measure(records: Sequence[Record], rounds: int, folder: Path) -> dict[str, float]:
    """Inserted and read again a second, each store's best round, and the median of the rounds' ratios."""
    taken: dict[str, list[float]] = {"postgres_insert": [], "sqlite_insert": [], "postgres_read": [], "sqlite_read": []}
    with servers.run_postgres() as server:
        for number in range(rounds):
            with servers.fresh_database(server, f"round{number}") as url:
                database = Database(url)
                database.open()
                migrate(database, Address(bytes(20)), b"")
                files = SqliteMessageStore(folder / f"files-{number}")
                stores: dict[str, MessageStore] = {"postgres": PostgresMessageStore(database), "sqlite": files}
                for name, store in stores.items():
                    taken[f"{name}_insert"].append(_wall(lambda store=store: _fill(store, records)))  # type: ignore[misc]
                for name, store in stores.items():
                    taken[f"{name}_read"].append(_wall(lambda store=store: _read(store, len(records))))  # type: ignore[misc]
                files.close()
                database.close()
    figures = {f"{name}_s": len(records) / min(seconds) for name, seconds in taken.items()}
    for what in ("insert", "read"):
        pairs = zip(taken[f"sqlite_{what}"], taken[f"postgres_{what}"], strict=True)
        figures[f"postgres_of_sqlite_{what}"] = statistics.median(a / b for a, b in pairs)
    return figures


def _fill(store: MessageStore, records: Sequence[Record]) -> None:
    for at in range(0, len(records), BATCH):
        store.insert(records[at : at + BATCH], NOW_MS)


def _read(store: MessageStore, count: int) -> None:
    after, found = None, 0
    while page := store.page(PART, 0, NOW_MS, after=after, limit=PAGE):
        after, found = page.last_key, found + len(page)
    assert found == count


def _wall(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
