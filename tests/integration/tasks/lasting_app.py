"""A small app with the project's worker and beat: each tick adds a line to a file, and one task hangs.

``python -m celery -A tests.integration.tasks.lasting_app worker``, with TICKS (file) and BROKER (URL) set.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from tasks.schedule import EmbeddedBeat
from tasks.worker import LastingApp

app = LastingApp("lasting", broker=os.environ["BROKER"])
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={"socket_connect_timeout": 5, "socket_timeout": 30},
    beat_schedule={"tick": {"task": "tick", "schedule": 0.3, "options": {"expires": 5}}},
    worker_hijack_root_logger=False,
    worker_soft_shutdown_timeout=0.5,
)
app.steps["worker"].add(EmbeddedBeat)


@app.task(name="tick")  # type: ignore[untyped-decorator]
def tick() -> None:
    _note("tick")


@app.task(name="hang")  # type: ignore[untyped-decorator]
def hang(seconds: float) -> None:
    _note("hangs")
    time.sleep(seconds)
    _note("done")


def _note(line: str) -> None:
    with Path(os.environ["TICKS"]).open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")
