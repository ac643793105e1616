"""Both engines for every test of the store; a clock that stands still unless moved."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import servers
from tests.fakes.small_network import an_empty_database
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
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def empty_url(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """A database without a schema, on each engine."""
    if engine == "sqlite":
        return f"sqlite:///{tmp_path}/validator.sqlite"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return an_empty_database(tmp_path_factory.mktemp("migrated"))


@pytest.fixture(scope="session")
def migrated_database(postgres_server: str) -> Iterator[str]:
    """Name of a database to copy."""
    with servers.fresh_database(postgres_server, "migrated") as url:
        migrate(url)
        yield "migrated"


@pytest.fixture
def url(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """A migrated database, on each engine: a copy, since migrating takes longer than most tests."""
    if engine == "sqlite":
        shutil.copy(request.getfixturevalue("migrated_file"), tmp_path / "validator.sqlite")
        yield f"sqlite:///{tmp_path}/validator.sqlite"
        return
    template, server = request.getfixturevalue("migrated_database"), request.getfixturevalue("postgres_server")
    with servers.fresh_database(server, f"test_{uuid.uuid4().hex}", template) as copied:
        yield copied


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
