"""What Prometheus reads: counters where things happen, and gauges from the database at the moment of a scrape.

Counters live in the process that counts. Where ``PROMETHEUS_MULTIPROC_DIR`` names a folder (one per validator) before
this module is imported, each process keeps them in files there, named by host, process id and start, and the operator
listener adds up those of the server and of all workers. ``clear_ended`` drops what ended processes left.

Celery's command line imports Flower, and with it prometheus_client, before any of our code runs. The choice between
counters in memory and counters in files would be made too early, so it is made here once more.

Counting and scraping never raise and never end a process: a counter whose file cannot be made or grow counts in memory,
and a file that cannot be read (of a process that was killed while it made it) is left out, and counted.
"""

from __future__ import annotations

import glob
import mmap
import os
import re
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest, values
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

FILE_BYTES = 1 << 16
"""Room of a new file of counters; it doubles."""
EMPTY_BYTES = 8
"""Of a file without counters: its own length, and padding."""

STALE_S = 7 * 86_400
"""Files of other hosts (containers) that nobody has written for so long are an ended process's."""

_HOST = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:64] or "host"
_FILE = re.compile(r"[a-z]+_(?P<host>[A-Za-z0-9.-]+)~(?P<pid>[0-9]+)~(?P<start>[0-9]+)\.db")


class _CounterFile(MmapedDict):
    """The library's file of counters, with its room on disk reserved before it is mapped.

    A write into a mapped page for which the disk has no room ends the process (SIGBUS).
    """

    _f: Any
    _m: Any
    _capacity: int
    _used: int

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        try:
            with open(filename, "ab") as file:
                os.posix_fallocate(file.fileno(), 0, max(os.fstat(file.fileno()).st_size, FILE_BYTES))
            super().__init__(filename, read_mode)  # type: ignore[no-untyped-call]
        except (OSError, ValueError, RuntimeError, struct.error):
            self._f, self._fname = None, filename
            self._m, self._capacity = mmap.mmap(-1, FILE_BYTES), FILE_BYTES
            self._used = EMPTY_BYTES
            self._positions: dict[str, int] = {}

    def _init_value(self, key: str) -> None:
        longest = len(key.encode()) + 32
        while self._used + longest > self._capacity:
            self._grow(2 * self._capacity)
        super()._init_value(key)  # type: ignore[no-untyped-call]

    def _grow(self, capacity: int) -> None:
        """To more room in the file; where the disk has none, on in memory: the file keeps what it had."""
        try:
            if self._f is not None:
                os.posix_fallocate(self._f.fileno(), 0, capacity)
                self._m = mmap.mmap(self._f.fileno(), capacity)
                self._capacity = capacity
                return
        except OSError:
            self._f.close()
            self._f = None
        grown = mmap.mmap(-1, capacity)
        grown[: self._used] = self._m[: self._used]
        self._m, self._capacity = grown, capacity


def _identify_process() -> str:
    """Host, process id and start: containers share a folder and not their process ids, which also come again."""
    pid = os.getpid()
    if _identity[0] != pid:
        _identity[:] = [pid, time.time_ns() // 1_000_000]
    return f"{_HOST}~{pid}~{_identity[1]}"


_identity = [0, 0]

if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
    values.MmapedDict = _CounterFile  # type: ignore[attr-defined]
    values.ValueClass = values.MultiProcessValue(_identify_process)  # type: ignore[no-untyped-call]

registry = CollectorRegistry()

steps = Counter("logstore_steps", "Pipeline steps ended, by step and result", ["step", "result"], registry=registry)
step_seconds = Histogram(
    "logstore_step_seconds",
    "Duration of pipeline steps",
    ["step"],
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100),
    registry=registry,
)
pulls = Counter("logstore_pulls", "Answers of brokers, by broker and result", ["broker", "result"], registry=registry)
pull_seconds = Histogram(
    "logstore_pull_seconds",
    "Time until a broker's answer was complete",
    ["broker"],
    buckets=(0.03, 0.1, 0.3, 1, 3, 10, 30),
    registry=registry,
)
pull_bytes = Counter("logstore_pull_bytes", "Bytes received from brokers", ["broker"], registry=registry)
pull_records = Counter("logstore_pull_records", "Records received from brokers", ["broker"], registry=registry)
pull_refused = Counter(
    "logstore_pull_refused", "Records of brokers that were refused", ["broker", "reason"], registry=registry
)
served_bytes = Counter(
    "logstore_served_bytes", "Signed bytes of windows' messages that a broker served", ["broker"], registry=registry
)
missed_bytes = Counter(
    "logstore_missed_bytes", "Signed bytes that most brokers served and this one did not", ["broker"], registry=registry
)
peer_refusals = Counter("logstore_peer_refusals", "Requests of peers refused, by reason", ["reason"], registry=registry)
statement_refusals = Counter(
    "logstore_statement_refusals",
    "What served requests of peers held and was refused (statement, quorum, body, upload, attestation), by reason",
    ["what", "reason"],
    registry=registry,
)


def clear_ended(folder: Path) -> int:
    """Drop counters of processes that have ended; returns how many files. Those that run keep theirs.

    Files of this host whose process is gone, and of other hosts that nobody has written for a week.
    """
    dropped = 0
    for path in sorted(folder.glob("*.db")):
        found = _FILE.fullmatch(path.name)
        if found is None:
            continue
        if _is_stale(path) if found["host"] != _HOST else not Path(f"/proc/{int(found['pid'])}").exists():
            path.unlink(missing_ok=True)
            dropped += 1
    return dropped


def _is_stale(path: Path) -> bool:
    with suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime > STALE_S
    return False


@dataclass(frozen=True, slots=True)
class Sample:
    """One gauge value at the moment of a scrape."""

    name: str
    help: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


def render_metrics(load: Callable[[], Iterable[Sample]]) -> bytes:
    """Prometheus' text form of all counters and of what ``load`` returns; an error of ``load`` is the caller's."""
    scrape = CollectorRegistry()
    scrape.register(_Snapshot(list(load())))
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        _ReadableFiles(scrape)  # type: ignore[no-untyped-call]
        return generate_latest(scrape)
    return generate_latest(registry) + generate_latest(scrape)


class _ReadableFiles(MultiProcessCollector):
    """The library's sum over all files, without those that cannot be read."""

    def collect(self) -> Iterator[Metric]:
        files = glob.glob(os.path.join(self._path, "*.db"))
        readable = [path for path in files if _is_readable(path)]
        yield from self.merge(readable, accumulate=True)  # type: ignore[no-untyped-call]
        yield GaugeMetricFamily(
            "logstore_unreadable_counter_files", "Counter files that were left out", len(files) - len(readable)
        )


def _is_readable(path: str) -> bool:
    """Whether every value of a file can be read, as far as the library reads it."""
    try:
        MultiProcessCollector.merge([path])  # type: ignore[no-untyped-call]
    except (OSError, ValueError, RuntimeError, LookupError, AttributeError, TypeError, struct.error):
        return False
    return True


class _Snapshot(Collector):
    def __init__(self, samples: list[Sample]) -> None:
        self._samples = samples

    def collect(self) -> Iterator[GaugeMetricFamily]:
        families: dict[str, GaugeMetricFamily] = {}
        for sample in self._samples:
            names = sorted(sample.labels)
            family = families.setdefault(sample.name, GaugeMetricFamily(sample.name, sample.help, labels=names))
            family.add_metric([sample.labels[name] for name in names], sample.value)
        yield from families.values()
