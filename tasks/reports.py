"""Queue ``report``: attestations and the contract on Polygon."""

from __future__ import annotations

from tasks.celery import app
from tasks.running import run_step
from validator.steps.attest import attest
from validator.steps.submit import submit, watch


@app.task(name="report.attest")
def attest_report(number: str) -> dict[str, str]:
    """Safe to run twice: the report is a pure function, and its signature deterministic."""
    return run_step("report.attest", number, lambda c: attest(c, int(number)))


@app.task(name="report.submit")
def submit_report(number: str) -> dict[str, str]:
    """Safe to run twice: the transaction is saved with its nonce before it is sent."""
    return run_step("report.submit", number, lambda c: submit(c, int(number)))


@app.task(name="report.watch")
def watch_report(number: str) -> dict[str, str]:
    """Safe to run twice: it only looks."""
    return run_step("report.watch", number, lambda c: watch(c, int(number)))
