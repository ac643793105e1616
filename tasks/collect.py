"""Queue ``collect``: pulls from brokers. Heavy on CPU: signatures are checked here."""

from __future__ import annotations

from tasks.celery import app
from tasks.running import run_task
from validator.ports.queue import Task


@app.task(name=Task.WINDOW_COLLECT.value)
def collect_at_cut_off(start_ms: str) -> str:
    """Safe to run twice: a frozen observation never changes."""
    return run_task(Task.WINDOW_COLLECT, start_ms)


@app.task(name=Task.WINDOW_COLLECT_HORIZON.value)
def collect_at_horizon(start_ms: str) -> str:
    """Safe to run twice: an unchanged window costs a 304."""
    return run_task(Task.WINDOW_COLLECT_HORIZON, start_ms)


@app.task(name=Task.LATE_COLLECT.value)
def collect_late_set(number: str) -> str:
    """Safe to run twice: the late observation is frozen once."""
    return run_task(Task.LATE_COLLECT, number)
