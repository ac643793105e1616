"""Queue ``round``: the state machine, and what it needs of the peers. Many short tasks; latency counts."""

from __future__ import annotations

from tasks.celery import app
from tasks.running import run_task
from validator.ports.queue import Task
from validator.steps.catchup import KEY


@app.task(name=Task.ROUND_DUE.value, send_events=False)  # every tick: it would bury the rest of Flower's table
def dispatch_what_is_due() -> str:
    """Safe to run twice: a claimed row is leased to one of the callers."""
    return run_task(Task.ROUND_DUE, "")


@app.task(name=Task.ROUND_ADVANCE.value)
def advance_round(instance: str, wake_ms: int | None = None) -> str:
    """Safe to run twice: votes are journaled under a unique key, on condition of the state's version."""
    return run_task(Task.ROUND_ADVANCE, instance, *([] if wake_ms is None else [wake_ms]))


@app.task(name=Task.ROUND_CATCH_UP.value)
def catch_up_with_peers(key: str = KEY) -> str:
    """Safe to run twice: a certificate is verified, and kept once."""
    return run_task(Task.ROUND_CATCH_UP, key)


@app.task(name=Task.ROUND_OBTAIN.value)
def obtain_set_or_value(key: str) -> str:
    """Safe to run twice: sets and bodies are named by what they hold."""
    return run_task(Task.ROUND_OBTAIN, key)
