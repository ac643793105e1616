"""Queue ``report``: attestations and the contract on Polygon."""

from __future__ import annotations

from tasks.celery import app
from tasks.running import run_task
from validator.ports.queue import Task


@app.task(name=Task.REPORT_ATTEST.value)
def attest_report(number: str) -> str:
    """Safe to run twice: the report is a pure function, and its signature deterministic."""
    return run_task(Task.REPORT_ATTEST, number)


@app.task(name=Task.REPORT_SUBMIT.value)
def submit_report(number: str) -> str:
    """Safe to run twice: the transaction is saved with its nonce before it is sent."""
    return run_task(Task.REPORT_SUBMIT, number)


@app.task(name=Task.REPORT_WATCH.value)
def watch_report(number: str) -> str:
    """Safe to run twice: it only looks."""
    return run_task(Task.REPORT_WATCH, number)
