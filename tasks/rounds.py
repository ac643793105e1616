"""Queue ``round``: the state machine, and what it needs of the peers. Many short tasks; latency counts."""

from __future__ import annotations

from tasks.celery import app
from tasks.running import run_step
from validator.protocol.model import InstanceId
from validator.steps.advance import advance
from validator.steps.catchup import KEY, TASK, catch_up
from validator.steps.dispatch import dispatch_due
from validator.steps.obtain import obtain


@app.task(name="round.due")
def look_at_what_is_due() -> dict[str, str]:
    """Safe to run twice: a claimed row is leased to one of the callers."""
    return run_step("round.due", "", dispatch_due, row=False)


@app.task(name="round.advance")
def advance_round(instance: str, wake_ms: int | None = None) -> dict[str, str]:
    """Safe to run twice: votes are journaled under a unique key, on condition of the state's version."""
    return run_step(
        "round.advance", instance, lambda c: advance(c, InstanceId.parse(instance), wake_ms), soon=True, exclusive=False
    )


@app.task(name=TASK)
def catch_up_with_peers(key: str = KEY) -> dict[str, str]:
    """Safe to run twice: a certificate is verified, and kept once."""
    return run_step(TASK, key, catch_up)


@app.task(name="round.obtain")
def obtain_set_or_value(key: str) -> dict[str, str]:
    """Safe to run twice: sets and bodies are named by what they hold."""
    return run_step("round.obtain", key, lambda c: obtain(c, key), row=False)
