"""A worker whose PostgreSQL crashes, turns read-only, has no connection left, or is migrated under it: it goes on.

In the end the fleet is upgraded: a worker of the next release beside it, and what the one queues reaches the other.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from celery import Celery

from tests import paths, servers
from tests.fakes.small_network import SmallNetwork, an_empty_database
from validator.ports.queue import Task
from validator.protocol.parameters import format_network
from validator.setup.console import die_with_parent
from validator.store.database import head_revision, migrate, open_database
from validator.store.identity import create_identity

PATIENCE_S = 180.0
pytestmark = pytest.mark.timeout(500)
CLOSED = "http://127.0.0.1:9"
LONG_AGO_MS = 1


OLD, NEXT = "old", "next"
NEXT_MIGRATION = """
import sqlalchemy
from alembic import op

revision = "9999"
down_revision = "{head}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("due", sqlalchemy.Column("of_the_next_release", sqlalchemy.Text(), server_default="x"))


def downgrade() -> None:
    op.drop_column("due", "of_the_next_release")
"""


class Stand:
    """A PostgreSQL that comes and goes, a Redis that stays, and a worker with beat in it, as a small fleet has them."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._stack = stack
        self._cluster = stack.enter_context(servers.make_cluster())
        self._server = stack.enter_context(ExitStack())
        self.start_server()
        with self.admin("postgres") as admin:
            admin.execute("CREATE ROLE validator LOGIN")
            admin.execute("CREATE DATABASE validator OWNER validator")
        self.url = f"postgresql+psycopg://validator@/validator?host={self._cluster.data}"
        redis = stack.enter_context(servers.run_redis())
        self.environment = self._prepare(redis)
        self.client = Celery(broker=redis.celery_url)
        stack.callback(self.client.close)
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        words = ["validator.cli", "worker", "round", "bundle", "--children", "2", "--name", OLD]
        self.start_worker(OLD, words, {"LOGSTORE_EMBED_BEAT": "1"})

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

    def _prepare(self, redis: servers.Redis) -> dict[str, str]:
        folder = self.folder
        (folder / "network").mkdir()
        network = SmallNetwork(folder / "network", an_empty_database(folder), 1)
        (member,) = network.members
        migrate(self.url)
        database = open_database(self.url)
        create_identity(database, folder / "id", network.network, network.world.head(), network.clock.now_ms())
        database.close()
        (folder / "network.toml").write_text(format_network(network.network))
        network.close()
        return {
            **os.environ,
            "LOGSTORE_NETWORK_FILE": str(folder / "network.toml"),
            "LOGSTORE_DATA_DIR": str(folder / "data"),
            "LOGSTORE_DATABASE_URL": self.url,
            "LOGSTORE_DATABASE_ID_FILE": str(folder / "id"),
            "LOGSTORE_REDIS_URL": redis.celery_url,
            "LOGSTORE_RPC_URLS": CLOSED,
            "LOGSTORE_GATEWAY_URLS": CLOSED,
            "LOGSTORE_VOTING_KEY": member.key.secret_hex(),
            "LOGSTORE_EMBED_BEAT": "0",
            "LOGSTORE_TICK_S": "0.3",
            "LOGSTORE_LOG_LEVEL": "DEBUG",
            "LOGSTORE_LOG_FORMAT": "json",
        }

    def start_worker(self, name: str, words: Sequence[str], own: dict[str, str]) -> None:
        with self._log(name).open("wb") as sink:
            worker = subprocess.Popen(
                [sys.executable, "-m", *words],
                cwd=paths.ROOT,
                env={**self.environment, **own},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,
            )
        self._stack.enter_context(worker)
        self._stack.callback(worker.kill)
        self.workers[name] = worker

    def tell(self, name: str, command: str, queue: str) -> None:
        """A control command to one worker, which it must answer."""
        at = [f"{name}@{socket.gethostname()}"]
        self.wait(
            lambda: self.client.control.broadcast(
                command, arguments={"queue": queue}, destination=at, reply=True, timeout=10, limit=1
            )
        )

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def said(self, name: str = OLD) -> str:
        return self._log(name).read_text(errors="replace")

    def events(self, name: str, event: str) -> list[dict[str, Any]]:
        lines = self.said(name).rpartition("\n")[0].splitlines()
        return [found for line in lines if (found := json.loads(line))["event"] == event]

    def sealed(self, name: str) -> set[str]:
        """Keys of the tasks that a worker has run to their end."""
        return {done["key"] for done in self.events(name, "step.done") if done["task"] == Task.BUNDLE_SEAL}

    def wait(self, condition: Callable[[], object]) -> None:
        until = time.monotonic() + PATIENCE_S
        while not condition():
            for name, worker in self.workers.items():
                assert worker.poll() is None, self.said(name)[-4_000:]
                assert time.monotonic() < until, self.said(name)[-4_000:]
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

    def migrate_as_the_next_release(self, monkeypatch: pytest.MonkeyPatch) -> Path:
        """One migration more; the folder of all of them."""
        folder = self.folder / "migrations"
        shutil.copytree(paths.ROOT / "alembic", folder, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "versions" / "9999_of_the_next_release.py").write_text(NEXT_MIGRATION.format(head=head_revision()))
        with monkeypatch.context() as patch:
            patch.setattr("validator.store.database._scripts", lambda: folder)
            patch.setattr("validator.store.database._known_revisions", lambda: {head_revision()})
            migrate(self.url)
        return folder


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with ExitStack() as stack:
        stand = Stand(tmp_path_factory.mktemp("stand"), stack)
        stand.works(1)
        yield stand


def test_the_server_crashes_and_comes_back(stand: Stand) -> None:
    stand.make_due(2)
    stand.crash_server()
    stand.wait(lambda: stand.events(OLD, "database.away"))
    stand.wait(lambda: stand.said().lower().count("connection refused") > 2)
    stand.start_server()
    stand.wait(lambda: stand.is_claimed(2))
    stand.works(3)
    stand.wait(lambda: stand.events(OLD, "database.back"))
    (away,) = stand.events(OLD, "database.away")
    assert away["level"] == "warning"
    assert away["reason"].startswith("database ")


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


def test_a_fleet_is_upgraded_while_it_works(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    migrations = stand.migrate_as_the_next_release(monkeypatch)
    stand.works(6)
    program = ["tests.integration.tasks.next_release", NEXT]
    stand.start_worker(NEXT, program, {"NEXT_MIGRATIONS": str(migrations)})
    keys = count(10)

    def pass_on(looks: str, seals: str, arrives: Callable[[], object]) -> None:
        """The one worker looks for what is due and queues it, the other does it."""
        for worker, queue in ((looks, "bundle"), (seals, "round")):
            stand.tell(worker, "put_down", queue)
        while not arrives():
            stand.works(next(keys))
        for worker, queue in ((looks, "bundle"), (seals, "round")):
            stand.tell(worker, "take_up", queue)

    pass_on(NEXT, OLD, lambda: stand.events(OLD, "task.word_ignored"))
    pass_on(OLD, NEXT, lambda: [seal for seal in stand.events(NEXT, "next.sealed") if not seal["thorough"]])
    due = set(map(str, range(10, next(keys))))
    stand.wait(lambda: due <= stand.sealed(OLD) | stand.sealed(NEXT))
    (ignored,) = stand.events(OLD, "task.word_ignored")
    assert (ignored["task"], ignored["word"]) == (Task.BUNDLE_SEAL, "thorough")
    for name in (OLD, NEXT):
        assert not stand.events(name, "task.refused")
