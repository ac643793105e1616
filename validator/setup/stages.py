"""The test stages: what each runs, how long it may take, and the table at the end.

Stages start in the order of the table, two one-core stages at a time; a two-core stage has the machine to
itself. Each writes its own log below build/test-logs; of a failed one the end of the log is shown.
"""

from __future__ import annotations

import enum
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from validator.setup.binaries import ROOT, VENV
from validator.setup.console import SetupError, die_with_parent, stop_group

CORES = 2
LOGS = ROOT / "build" / "test-logs"
SHOWN_LINES = 120
"""Of a failed stage's log, from its end."""

PACKAGES_READY = "LOGSTORE_PACKAGES_READY"
"""Names a file that appears once the system's packages are installed; stages that want them wait for it."""
PACKAGES_WAIT_S = 300.0


class Kind(enum.Enum):
    """How a stage's tests are counted."""

    PYTEST = "pytest"
    PROGRAM = "program"


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage. `words` hold programs of `.venv/bin` first; all of them run, and all must end with status 0."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    limit_s: float
    """Ends a stage that hangs. Some three times what it takes alone on two cores: a machine that others use as well was
    seen to take seven times as long for the types, and a slow machine is no fault of the code."""
    kind: Kind = Kind.PROGRAM
    cores: int = 1
    wants_packages: bool = False
    """Starts when redis-server, PostgreSQL and Chromium are installed, where `.ci/run` installs them."""
    may_skip: tuple[str, ...] = ()
    """Modules whose tests may be skipped, or single tests; each such skip is shown by name. Any other counts as a
    failure."""
    needs: tuple[str, ...] = ()
    """Paths that must be there, else the stage fails: a renamed folder must not silence its tests."""


def _folders(*names: str) -> tuple[str, ...]:
    return tuple(name for name in names if (ROOT / name).is_dir())


ALL_STAGES: tuple[Stage, ...] = (
    Stage(
        "style",
        (
            ("ruff", "check", "--no-cache", "."),
            ("ruff", "format", "--check", "--no-cache", "."),
            ("lint-imports",),
            ("mypy", *_folders("validator", "tasks", "logstore", "tests")),
            ("vulture",),
        ),
        limit_s=480,
    ),
    Stage(
        "unit, property",
        (("pytest", "tests/unit", "tests/property", "-n", "2"),),
        limit_s=1500,
        kind=Kind.PYTEST,
        needs=("tests/unit", "tests/property"),
    ),
    Stage(
        "conformance",
        (
            ("python", "-m", "tests.conformance", "streamr", "tests/vectors/streamr.jsonl"),
            ("python", "-m", "tests.conformance", "leaves", "tests/vectors/leaves.json"),
            ("python", "-m", "tests.conformance", "completeness", "tests/vectors/completeness.json"),
            ("python", "-m", "tests.conformance", "arweave", "tests/vectors/arweave.json"),
            ("python", "-m", "tests.conformance", "ans104", "tests/vectors/ans104.json"),
            ("python", "-m", "tests.conformance", "negentropy_reference"),
        ),
        limit_s=300,
        needs=("tests/conformance/negentropy_reference.py", "tests/vectors/streamr.jsonl"),
    ),
    Stage(
        "simulator",
        (("python", "-m", "tests.simulator", "--seeds", "300", "--first", "10000"),),
        limit_s=480,
        needs=("tests/simulator/__main__.py",),
    ),
    Stage(
        "contracts",
        (("pytest", "tests/integration/contracts"),),
        limit_s=720,
        kind=Kind.PYTEST,
        may_skip=(
            "tests.integration.contracts.test_clients_of_today",
            "tests.integration.contracts.test_query_of_today",
        ),
        needs=("tests/integration/contracts",),
    ),
    Stage(
        "integration",
        (
            (
                *("pytest", "tests/integration", "--ignore", "tests/integration/contracts"),
                # Long files first, as they are collected; three at a time, since the longest wait most of their time.
                *("-n", "3", "--dist", "loadfile", "--no-loadscope-reorder"),
            ),
        ),
        limit_s=2100,
        kind=Kind.PYTEST,
        wants_packages=True,
        may_skip=(
            "tests.integration.broker.test_explorer_in_browser",
            "tests.integration.broker.test_streamr_sdk::test_a_private_stream_is_stored_as_it_was_encrypted_and_read_by"
            "_whom_it_is_for[native]",
            "tests.integration.net.arweave.test_arlocal",
            "tests.integration.net.arweave.test_port",
            "tests.integration.readers.test_hyparquet",
            "tests.integration.server.test_page_in_browser",
        ),
        needs=("tests/integration",),
    ),
    Stage(
        "end to end",
        (("pytest", "tests/e2e"),),
        limit_s=720,
        kind=Kind.PYTEST,
        cores=2,
        wants_packages=True,
        needs=("tests/e2e",),
    ),
)
"""In the order in which they start."""

NOT_YET: frozenset[str] = frozenset()
"""Stages whose folders are still to come; a test sees to it that a name is taken off when its folder is there."""

STAGES = tuple(stage for stage in ALL_STAGES if stage.name not in NOT_YET)

PYTEST_FOLDERS = ("tests/unit", "tests/property", "tests/integration", "tests/e2e")


def pytest_words(given: Sequence[str]) -> list[str]:
    """Words that start pytest with the given ones: over the paths among them, else over all its folders."""
    names_paths = any(word.startswith("tests/") and (ROOT / word.partition("::")[0]).exists() for word in given)
    return [str(VENV / "bin" / "pytest"), *(() if names_paths else _folders(*PYTEST_FOLDERS)), *given]


def choose_stages(names: Sequence[str]) -> tuple[Stage, ...]:
    """Return the stages of these names, all of them for none. Raises: SetupError for an unknown name."""
    known = {stage.name: stage for stage in STAGES}
    for name in names:
        if name not in known:
            raise SetupError(f"unknown stage {name!r}", f"one of {', '.join(map(repr, known))}")
    return tuple(stage for stage in STAGES if not names or stage.name in names)


def describe_stages() -> str:
    """The table of stages as text, with the sum of their limits."""
    lines = [f"{stage.name:<16} {stage.limit_s:>5.0f} s  {' '.join(stage.commands[-1])}" for stage in STAGES]
    return "\n".join(lines) + "\n"


@dataclass(slots=True)
class Run:
    """One stage under way or finished."""

    stage: Stage
    log: Path
    child: subprocess.Popen[bytes] | None = None
    sink: IO[bytes] | None = None
    step: int = 0
    begun: float = 0.0
    seconds: float = 0.0
    result: str = ""
    passed: int = 0
    failed: int = 0
    skipped: list[str] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)


def run_stages(chosen: Sequence[Stage]) -> int:
    """Run stages to their end, print table and sum, return 0 only if something ran and all of it passed."""
    LOGS.mkdir(parents=True, exist_ok=True)
    waiting = [Run(stage, LOGS / f"{re.sub('[^a-z0-9]+', '-', stage.name)}.log") for stage in chosen]
    order = list(waiting)
    running: list[Run] = []
    begun = time.monotonic()
    try:
        while waiting or running:
            while waiting and _may_start(waiting[0], running, begun):
                run = waiting.pop(0)
                _start(run)
                if not run.result:
                    running.append(run)
            for run in list(running):
                _advance(run)
                if run.result:
                    running.remove(run)
                    _show_end(run)
            time.sleep(0.1)
    finally:
        for run in running:
            if run.child is not None:
                stop_group(run.child)
    return _show_table(order, time.monotonic() - begun)


def _may_start(run: Run, running: Sequence[Run], begun: float) -> bool:
    if sum(other.stage.cores for other in running) + run.stage.cores > CORES:
        return False
    ready = os.environ.get(PACKAGES_READY)
    if not run.stage.wants_packages or not ready or Path(ready).exists():
        return True
    return time.monotonic() - begun > PACKAGES_WAIT_S


def _start(run: Run) -> None:
    run.begun = time.monotonic()
    missing = [path for path in run.stage.needs if not (ROOT / path).exists()]
    if missing:
        run.log.write_text(f"{', '.join(missing)} not found\n", encoding="utf-8")
        run.result, run.failed = "failed: nothing to run", 1
        _show_end(run)
        return
    _say(f"{run.stage.name}: started")
    run.sink = run.log.open("wb")
    _next_command(run)


def _next_command(run: Run) -> None:
    assert run.sink is not None
    words = list(run.stage.commands[run.step])
    run.sink.write(f"$ {' '.join(words)}\n".encode())
    if run.stage.kind is Kind.PYTEST:
        report = _report_path(run)
        report.unlink(missing_ok=True)
        words.append(f"--junitxml={report}")
    run.sink.flush()
    words[0] = str(VENV / "bin" / words[0])
    run.child = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=run.sink,
        stderr=subprocess.STDOUT,
        cwd=ROOT,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )


def _advance(run: Run) -> None:
    """Look at one stage: next command, over, or out of time."""
    assert run.child is not None
    assert run.sink is not None
    run.seconds = time.monotonic() - run.begun
    status = run.child.poll()
    if status is None:
        if run.seconds > run.stage.limit_s:
            stop_group(run.child)
            _finish(run, f"failed: over {run.stage.limit_s:.0f} s")
        return
    run.statuses.append(status)
    run.step += 1
    if run.step < len(run.stage.commands):
        _next_command(run)
        return
    bad = [number for number in run.statuses if number]
    _finish(run, f"failed: status {bad[0]}" if bad else "passed")


def _finish(run: Run, result: str) -> None:
    assert run.sink is not None
    run.sink.close()
    run.result = result
    good = result == "passed"
    if run.stage.kind is Kind.PYTEST:
        run.passed, run.failed, run.skipped = _count_tests(_report_path(run), run.stage.may_skip)
        if good and run.passed == 0:
            run.result, good = "failed: no test ran", False
    elif good:
        run.passed = 1
    if not good and run.failed == 0:
        run.failed = 1


def _report_path(run: Run) -> Path:
    return run.log.with_suffix(".xml")


def _count_tests(report: Path, may_skip: Sequence[str]) -> tuple[int, int, list[str]]:
    """Passed and failed tests of one pytest report, and names of skipped ones; a skip that may not be is a failure."""
    try:
        root = ElementTree.parse(report).getroot()
    except (OSError, ElementTree.ParseError):
        return 0, 0, []
    suites = list(root.iter("testsuite"))
    found = [
        (case.get("classname"), case.get("name")) for case in root.iter("testcase") if case.find("skipped") is not None
    ]
    skipped = [f"{module}::{name}" for module, name in found if module in may_skip or f"{module}::{name}" in may_skip]
    failed = sum(int(suite.get(kind, 0)) for suite in suites for kind in ("failures", "errors", "skipped"))
    every = sum(int(suite.get("tests", 0)) for suite in suites)
    return every - failed, failed - len(skipped), skipped


def _show_end(run: Run) -> None:
    _say(f"{run.stage.name}: {run.result} after {run.seconds:.0f} s")
    if run.result != "passed":
        lines = run.log.read_text(encoding="utf-8", errors="replace").splitlines()
        shown = lines[-SHOWN_LINES:]
        _say("\n".join([f"--- {run.log} (last {len(shown)} of {len(lines)} lines)", *shown, "---"]))


def _show_table(order: Sequence[Run], seconds: float) -> int:
    passed, failed = sum(run.passed for run in order), sum(run.failed for run in order)
    width = max(len(run.stage.name) for run in order)
    lines = [f"{'stage':<{width}}  seconds  limit  tests  result"]
    for run in order:
        tests = run.passed + run.failed if run.stage.kind is Kind.PYTEST else "-"
        lines.append(
            f"{run.stage.name:<{width}}  {run.seconds:>7.1f}  {run.stage.limit_s:>5.0f}  {tests:>5}  {run.result}"
        )
    lines.append(f"{'all':<{width}}  {seconds:>7.1f}")
    lines += [f"skipped by name: {name}" for run in order for name in run.skipped]
    _say("\n".join(["", *lines, ""]))
    _say(f"{passed} passed, {failed} failed")
    good = passed > 0 and failed == 0 and all(run.result == "passed" for run in order)
    return 0 if good else 1


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
