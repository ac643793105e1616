"""How every task runs its step: fields for the logs, counters, a summary for Flower."""

from __future__ import annotations

import time

from celery import current_task

from tasks.celery import node, waiting
from tasks.worker import give_back_memory
from validator import metrics
from validator.log import get_logger, log_context
from validator.ports.queue import Task
from validator.steps.context import Context
from validator.steps.pipeline import PIPELINE, Stage, perform

log = get_logger("tasks")


def run_task(task: Task, key: str, *arguments: int) -> dict[str, str]:
    """Run a task's step, as the pipeline says, and summarise it."""
    waiting.take_up(task, key, current_task.request.id if current_task else "")
    context, stage = node().context, PIPELINE[task]
    if not stage.exclusive:
        return _run(context, task, stage, key, *arguments)
    claim = f"{task}/{key}"
    if not context.claims.acquire(claim):
        metrics.steps.labels(task, "in hand").inc()
        return {"key": key, "outcome": "in hand", "detail": ""}
    try:
        return _run(context, task, stage, key, *arguments)
    finally:
        context.claims.abandon(claim)


def _run(context: Context, task: Task, stage: Stage, key: str, *arguments: int) -> dict[str, str]:
    started = time.monotonic()
    name = "failed"
    with log_context(task=task, key=key):
        try:
            result = perform(context, task, stage, key, *arguments)
            name = result.name
        finally:
            seconds = time.monotonic() - started
            metrics.steps.labels(task, name).inc()
            metrics.step_seconds.labels(task).observe(seconds)
            give_back_memory()
        log.debug("step.done", outcome=name, detail=result.detail, took_ms=round(1000 * seconds))
    return {"key": key, "outcome": name, "detail": result.detail[:200]}
