"""Queue ``bundle``: what keeps disk and database from growing."""

from __future__ import annotations

from tasks.celery import app
from tasks.running import run_step
from validator.steps.retention import sweep


@app.task(name="retention.sweep")
def sweep_away() -> dict[str, str]:
    """Safe to run twice: what is gone is gone, and what is left the next call finds."""
    return run_step("retention.sweep", "", sweep, row=False)
