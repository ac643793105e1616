"""Beat: a look around every tick, a sweep every minute. In small installations it runs as a thread of the worker.

It keeps nothing in a file, and counts time by a clock that nobody sets: a folder that is cleaned away, a full disk or a
clock put back do not end it. What cannot be queued now is queued at the next tick; the database knows what is due.
A forked beat outlives a killed worker and goes on queueing; a thread started by a bootstep dies with it.
"""

from __future__ import annotations

import time
from typing import Any, ClassVar

from celery import bootsteps
from celery.beat import ScheduleEntry, Scheduler

from validator.lasting import LastingThread
from validator.log import get_logger
from validator.outages import Outage
from validator.ports.queue import Task

log = get_logger("tasks")

SWEEP_S = 60.0
LONGEST_WAIT_S = 1.0
LOOK_S = 0.1
redis_outage = Outage("redis")
"""Of this process: beat, what a task queues and the worker's consumer use the same Redis."""


def beat_schedule(tick_s: float) -> dict[str, dict[str, Any]]:
    """What beat queues; each expires before the next ones pile up."""
    return {
        "round.due": {"task": Task.ROUND_DUE.value, "schedule": tick_s, "options": {"expires": max(2 * tick_s, 2.0)}},
        "retention.sweep": {"task": Task.RETENTION_SWEEP.value, "schedule": SWEEP_S, "options": {"expires": SWEEP_S}},
    }


class SteadyScheduler(Scheduler):
    """Celery's scheduler in memory and on a monotonic clock; a tick never raises."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._next_s: dict[str, float] = {}
        super().__init__(*args, **kwargs)
        if not kwargs.get("lazy"):
            entries = {entry.task: entry.schedule.run_every.total_seconds() for entry in self.schedule.values()}
            log.info("beat.started", every_s=entries)

    def tick(self, **_kwargs: Any) -> float:
        """Queue what is due; seconds until something may be due again."""
        for name, entry in self.schedule.items():
            now_s = time.monotonic()
            if now_s >= self._next_s.get(name, now_s):
                self._next_s[name] = now_s + entry.schedule.run_every.total_seconds()
                self.apply_entry(entry)
        wait_s = min(self._next_s.values(), default=LONGEST_WAIT_S) - time.monotonic() if self._next_s else 0.0
        return min(max(wait_s, 0.0), LONGEST_WAIT_S)

    def apply_entry(self, entry: ScheduleEntry, producer: Any = None) -> None:
        """Queue one task; a broker that does not take it is said once, and asked again at the entry's next turn."""
        del producer
        try:
            self.apply_async(entry, producer=self.producer, advance=False)
        except Exception as error:
            self.close()  # connection and producer are made anew
            redis_outage.failed(str(error), "beat")
        else:
            redis_outage.worked("beat")

    def _ensure_connected(self) -> Any:
        return self.connection.ensure_connection(max_retries=1, interval_start=0.1)


class EmbeddedBeat(bootsteps.StartStopStep):
    """Beat as a thread of the worker; the worker's watchdog looks after ``thread``."""

    requires: ClassVar = {"celery.worker.components:Pool"}

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self._scheduler: Any = None

    def start(self, parent: Any) -> None:
        self._scheduler = SteadyScheduler(parent.app)
        parent.beat_thread = LastingThread("beat", self._tick, every_s=LOOK_S)
        parent.beat_thread.start()

    def stop(self, parent: Any) -> None:
        parent.beat_thread.stop()

    def _tick(self, beat: Any) -> None:
        self._scheduler.tick()
        beat()
