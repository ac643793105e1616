"""Queue ``bundle``: files and Arweave. Few, long tasks."""

from __future__ import annotations

from tasks.celery import app
from tasks.running import run_task
from validator.ports.queue import Task


@app.task(name=Task.BUNDLE_SEAL.value)
def seal_bundle(number: str) -> str:
    """Safe to run twice: the root decides, the file is replaced whole."""
    return run_task(Task.BUNDLE_SEAL, number)


@app.task(name=Task.BUNDLE_UPLOAD.value)
def upload_bundle(number: str) -> str:
    """Safe to run twice: the signed transaction is saved before its first byte leaves, and sent again as it is."""
    return run_task(Task.BUNDLE_UPLOAD, number)


@app.task(name=Task.BUNDLE_VERIFY.value)
def verify_bundle(number: str) -> str:
    """Safe to run twice: reading back changes nothing but what is known."""
    return run_task(Task.BUNDLE_VERIFY, number)


@app.task(name=Task.WALLET_LOOK.value)
def look_at_wallet(number: str) -> str:
    """Safe to run twice: it asks and notes what it saw."""
    return run_task(Task.WALLET_LOOK, number)
