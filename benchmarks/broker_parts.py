"""What a broker's benchmarks share: signed messages, a broker without a chain, a stand-in for the network's node."""

from __future__ import annotations

import multiprocessing
import socket
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.broker_parts import NOW_MS, BrokerParts
from tests.builders import a_key, a_message
from validator.broker.admission import Limits
from validator.broker.gate import Terms
from validator.net.streamr.frames import FrameReader, State, write_state
from validator.protocol.codec.message import make_record
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.model import Record, StreamPart

STREAM = "0x" + "cc" * 20 + "/measured"
PART: StreamPart = (STREAM, 0)
PUBLISHERS = 12
CONTENT_BYTES = 231
"""As in the corpus of docs/limits: JSON of an ordinary message."""
_FORK = multiprocessing.get_context("fork")


def make_keys() -> list[SigningKey]:
    return [a_key(n + 1) for n in range(PUBLISHERS)]


def make_records(count: int, stream_id: str = STREAM) -> list[Record]:
    """Of some publishers, a millisecond apart, the newest a second ago."""
    keys = make_keys()
    padding = "x" * (CONTENT_BYTES - 30)
    first_ms = NOW_MS - 1_000 - count
    return [
        make_record(
            a_message(
                keys[n % PUBLISHERS],
                stream_id=stream_id,
                timestamp_ms=first_ms + n,
                content=f'{{"number":{1_000_000_000 + n},"text":"{padding}"}}'.encode(),
            )
        )
        for n in range(count)
    ]


def make_parts(folder: Path) -> BrokerParts:
    limits = Limits(part_per_s=1e9, publisher_per_s=1e9)
    return BrokerParts(folder, streams={STREAM: 1}, limits=limits, terms=Terms(balance=False))


@contextmanager
def feeding(folder: Path, frames: bytes, per_s: int) -> Any:
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
    """A node that is heard once, until who hears it has heard enough."""
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
    with suppress(BrokenPipeError):
        _say(connection, frames, per_s)
    time.sleep(3_600)


def _say(connection: socket.socket, frames: bytes, per_s: int) -> None:
    if not per_s:
        connection.sendall(frames)
        return
    started = time.monotonic()
    for number, piece in enumerate(list(_split(frames))):
        time.sleep(max(0.0, started + number / per_s - time.monotonic()))
        connection.sendall(piece)


def _split(frames: bytes) -> Any:
    at = 0
    while at < len(frames):
        size = 4 + int.from_bytes(frames[at : at + 4], "big")
        yield frames[at : at + size]
        at += size
