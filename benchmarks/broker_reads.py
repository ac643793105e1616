"""Answers of a broker from disk to HTTP, while messages come in that it checks and stores. A part of ``broker``.

The broker is one process that does both, as by default; *apart* one of role ``serve`` beside one of role ``ingest``,
which share the folder. Beside it what the consumer alone can take: the same number of bytes, from a process that only
sends.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import quote

import uvicorn

from benchmarks.broker_idle import cpu_s, mib
from benchmarks.broker_parts import PART, STREAM, feeding, make_parts, make_records
from tests.broker_parts import NOW_MS, BrokerParts
from validator.broker.forms import NAMES
from validator.broker.ingest import Ingest
from validator.broker.interpreter import tune_interpreter
from validator.broker.query import PAGE_BYTES
from validator.broker.store import DAY_MS, SqliteMessageStore
from validator.net.http.listening import listener_config
from validator.net.streamr.bridge import BridgeBus
from validator.net.streamr.frames import Kind, write_message
from validator.ports.message_store import SortKey
from validator.protocol.codec.answer import decode_answer
from validator.protocol.codec.protobuf import write_protobuf

LIVE_PER_S = 2_000
LIVE = 40_000
"""Messages that come in, for twenty seconds; after that reads have the machine to themselves."""
FIRST_MS = NOW_MS - NOW_MS % DAY_MS
SHORT = 100_000
"""Messages of an answer in a form that is made for reading, not for speed."""
ASKED = 15
_SPAWN = multiprocessing.get_context("spawn")

_FILL = """
WITH RECURSIVE n(ms) AS (SELECT :first UNION ALL SELECT ms + 1 FROM n WHERE ms + 1 < :first + :count)
INSERT INTO messages (part, timestamp, sequence, publisher, chain, leaf, identity, canonical, signed_bytes, arrived)
SELECT m.part, n.ms, 0, m.publisher, m.chain, randomblob(32), randomblob(32), CAST(substr(m.canonical, 1, :at)
  || (SELECT data FROM two WHERE id = n.ms >> 48) || (SELECT data FROM two WHERE id = (n.ms >> 32) & 65535)
  || (SELECT data FROM two WHERE id = (n.ms >> 16) & 65535) || (SELECT data FROM two WHERE id = n.ms & 65535)
  || substr(m.canonical, :at + 9) AS BLOB), m.signed_bytes, m.arrived
FROM n JOIN messages m ON m.rowid = n.ms % :templates + 1
"""


def measure(messages: int, rounds: int, home: Path) -> dict[str, float]:
    """The consumer is this process, the broker another."""
    fill(home / "messages", messages)
    live = [write_message(Kind.MESSAGE, PART, write_protobuf(r.message)) for r in make_records(2 * LIVE)]
    with feeding(home, b"".join(live[:LIVE]), LIVE_PER_S) as path, _broker(_serve, home, path) as (port, pid):
        reads = _Reads(port, [pid], messages)
        found = reads.measure(rounds, home / "messages")
    if not rounds:
        return found
    with _broker(_replay, reads.frames_bytes) as (port, pid):
        alone = _Reads(port, [pid], messages)
        found["consumer_alone_s"] = messages / min(alone.drain(NAMES["frames"], messages)[0] for _ in range(rounds))
    found["frames_of_consumer"] = found["frames_s"] / found["consumer_alone_s"]
    with (
        feeding(home / "apart", b"".join(live[LIVE:]), LIVE_PER_S) as path,
        _broker(_serve, home, None) as (port, pid),
        _broker(_take_in, home, path) as (_, other),
    ):
        walls, cpus = _Reads(port, [pid, other], messages).repeat("frames", messages, rounds)
        found |= {"apart_frames_s": messages / min(walls), "apart_frames_per_core_s": messages / min(cpus)}
    return found


@contextmanager
def _broker(target: Callable[..., None], *arguments: Any) -> Iterator[tuple[int, int]]:
    """A process of its own: the port where it listens, and its id."""
    ours, theirs = _SPAWN.Pipe()
    process = _SPAWN.Process(target=target, args=(*arguments, theirs), daemon=True)
    process.start()
    try:
        yield ours.recv(), process.pid or 0
    finally:
        process.kill()
        process.join()


def fill(folder: Path, messages: int) -> None:
    """So many messages of one day, a millisecond apart; written by SQLite, with leaves that are numbers."""
    store = SqliteMessageStore(folder)
    templates = make_records(1_000)
    store.insert(templates, NOW_MS)
    store.close()
    (path,) = folder.glob("*.sqlite")
    first = templates[0]
    at = first.canonical.index(first.message.timestamp_ms.to_bytes(8, "big"))
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("CREATE TEMP TABLE two (id INTEGER PRIMARY KEY, data BLOB)")
    connection.executemany("INSERT INTO two VALUES (?, ?)", ((n, n.to_bytes(2, "big")) for n in range(1 << 16)))
    for start in range(0, messages, 500_000):
        bounds = {"count": min(500_000, messages - start), "first": FIRST_MS + start, "at": at, "templates": 1_000}
        connection.execute(_FILL, bounds)
    connection.close()


class _Reads:
    """One broker that is asked again and again."""

    def __init__(self, port: int, pids: Sequence[int], held: int) -> None:
        self._port = port
        self._pids = pids
        self._held = held
        self.frames_bytes = 0

    def measure(self, rounds: int, folder: Path) -> dict[str, float]:
        found = self._measure_whole()
        if not rounds:
            return found
        alone = [_scan(folder, self._held)]
        for name in ("frames", "ndjson", "arrow"):
            count = self._held if name == "frames" else min(self._held, SHORT)
            walls, cpus = self.repeat(name, count, rounds)
            if name == "frames":
                alone += [_scan(folder, self._held) for _ in range(rounds)]
            found |= {f"{name}_s": count / min(walls), f"{name}_per_core_s": count / min(cpus)}
            if name == "frames":
                first = [self._first_byte(FIRST_MS + self._held // 2 + n) for n in range(ASKED)]
                found["first_byte_ms"] = statistics.median(first) * 1000
        found["scan_alone_s"] = self._held / min(alone)
        found["frames_of_scan"] = found["frames_s"] / found["scan_alone_s"]
        return found

    def repeat(self, name: str, count: int, rounds: int) -> tuple[list[float], list[float]]:
        """Seconds of each answer: by the wall, and of the broker's CPU."""
        walls, cpus = [], []
        for _ in range(rounds):
            before = self._cpu_s()
            walls.append(self._read_all(NAMES[name], count))
            cpus.append(self._cpu_s() - before)
        return walls, cpus

    def _cpu_s(self) -> float:
        return sum(map(cpu_s, self._pids))

    def _measure_whole(self) -> dict[str, float]:
        """The first answer, all that is held, and peaks: of the broker, and of a consumer that keeps nothing."""
        pids = {"broker": self._pids[0], "consumer": os.getpid()}
        before = {}
        for name, pid in pids.items():
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew
            before[name] = mib(pid, "VmRSS")
        cpu = self._cpu_s()
        wall = self._read_all(NAMES["frames"], self._held)
        cpu = self._cpu_s() - cpu
        found: dict[str, float] = {"first_answer_s": self._held / wall, "first_answer_per_core_s": self._held / cpu}
        for name, pid in pids.items():
            peak = mib(pid, "VmHWM")
            found |= {f"{name}_peak_mib": peak, f"{name}_grew_mib": peak - before[name]}
        return found

    def _ask(self, form: str, from_ms: int, until_ms: int) -> HTTPConnection:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=120)
        target = f"/v1/streams/{quote(STREAM, safe='')}/partitions/0/messages?from={from_ms}&to={until_ms}"
        connection.request("GET", target, headers={"accept": form})
        return connection

    def _read_all(self, form: str, count: int) -> float:
        """Seconds; the answer must be whole."""
        seconds, tail, size = self.drain(form, count)
        if form == NAMES["frames"]:
            self.frames_bytes = size
            found = decode_answer(tail[tail.rindex(b"answer/1") - 2 :])
            assert found.count == count, (found.count, count)
        else:
            assert b"answer" in tail[-16_384:]
        return seconds

    def drain(self, form: str, count: int) -> tuple[float, bytes, int]:
        """Seconds, the answer's last bytes, and how many they were."""
        started = time.perf_counter()
        connection = self._ask(form, FIRST_MS, FIRST_MS + count)
        answer = connection.getresponse()
        assert answer.status == 200
        tail, size = b"", 0
        while piece := answer.read(1 << 20):
            tail = tail[-65_536:] + piece
            size += len(piece)
        seconds = time.perf_counter() - started
        connection.close()
        return seconds, tail, size

    def _first_byte(self, from_ms: int) -> float:
        started = time.perf_counter()
        connection = self._ask(NAMES["frames"], from_ms, NOW_MS)
        assert connection.getresponse().read(1)
        seconds = time.perf_counter() - started
        connection.close()
        return seconds


def _scan(folder: Path, held: int) -> float:
    """Seconds that the store alone takes for the same rows, in this process."""
    store = SqliteMessageStore(folder)
    after: SortKey | None = None
    started = time.perf_counter()
    while page := store.page(PART, FIRST_MS, FIRST_MS + held, after=after, limit=4_096):
        after = page.last_key
    seconds = time.perf_counter() - started
    store.close()
    return seconds


def _serve(home: Path, bus_path: Path | None, parent: Connection) -> None:
    """A broker; without a bus one of role ``serve``."""
    listener = _listen()

    async def run() -> None:
        parts = make_parts(home)
        if bus_path is not None:
            await _start_ingest(parts, bus_path)
        tune_interpreter()
        config = listener_config(parts.app, "127.0.0.1", listener.getsockname()[1], streams=True)
        parent.send(listener.getsockname()[1])
        await uvicorn.Server(config).serve(sockets=[listener])

    asyncio.run(run())


def _take_in(home: Path, bus_path: Path, parent: Connection) -> None:
    """A broker of role ``ingest``."""

    async def run() -> None:
        running = await _start_ingest(make_parts(home), bus_path)
        tune_interpreter()
        parent.send(0)
        await running

    asyncio.run(run())


async def _start_ingest(parts: BrokerParts, bus_path: Path) -> asyncio.Task[None]:
    ingest = Ingest(await BridgeBus.open(bus_path), parts.admission, parts.chain, max_parts=10)
    running = asyncio.create_task(ingest.run())
    _running.add(running)
    await ingest.follow_registry()
    return running


_running: set[asyncio.Task[None]] = set()
"""Held, or the event loop would let them go."""


def _replay(size: int, parent: Connection) -> None:
    """Sends so many bytes to each who asks, out of memory, in pieces as a broker's."""
    listener = _listen()
    piece = bytes(PAGE_BYTES)
    parent.send(listener.getsockname()[1])
    while True:
        connection, _ = listener.accept()
        while b"\r\n\r\n" not in connection.recv(1 << 16):
            pass
        connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for left in range(size, 0, -len(piece)):
            part = piece[: min(left, len(piece))]
            connection.sendall(b"%x\r\n%b\r\n" % (len(part), part))
        connection.sendall(b"0\r\n\r\n")
        connection.close()


def _listen() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(16)
    return listener
