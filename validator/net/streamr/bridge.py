"""The bus over a socket: a client of the Node program, or of the hub that stands for it.

It stays a bus while the other side is away: it connects anew, joins anew what was joined, and counts on. What the
network carried meanwhile is lost here, as the network loses messages; brokers repair among themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path

from validator.net.streamr.frames import (
    FrameReader,
    Kind,
    State,
    read_count,
    read_message,
    read_state,
    write_frame,
    write_message,
    write_parts,
)
from validator.net.streamr.inbox import MAX_BUFFER_BYTES, Inbox
from validator.ports.bus import Delivered
from validator.protocol.errors import RemoteFault, TransientError, ValidatorError
from validator.protocol.model import StreamPart

READ_BYTES = 1 << 18
READ_AHEAD_BYTES = 8 << 20
"""Once that much waits for the reader, the socket is left alone and the other side buffers, which counts what it drops;
except while an answer is awaited, which may lie behind messages."""
PAUSES_S = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Between attempts to connect; the last one repeats."""
CALL_LIMIT_S = 30.0


class BridgeBus:
    """Fulfils ``MessageBus`` over the socket at ``path``. Made by ``open``."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_BUFFER_BYTES, call_limit_s: float = CALL_LIMIT_S) -> None:
        self._path = path
        self._call_limit_s = call_limit_s
        self._inbox = Inbox(max_bytes)
        self._wanted: dict[StreamPart, None] = {}
        self._answers: deque[asyncio.Future[State]] = deque()
        self._writer: asyncio.StreamWriter | None = None
        self._connected = asyncio.Event()
        self._lost_before = 0
        self._lost_now = 0
        self.connections = 0
        """How often the other side was reached; the first is 1."""
        self.complaints = 0
        """How often the other side said that something went wrong; the newest is ``complaint``."""
        self.complaint = ""
        self._task = asyncio.create_task(self._run())

    @classmethod
    async def open(
        cls, path: Path, *, max_bytes: int = MAX_BUFFER_BYTES, call_limit_s: float = CALL_LIMIT_S
    ) -> BridgeBus:
        """Connect; the other side may still be starting.

        Raises:
            TransientError: nobody listens within the time of a call.
        """
        bus = cls(path, max_bytes=max_bytes, call_limit_s=call_limit_s)
        try:
            await bus.wait_connected()
        except TransientError:
            await bus.close()
            raise
        return bus

    async def wait_connected(self) -> None:
        """Until the other side is there. Raises TransientError."""
        try:
            await asyncio.wait_for(self._connected.wait(), self._call_limit_s)
        except TimeoutError:
            raise TransientError(f"{self._path}: no network node within {self._call_limit_s:g} s") from None

    # --- the port

    async def join(self, parts: Sequence[StreamPart]) -> None:
        bodies = write_parts(parts)
        self._wanted.update(dict.fromkeys(parts))
        await self._ask_all(Kind.JOIN, bodies)

    async def leave(self, parts: Sequence[StreamPart]) -> None:
        bodies = write_parts(parts)
        for part in parts:
            self._wanted.pop(part, None)
        await self._ask_all(Kind.LEAVE, bodies)

    async def publish(self, part: StreamPart, data: bytes) -> None:
        frame = write_message(Kind.PUBLISH, part, data)
        writer = self._require_writer()
        writer.write(frame)
        try:
            await asyncio.wait_for(writer.drain(), self._call_limit_s)
        except (ConnectionError, TimeoutError) as error:
            raise TransientError(f"{self._path}: the network node takes no message now") from error

    def batches(self) -> AsyncIterator[Sequence[Delivered]]:
        return self._inbox.batches()

    def dropped(self) -> int:
        return self._lost_before + self._lost_now + self._inbox.dropped

    async def close(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._inbox.close()

    # --- beside the port

    async def info(self) -> State:
        """What the node says of itself. Raises TransientError."""
        return await self._ask(Kind.INFO)

    async def wait_neighbours(self, limit_s: float = 30.0) -> None:
        """Until the node knows a neighbour in every joined part. Raises TransientError."""
        try:
            async with asyncio.timeout(limit_s):
                while (await self.info()).lonely:
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise TransientError(f"{self._path}: parts without neighbours after {limit_s:g} s") from None

    # --- inside

    async def _ask_all(self, kind: Kind, bodies: Sequence[bytes]) -> None:
        for body in bodies:
            state = await self._ask(kind, body)
            if state.refused:
                first = state.refused[0]
                text = f"{first.stream}#{first.partition}: {first.reason}"
                raise RemoteFault(f"the network node refuses {len(state.refused)} parts, among them {text}")

    async def _ask(self, kind: Kind, body: bytes = b"") -> State:
        writer = self._require_writer()
        answer: asyncio.Future[State] = asyncio.get_running_loop().create_future()
        self._answers.append(answer)
        self._inbox.let_on()
        writer.write(write_frame(kind, body))
        try:
            return await asyncio.wait_for(answer, self._call_limit_s)
        except TimeoutError:
            raise TransientError(f"{self._path}: no answer within {self._call_limit_s:g} s") from None

    def _require_writer(self) -> asyncio.StreamWriter:
        if self._writer is None or self._writer.is_closing():
            raise TransientError(f"{self._path}: the network node is away")
        return self._writer

    async def _run(self) -> None:
        """Connect, read until the end, and again, until cancelled."""
        attempt = 0
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(self._path)
            except OSError:
                await asyncio.sleep(PAUSES_S[min(attempt, len(PAUSES_S) - 1)])
                attempt += 1
                continue
            attempt = 0
            try:
                await self._converse(reader, writer)
            except (OSError, ValidatorError) as error:
                self._complain(str(error))
            finally:
                self._disconnected(writer)
            await asyncio.sleep(PAUSES_S[0])  # not at once, where it ends each connection again

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection from its joins to its end. Raises MalformedInput, OSError."""
        for body in write_parts(list(self._wanted)):
            writer.write(write_frame(Kind.JOIN, body))
            self._answers.append(asyncio.get_running_loop().create_future())  # nobody waits for these
        self._writer = writer
        self.connections += 1
        self._connected.set()
        frames = FrameReader()
        while data := await reader.read(READ_BYTES):
            self._accept(frames.feed(data))
            while self._inbox.bytes >= READ_AHEAD_BYTES and not self._answers:
                await self._inbox.wait_change()

    def _accept(self, frames: Iterable[tuple[int, bytes]]) -> None:
        """Raises MalformedInput."""
        for kind, body in frames:
            if kind == Kind.MESSAGE:
                self._inbox.put(read_message(body))
            elif kind == Kind.STATE:
                self._answer(read_state(body))
            elif kind == Kind.DROPPED:
                self._lost_now = read_count(body)
            elif kind == Kind.ERROR:
                self._complain(body.decode(errors="replace")[:500])

    def _answer(self, state: State) -> None:
        if state.refused:
            self._complain(f"{len(state.refused)} parts refused, the first for: {state.refused[0].reason}")
        if self._answers:
            answer = self._answers.popleft()
            if not answer.done():  # who asked may have given up
                answer.set_result(state)

    def _complain(self, text: str) -> None:
        self.complaints += 1
        self.complaint = text

    def _disconnected(self, writer: asyncio.StreamWriter) -> None:
        self._writer = None
        self._connected.clear()
        self._lost_before += self._lost_now
        self._lost_now = 0
        for answer in self._answers:
            if not answer.done():
                answer.set_exception(TransientError(f"{self._path}: the network node went away"))
                answer.exception()  # nobody may be waiting for it
        self._answers.clear()
        writer.close()
