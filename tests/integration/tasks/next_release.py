"""The tasks as the next release may have them, for a fleet that is upgraded: one has an argument more.

``python -m tests.integration.tasks.next_release NAME``: a worker for queues ``round`` and ``bundle``; NEXT_MIGRATIONS
is the folder of that release's migrations. What it queues for the changed task has the new argument.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from tasks import programs
from validator.log import configure, get_logger
from validator.ports.queue import Task
from validator.store import database

CHANGED = Task.BUNDLE_SEAL
ARGUMENT = "thorough"
log = get_logger(__name__)


def main(name: str) -> int:
    configure("DEBUG", "json")
    vars(database)["_scripts"] = lambda: Path(os.environ["NEXT_MIGRATIONS"])
    from tasks import bundles
    from tasks.celery import app
    from tasks.running import run_task

    def seal_bundle(number: str, thorough: bool = False) -> str:
        log.info("next.sealed", number=number, thorough=thorough)
        return run_task(CHANGED, number)

    bundles.seal_bundle.run = seal_bundle
    send = app.send_task

    def send_with_argument(task: str, **options: Any) -> Any:
        words = {ARGUMENT: True} if task == CHANGED else {}
        return send(task, kwargs=words, **options)

    app.send_task = send_with_argument
    return programs.run(programs.worker_words([programs.Queue.ROUND, programs.Queue.BUNDLE], 2, name))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
