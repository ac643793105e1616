"""Loops go on after anything, what hangs is noticed, and a process begins anew with growing pauses."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from validator import lasting
from validator.lasting import PAUSES_S, LastingThread, Watchdog, pause_s


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lasting, "PAUSES_S", (0.001,))


@pytest.mark.parametrize("error", [RuntimeError("boom"), OSError(28, "disk"), KeyError("x"), AssertionError()])
def test_a_loop_goes_on_after_any_exception_and_says_so(error: Exception) -> None:
    calls = []
    enough = threading.Event()

    def body(_beat: Callable[[], None]) -> None:
        calls.append(1)
        if len(calls) < 3:
            raise error
        enough.set()

    with capture_logs() as logs:
        thread = LastingThread("test", body, every_s=0.001)
        thread.start()
        assert enough.wait(10)
        thread.stop()
    failed = [entry for entry in logs if entry["event"] == "loop.failed"]
    assert [entry["failures"] for entry in failed] == [1, 2]
    assert all(entry["loop"] == "test" and entry["log_level"] == "error" for entry in failed)


def test_a_loop_ends_when_it_is_told_to() -> None:
    begun = threading.Event()
    thread = LastingThread("test", lambda _beat: begun.set(), every_s=0.001)
    thread.start()
    assert begun.wait(10)
    thread.stop()
    begun.clear()
    assert not begun.wait(0.05)
    assert thread.silent_s() == 0


def test_a_loop_that_hangs_is_noticed_and_one_that_beats_is_not() -> None:
    free, told = threading.Event(), threading.Event()
    named: list[str] = []

    def on_silence(name: str) -> None:
        named.append(name)
        told.set()

    def hang(_beat: Callable[[], None]) -> None:
        free.wait(60)

    hanging = LastingThread("hanging", hang, every_s=0.001)
    beating = LastingThread("beating", lambda beat: beat(), every_s=0.001)
    dog = Watchdog([beating, hanging], limit_s=0.3, look_s=0.01, on_silence=on_silence)
    for one in (hanging, beating, dog):
        one.start()
    assert told.wait(10)
    for one in (dog, beating):
        one.stop()
    free.set()
    hanging.stop()
    assert set(named) == {"hanging"}


def test_pauses_grow_to_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lasting, "PAUSES_S", PAUSES_S)
    assert [pause_s(n) for n in (0, 1, 2, 3, 4, 5, 100)] == [1, 1, 2, 4, 8, 8, 8]


BEGIN = """
import os, sys
from validator import lasting
lasting.PAUSES_S = (0.0,)
attempt = os.environ.get(lasting.ATTEMPT, "0")
print("LIFE", os.getpid(), attempt, sys.argv[1], flush=True)
if attempt != "3":
    lasting.begin_anew("test")
"""


@pytest.mark.parametrize("first", ["", "many", "-1", "9" * 5000])
def test_a_process_begins_anew_as_itself_and_counts_how_often_in_a_row(first: str) -> None:
    environment = {**os.environ, lasting.ATTEMPT: first}
    ended = subprocess.run(
        [sys.executable, "-c", BEGIN, "a word"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    lives = [line.split(" ", 3)[1:] for line in ended.stdout.splitlines() if line.startswith("LIFE")]
    assert [attempt for _, attempt, _ in lives] == [first or "", "1", "2", "3"]
    assert len({pid for pid, _, _ in lives}) == 1
    assert {word for _, _, word in lives} == {"a word"}
