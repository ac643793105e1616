"""The table of the pipeline: it is complete, and what it says of the order is what the steps do."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from validator.ports.queue import Task
from validator.steps.pipeline import PIPELINE

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
