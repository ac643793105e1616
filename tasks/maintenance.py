"""Queue ``bundle``: what keeps disk and database from growing, and mends what was damaged there."""

from __future__ import annotations

from tasks.celery import app
from tasks.running import run_task
from validator.ports.queue import Task
from validator.steps.mend import KEY


@app.task(name=Task.RETENTION_SWEEP.value)
def sweep_away() -> str:
    """Safe to run twice: what is gone is gone, and what is left the next call finds."""
    return run_task(Task.RETENTION_SWEEP, "")


@app.task(name=Task.SETS_MEND.value)
def mend_sets(key: str = KEY) -> str:
    """Safe to run twice: a set is what its root says."""
    return run_task(Task.SETS_MEND, key)
