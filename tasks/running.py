"""How every task runs its step: fields for the logs, a summary for Flower, and what an error means for the row."""

from __future__ import annotations

import time
from collections.abc import Callable

from celery import current_task

from tasks.celery import node, waiting
from validator import metrics
from validator.log import get_logger, log_context
from validator.ports.queue import StepResult
from validator.protocol.errors import AlreadyDone, Disagreement, RemoteFault, TransientError, UnknownOutcome
from validator.steps.context import Context

log = get_logger("tasks")

SOON_MS = 300
LATER_MS = 2_000
LATEST_MS = 10_000
"""Most that a row waits since the sources it needs rest: others may have answered by then."""


def run_step(
    task: str,
    key: str,
    step: Callable[[Context], StepResult],
    *,
    soon: bool = False,
    row: bool = True,
    exclusive: bool = True,
) -> dict[str, str]:
    """Run a step and summarise it.

    "Not yet" brings the row back after 2 s (``soon``: 0.3 s), or when the sources it needs have rested; so do a
    peer's or gateway's faults. ``row``: the task has a row in ``due``. ``exclusive``: a second thread of this process
    leaves the key to the first. Anything else fails the task in red, and beat's lease brings it back.
    """
    waiting.take_up(task, key, current_task.request.id if current_task else "")
    context = node().context
    if not exclusive:
        return _run(context, task, key, step, soon=soon, row=row)
    claim = f"{task}/{key}"
    if not context.claims.acquire(claim):
        metrics.steps.labels(task, "in hand").inc()
        return {"key": key, "outcome": "in hand", "detail": ""}
    try:
        return _run(context, task, key, step, soon=soon, row=row)
    finally:
        context.claims.abandon(claim)


def _run(
    context: Context, task: str, key: str, step: Callable[[Context], StepResult], *, soon: bool, row: bool
) -> dict[str, str]:
    started = time.monotonic()
    name = "failed"
    try:
        result = _outcome(context, task, key, step, soon=soon, row=row)
        name = result.name
    finally:
        seconds = time.monotonic() - started
        metrics.steps.labels(task, name).inc()
        metrics.step_seconds.labels(task).observe(seconds)
    with log_context(task=task, key=key):
        log.debug("step.done", outcome=name, detail=result.detail, took_ms=round(1000 * seconds))
    return {"key": key, "outcome": name, "detail": result.detail[:200]}


def _outcome(
    context: Context, task: str, key: str, step: Callable[[Context], StepResult], *, soon: bool, row: bool
) -> StepResult:
    """The step's own result, or what its error means."""
    with log_context(task=task, key=key):
        try:
            return step(context)
        except AlreadyDone as error:
            return StepResult("already done", str(error))
        except (TransientError, UnknownOutcome) as error:
            asked_ms = min(int(1000 * error.fields.get("retry_after_s", 0.0)), LATEST_MS)
            wake_ms = context.clock.now_ms() + max(SOON_MS if soon else LATER_MS, asked_ms)
            if row and _postpone(context, task, key, wake_ms) and soon:
                context.tasks.enqueue(task, key, wake_ms)
            log.debug("step.not_yet", reason=str(error))
            return StepResult("not yet", str(error))
        except (RemoteFault, Disagreement) as error:
            if row:
                _postpone(context, task, key, context.clock.now_ms() + LATER_MS)
            log.warning("step.refused", reason=str(error))
            return StepResult("refused", str(error))


def _postpone(context: Context, task: str, key: str, wake_ms: int) -> bool:
    """Whether the row has its time; where the database does not take it, beat's lease brings it again."""
    try:
        context.store.due.postpone(task, key, wake_ms)
    except TransientError as error:
        log.debug("row.not_postponed", reason=str(error))
        return False
    return True
