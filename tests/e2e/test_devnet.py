"""The whole network as a subprocess: a small run that is verified, and endings that leave nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from tests import paths
from tests.sockets import watching
from validator.devnet.children import find_descendants
from validator.devnet.summary import FIELDS
from validator.protocol.model import SignatureType
from validator.setup.console import die_with_parent, stop_group

ROOT = paths.ROOT
RUN_LIMIT_S = 240
START_LIMIT_S = 60
END_LIMIT_S = 20
SMALLEST = (
    *("--validators", "1", "--brokers", "1", "--windows", "1", "--flower", "none"),
    *("--network", "simulated"),  # what ends is the same, and it starts sooner
)


@contextmanager
def running_devnet(folder: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """devnet with its output in ``folder``/out; whatever the test does, its group is gone afterwards."""
    command = [sys.executable, "-m", "validator.cli", "devnet", "--data", str(folder / "run"), *words]
    with (folder / "out").open("wb") as sink:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
    try:
        yield process
    finally:
        stop_group(process, END_LIMIT_S)


def processes_of(run: Path) -> list[str]:
    """Command lines of processes that work in the run's folder, as all of devnet's children do."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            if Path(os.readlink(entry / "cwd")) == run:
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # it has just ended
    return found


def pid_of(run: Path, name: str) -> int:
    """Process id of the part whose program has this name."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and os.path.lexists(entry / "exe"):
            try:
                if Path(os.readlink(entry / "cwd")) == run and os.readlink(entry / "exe").endswith(f"/{name}"):
                    return int(entry.name)
            except OSError:
                continue
    raise AssertionError(f"{name} does not run")


def wait_until_started(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Until all processes have been started."""
    end = time.monotonic() + START_LIMIT_S
    while "\nlogs  " not in (folder / "out").read_text():
        assert process.poll() is None, (folder / "out").read_text()
        assert time.monotonic() < end, (folder / "out").read_text()
        time.sleep(0.1)


def wait_until_gone(run: Path) -> None:
    end = time.monotonic() + END_LIMIT_S
    while processes_of(run) and time.monotonic() < end:
        time.sleep(0.1)
    assert processes_of(run) == []


@pytest.mark.timeout(RUN_LIMIT_S + 40)
def test_a_small_network_agrees_archives_settles_and_is_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, asked = tmp_path / "summary.json", tmp_path / "asked"
    words = ("--windows", "2", "--network", "real", "--lying-broker", "reorders")
    monkeypatch.setenv("NODE_OPTIONS", f"--require {ROOT / 'tests' / 'loopback_only.cjs'}")
    monkeypatch.setenv("LOOPBACK_LOG", str(asked))
    with (
        running_devnet(tmp_path, *words, "--json", str(result)) as process,
        watching(lambda: find_descendants([process.pid])) as addresses,
    ):
        status = process.wait(RUN_LIMIT_S)
    said = (tmp_path / "out").read_text()
    assert status == 0, said[-4000:]
    assert said.rstrip().endswith("verified")
    summary = json.loads(result.read_text())
    names = {name for entry, _ in FIELDS for name in entry.split(", ")} - {"killed", "chaos"}
    assert names <= summary.keys()
    assert summary["verified"] is True
    assert summary["windows_agreed"] == 2
    assert summary["messages_unique_valid"] >= summary["messages_archived"] > 100  # heartbeats outlive the last window
    assert set(summary["signature_types"]) == {kind.name for kind in SignatureType if kind < 5}
    assert all(summary["signature_types"].values())
    assert summary["messages_missing"] == summary["messages_archived_twice"] == summary["invalid_archived"] == 0
    assert [bundle["paid"] for bundle in summary["bundles"]] == [1, 1]
    assert [report["id"] for report in summary["reports"]] == [0, 1]
    assert summary["receipts"]["captured"] > 0
    assert sum(summary["forged_delivered"].values()) > 0
    assert summary["memory_pss_bytes"] < 3 << 30
    assert summary["network"] == "real"
    assert summary["sdk"]["published"] > 0
    assert set(summary["sdk"]["resend"]) == {"last", "from", "range"}
    assert all(summary["sdk"]["resend"].values())
    assert summary["lying"]["consumer"]["field"] == "order"
    assert any("out-of-order" in lies for lies in summary["lying"]["brokers"].values())
    assert addresses == {IPv4Address("127.0.0.1")}
    assert set(asked.read_text().splitlines()) == {"started"}  # by no Node process, however briefly
    unchecked = [claim for claim, counts in summary["claims"].items() if not counts["checked"]]
    assert unchecked == ["killed validator"]
    assert processes_of(tmp_path / "run") == []


@pytest.mark.timeout(RUN_LIMIT_S + 40)
def test_a_kept_network_goes_from_epoch_to_epoch_until_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGSTORE_STATE_DIR", str(tmp_path / "state"))
    words = ("--keep", "--window-seconds", "2", "--rate", "10", *SMALLEST)
    with running_devnet(tmp_path, *words) as process:
        end = time.monotonic() + RUN_LIMIT_S
        while "report 2 final" not in (tmp_path / "out").read_text():  # each epoch here has one window, so one report
            assert process.poll() is None, (tmp_path / "out").read_text()
            assert time.monotonic() < end, (tmp_path / "out").read_text()
            time.sleep(0.2)
        assert (tmp_path / "state" / "devnet.json").is_file()
        process.send_signal(signal.SIGINT)
        assert process.wait(END_LIMIT_S) == 0
    said = (tmp_path / "out").read_text()
    assert "The network is up, and goes on until Ctrl-C." in said
    assert said.splitlines()[-1].startswith("devnet: ended after ")
    assert not (tmp_path / "state" / "devnet.json").exists()
    assert processes_of(tmp_path / "run") == []


def test_ctrl_c_ends_with_130_and_leaves_no_process(tmp_path: Path) -> None:
    with running_devnet(tmp_path, *SMALLEST) as process:
        wait_until_started(process, tmp_path)
        assert len(processes_of(tmp_path / "run")) >= 7
        process.send_signal(signal.SIGINT)
        assert process.wait(END_LIMIT_S) == 130
    assert processes_of(tmp_path / "run") == []
    assert "Traceback" not in (tmp_path / "out").read_text()


def test_a_killed_conductor_takes_everything_with_it(tmp_path: Path) -> None:
    with running_devnet(tmp_path, *SMALLEST) as process:
        wait_until_started(process, tmp_path)
        assert len(processes_of(tmp_path / "run")) >= 7
        process.send_signal(signal.SIGKILL)
        process.wait(END_LIMIT_S)
        wait_until_gone(tmp_path / "run")


def test_a_second_devnet_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    with running_devnet(tmp_path, *SMALLEST) as process:
        wait_until_started(process, tmp_path)
        command = [sys.executable, "-m", "validator.cli", "devnet", "--data", str(tmp_path / "run")]
        second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=END_LIMIT_S, check=False)
        assert (second.returncode, second.stdout, second.stderr.count("\n")) == (2, "", 1)
        assert "in use" in second.stderr
        assert process.poll() is None


def test_a_part_that_dies_ends_the_run_with_its_name_and_nothing_is_left(tmp_path: Path) -> None:
    with running_devnet(tmp_path, *SMALLEST, "--json", str(tmp_path / "summary.json")) as process:
        wait_until_started(process, tmp_path)
        os.kill(pid_of(tmp_path / "run", "anvil"), signal.SIGKILL)
        assert process.wait(END_LIMIT_S) == 1
    said = (tmp_path / "out").read_text()
    assert said.splitlines()[-1].startswith("devnet: not verified: anvil ended with SIGKILL")
    assert "Traceback" not in said
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["verified"] is False
    assert summary["failures"][0].startswith("anvil ended with SIGKILL")
    assert processes_of(tmp_path / "run") == []
