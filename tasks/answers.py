"""What whoever asks a worker is told: one sentence where a word is wrong, instead of a trace back.

A task that is called with other words than its own is refused, not failed: running it again would not help. Named
words that it does not know are left out: a newer release adds them (``tasks``), and the work is the same without.
Flower and `celery control` ask a pool to grow; not every pool can.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterable
from typing import Any

from celery import Task
from celery.worker.control import control_command, nok, ok

from validator.log import get_logger, spell_controls, trim_urls
from validator.ports.queue import Ending

log = get_logger("tasks")

MAX_CHANGE = 64
LONGEST = 1_000
"""Characters of an answer; Flower shows up to ``StepTask.resultrepr_maxsize``."""


_put_down: set[str] = set()
"""Queues of this worker that it takes nothing from for now."""
_ignored: set[tuple[str, str]] = set()
"""Tasks and words of a newer release, of which this process has told."""


class StepTask(Task):
    """A task of ours: its answer is one line that Flower's column shows whole."""

    resultrepr_maxsize = 2 * LONGEST

    def __call__(self, *words: Any, **named: Any) -> str:
        signature = inspect.signature(self.run)
        known = {word: value for word, value in named.items() if word in signature.parameters}
        try:
            signature.bind(*words, **known)
        except TypeError as error:
            return self._refuse(str(error))
        self._tell_ignored(named.keys() - known.keys())
        try:
            return str(self.run(*words, **known))
        except WrongKey as error:
            return self._refuse(str(error))
        except Exception as error:
            if holds_credentials(error):  # Flower shows the error and its trace to whoever may look
                log.exception("task.failed", task=self.name)
                raise TaskFailed(describe_ending(type(error).__name__, str(error))) from None
            raise

    def _tell_ignored(self, words: Iterable[str]) -> None:
        """Each word once a process: while a fleet is upgraded every message may have it."""
        for word in words:
            if (self.name, word) not in _ignored:
                _ignored.add((self.name, word))
                log.info("task.word_ignored", task=self.name, word=word, reason="this release does not know it")

    def _refuse(self, reason: str) -> str:
        log.warning("task.refused", task=self.name, reason=reason)
        return describe_ending(Ending.REFUSED, reason)


class TaskFailed(Exception):
    """Stands for an error whose text, or that of its causes, must not be shown; the log has it, without credentials."""


class WrongKey(ValueError):
    """A task was given a key that names nothing it could work on."""


def holds_credentials(error: BaseException) -> bool:
    """Whether the trace of an error, its causes included, would show more of a URL than scheme and host."""
    told = "".join(traceback.format_exception(error))
    return trim_urls(told) != told


def describe_ending(name: str, detail: str) -> str:
    """How a step ended, in one line without credentials or control characters: "agreed", "not yet: …"."""
    text = spell_controls(" ".join(trim_urls(f"{name}: {detail}" if detail else name).split()))
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def grow_pool(state: Any, n: Any = 1, **_options: Any) -> dict[str, str]:
    """Grow pool by n processes."""
    return _change_pool(state, "grow", n, lambda n: n)


def shrink_pool(state: Any, n: Any = 1, **_options: Any) -> dict[str, str]:
    """Shrink pool by n processes."""
    return _change_pool(state, "shrink", n, lambda n: -n)


def restart_pool(_state: Any, **_options: Any) -> dict[str, str]:
    """Refused: a worker is restarted as a process."""
    return _nok("pools are not restarted here; stop the worker, and whatever supervises it starts it again")


def scale_pool(_state: Any, **_options: Any) -> dict[str, str]:
    """Refused: the size of a pool is said when its worker is started."""
    return _nok("these workers do not scale by themselves; start them with --children N, or start more of them")


def put_down(state: Any, queue: str = "", **_options: Any) -> dict[str, str]:
    """Take nothing more from a queue; what is in hand goes on."""
    if queue not in state.app.amqp.queues.consume_from:
        return _nok(f"takes nothing from {queue!r}")
    _put_down.add(queue)
    state.consumer.call_soon(state.consumer.cancel_task_queue, queue)
    return dict(ok(f"takes no more from {queue}"))


def take_up(state: Any, queue: str = "", **_options: Any) -> dict[str, str]:
    """Take from a queue again that was put down."""
    if queue not in _put_down:
        return _nok(f"has not put down {queue!r}")
    _put_down.discard(queue)
    state.consumer.call_soon(state.consumer.add_task_queue, queue)
    return dict(ok(f"takes from {queue} again"))


def _change_pool(state: Any, verb: str, n: Any, sign: Callable[[int], int]) -> dict[str, str]:
    pool = state.consumer.pool
    if not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= MAX_CHANGE:
        return _nok(f"{verb} by a number from 1 to {MAX_CHANGE}, not by {str(n)[:40]!r}")
    if not hasattr(pool, verb):
        kind = type(pool).__module__.rpartition(".")[2]
        return _nok(f"a pool of kind {kind} does not {verb}; start the worker with --children N")
    if verb == "shrink" and n >= pool.num_processes:
        return _nok(f"the pool has {pool.num_processes} processes and must keep one")
    change = pool.grow if verb == "grow" else pool.shrink
    change(n)
    state.consumer._update_prefetch_count(sign(n))
    return dict(ok(f"pool will {verb} by {n}"))


def _nok(reason: str) -> dict[str, str]:
    return dict(nok(reason))


control_command(name="pool_grow", args=[("n", int)], signature="[N=1]")(grow_pool)
control_command(name="pool_shrink", args=[("n", int)], signature="[N=1]")(shrink_pool)
control_command(name="pool_restart")(restart_pool)
control_command(name="autoscale", args=[("max", int), ("min", int)], signature="[max [min]]")(scale_pool)
control_command(name="put_down", args=[("queue", str)], signature="<queue>")(put_down)
control_command(name="take_up", args=[("queue", str)], signature="<queue>")(take_up)
