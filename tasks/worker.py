"""The worker as a process that lasts: what ends it without being told to begins it anew.

Celery and its transport take a lost or unwilling Redis for an unrecoverable error in places (while they close the old
connection, or when a write is refused), and end the process. Whatever the reason, nothing is lost with it: tasks are
acknowledged late, and the database knows what is due.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import threading
import time
from functools import cached_property
from typing import Any, ClassVar

import celery.apps.worker
import celery.concurrency
import kombu.transport.redis
from billiard import active_children
from celery import Celery, bootsteps
from celery.apps.worker import Worker
from celery.concurrency.thread import TaskPool
from celery.exceptions import TaskRevokedError
from celery.platforms import EX_FAILURE
from celery.worker import state
from celery.worker.consumer import consumer

from tasks.schedule import redis_outage
from validator.lasting import LastingThread, Watchdog, begin_anew
from validator.log import get_logger, say_in_a_signal

log = get_logger("tasks")

BEAT_SILENT_S = 120.0
"""Far above what one tick may take: connecting, and being refused."""
M_ARENA_MAX = -8
"""mallopt(3)."""
GIVE_BACK_S = 2.0
"""Looking through the arena takes some 2 ms, in which no thread can allocate."""


class Connected(bootsteps.StartStopStep):
    """The worker's consumer has its connection to Redis, for the first time or again."""

    requires: ClassVar = {"celery.worker.consumer:Connection"}

    def start(self, parent: Any) -> None:
        del parent
        redis_outage.worked("consumer")


class LastingApp(Celery):
    """Celery whose ``worker`` command runs a ``LastingWorker``."""

    def __init__(self, *words: Any, **named: Any) -> None:
        super().__init__(*words, **named)
        self.steps["consumer"].add(Connected)

    @cached_property
    def Worker(self) -> Any:
        return self.subclass_with_self(LastingWorker)


class LastingWorker(Worker):
    """``celery worker``, but for the way it ends."""

    beat_thread: LastingThread | None = None
    _watchdog: Watchdog | None = None

    def on_before_init(self, **options: Any) -> None:
        super().on_before_init(**options)

    def on_consumer_ready(self, consumer: Any) -> None:
        super().on_consumer_ready(consumer)
        if self.beat_thread is not None and self._watchdog is None:
            self._watchdog = Watchdog([self.beat_thread], limit_s=BEAT_SILENT_S, on_silence=restart)
            self._watchdog.start()

    def stop(self, in_sighandler: bool = False, exitcode: int | None = None) -> None:
        """As told; but an error that Celery could not recover from begins the process anew, unless it is to end."""
        error = sys.exception()
        told = state.should_stop is not None or state.should_terminate is not None
        if exitcode == EX_FAILURE and isinstance(error, Exception) and not told:
            restart(f"{type(error).__name__}: {error}")
        super().stop(in_sighandler, exitcode)


def _say(text: str, *_stream: Any) -> None:
    """What Celery says while a signal is handled, as an event."""
    say_in_a_signal("worker.told", text=text)


vars(celery.apps.worker)["safe_say"] = _say


class _OncePerOutage(logging.Filter):
    """Celery's consumer says a line for every try to reach Redis."""

    def filter(self, record: logging.LogRecord) -> bool:
        words = record.args if isinstance(record.args, tuple) else ()
        is_lost = record.msg == consumer.CONNECTION_ERROR or consumer.CONNECTION_RETRY in words
        if is_lost:
            redis_outage.failed(str(words[1]), "consumer")
        return not is_lost


logging.getLogger(consumer.__name__).addFilter(_OncePerOutage())


class Threads(TaskPool):
    """Celery's pool of threads, for a worker that is told to end while it has tasks in hand.

    A thread cannot be ended: its task's message is in the queue again, and it runs to its end or the process's. Celery
    takes that for an error it cannot recover from, and a message that came last for another.
    """

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        del pid, signal

    def on_apply(self, *words: Any, **named: Any) -> Any:
        try:
            return super().on_apply(*words, **named)
        except RuntimeError as error:  # the pool is stopped; what is not acknowledged goes back
            raise TaskRevokedError("the worker ends") from error


celery.concurrency.ALIASES["threads"] = f"{Threads.__module__}:{Threads.__qualname__}"


class Unacknowledged(kombu.transport.redis.QoS):
    """Puts tasks that are not acknowledged back, and acknowledges, while there is a connection to do it through.

    Kombu tries it also when it closes a channel of a connection that it has given up, or when a task ends that came
    through one: an AttributeError then, which Celery cannot recover from. Nothing is lost: the tasks come back after
    the visibility timeout, or as what is due, and each is safe to run twice.
    """

    def restore_unacked(self, client: Any = None) -> None:
        if client is None and self._is_given_up():
            self._delivered.clear()
        else:
            super().restore_unacked(client)

    def ack(self, delivery_tag: str) -> None:
        if not self._is_given_up():
            super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        if not self._is_given_up():
            super().reject(delivery_tag, requeue=requeue)

    def _is_given_up(self) -> bool:
        connection = self.channel.connection
        return connection is None or connection.client is None


kombu.transport.redis.Channel.QoS = Unacknowledged


def restart(reason: str) -> None:
    """Begin this worker's process anew; children of its pool end with it."""
    for child in active_children():
        child.terminate()
    begin_anew(reason)


def share_one_arena() -> None:
    """Let all threads of this process allocate from one arena, where the C library is glibc.

    It gives each thread an arena of its own and keeps there what was freed, so eight threads that each held a window
    once keep the memory of eight. Behind one interpreter lock they hardly ever allocate at the same time. An arena that
    is there already stays in use, so this comes before libraries that start threads when they are imported.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(M_ARENA_MAX, 1)


share_one_arena()
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # its own pool touches five times what a bundle takes


_given_back_s = 0.0
_giving_back = threading.Lock()


def give_back_memory() -> None:
    """Return to the system the pages that hold nothing any more, where the C library is glibc; now and then.

    By itself it does so at the end of the arena only, and one small thing that is kept there keeps all before it.
    """
    global _given_back_s
    library = ctypes.CDLL(None)
    if not hasattr(library, "malloc_trim") or not _giving_back.acquire(blocking=False):
        return
    try:
        if time.monotonic() - _given_back_s >= GIVE_BACK_S:
            library.malloc_trim(0)
            _given_back_s = time.monotonic()
    finally:
        _giving_back.release()
