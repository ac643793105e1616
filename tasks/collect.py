"""Queue ``collect``: pulls from brokers. Heavy on CPU: signatures are checked here."""

from __future__ import annotations

from tasks.celery import app
from tasks.running import run_step
from validator.steps.collect import collect_window
from validator.steps.late import collect_late
from validator.steps.pulling import BUNDLE, CUT_OFF, HORIZON


@app.task(name="window.collect")
def collect_at_cut_off(start_ms: str) -> dict[str, str]:
    """Safe to run twice: a frozen observation never changes."""
    return run_step("window.collect", start_ms, lambda c: collect_window(c, int(start_ms), CUT_OFF), soon=True)


@app.task(name="window.collect.bundle")
def collect_for_bundle(start_ms: str) -> dict[str, str]:
    """Safe to run twice: an unchanged window costs a 304."""
    return run_step("window.collect.bundle", start_ms, lambda c: collect_window(c, int(start_ms), BUNDLE))


@app.task(name="window.collect.horizon")
def collect_at_horizon(start_ms: str) -> dict[str, str]:
    """Safe to run twice: an unchanged window costs a 304."""
    return run_step("window.collect.horizon", start_ms, lambda c: collect_window(c, int(start_ms), HORIZON))


@app.task(name="late.collect")
def collect_late_set(number: str) -> dict[str, str]:
    """Safe to run twice: the late observation is frozen once."""
    return run_step("late.collect", number, lambda c: collect_late(c, int(number)), soon=True)
