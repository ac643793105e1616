"""Processes of a run: started, watched, measured, ended; and none is left, whatever it does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from validator.devnet.children import (
    ChildEnded,
    Children,
    MemoryWatch,
    describe_exit,
    find_descendants,
    last_words,
    measure_pss,
)

STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
PARENT = (
    "import subprocess, sys, time; "
    "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
    "print(p.pid, flush=True); time.sleep(60)"
)
LIMIT_S = 20.0


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Children]:
    (tmp_path / "logs").mkdir()
    children = Children(tmp_path / "logs", tmp_path, dict(os.environ))
    yield children
    children.stop()


def python(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def wait_for_text(path: Path, text: str) -> str:
    end = time.monotonic() + LIMIT_S
    while text not in path.read_text():
        assert time.monotonic() < end, path.read_text()
        time.sleep(0.02)
    return path.read_text()


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and not yet reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until_dead(pid: int) -> None:
    end = time.monotonic() + LIMIT_S
    while is_alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    assert not is_alive(pid)


def test_a_child_that_ends_is_named_with_its_last_words(children: Children) -> None:
    text = "import sys; print('warming up', flush=True); sys.exit('no \\x1b[1mroom')"
    child = children.start("broker-7", python(text))
    child.process.wait(LIMIT_S)
    with pytest.raises(ChildEnded, match=r"^broker-7 ended with status 1: no \\x1b\[1mroom$"):
        children.check()


def test_a_killed_child_is_named_with_its_signal(children: Children) -> None:
    child = children.start("anvil", python("import time; time.sleep(60)"))
    child.process.kill()
    child.process.wait(LIMIT_S)
    with pytest.raises(ChildEnded, match=r"^anvil ended with SIGKILL: it said nothing$"):
        children.check()


def test_one_that_may_end_may_not_fail(children: Children) -> None:
    good = children.start("consumer-1", python("pass"), may_end=True)
    good.process.wait(LIMIT_S)
    children.check()
    bad = children.start("consumer-2", python("raise SystemExit(3)"), may_end=True)
    bad.process.wait(LIMIT_S)
    with pytest.raises(ChildEnded, match=r"^consumer-2 ended with status 3"):
        children.check()


def test_a_program_that_is_not_there_is_named(children: Children) -> None:
    with pytest.raises(ChildEnded, match=r"^anvil does not start: No such file or directory$"):
        children.start("anvil", ["/nowhere/anvil"])


def test_waiting_has_a_limit(children: Children) -> None:
    children.start("init", python("import time; time.sleep(60)"), may_end=True)
    with pytest.raises(ChildEnded, match=r"^init has not ended within"):
        children.wait_for(["init"], 0.1)


def test_stop_takes_the_stubborn_and_their_children_too(children: Children, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("validator.devnet.children.STOP_S", 0.3)
    stubborn = children.start("stubborn", python(STUBBORN))
    parent = children.start("parent", python(PARENT))
    wait_for_text(stubborn.log, "ready")
    grandchild = int(wait_for_text(parent.log, "\n"))
    assert is_alive(grandchild)
    children.stop()
    assert not is_alive(stubborn.process.pid)
    assert not is_alive(parent.process.pid)
    wait_until_dead(grandchild)


def test_kill_takes_the_whole_group_and_forgets_it(children: Children) -> None:
    parent = children.start("validator-2.worker", python(PARENT))
    other = children.start("validator-1.worker", python("import time; time.sleep(60)"))
    grandchild = int(wait_for_text(parent.log, "\n"))
    children.kill(["validator-2.worker"])
    wait_until_dead(grandchild)
    children.check()
    assert other.is_running


def test_children_die_with_a_conductor_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import os, sys, time; from pathlib import Path; from validator.devnet.children import Children\n"
        f"c = Children(Path({str(tmp_path)!r}), Path({str(tmp_path)!r}), dict(os.environ))\n"
        "child = c.start('sleeper', [sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.process.pid, flush=True); time.sleep(60)"
    )
    conductor = subprocess.Popen(python(script), stdout=subprocess.PIPE, text=True)
    assert conductor.stdout is not None
    with conductor:
        pid = int(conductor.stdout.readline())
        assert is_alive(pid)
        conductor.kill()
    wait_until_dead(pid)


def test_descendants_and_their_memory_are_found(children: Children) -> None:
    parent = children.start("parent", python(PARENT))
    grandchild = int(wait_for_text(parent.log, "\n"))
    assert set(find_descendants([parent.process.pid])) == {parent.process.pid, grandchild}
    assert set(children.pids()) == {parent.process.pid, grandchild}
    assert measure_pss([parent.process.pid]) > 1 << 20
    watch = MemoryWatch(children)
    watch.end()
    assert watch.sample() >= measure_pss([grandchild])
    assert watch.most_bytes > measure_pss([os.getpid()]) // 2


def test_what_is_gone_has_no_memory() -> None:
    process = subprocess.Popen(python("pass"))
    process.wait(LIMIT_S)
    assert measure_pss([process.pid]) == 0


def test_the_working_directory_is_not_the_users(children: Children, tmp_path: Path) -> None:
    child = children.start("where", python("import os; print(os.getcwd())"), may_end=True)
    child.process.wait(LIMIT_S)
    assert child.log.read_text().strip() == str(tmp_path)


def test_last_words_are_the_last_line_that_says_something(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("first\nsecond \x07\n\n   \n")
    assert last_words(log) == "second \\x07"
    assert last_words(tmp_path / "missing") == "it said nothing"


def test_exits_are_told_in_words() -> None:
    assert [describe_exit(status) for status in (0, 2, -9, -64, -99)] == [
        "status 0",
        "status 2",
        "SIGKILL",
        "SIGRTMAX",
        "signal 99",
    ]
