"""Which tasks have a message that waits: each has at most one, however often it is asked for.

A row that is due is found again by beat every few seconds, whether or not the message of the last time has been taken
up; while all workers hang at a source that does not answer, queues grew by a message per row and look.

The mark of a waiting message lies in Redis beside the queues, so that what empties the one empties the other and beat
queues everything anew. A mark ends when its message is taken up, when a worker starts (what a killed one had in hand
comes again by beat), and by itself ``LOST_S`` after the message should have been taken up; while the queue holds other
messages it is taken to be behind them, for ``BEHIND_S`` at most.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from validator.log import get_logger

log = get_logger("tasks")

PREFIX = "logstore.waiting:"
LOST_S = 30.0
BEHIND_S = 600.0
_UNREACHABLE = (OperationalError, RedisError, OSError)


class Waiting:
    """Marks of waiting messages. While Redis does not answer everything is queued: the queue does not answer either."""

    def __init__(self, client: Callable[[], AbstractContextManager[Any]]) -> None:
        """``client``: a redis-py client of the broker's database, for as long as the context lasts."""
        self._client = client

    def offer(self, task: str, key: str, message: str, queue: str, eta_ms: int | None, now_ms: int) -> bool:
        """Whether to queue this message: not while one waits that will be taken up as early."""
        mark, eta_ms = _mark(task, key), max(eta_ms or 0, now_ms)
        value = f"{eta_ms} {message}"
        life_ms = eta_ms - now_ms + int(1000 * LOST_S)
        try:
            with self._client() as client:
                if client.set(mark, value, nx=True, px=life_ms):
                    return True
                held = client.get(mark)
                if held is not None and (due_ms := int(held.split()[0])) <= eta_ms:
                    if client.llen(queue) and now_ms - due_ms < 1000 * BEHIND_S:
                        client.pexpire(mark, life_ms)
                    return False
                client.set(mark, value, px=life_ms)
        except _UNREACHABLE as error:
            log.debug("task.not_marked", task=task, key=key, reason=str(error))
        return True

    def take_up(self, task: str, key: str, message: str) -> None:
        """The message is in a worker's hands: from now on another may wait, which will see what came meanwhile."""
        mark = _mark(task, key)
        try:
            with self._client() as client:
                held = client.get(mark)
                if held is not None and _text(held).partition(" ")[2] == message:
                    client.delete(mark)
        except _UNREACHABLE as error:
            log.debug("task.not_unmarked", task=task, key=key, reason=str(error))

    def forget(self) -> None:
        """Forget all: a worker starts, and what another had in hand when it was killed may be lost."""
        try:
            with self._client() as client:
                for mark in client.scan_iter(match=PREFIX + "*", count=1000):
                    client.delete(mark)
        except _UNREACHABLE as error:
            log.warning("task.marks_not_forgotten", reason=str(error))


def _mark(task: str, key: str) -> str:
    return f"{PREFIX}{task}/{key}"


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
