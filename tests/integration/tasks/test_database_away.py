"""A worker whose PostgreSQL crashes, turns read-only, has no connection left, or is migrated under it: it goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests import paths, servers
from tests.fakes.small_network import SmallNetwork, an_empty_database
from validator.ports.queue import Task
from validator.protocol.parameters import format_network
from validator.setup.console import die_with_parent
from validator.store.database import migrate, open_database
from validator.store.identity import create_identity

PATIENCE_S = 60.0
CLOSED = "http://127.0.0.1:9"
LONG_AGO_MS = 1


class Stand:
    """A PostgreSQL that comes and goes, a Redis that stays, and a worker with beat in it, as a small fleet has them."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._log = folder / "worker.log"
        self._cluster = stack.enter_context(servers.make_cluster())
        self._server = stack.enter_context(ExitStack())
        self.start_server()
        with self.admin("postgres") as admin:
            admin.execute("CREATE ROLE validator LOGIN")
            admin.execute("CREATE DATABASE validator OWNER validator")
        redis = stack.enter_context(servers.run_redis())
        self.worker = stack.enter_context(self._start_worker(folder, redis))
        stack.callback(self.worker.kill)

    def start_server(self) -> None:
        self._child = self._server.enter_context(self._cluster.running())

    def crash_server(self) -> None:
        """All its processes at once, like a machine that goes off."""
        os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        self._server.close()

    def admin(self, database: str = "validator") -> psycopg.Connection[Any]:
        return psycopg.connect(host=str(self._cluster.data), user="postgres", dbname=database, autocommit=True)

    def change(self, what: str) -> None:
        """Change a setting, and end all connections: it is for new ones."""
        with self.admin() as admin:
            admin.execute(what)
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'validator'")

    def _start_worker(self, folder: Path, redis: servers.Redis) -> subprocess.Popen[bytes]:
        url = f"postgresql+psycopg://validator@/validator?host={self._cluster.data}"
        (folder / "network").mkdir()
        network = SmallNetwork(folder / "network", an_empty_database(folder), 1)
        (member,) = network.members
        migrate(url)
        database = open_database(url)
        create_identity(database, folder / "id", network.network, network.world.head(), network.clock.now_ms())
        database.close()
        (folder / "network.toml").write_text(format_network(network.network))
        network.close()
        environment = {
            **os.environ,
            "LOGSTORE_NETWORK_FILE": str(folder / "network.toml"),
            "LOGSTORE_DATA_DIR": str(folder / "data"),
            "LOGSTORE_DATABASE_URL": url,
            "LOGSTORE_DATABASE_ID_FILE": str(folder / "id"),
            "LOGSTORE_REDIS_URL": redis.celery_url,
            "LOGSTORE_RPC_URLS": CLOSED,
            "LOGSTORE_GATEWAY_URLS": CLOSED,
            "LOGSTORE_VOTING_KEY": member.key.secret_hex(),
            "LOGSTORE_EMBED_BEAT": "1",
            "LOGSTORE_TICK_S": "0.3",
            "LOGSTORE_LOG_LEVEL": "DEBUG",  # a database that is away is no news of a task: readiness tells of it
        }
        words = [sys.executable, "-m", "validator.cli", "worker", "round", "bundle", "--children", "2"]
        with self._log.open("wb") as sink:
            return subprocess.Popen(
                words,
                cwd=paths.ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,
            )

    def said(self) -> str:
        return self._log.read_text(errors="replace")

    def wait(self, condition: Callable[[], object]) -> None:
        until = time.monotonic() + PATIENCE_S
        while not condition():
            assert self.worker.poll() is None, self.said()[-4_000:]
            assert time.monotonic() < until, self.said()[-4_000:]
            time.sleep(0.05)

    def make_due(self, key: int) -> None:
        with self.admin() as admin:
            row = (Task.BUNDLE_SEAL.value, str(key), LONG_AGO_MS)
            admin.execute("INSERT INTO due (task, key, wake_ms) VALUES (%s, %s, %s)", row)

    def is_claimed(self, key: int) -> bool:
        """Beat queued a look, Redis carried it, and the worker wrote into the database that the row is in hand."""
        with self.admin() as admin:
            query = "SELECT 1 FROM due WHERE task = %s AND key = %s AND wake_ms = %s"
            return admin.execute(query, (Task.BUNDLE_SEAL.value, str(key), LONG_AGO_MS)).fetchone() is None

    def works(self, key: int) -> None:
        self.make_due(key)
        self.wait(lambda: self.is_claimed(key))


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with ExitStack() as stack:
        stand = Stand(tmp_path_factory.mktemp("stand"), stack)
        stand.works(1)
        yield stand


def test_the_server_crashes_and_comes_back(stand: Stand) -> None:
    stand.make_due(2)
    stand.crash_server()
    stand.wait(lambda: "connection refused" in stand.said().lower())
    stand.start_server()
    stand.wait(lambda: stand.is_claimed(2))
    stand.works(3)


def test_the_database_takes_no_writes_for_a_while(stand: Stand) -> None:
    stand.change("ALTER ROLE validator SET default_transaction_read_only = on")
    stand.wait(lambda: "read-only" in stand.said())
    stand.change("ALTER ROLE validator RESET default_transaction_read_only")
    stand.works(4)


def test_there_is_no_connection_left_for_a_while(stand: Stand) -> None:
    stand.change("ALTER ROLE validator CONNECTION LIMIT 0")
    stand.wait(lambda: "too many connections" in stand.said())
    stand.change("ALTER ROLE validator CONNECTION LIMIT -1")
    stand.works(5)


def test_a_newer_release_migrates_while_this_one_works(stand: Stand) -> None:
    with stand.admin() as admin:
        admin.execute("ALTER TABLE due ADD COLUMN of_the_next_release TEXT DEFAULT 'x'")
    stand.works(6)
