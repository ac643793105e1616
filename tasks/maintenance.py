"""Queue ``bundle``: what keeps disk and database from growing, and mends what was damaged there."""

from __future__ import annotations

from tasks.celery import app
from tasks.running import run_step
from validator.steps.mend import KEY, TASK, mend
from validator.steps.retention import sweep


@app.task(name="retention.sweep")
def sweep_away() -> dict[str, str]:
    """Safe to run twice: what is gone is gone, and what is left the next call finds."""
    return run_step("retention.sweep", "", sweep, row=False)


@app.task(name=TASK)
def mend_sets(key: str = KEY) -> dict[str, str]:
    """Safe to run twice: a set is what its root says."""
    return run_step(TASK, key, mend)
