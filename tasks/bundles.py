"""Queue ``bundle``: files and Arweave. Few, long tasks."""

from __future__ import annotations

from tasks.celery import app
from tasks.running import run_step
from validator.steps.seal import seal
from validator.steps.upload import upload
from validator.steps.verify import verify


@app.task(name="bundle.seal")
def seal_bundle(number: str) -> dict[str, str]:
    """Safe to run twice: the root decides, the file is replaced whole."""
    return run_step("bundle.seal", number, lambda c: seal(c, int(number)), soon=True)


@app.task(name="bundle.upload")
def upload_bundle(number: str) -> dict[str, str]:
    """Safe to run twice: the signed transaction is saved before its first byte leaves, and sent again as it is."""
    return run_step("bundle.upload", number, lambda c: upload(c, int(number)))


@app.task(name="bundle.verify")
def verify_bundle(number: str) -> dict[str, str]:
    """Safe to run twice: reading back changes nothing but what is known."""
    return run_step("bundle.verify", number, lambda c: verify(c, int(number)))
