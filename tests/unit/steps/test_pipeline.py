"""The pipeline: its table is complete, what it says of the order is what the steps do, and no error loses a row."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from validator.ports.queue import NotYet, StepResult, Task
from validator.protocol.errors import (
    AlreadyDone,
    Disagreement,
    InvariantError,
    RemoteFault,
    TransientError,
    UnknownOutcome,
)
from validator.steps.context import Context
from validator.steps.pipeline import LATER_MS, LATEST_MS, PIPELINE, SOON_MS, Stage, perform

MODULES = {
    "dispatch": {Task.ROUND_DUE},
    "collect": {Task.WINDOW_COLLECT, Task.WINDOW_COLLECT_HORIZON},
    "advance": {Task.ROUND_ADVANCE},
    "obtain": {Task.ROUND_OBTAIN},
    "catchup": {Task.ROUND_CATCH_UP},
    "late": {Task.LATE_COLLECT},
    "seal": {Task.BUNDLE_SEAL},
    "upload": {Task.BUNDLE_UPLOAD},
    "verify": {Task.BUNDLE_VERIFY},
    "look_at_wallet": {Task.WALLET_LOOK},
    "attest": {Task.REPORT_ATTEST},
    "submit": {Task.REPORT_SUBMIT, Task.REPORT_WATCH},
    "mend": {Task.SETS_MEND},
    "retention": {Task.RETENTION_SWEEP},
}
"""The module of each step."""
CALLS = ("schedule", "enqueue", "postpone")


PARTS = {
    "advance": ("apply_decision", "asking"),
    "dispatch": ("catchup.schedule_catch_up", "mend.schedule_mending"),
}
"""Where a part of a step stands beside its module: a library, or one function."""


def started_by(place: str) -> set[Task]:
    """The tasks that the functions of a module put into the database or the queue."""
    name, _, only = place.partition(".")
    source = importlib.import_module(f"validator.steps.{name}").__file__
    assert source is not None
    functions = [f for f in ast.walk(ast.parse(Path(source).read_text())) if isinstance(f, ast.FunctionDef)]
    return {task for function in functions if only in ("", function.name) for task in _started_in(function)}


def _started_in(function: ast.FunctionDef) -> Iterator[Task]:
    named: dict[str, Task] = {}
    for node in ast.walk(function):
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Tuple)
            and isinstance(node.value, ast.Tuple)
        ):
            for target, value in zip(node.targets[0].elts, node.value.elts, strict=True):
                if isinstance(target, ast.Name) and (task := _task_of(value)) is not None:
                    named[target.id] = task
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CALLS:
            first = node.args[0]
            task = named.get(first.id) if isinstance(first, ast.Name) else _task_of(first)
            if task is not None:
                yield task


def _task_of(value: ast.expr) -> Task | None:
    match value:
        case ast.Attribute(value=ast.Name(id="Task"), attr=name):
            return Task[name]
    return None


def test_every_task_is_in_the_table_and_in_one_module() -> None:
    assert set(PIPELINE) == set(Task)
    assert sorted(task for tasks in MODULES.values() for task in tasks) == sorted(Task)


@pytest.mark.parametrize("name", MODULES)
def test_what_follows_from_a_step_is_what_it_starts(name: str) -> None:
    own = MODULES[name]
    follows = {task for each in own for task in PIPELINE[each].follows}
    started = {task for place in (name, *PARTS.get(name, ())) for task in started_by(place)}
    assert started - own == follows - own


# --- what an error means for the row ----------------------------------------------------------------


class Rows:
    """Clock, rows and queue in one; ``log`` is what happened to the row."""

    def __init__(self, *, unreachable: bool = False) -> None:
        self.log: list[tuple[str, int | None]] = []
        self.unreachable = unreachable

    def now_ms(self) -> int:
        return 1_000_000

    def postpone(self, task: str, key: str, wake_ms: int) -> None:
        if self.unreachable:
            raise TransientError("the database does not answer")
        self.log.append(("row", wake_ms - self.now_ms()))

    def enqueue(self, task: str, key: str, eta_ms: int | None = None) -> None:
        self.log.append(("message", None if eta_ms is None else eta_ms - self.now_ms()))


def performed(error: Exception | None, *, rows: Rows | None = None, **changed: Any) -> tuple[str, list[Any]]:
    def run(_context: Context, key: str, *arguments: int) -> StepResult:
        if error is not None:
            raise error
        return StepResult("done", f"{key} {arguments}")

    rows = rows or Rows()
    context: Any = SimpleNamespace(clock=rows, tasks=rows, store=SimpleNamespace(due=rows))
    result = perform(context, Task.BUNDLE_SEAL, Stage(queue="bundle", due="", run=run, **changed), "7", 5)
    return result.name, rows.log


def test_a_step_that_ends_says_itself_what_becomes_of_its_row() -> None:
    assert performed(None) == ("done", [])
    assert performed(AlreadyDone("sealed")) == ("already done", [])


@pytest.mark.parametrize("error", [TransientError("timeout"), NotYet("not here"), UnknownOutcome("lost")])
def test_what_is_not_ready_comes_back_soon_or_later(error: Exception) -> None:
    assert performed(error) == ("not yet", [("row", LATER_MS)])
    assert performed(error, soon=True) == ("not yet", [("row", SOON_MS), ("message", SOON_MS)])
    assert performed(error, soon=True, has_row=False) == ("not yet", [])


def test_sources_that_rest_are_left_to_rest_but_not_for_long() -> None:
    assert performed(TransientError("resting", retry_after_s=4.0)) == ("not yet", [("row", 4_000)])
    assert performed(TransientError("resting", retry_after_s=3_600.0)) == ("not yet", [("row", LATEST_MS)])
    assert performed(TransientError("resting", retry_after_s=0.1)) == ("not yet", [("row", LATER_MS)])


@pytest.mark.parametrize("error", [RemoteFault("a liar"), Disagreement("another root")])
def test_a_fault_of_others_is_refused_and_looked_at_later(error: Exception) -> None:
    assert performed(error, soon=True) == ("refused", [("row", LATER_MS)])
    assert performed(error, has_row=False) == ("refused", [])


def test_where_the_database_takes_no_time_for_the_row_its_lease_brings_it_back() -> None:
    rows = Rows(unreachable=True)
    assert performed(TransientError("timeout"), rows=rows, soon=True) == ("not yet", [])
    assert performed(RemoteFault("a liar"), rows=rows) == ("refused", [])


def test_our_own_broken_invariant_fails_the_task() -> None:
    with pytest.raises(InvariantError):
        performed(InvariantError("two roots"))
