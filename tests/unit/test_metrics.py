"""Counters of several processes are added up, also where another library chose too early where counters live."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from validator.metrics import STALE_S, clear_ended

COUNT = """
import celery.bin.celery  # imports Flower, and with it prometheus_client, as Celery's command line does
import os, sys
os.environ["PROMETHEUS_MULTIPROC_DIR"] = sys.argv[1]
from validator import metrics
metrics.steps.labels("round.advance", "agreed").inc(int(sys.argv[2]))
metrics.step_seconds.labels("round.advance").observe(0.2)
pid = os.fork() if sys.argv[2] == "2" else 1
if pid == 0:
    metrics.steps.labels("round.advance", "agreed").inc(10)
    os._exit(0)
if pid > 1:
    os.waitpid(pid, 0)
"""
SCRAPE = """
import os, sys
os.environ["PROMETHEUS_MULTIPROC_DIR"] = sys.argv[1]
from validator.metrics import render_metrics
sys.stdout.buffer.write(render_metrics(lambda: []))
"""


def run(program: str, *words: str) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "PROMETHEUS_MULTIPROC_DIR"}
    ended = subprocess.run(
        [sys.executable, "-c", program, *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_a_scrape_adds_up_all_processes_and_their_forks(tmp_path: Path) -> None:
    run(COUNT, str(tmp_path), "2")
    run(COUNT, str(tmp_path), "5")
    text = run(SCRAPE, str(tmp_path))
    assert 'logstore_steps_total{result="agreed",step="round.advance"} 17.0' in text
    assert 'logstore_step_seconds_count{step="round.advance"} 2.0' in text


def test_files_of_ended_processes_go_and_those_of_others_stay(tmp_path: Path) -> None:
    run(COUNT, str(tmp_path), "5")
    ended = list(tmp_path.glob("*.db"))
    assert len(ended) == 2
    host = ended[0].name.split("_", 1)[1].split("~")[0]
    stays = [f"counter_{host}~{os.getpid()}~1.db", "counter_elsewhere~1~1.db", "counter_7.db"]
    stale = tmp_path / "counter_elsewhere~1~2.db"
    for name in (*stays, stale.name):
        (tmp_path / name).write_bytes(b"")
    os.utime(stale, (time.time() - STALE_S - 60,) * 2)
    assert clear_ended(tmp_path) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(stays)


DAMAGED = {
    "empty": b"",
    "cut to two bytes": b"\x01\x00",
    "a length beyond the file": (2**31 - 1).to_bytes(4, "little") + bytes(100),
    "a key that is no JSON": (40).to_bytes(4, "little") + bytes(4) + (8).to_bytes(4, "little") + b"\xff\xfenotjs" * 8,
    "a key of another shape": (40).to_bytes(4, "little") + bytes(4) + (4).to_bytes(4, "little") + b"[17]" + bytes(24),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_file_that_cannot_be_read_is_left_out_and_counted(tmp_path: Path, content: bytes) -> None:
    run(COUNT, str(tmp_path), "5")
    for name in ("counter_host~1~1.db", "histogram_host~1~1.db"):
        (tmp_path / name).write_bytes(content)
    text = run(SCRAPE, str(tmp_path))
    assert 'logstore_steps_total{result="agreed",step="round.advance"} 5.0' in text
    assert "logstore_unreadable_counter_files 2.0" in text


FULL_DISK = """
import os, sys
os.environ["PROMETHEUS_MULTIPROC_DIR"] = sys.argv[1]
from validator import metrics
metrics.steps.labels("round.advance", "agreed").inc(3)
def no_room(*_):
    raise OSError(28, "No space left on device")
os.posix_fallocate = no_room
for n in range(2_000):  # far more labels than the file has room for
    metrics.steps.labels("round.advance", f"odd {n}").inc()
metrics.pull_seconds.labels("0x11").observe(1)  # the first of a kind whose file cannot be made
metrics.steps.labels("round.advance", "agreed").inc(4)
assert metrics.steps.labels("round.advance", "agreed")._value.get() == 7
assert metrics.steps.labels("round.advance", "odd 1999")._value.get() == 1
"""


def test_counting_goes_on_where_the_disk_has_no_room(tmp_path: Path) -> None:
    run(FULL_DISK, str(tmp_path))
    assert 'step="round.advance"} 3.0' in run(SCRAPE, str(tmp_path))


def test_counting_goes_on_where_the_folder_cannot_be_written(tmp_path: Path) -> None:
    run(COUNT, str(tmp_path / "missing"), "5")
