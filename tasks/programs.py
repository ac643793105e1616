"""The programs of a fleet as plain commands: what Celery is told for each, in its own words."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

COLUMNS = "name,args,state,result,received,runtime,worker"
MEMORY_KIB = 1_500_000
"""Of one child that collects; a new one takes its place after the task in which it grew beyond."""
FLOWER_TASKS = 5_000
ANSWER_S = 2.0
"""So long workers may take to answer a control command."""


class Queue(StrEnum):
    """What a worker may be for."""

    COLLECT = "collect"
    ROUND = "round"
    BUNDLE = "bundle"
    REPORT = "report"


@dataclass(frozen=True, slots=True)
class Pool:
    """How a queue's tasks are run. ``children``: how many at once; 0: one per core."""

    kind: str
    children: int


POOLS = {
    Queue.COLLECT: Pool("prefork", 0),
    Queue.ROUND: Pool("threads", 8),
    Queue.BUNDLE: Pool("prefork", 1),
    Queue.REPORT: Pool("prefork", 1),
}
"""Rounds are short and wait for peers, so they are threads; what is heavy, or may hang in a library, has processes that
time limits can end."""
TOGETHER = Pool("threads", 8)
"""Of a worker of several queues, as small installations have one."""


def worker_words(queues: Sequence[Queue], children: int | None = None, name: str | None = None) -> list[str]:
    """Celery's words for a worker of these queues; none means all."""
    chosen = list(dict.fromkeys(queues)) or list(Queue)
    pool = POOLS[chosen[0]] if len(chosen) == 1 else TOGETHER
    count = children or pool.children or os.cpu_count() or 1
    called = name or ("-".join(chosen) if len(chosen) < len(Queue) else "all")
    words = ["--quiet", "worker", "-Q", ",".join(chosen), "-n", called if "@" in called else f"{called}@%h"]
    words += ["-P", pool.kind, "-c", str(count), "--without-gossip", "--without-mingle"]
    if chosen == [Queue.COLLECT]:
        words += ["--max-memory-per-child", str(MEMORY_KIB)]
    return words


def beat_words() -> list[str]:
    """Celery's words for beat, which keeps no file."""
    return ["--quiet", "beat", "--pidfile", ""]


def flower_words(address: str, port: int, database: str | None = None) -> list[str]:
    """Celery's words for Flower; its login is in FLOWER_BASIC_AUTH. ``database``: a file that outlives a restart."""
    words = ["--quiet", "flower", f"--address={address}", f"--port={port}", f"--tasks-columns={COLUMNS}"]
    words += ["--purge-offline-workers=60", f"--max-tasks={FLOWER_TASKS}"]
    return words + (["--persistent=False"] if database is None else ["--persistent=True", f"--db={database}"])


def run(words: Sequence[str]) -> int:
    """Run one of these programs until it is told to end; its exit status.

    A worker that is told to stop hands its unfinished tasks back, instead of waiting for them.
    """
    os.environ.setdefault("REMAP_SIGTERM", "SIGQUIT")  # read when Celery is imported
    from tasks.celery import app

    return int(app.start(argv=list(words)) or 0)


@dataclass(frozen=True, slots=True)
class Drained:
    """How many workers answered, and how many tasks they still have in hand."""

    workers: int
    in_hand: int


def drain(queues: Sequence[str], wait_s: float) -> Drained:
    """Have workers take nothing more from these queues, and wait for what they have in hand."""
    workers = _tell("put_down", queues)
    until_s = time.monotonic() + wait_s
    while True:
        look = _control().inspect(timeout=ANSWER_S)
        held = [task for tasks in (look.active() or {}).values() for task in tasks]
        in_hand = sum(task["delivery_info"]["routing_key"] in queues for task in held)
        if not in_hand or time.monotonic() >= until_s:
            return Drained(workers, in_hand)


def fill(queues: Sequence[str]) -> int:
    """Have workers take again from what they put down; how many did."""
    return _tell("take_up", queues)


def _tell(command: str, queues: Sequence[str]) -> int:
    """How many workers did it for any of the queues."""
    did: set[str] = set()
    for queue in queues:
        answers = _control().broadcast(command, arguments={"queue": queue}, reply=True, timeout=ANSWER_S)
        did.update(name for answer in answers or () for name, said in answer.items() if "ok" in said)
    return len(did)


def _control() -> Any:
    from tasks.celery import app

    return app.control
