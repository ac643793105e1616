"""Children of set-up: retries, limits, and one line of what they said."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from validator.setup import console
from validator.setup.console import ChildFailed, SetupError


def test_a_download_that_works_at_the_third_try_is_enough() -> None:
    failures = [ChildFailed("uv", "reset"), ChildFailed("uv", "reset")]
    pauses: list[float] = []

    def attempt() -> None:
        if failures:
            raise failures.pop()

    console.with_retries("packages", attempt, pauses.append)
    assert failures == []
    assert pauses == list(console.PAUSES_S)


def test_after_three_tries_the_error_names_what_why_and_the_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    tries: list[int] = []

    def attempt() -> None:
        tries.append(1)
        raise ChildFailed("npm", "connection refused")

    with pytest.raises(SetupError) as caught:
        console.with_retries("anvil", attempt, lambda _seconds: None)
    assert len(tries) == console.TRIES
    text = str(caught.value)
    assert "anvil not to be had in 3 tries (npm: connection refused)" in text
    assert "HTTPS_PROXY" in text
    assert "\n" not in text


def test_a_failed_child_is_told_by_the_line_with_the_error(tmp_path: Path) -> None:
    program = "import sys; print('begin'); print('Error: disk \\x1b[31m full'); print('bye'); sys.exit(3)"
    with pytest.raises(ChildFailed) as caught:
        console.run_child([sys.executable, "-c", program], tmp_path / "log", limit_s=30, cwd=tmp_path)
    assert caught.value.said == "Error: disk ?[31m full"
    assert not caught.value.was_stopped


def test_a_child_over_its_limit_is_stopped_with_its_children(tmp_path: Path) -> None:
    program = (
        "import subprocess, sys, time;"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], stdout=subprocess.DEVNULL);"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid)); time.sleep(60)"
    )
    with pytest.raises(ChildFailed, match="no end after 1 s") as caught:
        console.run_child([sys.executable, "-c", program], tmp_path / "log", limit_s=1, cwd=tmp_path)
    assert caught.value.was_stopped
    grandchild = Path("/proc") / (tmp_path / "pid").read_text() / "status"
    end = time.monotonic() + 20
    while _is_alive(grandchild) and time.monotonic() < end:
        time.sleep(0.01)  # killed already, but the kernel takes its moment
    assert not _is_alive(grandchild)


def _is_alive(status: Path) -> bool:
    try:
        return "\nState:\tZ" not in status.read_text()
    except OSError:
        return False


def test_a_program_that_cannot_start_is_a_failure_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ChildFailed, match="No such file"):
        console.run_child([str(tmp_path / "absent")], tmp_path / "log", limit_s=5, cwd=tmp_path)
