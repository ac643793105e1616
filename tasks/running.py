"""How every task runs its step: fields for the logs, counters, one line for Flower."""

from __future__ import annotations

import time

from celery import current_task

from tasks.answers import describe_ending
from tasks.celery import node, waiting
from tasks.keys import require_key
from tasks.worker import give_back_memory
from validator import metrics
from validator.log import get_logger, log_context
from validator.ports.queue import Ending, Task
from validator.steps.context import Context
from validator.steps.pipeline import PIPELINE, Stage, perform

log = get_logger("tasks")


def run_task(task: Task, key: str, *arguments: int) -> str:
    """Run a task's step, as the pipeline says, and say in one line how it ended."""
    require_key(task, key)
    waiting.take_up(task, key, current_task.request.id if current_task else "")
    context, stage = node().context, PIPELINE[task]
    if not stage.exclusive:
        return _run(context, task, stage, key, *arguments)
    claim = f"{task}/{key}"
    if not context.claims.acquire(claim):
        metrics.steps.labels(task, Ending.IN_HAND).inc()
        return Ending.IN_HAND.value
    try:
        return _run(context, task, stage, key, *arguments)
    finally:
        context.claims.abandon(claim)


def _run(context: Context, task: Task, stage: Stage, key: str, *arguments: int) -> str:
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
    return describe_ending(name, result.detail)
