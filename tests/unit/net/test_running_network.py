"""How a network that runs is found, and how one that has ended is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from validator.net.running_network import FILE, RunningNetwork, announced, find_running, state_folder


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "network.toml").write_text("")
    return {"LOGSTORE_STATE_DIR": str(tmp_path / "state")}


def a_network(environment: dict[str, str], pid: int | None = None, streams: tuple[str, ...] = ()) -> RunningNetwork:
    file = Path(environment["LOGSTORE_STATE_DIR"]).parent / "network.toml"
    return RunningNetwork(os.getpid() if pid is None else pid, str(file), streams=streams)


def test_it_is_found_while_it_runs_and_not_after(environment: dict[str, str]) -> None:
    assert find_running(environment) is None
    running = a_network(environment, streams=("0x/ä",))
    with announced(running, environment) as path:
        assert path.stat().st_mode & 0o077 == 0
        assert find_running(environment) == running
    assert find_running(environment) is None
    assert list(path.parent.iterdir()) == []


def test_the_one_that_began_last_is_found_and_the_other_takes_its_word_alone_away(environment: dict[str, str]) -> None:
    first, second = a_network(environment), a_network(environment, streams=("second",))
    with announced(second, environment):
        with announced(first, environment), announced(second, environment):
            pass
        assert find_running(environment) is None
    with announced(first, environment):
        path = state_folder(environment) / FILE
        path.write_bytes(msgspec.json.encode(second))
        assert find_running(environment) == second
    assert path.exists()


def test_who_was_killed_is_not_found(environment: dict[str, str]) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with announced(a_network(environment, pid=ended.pid), environment):
        assert find_running(environment) is None


@pytest.mark.parametrize("text", ["", "{}", '{"pid":1e999,"network":"x"}', '{"pid":-1,"network":"x"}', "[" * 70_000])
def test_what_is_no_such_file_is_not_believed(environment: dict[str, str], text: str) -> None:
    path = state_folder(environment) / FILE
    path.parent.mkdir()
    path.write_text(text)
    assert find_running(environment) is None


def test_a_network_whose_file_is_gone_is_not_found(environment: dict[str, str]) -> None:
    with announced(a_network(environment), environment):
        (Path(environment["LOGSTORE_STATE_DIR"]).parent / "network.toml").unlink()
        assert find_running(environment) is None


def test_where_it_lies() -> None:
    assert state_folder({"XDG_STATE_HOME": "/state"}) == Path("/state/logstore")
    assert state_folder({"LOGSTORE_STATE_DIR": "/own", "XDG_STATE_HOME": "/state"}) == Path("/own")
    assert state_folder({}) == Path.home() / ".local/state/logstore"
