"""Beat: a look around every tick, a sweep every minute. In small installations it runs as a thread of the worker.

A forked beat outlives a killed worker and goes on queueing; a thread started by a bootstep dies with it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, ClassVar

from celery import bootsteps
from celery.beat import EmbeddedService

SWEEP_S = 60.0


def beat_schedule(tick_s: float) -> dict[str, dict[str, Any]]:
    """What beat queues; each expires before the next ones pile up."""
    return {
        "round.due": {"task": "round.due", "schedule": tick_s, "options": {"expires": max(2 * tick_s, 2.0)}},
        "retention.sweep": {"task": "retention.sweep", "schedule": SWEEP_S, "options": {"expires": SWEEP_S}},
    }


class EmbeddedBeat(bootsteps.StartStopStep):
    """Beat as a thread of the worker."""

    requires: ClassVar = {"celery.worker.components:Pool"}

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self._service: Any = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def start(self, parent: Any) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="logstore-beat-")
        schedule = str(Path(self._folder.name) / "schedule")
        self._service = EmbeddedService(parent.app, thread=True, max_interval=1, schedule_filename=schedule)
        self._service.start()

    def stop(self, _parent: Any) -> None:
        if self._service is not None:
            self._service.stop()
            self._service = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
