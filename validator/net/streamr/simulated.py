"""A network without a network: what one publishes, all who have joined receive, in order and at once.

In one process, ``SimulatedNetwork().open()`` gives buses. For several processes, ``serve`` does the same on a Unix
socket and speaks the frames of the Node program, so that ``bridge.BridgeBus`` is the one client of both:

    python -m validator.net.streamr.simulated --socket PATH

It loses nothing, delays nothing and drops only what a slow reader does not take; faults are for others to add.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from validator.net.streamr.frames import (
    FrameReader,
    Kind,
    State,
    read_message,
    read_parts,
    write_count,
    write_frame,
    write_message,
    write_part,
    write_state,
)
from validator.net.streamr.inbox import MAX_BUFFER_BYTES, Inbox
from validator.ports.bus import Delivered
from validator.protocol.errors import MalformedInput, TransientError
from validator.protocol.model import StreamPart

READ_BYTES = 1 << 18


class SimulatedNetwork:
    """Who has joined what. Lives in one event loop."""

    def __init__(self) -> None:
        self._joined: dict[StreamPart, dict[SimulatedBus, None]] = {}

    def open(self, max_bytes: int = MAX_BUFFER_BYTES) -> SimulatedBus:
        """A bus of its own; ``max_bytes`` may wait for its reader."""
        return SimulatedBus(self, max_bytes)

    def join(self, bus: SimulatedBus, part: StreamPart) -> None:
        self._joined.setdefault(part, {})[bus] = None

    def leave(self, bus: SimulatedBus, part: StreamPart) -> None:
        members = self._joined.get(part, {})
        members.pop(bus, None)
        if not members:
            self._joined.pop(part, None)

    def carry(self, delivered: Delivered) -> None:
        for bus in self._joined.get(delivered.part, ()):
            bus.inbox.put(delivered)

    def count_others(self, bus: SimulatedBus, part: StreamPart) -> int:
        return len(self._joined.get(part, {}).keys() - {bus})


class SimulatedBus:
    """One node of a simulated network. Fulfils ``MessageBus``."""

    def __init__(self, network: SimulatedNetwork, max_bytes: int) -> None:
        self.inbox = Inbox(max_bytes)
        self._network = network
        self._parts: set[StreamPart] = set()
        self._closed = False

    async def join(self, parts: Sequence[StreamPart]) -> None:
        self._require_open()
        for part in parts:
            write_part(part)  # refuses what the network's own node would refuse
            self._parts.add(part)
            self._network.join(self, part)

    async def leave(self, parts: Sequence[StreamPart]) -> None:
        self._require_open()
        for part in parts:
            self._parts.discard(part)
            self._network.leave(self, part)

    async def publish(self, part: StreamPart, data: bytes) -> None:
        self._require_open()
        write_message(Kind.PUBLISH, part, data)
        self._network.carry(Delivered(part, data))
        await asyncio.sleep(0)  # readers get their turn, as they would beside a socket

    def batches(self) -> AsyncIterator[Sequence[Delivered]]:
        return self.inbox.batches()

    def dropped(self) -> int:
        return self.inbox.dropped

    def state(self) -> State:
        lonely = sum(not self._network.count_others(self, part) for part in self._parts)
        return State("simulated", len(self._parts), lonely=lonely, buffered=self.inbox.bytes)

    async def close(self) -> None:
        self._closed = True
        for part in self._parts:
            self._network.leave(self, part)
        self._parts.clear()
        self.inbox.close()

    def _require_open(self) -> None:
        if self._closed:
            raise TransientError("the bus is closed")


# --- for several processes ------------------------------------------------------------------------


class Hub:
    """A simulated network on a Unix socket: each connection is a node."""

    def __init__(self, max_bytes: int = MAX_BUFFER_BYTES) -> None:
        self._network = SimulatedNetwork()
        self._max_bytes = max_bytes
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self, path: Path) -> None:
        """Raises OSError."""
        self._server = await asyncio.start_unix_server(self._accept, path)

    async def close(self) -> None:
        """End all connections too."""
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        bus = self._network.open(self._max_bytes)
        pump = asyncio.create_task(_pump(bus, writer))
        try:
            await _obey(bus, reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        except MalformedInput as error:
            with contextlib.suppress(ConnectionError):
                writer.write(write_frame(Kind.ERROR, str(error).encode()))
                await writer.drain()
        finally:
            self._connections.discard(task)
            await bus.close()
            pump.cancel()
            writer.close()


async def _obey(bus: SimulatedBus, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Do what one connection asks until it ends. Raises MalformedInput, ConnectionError."""
    frames = FrameReader()
    while data := await reader.read(READ_BYTES):
        for kind, body in frames.feed(data):
            if kind == Kind.PUBLISH:
                delivered = read_message(body)
                await bus.publish(delivered.part, delivered.data)
                continue
            if kind == Kind.JOIN:
                await bus.join(read_parts(body))
            elif kind == Kind.LEAVE:
                await bus.leave(read_parts(body))
            elif kind != Kind.INFO:
                raise MalformedInput("kind", f"{kind} is none")
            writer.write(write_state(bus.state()))


async def _pump(bus: SimulatedBus, writer: asyncio.StreamWriter) -> None:
    """Hand over what arrives, and say what was lost."""
    told = 0
    with contextlib.suppress(ConnectionError):
        async for batch in bus.batches():
            writer.write(b"".join(write_message(Kind.MESSAGE, one.part, one.data) for one in batch))
            if bus.dropped() != told:
                told = bus.dropped()
                writer.write(write_count(told))
            await writer.drain()


async def serve(path: Path) -> None:
    """Serve a hub on ``path`` until SIGTERM or SIGINT."""
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    hub = Hub()
    await hub.start(path)
    await ended.wait()
    await hub.close()


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="validator.net.streamr.simulated")
    parser.add_argument("--socket", type=Path, required=True, help="path of the Unix socket to serve on")
    asyncio.run(serve(parser.parse_args(arguments).socket))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
