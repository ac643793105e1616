"""Which test notices a mistake at which place of the core: one pytest session that runs its tests as often as needed.

    catch    plants each site and runs the test that is recorded for it, which must fail
    search   plants each site and runs the tests that enter its function, fastest first, until one fails

Tests are collected once and run in this process, so a test costs what it takes and no more. One that takes several
times the processor time that it took on the sound core, on this machine and now, is interrupted, and has noticed too.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tests import paths
from tests.simulator.sites import PACKAGE, Site, planted

ROOT = paths.ROOT
CORE = str(ROOT / PACKAGE.replace(".", "/"))
GROUND = (
    "tests/unit/protocol/consensus",
    "tests/unit/protocol/codec/test_certificate.py",
    "tests/unit/protocol/test_quorum.py",
)
"""Where tests of the core are looked for."""
PATIENCE_S = 0.3
"""The least processor time that a test gets with a mistake planted."""
PATIENCE_TIMES = 10
"""And the least in times of what it took without."""
UNBOUNDED_S = 60.0
"""What a test gets on the sound core, where it ends."""
_OPTIONS = (
    *("-p", "no:cacheprovider", "-p", "no:terminal", "-p", "no:timeout", "-o", "addopts="),
    "--assert=plain",  # that a test fails is all that is asked
)


class Stuck(Exception):
    """The test took more processor time than any test of the core does."""


def catch(recorded: Sequence[tuple[Site, str]]) -> list[tuple[Site, str, bool]]:
    """(site, test, whether the test failed). A test that fails without the mistake too has noticed nothing."""
    results: list[tuple[Site, str, bool]] = []

    def loop(session: Ground) -> None:
        sound = {test: session.passes_unplanted(test) for test in dict.fromkeys(test for _, test in recorded)}
        for site, test in recorded:
            with planted(site):
                results.append((site, test, sound[test] and not session.passes(test)))

    _run(sorted({test for _, test in recorded}), loop)
    return results


def search(
    sites: Iterable[Site], ground: Sequence[str] = GROUND, tell: Callable[[Site, str | None], None] = lambda *_: None
) -> dict[Site, str | None]:
    """The fastest test that notices each site; None where nobody does."""
    found: dict[Site, str | None] = {}

    def loop(session: Ground) -> None:
        entered = session.survey()
        for site in sites:
            tests = entered.get((site.module, site.function), [])
            with planted(site):
                test = found[site] = next((test for test in tests if not session.passes(test)), None)
            if test is not None:  # what noticed one mistake in a function may well notice the next
                tests.remove(test)
                tests.insert(0, test)
            tell(site, test)

    _run(list(ground), loop)
    return found


class Ground:
    """A pytest session in our hands."""

    def __init__(self, run: Callable[[Ground], None]) -> None:
        self._run = run
        self._items: dict[str, pytest.Item] = {}
        self._spent: dict[str, float] = {}
        self._failed = False
        self.ran = False

    def passes_unplanted(self, test: str) -> bool:
        """Whether it passes on the core as it is; how long that took bounds what it gets from now on."""
        began = time.process_time()
        passed = self._run_for(test, UNBOUNDED_S)
        self._spent[test] = time.process_time() - began
        return passed

    def passes(self, test: str) -> bool:
        return self._run_for(test, max(PATIENCE_S, PATIENCE_TIMES * self._spent.get(test, 0)))

    def _run_for(self, test: str, limit_s: float) -> bool:
        item = self._items[test]
        self._failed = False
        signal.signal(signal.SIGVTALRM, _interrupt)
        signal.setitimer(signal.ITIMER_VIRTUAL, limit_s)
        try:
            item.ihook.pytest_runtest_protocol(item=item, nextitem=None)
        except Exception:  # whatever comes through pytest itself, the interruption among it
            self._failed = True
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        return not self._failed

    def survey(self) -> dict[tuple[str, str], list[str]]:
        """Per function of the core the tests that enter it, fastest first."""
        entered: dict[tuple[str, str], list[str]] = {}
        for test in self._items:
            if not self.passes_unplanted(test):
                continue  # not for us to judge, and no measure of anything
            calls: set[tuple[str, str]] = set()
            sys.setprofile(_note_calls(calls))
            try:
                self.passes(test)
            finally:
                sys.setprofile(None)
            for function in calls:
                entered.setdefault(function, []).append(test)
        return {function: sorted(tests, key=lambda test: self._spent[test]) for function, tests in entered.items()}

    # --- hooks ---

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self._items = {item.nodeid: item for item in session.items}
        for item in session.items:  # to show where a test failed takes longer than to run it
            item.repr_failure = lambda *_, **__: "failed"  # type: ignore[method-assign]
        self._run(self)
        self.ran = True
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._failed = self._failed or report.failed


def _run(arguments: Sequence[str], loop: Callable[[Ground], None]) -> None:
    ground = Ground(loop)
    status = pytest.main([*_OPTIONS, f"--rootdir={ROOT}", "--import-mode=importlib", *arguments], plugins=[ground])
    if not ground.ran:
        raise LookupError(f"pytest ended with status {status}: not all tests that are named exist")


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise Stuck


def _note_calls(calls: set[tuple[str, str]]) -> Callable[[FrameType, str, Any], None]:
    def note(frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(CORE):
            name = frame.f_code.co_qualname.split(".<locals>")[0]
            calls.add((Path(frame.f_code.co_filename).stem, name))

    return note
