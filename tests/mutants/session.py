"""One pytest session in this process that runs named tests as often as it is asked to."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable

import pytest

from tests import paths

ROOT = paths.ROOT
_OPTIONS = ("-p", "no:cacheprovider", "-p", "no:terminal", "-p", "no:timeout", "-o", "addopts=", "-o", "xfail_strict=0")


class Session:
    """Tests that were collected, by node id; an id without parameters stands for all cases."""

    def __init__(self, run: Callable[[Session], None]) -> None:
        self._run = run
        self._items: list[pytest.Item] = []
        self._failed = False
        self.ran = False

    def passes(self, test: str) -> bool:
        """Whether every case passes; the first that fails ends it. Raises LookupError: there is no such test."""
        items = [item for item in self._items if item.nodeid == test or item.nodeid.startswith(f"{test}[")]
        if not items:
            raise LookupError(f"{test}: no such test")
        return all(self._passes(item) for item in items)

    def _passes(self, item: pytest.Item) -> bool:
        self._failed = False
        with contextlib.redirect_stdout(io.StringIO()):
            item.ihook.pytest_runtest_protocol(item=item, nextitem=None)
        return not self._failed

    # --- hooks ---

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self._items = session.items
        self._run(self)
        self.ran = True
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._failed = self._failed or report.failed


def run_session(tests: Iterable[str], run: Callable[[Session], None]) -> None:
    """Collect the files of these tests, and hand them over. Raises LookupError: pytest could not collect them."""
    session = Session(run)
    files = sorted({test.partition("::")[0] for test in tests})
    status = pytest.main([*_OPTIONS, f"--rootdir={ROOT}", "--import-mode=importlib", *files], plugins=[session])
    if not session.ran:
        raise LookupError(f"pytest ended with status {status}: not every file that is named can be collected")
