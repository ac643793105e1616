"""What all tests share: Hypothesis profiles, no network in unit and property tests, real servers in the others."""

from __future__ import annotations

import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests import servers

settings.register_profile("dev", max_examples=60, deadline=None)
settings.register_profile("ci", max_examples=30, deadline=None, derandomize=True, database=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))

HERE = Path(__file__).resolve().parent
MEMORY_FOLDER = Path("/dev/shm")
MEMORY_FREE_BYTES = 8 << 30
if MEMORY_FOLDER.is_dir() and shutil.disk_usage(MEMORY_FOLDER).free > MEMORY_FREE_BYTES:
    # A small network commits some thousand times, and each commit waits for the disk.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY_FOLDER))
WITHOUT_NETWORK = (HERE / "unit", HERE / "property")
NETWORK_EVENTS = frozenset({"socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo"})
_blocked_for: list[str] = []


class NetworkUsed(AssertionError):
    """A unit or property test reached for a socket."""


def _refuse_network(event: str, _arguments: tuple[Any, ...]) -> None:
    if _blocked_for and event in NETWORK_EVENTS:
        raise NetworkUsed(f"{event} in {_blocked_for[-1]}: unit and property tests use no sockets")


sys.addaudithook(_refuse_network)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Block sockets while a unit or property test runs, its fixtures included."""
    if any(folder in item.path.parents for folder in WITHOUT_NETWORK):
        _blocked_for.append(item.nodeid)
        try:
            return (yield)
        finally:
            _blocked_for.pop()
    return (yield)


@pytest.fixture(scope="module")
def redis_server() -> Iterator[servers.Redis]:
    """A Redis server of this module's own: `.url` for redis-py, `.celery_url` for Celery."""
    with servers.run_redis() as redis:
        yield redis


@pytest.fixture
def redis_url(redis_server: servers.Redis) -> str:
    """Celery's URL of the module's Redis server, the form that LOGSTORE_REDIS_URL takes."""
    return redis_server.celery_url


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """One PostgreSQL server per run; the folder of its Unix socket."""
    with servers.run_postgres() as folder:
        yield folder


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """SQLAlchemy URL of an empty database for one test."""
    with servers.fresh_database(postgres_server, f"test_{uuid.uuid4().hex}") as url:
        yield url


@pytest.fixture(scope="module")
def anvil() -> Iterator[str]:
    """URL of an EVM node of this module's own: chain id 31337, a block per transaction."""
    with servers.run_anvil() as url:
        yield url
