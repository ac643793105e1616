"""The Celery app of one validator: ``celery -A tasks.celery worker|beat|flower``.

Acknowledged late and rejected on a lost worker, so a killed worker's task runs again elsewhere; nothing is stored in
Redis that the database does not know better.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from celery import Celery, uuid
from celery.signals import setup_logging, worker_init, worker_process_init, worker_ready
from kombu.exceptions import OperationalError

from tasks.answers import StepTask
from tasks.configuration import celery_options
from tasks.schedule import EmbeddedBeat, redis_outage
from tasks.waiting import Waiting
from tasks.worker import LastingApp
from validator import log as logs
from validator.ports.queue import Task
from validator.protocol.errors import ConfigError, ValidatorError
from validator.redis_link import make_redis_link
from validator.settings import Settings, load_settings
from validator.steps.pipeline import PIPELINE
from validator.wiring import Node, load_network, share_metrics

log = logs.get_logger("tasks")


@lru_cache(maxsize=1)
def settings() -> Settings:
    try:
        loaded = load_settings()
        load_network(loaded.network_file)
        make_redis_link(loaded)
        return loaded
    except ConfigError as error:
        raise SystemExit(f"error: {error}") from error


def make_app() -> Celery:
    """The configured app. Settings and network file are judged here: a fault is one line at any process's start."""
    share_metrics(settings())  # before the tasks, which count, are imported
    link = make_redis_link(settings())
    app = LastingApp("logstore", broker=link.url, task_cls=StepTask, include=[f"tasks.{name}" for name in TASK_MODULES])
    app.conf.update(celery_options(link, settings().tick_s))
    if settings().embed_beat:
        app.steps["worker"].add(EmbeddedBeat)
    return app


TASK_MODULES = ("collect", "rounds", "bundles", "reports", "maintenance")


class CeleryTasks:
    """The port ``Tasks``: a message that says "look again", of which one waits at a time (tasks.waiting).

    What cannot be queued is found again by beat.
    """

    def enqueue(self, task: str, key: str, eta_ms: int | None = None) -> None:
        options: dict[str, Any] = {}
        arguments: list[Any] = [key]
        if eta_ms is not None:
            options["eta"] = datetime.fromtimestamp(eta_ms / 1000, UTC)
            if task == Task.ROUND_ADVANCE:
                arguments.append(eta_ms)
        message = uuid()
        # A wake time is an argument of its own: it is not the same message.
        if len(arguments) == 1:
            now_ms = time.time_ns() // 1_000_000
            if not waiting.offer(task, key, message, queue_of(task), eta_ms, now_ms):
                return
        try:
            app.send_task(str(task), args=arguments, task_id=message, ignore_result=True, **options)
        except OperationalError as error:
            redis_outage.failed(str(error), "queue")
            log.debug("task.not_queued", task=task, key=key, reason=str(error))
        else:
            redis_outage.worked("queue")


@contextmanager
def _redis() -> Iterator[Any]:
    """The broker's own client: marks lie in the database that the queues lie in."""
    with app.pool.acquire(block=True) as connection:
        yield connection.default_channel.client


waiting = Waiting(_redis)


def queue_of(task: str) -> str:
    """The queue that a task is routed to."""
    return PIPELINE[Task(task)].queue


_node: Node | None = None
_node_lock = threading.Lock()


def node() -> Node:
    """This process's node, made at its first task: the worker, of which it may be a new child, began long before."""
    global _node
    with _node_lock:
        if _node is None:
            _node = Node(settings(), CeleryTasks(), uploads=True, has_begun=True)
            _node.show_warnings()
        return _node


@worker_init.connect
def _require_identity(**_kwargs: Any) -> None:
    """Refuse to start, in one line, with keys that cannot be used or a database that may not speak for the voting key.

    Leaves no connection to a fork.
    """
    starting = Node(settings(), CeleryTasks())
    try:
        starting.require_secrets()
        starting.require_identity()
    except ValidatorError as error:
        raise SystemExit(f"error: {error}") from error
    finally:
        starting.database.close()


@worker_ready.connect
def _forget_marks(**_kwargs: Any) -> None:
    """What a worker that was killed had in hand is queued again."""
    waiting.forget()


@setup_logging.connect
def _configure_logging(**_kwargs: Any) -> None:
    logs.configure(settings().log_level, settings().log_format)


@worker_process_init.connect
def _forget_node(**_kwargs: Any) -> None:
    """After a fork nothing of the parent's connections may be used."""
    global _node
    if _node is not None:
        _node.database.forget_connections()
    _node = None


app = make_app()
