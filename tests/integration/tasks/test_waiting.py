"""One waiting message per task, in a real Redis, also when it is emptied or a message is lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import redis

from tasks.waiting import LOST_S, PREFIX, Waiting
from tests import servers

NOW_MS = 1_700_000_000_000
COLLECT, KEY, QUEUE = "window.collect", "1700000000000", "collect"


@pytest.fixture(scope="module")
def server() -> Iterator[servers.Redis]:
    with servers.run_redis() as server:
        yield server


@pytest.fixture
def client(server: servers.Redis) -> Iterator[Any]:
    client = redis.Redis(unix_socket_path=server.socket_path)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def waiting(client: Any) -> Waiting:
    return Waiting(lambda: nullcontext(client))


class Queued:
    """Messages of one queue, put in where the marks allow it."""

    def __init__(self, client: Any, waiting: Waiting) -> None:
        self.client = client
        self.waiting = waiting
        self.sent = 0

    def ask(self, key: str = KEY, eta_ms: int | None = None, now_ms: int = NOW_MS) -> bool:
        self.sent += 1
        if not self.waiting.offer(COLLECT, key, f"m{self.sent}", QUEUE, eta_ms, now_ms):
            return False
        self.client.lpush(QUEUE, f"{key} m{self.sent}")
        return True

    def take(self) -> None:
        key, message = self.client.rpop(QUEUE).decode().split()
        self.waiting.take_up(COLLECT, key, message)

    def __len__(self) -> int:
        return int(self.client.llen(QUEUE))


@pytest.fixture
def queued(client: Any, waiting: Waiting) -> Queued:
    return Queued(client, waiting)


def test_a_queue_grows_with_the_rows_and_not_with_the_looks(queued: Queued) -> None:
    for look in range(100):
        for window in range(1 + look // 10):
            queued.ask(str(window), now_ms=NOW_MS + 5_000 * look)
    assert len(queued) == 10


def test_what_is_asked_for_after_a_message_was_taken_up_is_queued(queued: Queued) -> None:
    assert queued.ask()
    queued.take()
    assert queued.ask()
    assert not queued.ask()


def test_an_emptied_redis_forgets_the_marks_too(queued: Queued, client: Any) -> None:
    assert queued.ask()
    client.flushall()
    assert queued.ask()


def test_a_worker_that_starts_lets_everything_be_queued_once_more(queued: Queued, client: Any) -> None:
    for window in range(2_500):
        queued.ask(str(window))
    client.set("another", "stays")
    queued.waiting.forget()
    assert queued.ask("7")
    assert not queued.ask("7")
    assert client.get("another") == b"stays"


def test_an_earlier_time_is_not_held_up_by_a_later_one(queued: Queued) -> None:
    assert queued.ask(eta_ms=NOW_MS + 50_000)
    assert not queued.ask(eta_ms=NOW_MS + 60_000)
    assert queued.ask(eta_ms=NOW_MS + 10_000)
    assert queued.ask()
    assert not queued.ask(eta_ms=NOW_MS + 10_000)


def test_a_later_message_that_is_taken_up_does_not_end_the_mark_of_an_earlier_one(queued: Queued) -> None:
    assert queued.ask(eta_ms=NOW_MS + 50_000)
    assert queued.ask()
    queued.waiting.take_up(COLLECT, KEY, "m1")
    assert not queued.ask()
    queued.waiting.take_up(COLLECT, KEY, "m2")
    assert queued.ask()


def test_the_mark_of_a_lost_message_ends_by_itself_and_that_of_one_behind_others_does_not(
    queued: Queued, client: Any
) -> None:
    queued.ask("lost", eta_ms=NOW_MS + 20_000)
    client.delete(QUEUE)
    life_ms = client.pttl(f"{PREFIX}{COLLECT}/lost")
    assert 1000 * LOST_S < life_ms <= 20_000 + 1000 * LOST_S
    client.pexpire(f"{PREFIX}{COLLECT}/lost", 5_000)
    queued.ask("lost", now_ms=NOW_MS + 20_000)
    assert client.pttl(f"{PREFIX}{COLLECT}/lost") <= 5_000
    client.lpush(QUEUE, "another")
    queued.ask("lost", now_ms=NOW_MS + 20_000)
    assert client.pttl(f"{PREFIX}{COLLECT}/lost") > 5_000
    client.pexpire(f"{PREFIX}{COLLECT}/lost", 5_000)
    queued.ask("lost", now_ms=NOW_MS + 700_000)
    assert client.pttl(f"{PREFIX}{COLLECT}/lost") <= 5_000


def test_without_redis_everything_may_be_queued() -> None:
    @contextmanager
    def gone() -> Iterator[Any]:
        yield redis.Redis(unix_socket_path="/nonexistent")

    waiting = Waiting(gone)
    assert waiting.offer(COLLECT, KEY, "m", QUEUE, None, NOW_MS)
    assert waiting.offer(COLLECT, KEY, "m", QUEUE, None, NOW_MS)
    waiting.take_up(COLLECT, KEY, "m")
    waiting.forget()
