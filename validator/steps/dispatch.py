"""Beat's step: open windows that have begun, queue every row whose wake time has passed, see what is behind or lost.

It finds in the database what is due, so whatever Redis, a worker or a lost message dropped comes again.
"""

from __future__ import annotations

from validator.log import get_logger
from validator.ports.queue import Ending, StepResult, Task
from validator.quantities import show_count
from validator.steps.catchup import schedule_catch_up
from validator.steps.context import Context
from validator.steps.mend import schedule_mending

log = get_logger(__name__)

LEASE_MS = 5_000
"""A claimed row comes again after this time unless its task has set another."""
MAX_ROWS = 64
MAX_WINDOWS = 256
"""Windows opened by one call: after a long absence the next calls go on."""
_KNOWN = frozenset(Task)
"""Another release may have left rows of tasks that this one does not have; they must not hold up the others."""


def dispatch_due(context: Context) -> StepResult:
    """Open windows, queue what is due. Safe to run at any time and twice at once."""
    now_ms = context.clock.now_ms()
    opened = open_windows(context, now_ms)
    schedule_catch_up(context, now_ms)
    schedule_mending(context, now_ms)
    rows = context.store.due.claim(now_ms, MAX_ROWS, LEASE_MS)
    for task, key in rows:
        if task in _KNOWN:
            context.tasks.enqueue(task, key)
        else:
            log.warning("row.of_no_task", task=task, key=key)
    return StepResult(Ending.LOOKED, f"{show_count(opened, 'window')} opened, {show_count(len(rows), 'row')} due")


def open_windows(context: Context, now_ms: int) -> int:
    """Rows for all windows that have begun; each is to be collected at its cut-off."""
    last = context.store.windows.last_opened()
    start_ms = context.network.genesis_ms if last is None else last
    opened = 0
    for window in context.network.windows_from(start_ms):
        if window.start_ms > now_ms or opened == MAX_WINDOWS:
            break
        epoch = context.cut_points.window_epoch(window)
        cut_off_ms = window.end_ms + epoch.parameters.grace_ms
        if context.store.windows.load_window(window.start_ms) is None:
            # Due first: a crash in between leaves a row that finds no window, never a window that nobody collects.
            context.store.due.schedule(Task.WINDOW_COLLECT, str(window.start_ms), cut_off_ms)
        if context.store.windows.open_window(window, epoch.number):
            opened += 1
            if cut_off_ms - now_ms <= 60_000:
                context.tasks.enqueue(Task.WINDOW_COLLECT, str(window.start_ms), cut_off_ms)
    return opened
