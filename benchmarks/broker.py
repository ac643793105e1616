"""What one broker takes in and gives out: from the network's socket to disk, and from disk to HTTP, on this machine.

ingest   a process of its own writes messages into the bridge's socket; every signature is checked, all is stored.
         Per core: messages by seconds of CPU. Beside it the signatures alone, in the same rounds
reads    one consumer reads a stream partition as frames, trailer and root included, while 2 000 messages a second
         come in, each checked
first    how long after the request the first byte is there, for a span in the middle of what is held
refs     how the node before ours compared what it held, for the same messages: whole lists of ids and hashes as
         JSON, from each to each; bytes and time per message to write and read them once
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote

import uvicorn

from tests.broker_parts import NOW_MS, BrokerParts
from tests.builders import a_key, a_message
from validator.broker.admission import Limits
from validator.broker.gate import Terms
from validator.broker.ingest import Ingest
from validator.net.http.listening import listener_config
from validator.net.streamr.bridge import BridgeBus
from validator.net.streamr.frames import FrameReader, Kind, State, write_message, write_state
from validator.protocol.codec.answer import decode_answer
from validator.protocol.codec.message import make_record
from validator.protocol.codec.protobuf import write_protobuf
from validator.protocol.codec.signatures import verify_batch
from validator.protocol.hashing import keccak256
from validator.protocol.model import Record, StreamPart

OK = 0
STREAM = "0x" + "cc" * 20 + "/measured"
PART: StreamPart = (STREAM, 0)
PUBLISHERS = 12
CONTENT_BYTES = 231
"""As in the corpus of docs/limits: JSON of an ordinary message."""
LIVE_PER_S = 2_000
FRAMES = "application/vnd.logstore.frames"
GOALS = {"ingest_per_core_s": 10_000, "ingest_of_checking": 0.7, "reads_s": 200_000, "first_byte_ms": 50}
_FORK = multiprocessing.get_context("fork")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks broker", description=__doc__)
    parser.add_argument("--messages", type=int, default=40_000, help="messages of one round of ingest")
    parser.add_argument("--held", type=int, default=400_000, help="messages that are read")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args(arguments)
    records = make_records(options.messages)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure_ingest(records, options.rounds, Path(folder))
        figures |= measure_reads(records, options.held, options.rounds, Path(folder))
    figures |= measure_references(records)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    for name, value in figures.items():
        goal = f"   goal {GOALS[name]:,}" if name in GOALS else ""
        print(f"{name.replace('_', ' '):<34}{value:>14,.2f}{goal}")
    return OK


def make_records(count: int) -> list[Record]:
    """Of some publishers, a millisecond apart, the newest a second ago."""
    keys = [a_key(n + 1) for n in range(PUBLISHERS)]
    padding = "x" * (CONTENT_BYTES - 30)
    first_ms = NOW_MS - 1_000 - count
    return [
        make_record(
            a_message(
                keys[n % PUBLISHERS],
                stream_id=STREAM,
                timestamp_ms=first_ms + n,
                content=f'{{"number":{n:010},"text":"{padding}"}}'.encode(),
            )
        )
        for n in range(count)
    ]


def make_parts(folder: Path) -> BrokerParts:
    limits = Limits(part_per_s=1e9, publisher_per_s=1e9)
    return BrokerParts(folder, streams={STREAM: 1}, limits=limits, terms=Terms(balance=False))


# --- in ---------------------------------------------------------------------------------------------


def measure_ingest(records: Sequence[Record], rounds: int, folder: Path) -> dict[str, float]:
    frames = b"".join(write_message(Kind.MESSAGE, PART, write_protobuf(record.message)) for record in records)
    checking, whole, wall = [], [], []
    for number in range(rounds):
        checking.append(_cpu(lambda: verify_batch(records)))
        started = time.perf_counter()
        whole.append(_cpu(lambda n=number: asyncio.run(_ingest(frames, len(records), folder / f"ingest-{n}"))))  # type: ignore[misc]
        wall.append(time.perf_counter() - started)
    count = len(records)
    return {
        "checking_per_core_s": count / min(checking),
        "ingest_per_core_s": count / min(whole),
        "ingest_of_checking": statistics.median(a / b for a, b in zip(checking, whole, strict=True)),
        "ingest_wall_s": count / min(wall),
    }


def _cpu(work: Callable[[], Any]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


async def _ingest(frames: bytes, count: int, folder: Path) -> None:
    parts = make_parts(folder)
    with _feeding(folder, frames, 0) as path:
        bus = await BridgeBus.open(path)
        ingest = Ingest(bus, parts.admission, parts.chain, max_parts=10)
        running = asyncio.create_task(ingest.run())
        await ingest.follow_registry()
        while parts.admission.stored < count:
            await asyncio.sleep(0.02)
        await bus.close()
        await running
    assert not parts.admission.refused
    parts.close()


@contextmanager
def _feeding(folder: Path, frames: bytes, per_s: int) -> Any:
    """A process that is the network's node: path of its socket. With ``per_s`` it writes no more than that a second."""
    path = folder / "bus"
    folder.mkdir(parents=True, exist_ok=True)
    process = _FORK.Process(target=_feed, args=(path, frames, per_s), daemon=True)
    process.start()
    while not path.exists():
        time.sleep(0.01)
    try:
        yield path
    finally:
        process.kill()
        process.join()


def _feed(path: Path, frames: bytes, per_s: int) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path) + ".new")
    listener.listen(1)
    Path(str(path) + ".new").rename(path)
    connection, _ = listener.accept()
    reader = FrameReader()
    asked = False
    while not asked:
        for _kind, _body in reader.feed(connection.recv(1 << 16)):
            connection.sendall(write_state(State()))
            asked = True
    if not per_s:
        connection.sendall(frames)
    else:
        pieces = list(_split(frames))
        started = time.monotonic()
        for number, piece in enumerate(pieces):
            time.sleep(max(0.0, started + number / per_s - time.monotonic()))
            connection.sendall(piece)
    time.sleep(3_600)


def _split(frames: bytes) -> Any:
    at = 0
    while at < len(frames):
        size = 4 + int.from_bytes(frames[at : at + 4], "big")
        yield frames[at : at + size]
        at += size


# --- out --------------------------------------------------------------------------------------------


def measure_reads(records: Sequence[Record], held: int, rounds: int, folder: Path) -> dict[str, float]:
    """While messages come in; the consumer is this process, the broker another."""
    home = folder / "reads"
    parts = make_parts(home)
    for start in range(0, held, len(records)):
        parts.store.insert(_earlier(records[: held - start], start), NOW_MS)
    parts.close()
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(16)
    live = make_records(LIVE_PER_S * 20)
    frames = b"".join(write_message(Kind.MESSAGE, PART, write_protobuf(record.message)) for record in live)
    with _feeding(home, frames, LIVE_PER_S) as path:
        broker = _FORK.Process(target=_serve, args=(home, listener, path), daemon=True)
        broker.start()
        try:
            port = listener.getsockname()[1]
            seconds = [_read_all(port, held) for _ in range(rounds)]
            first = [_first_byte(port, NOW_MS - held // 2 - n) for n in range(15)]
        finally:
            broker.kill()
            broker.join()
    listener.close()
    return {"reads_s": held / min(seconds), "first_byte_ms": statistics.median(first) * 1000}


def _earlier(records: Sequence[Record], by_ms: int) -> list[Record]:
    """Other messages of the same size: signed by nobody, which a store does not mind."""
    from msgspec.structs import replace

    day_ms = 86_400_000
    return [make_record(replace(r.message, timestamp_ms=r.message.timestamp_ms - by_ms - day_ms // 4)) for r in records]


def _serve(folder: Path, listener: socket.socket, bus_path: Path) -> None:
    async def run() -> None:
        parts = make_parts(folder)
        bus = await BridgeBus.open(bus_path)
        ingest = Ingest(bus, parts.admission, parts.chain, max_parts=10)
        running = asyncio.create_task(ingest.run())
        await ingest.follow_registry()
        config = listener_config(parts.app, "127.0.0.1", listener.getsockname()[1], streams=True)
        await uvicorn.Server(config).serve(sockets=[listener])
        running.cancel()

    asyncio.run(run())


def _ask(port: int, from_ms: int, until_ms: int) -> HTTPConnection:
    connection = HTTPConnection("127.0.0.1", port, timeout=120)
    target = f"/v1/streams/{quote(STREAM, safe='')}/partitions/0/messages?from={from_ms}&to={until_ms}"
    connection.request("GET", target, headers={"accept": FRAMES})
    return connection


def _read_all(port: int, held: int) -> float:
    """Seconds; the answer must be whole."""
    started = time.perf_counter()
    connection = _ask(port, 0, NOW_MS - 86_400_000 // 8)
    answer = connection.getresponse()
    assert answer.status == 200
    tail = b""
    while piece := answer.read(1 << 20):
        tail = tail[-65_536:] + piece
    seconds = time.perf_counter() - started
    connection.close()
    end = tail.rindex(b"answer/1") - 2
    found = decode_answer(tail[end:])
    assert found.count == held, (found.count, held)
    return seconds


def _first_byte(port: int, from_ms: int) -> float:
    started = time.perf_counter()
    connection = _ask(port, from_ms - 86_400_000 // 4, NOW_MS)
    assert connection.getresponse().read(1)
    seconds = time.perf_counter() - started
    connection.close()
    return seconds


# --- the node before ours ---------------------------------------------------------------------------


def measure_references(records: Sequence[Record]) -> dict[str, float]:
    def write() -> bytes:
        pairs = []
        for record in records:
            m = record.message
            identity = [
                m.stream_id,
                m.partition,
                m.timestamp_ms,
                m.sequence_number,
                m.publisher_id.hex(),
                m.msg_chain_id,
            ]
            pairs.append([json.dumps(identity), "0x" + keccak256(record.canonical).hex()])
        return json.dumps(pairs).encode()

    seconds = _cpu(lambda: json.loads(write()))
    return {
        "references_bytes_per_message": len(write()) / len(records),
        "references_per_core_s": len(records) / seconds,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
