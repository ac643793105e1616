"""Both engines for every test of the store; a clock that stands still unless moved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from validator.store.database import Database, migrate, open_database
from validator.store.facade import SqlStore
from validator.store.segments import SegmentStore

NOW_MS = 1_700_000_100_000


@dataclass
class HandClock:
    """Time moves only by hand."""

    at_ms: int = NOW_MS

    def now_ms(self) -> int:
        return self.at_ms


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without a schema, on each engine."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/validator.sqlite"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def url(empty_url: str) -> str:
    """A migrated database, on each engine."""
    migrate(empty_url)
    return empty_url


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    opened = open_database(url)
    yield opened
    opened.close()


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def store(database: Database, tmp_path: Path, clock: HandClock) -> SqlStore:
    return SqlStore(database, SegmentStore(str(tmp_path / "sets")), clock)
