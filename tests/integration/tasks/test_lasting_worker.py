"""The worker under a Redis that goes away or refuses writes: it goes on by itself, without a supervisor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import redis
from celery import Celery
from kombu.connection import Connection

from tasks.worker import Unacknowledged
from tests import paths, servers
from validator.setup.binaries import find_redis_server
from validator.setup.console import die_with_parent, stop_group

ROOT = paths.ROOT
PATIENCE_S = 90.0


class Stand:
    """One Redis that comes and goes, and one worker with beat in it."""

    def __init__(self, folder: Path, pool: str) -> None:
        self.folder = folder
        self.ticks = folder / "ticks"
        self.socket = folder / "s"
        self._redis = ExitStack()
        self.start_redis()
        words = [sys.executable, "-m", "celery", "-A", "tests.integration.tasks.lasting_app", "worker", "-P", pool]
        self.broker = f"redis+socket://{self.socket}?virtual_host=0"
        environment = {**os.environ, "TICKS": str(self.ticks), "BROKER": self.broker, "REMAP_SIGTERM": "SIGQUIT"}
        with (folder / "log").open("wb") as log:
            self.worker = subprocess.Popen(
                [*words, "-c", "2", "--without-gossip", "--without-mingle"],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    def start_redis(self) -> None:
        self.socket.unlink(missing_ok=True)
        words = [find_redis_server(), "--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder)]
        child = self._redis.enter_context(
            servers.running([*words, "--save", "", "--appendonly", "no"], self.folder / "redis.log")
        )
        servers.wait_for_socket(self.socket, child, self.folder / "redis.log")

    def stop_redis(self) -> None:
        self._redis.close()

    def refuse_writes(self, refuse: bool) -> None:
        with redis.Redis(unix_socket_path=str(self.socket)) as client:
            client.config_set("min-replicas-to-write", int(refuse))

    def count(self) -> int:
        return len(self.ticks.read_text().splitlines()) if self.ticks.exists() else 0

    def said(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def said_in_ticks(self, word: str) -> int:
        return self.ticks.read_text().splitlines().count(word)

    def wait_for_ticks(self, more: int) -> None:
        goal = self.count() + more
        self.wait(lambda: self.count() >= goal)

    def wait(self, condition: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE_S
        while not condition():
            assert self.worker.poll() is None, self.said()[-4_000:]
            assert time.monotonic() < until, self.said()[-4_000:]
            time.sleep(0.05)

    def close(self) -> None:
        stop_group(self.worker)
        self.stop_redis()


@contextmanager
def a_stand(pool: str) -> Iterator[Stand]:
    with servers.short_folder("w") as folder:
        stand = Stand(folder, pool)
        try:
            yield stand
        finally:
            stand.close()


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_worker_goes_on_after_redis_was_away_and_after_it_refused_writes(pool: str) -> None:
    with a_stand(pool) as stand:
        stand.wait_for_ticks(2)
        stand.stop_redis()
        time.sleep(1.5)
        stand.start_redis()
        stand.wait_for_ticks(2)
        stand.wait(lambda: "redis.back" in stand.said())
        assert stand.said().count("redis.away") == 1
        assert "Cannot connect" not in stand.said()
        stand.refuse_writes(True)
        time.sleep(3)
        stand.refuse_writes(False)
        stand.wait_for_ticks(2)


def test_a_worker_that_starts_before_redis_waits_for_it() -> None:
    with a_stand("threads") as stand:
        stand.stop_redis()
        time.sleep(3)
        stand.start_redis()
        stand.wait_for_ticks(1)


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_worker_that_is_told_to_end_while_tasks_hang_ends_and_hands_them_back(pool: str) -> None:
    with a_stand(pool) as stand:
        stand.wait_for_ticks(1)
        with Celery(broker=stand.broker) as client, redis.Redis(unix_socket_path=str(stand.socket)) as queues:
            for _ in range(3):
                client.send_task("hang", args=[3.0])
            stand.wait(lambda: stand.said_in_ticks("hangs") == 2)
            stand.worker.terminate()
            assert stand.worker.wait(PATIENCE_S) == 0, stand.said()
            left = [json.loads(message) for message in queues.lrange("celery", 0, -1)]
            back = sum(message["headers"]["task"] == "hang" for message in left)
            assert back + stand.said_in_ticks("done") >= 3  # none is lost, one may be done twice
        assert "begins_anew" not in stand.said()
        assert "Unrecoverable" not in stand.said()


def test_a_channel_closes_though_its_connection_was_given_up_with_a_task_in_hand(redis_server: servers.Redis) -> None:
    connection = Connection(redis_server.celery_url)  # type: ignore[no-untyped-call]
    with connection, connection.SimpleQueue("kept") as queue:  # type: ignore[no-untyped-call]
        queue.put("task")
        in_hand = queue.get(timeout=PATIENCE_S)
        channel = queue.channel
        assert isinstance(channel.qos, Unacknowledged)
        channel._disconnect_pools()
        channel.connection.client = None
        in_hand.ack()
        channel.close()
        channel.qos.ack(in_hand.delivery_tag)
        channel.qos.reject(in_hand.delivery_tag, requeue=True)
    with Connection(redis_server.celery_url) as connection:  # type: ignore[no-untyped-call]
        assert len(connection.default_channel.client.hgetall("unacked")) == 1
