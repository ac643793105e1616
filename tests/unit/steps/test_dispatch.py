"""Beat's step: which windows it opens, and what it queues."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.fakes.world import GENESIS_MS, WINDOW_MS, some_network
from validator.ports.queue import Task
from validator.ports.states import WindowState
from validator.ports.stored import StoredWindow
from validator.protocol.model import Window
from validator.steps.cut_points import CutPoints
from validator.steps.dispatch import LEASE_MS, MAX_ROWS, MAX_WINDOWS, dispatch_due, open_windows
from validator.steps.noticed import Noticed

GRACE_MS = 1_000


class Rows:
    """Windows and due rows in memory; ``order`` is what was written, in order."""

    def __init__(self) -> None:
        self.windows: dict[int, StoredWindow] = {}
        self.due: dict[tuple[str, str], int] = {}
        self.order: list[str] = []

    def last_opened(self) -> int | None:
        return max(self.windows, default=None)

    def load_window(self, start_ms: int) -> StoredWindow | None:
        return self.windows.get(start_ms)

    def open_window(self, window: Window, epoch: int) -> bool:
        self.order.append("window")
        if window.start_ms in self.windows:
            return False
        self.windows[window.start_ms] = StoredWindow(window, epoch, WindowState.OPEN)
        return True

    def schedule(self, task: str, key: str, wake_ms: int) -> None:
        self.order.append("due")
        self.due.setdefault((task, key), wake_ms)

    def load_undecided(self, until_ms: int, limit: int) -> list[int]:
        return []

    def last_bundle(self) -> None:
        return None

    def glance(self, after: object) -> None:
        return None

    def damaged(self, limit: int) -> list[object]:
        return []

    def pending(self, task: str) -> list[str]:
        return [key for known, key in self.due if known == task]

    def claim(self, now_ms: int, limit: int, lease_ms: int) -> list[tuple[str, str]]:
        found = sorted(row for row, wake_ms in self.due.items() if wake_ms <= now_ms)[:limit]
        self.due.update(dict.fromkeys(found, now_ms + lease_ms))
        return found


class Queue:
    def __init__(self) -> None:
        self.queued: list[tuple[str, str, int | None]] = []

    def enqueue(self, task: str, key: str, eta_ms: int | None = None) -> None:
        self.queued.append((task, key, eta_ms))


@pytest.fixture
def context() -> Any:
    rows = Rows()
    clock = SimpleNamespace(at_ms=GENESIS_MS)
    clock.now_ms = lambda: clock.at_ms
    store: Any = SimpleNamespace(windows=rows, due=rows, bundles=rows, sets=rows)
    network = some_network(epoch_windows=1_000)
    cut_points = CutPoints(network, clock, store, chain=cast(Any, None))
    parts = {"cut_points": cut_points, "noticed": Noticed(clock), "identity": SimpleNamespace(is_observer=False)}
    return SimpleNamespace(network=network, clock=clock, store=store, tasks=Queue(), **parts)


def test_nothing_is_opened_before_the_first_window_begins(context: Any) -> None:
    assert open_windows(context, GENESIS_MS - 1) == 0
    assert context.store.windows.order == []


def test_a_window_is_opened_when_it_begins_and_is_due_at_its_cut_off(context: Any) -> None:
    assert open_windows(context, GENESIS_MS) == 1
    cut_off_ms = GENESIS_MS + WINDOW_MS + GRACE_MS
    assert context.store.due.due == {("window.collect", str(GENESIS_MS)): cut_off_ms}
    assert context.tasks.queued == [("window.collect", str(GENESIS_MS), cut_off_ms)]


def test_a_window_is_due_before_it_is_there_so_that_a_crash_leaves_none_that_nobody_collects(context: Any) -> None:
    open_windows(context, GENESIS_MS)
    assert context.store.windows.order == ["due", "window"]


def test_opening_twice_opens_once(context: Any) -> None:
    assert open_windows(context, GENESIS_MS + 5) == 1
    assert open_windows(context, GENESIS_MS + 5) == 0
    assert len(context.store.due.due) == 1
    assert len(context.tasks.queued) == 1


def test_after_a_long_absence_every_window_is_opened_in_turns_and_none_is_left_out(context: Any) -> None:
    now_ms = GENESIS_MS + 600 * WINDOW_MS
    turns: list[int] = []
    while not turns or turns[-1]:
        turns.append(open_windows(context, now_ms))
    assert max(turns) <= MAX_WINDOWS
    assert sorted(context.store.windows.windows) == [GENESIS_MS + i * WINDOW_MS for i in range(601)]
    assert {int(key) for _, key in context.store.due.due} == set(context.store.windows.windows)


def test_no_window_follows_the_networks_last(context: Any) -> None:
    context.network = some_network(epoch_windows=3)
    assert open_windows(context, GENESIS_MS + 10**9) == 3
    assert open_windows(context, GENESIS_MS + 10**9) == 0


def test_rows_that_are_due_are_queued_leased_and_come_again_unless_done(context: Any) -> None:
    due = context.store.due.due
    due.update({("bundle.seal", str(i)): GENESIS_MS - 1 for i in range(MAX_ROWS + 6)})
    dispatch_due(context)
    assert len([q for q in context.tasks.queued if q[0] == "bundle.seal"]) == MAX_ROWS
    dispatch_due(context)
    assert len({q[1] for q in context.tasks.queued if q[0] == "bundle.seal"}) == MAX_ROWS + 6
    context.clock.at_ms += LEASE_MS
    context.tasks.queued.clear()
    del due[("bundle.seal", "0")]
    dispatch_due(context)
    dispatch_due(context)
    assert len({q[1] for q in context.tasks.queued if q[0] == "bundle.seal"}) == MAX_ROWS + 5


def test_a_row_of_a_task_that_another_release_had_holds_up_nobody(context: Any) -> None:
    context.store.due.due |= {("a.former_task", "1"): 0, (Task.BUNDLE_SEAL, "1"): 0}
    dispatch_due(context)
    assert (Task.BUNDLE_SEAL, "1", None) in context.tasks.queued
    assert "a.former_task" not in [task for task, _, _ in context.tasks.queued]
