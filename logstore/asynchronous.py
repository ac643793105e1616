"""The same for programs with an event loop: ``logstore.connect_async``.

    async with logstore.connect_async(key="my.key") as network:
        await network.publish("0x…/sensors", {"temperature": 21.5})
        async with network.query("0x…/sensors", "-1h") as answer:
            async for message in answer: ...

There is one core, which is synchronous and belongs to one thread; each network here has such a thread, and the loop
waits for it. So several answers of one network take turns, batch by batch; who wants them at once connects twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

from logstore.store import LogStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas
    import polars
    import pyarrow as pa

    from logstore.answer_proof import AnswerProof
    from logstore.answers import QueryAnswer
    from logstore.auditing import AuditVerdict
    from logstore.keys import Key
    from logstore.money import Balance, Step, StreamInfo
    from logstore.proofs import Proof
    from logstore.publishing import Published
    from logstore.verdicts import AnyVerdict
    from validator.protocol.model import Message

P = ParamSpec("P")
T = TypeVar("T")
_END: Any = object()


class _Thread:
    """Where the core runs."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="logstore")
        self._is_closed = False

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: work(*args, **kwargs))

    async def iterate(self, make: Callable[[], Iterator[T]]) -> AsyncGenerator[T, None]:
        """Items as they are made there; who leaves early ends the making, which gives connections back."""
        iterator = await self.run(make)
        try:
            while (item := await self.run(next, iterator, _END)) is not _END:
                yield item
        finally:
            if isinstance(iterator, Generator) and not self._is_closed:
                await self.run(iterator.close)

    def close(self) -> None:
        self._is_closed = True
        self._pool.shutdown(wait=False)


class AsyncAnswer:
    """As ``QueryAnswer``; nothing is asked before it is read."""

    def __init__(self, thread: _Thread, open_answer: Callable[[], QueryAnswer]) -> None:
        self._thread = thread
        self._open = open_answer
        self._answer: QueryAnswer | None = None

    async def __aenter__(self) -> Self:
        self._answer = await self._thread.run(self._open)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._thread.run(self._opened.close)

    @property
    def _opened(self) -> QueryAnswer:
        if self._answer is None:
            raise RuntimeError("an answer is read within: async with network.query(…) as answer")
        return self._answer

    async def __aiter__(self) -> AsyncGenerator[Message, None]:
        """Messages in the network's order. Raises as ``QueryAnswer.batches``."""
        async with aclosing(self._thread.iterate(self._opened.batches)) as batches:
            async for rows in batches:
                for row in rows:
                    yield row.record.message

    @property
    def proof(self) -> AnswerProof:
        """As ``QueryAnswer.proof``."""
        return self._opened.proof

    async def to_arrow(self) -> pa.Table:
        return await self._thread.run(self._opened.to_arrow)

    async def to_pandas(self) -> pandas.DataFrame:
        return await self._thread.run(self._opened.to_pandas)

    async def to_polars(self) -> polars.DataFrame:
        return await self._thread.run(self._opened.to_polars)

    async def to_parquet(self, path: str | Path) -> int:
        return await self._thread.run(self._opened.to_parquet, path)


class AsyncNetwork:
    """As ``LogStore``, method by method."""

    def __init__(self, connect: Callable[[], LogStore]) -> None:
        self._connect = connect
        self._thread = _Thread()
        self._store: LogStore | None = None

    async def __aenter__(self) -> Self:
        """Raises as ``logstore.connect``."""
        self._store = await self._thread.run(self._connect)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._thread.run(self._opened.close)
        self._thread.close()

    @property
    def _opened(self) -> LogStore:
        if self._store is None:
            raise RuntimeError("a network is used within: async with logstore.connect_async(…) as network")
        return self._store

    def query(self, stream: str, start: str | int = "-1h", end: str | int = "now", **options: Any) -> AsyncAnswer:
        """As ``LogStore.query``, with its options."""
        return AsyncAnswer(self._thread, lambda: self._opened.query(stream, start, end, **options))

    async def follow(self, stream: str, start: str | int = "now", **options: Any) -> AsyncGenerator[Message, None]:
        """As ``LogStore.follow``, with its options. Between looks the network is free for other calls."""
        from logstore.following import rest_s

        began_s = time.monotonic()
        async with aclosing(self._thread.iterate(lambda: self._opened.looks(stream, start, **options))) as looks:
            async for rows in looks:
                for row in rows:
                    yield row.message
                await asyncio.sleep(rest_s(rows, began_s, time.monotonic()))
                began_s = time.monotonic()

    async def publish(
        self, stream: str, content: Any, timestamp: str | int | None = None, *, partition: int = 0
    ) -> Published:
        return await self._thread.run(self._opened.publish, stream, content, timestamp, partition=partition)

    async def prove(self, stream: str, time: str | int | None = None, **options: Any) -> list[Proof]:
        """As ``LogStore.prove``, with its options."""
        return await self._thread.run(self._opened.prove, stream, time, **options)

    async def verify(self, target: str | Path | bytes | int | Proof, **options: Any) -> AnyVerdict:
        """As ``LogStore.verify``, with its options."""
        return await self._thread.run(self._opened.verify, target, **options)

    async def sql(
        self,
        query: str,
        start: str | int = "-1h",
        end: str | int = "now",
        *,
        verify: bool = True,
        allow_files: bool = False,
    ) -> pa.Table:
        """As ``LogStore.sql``, but all rows at once: a relation belongs to the thread that made it."""
        return await self._thread.run(
            lambda: self._opened.sql(query, start, end, verify=verify, allow_files=allow_files).to_arrow_table()
        )

    async def audit(
        self,
        stream: str,
        start: str | int = "-1h",
        end: str | int = "now",
        *,
        partition: int = 0,
        brokers: Sequence[str] = (),
        key: Key | None = None,
    ) -> AuditVerdict:
        return await self._thread.run(
            self._opened.audit, stream, start, end, partition=partition, brokers=brokers, key=key
        )

    async def balance(self) -> Balance:
        return await self._thread.run(self._opened.balance)

    async def mint(self, amount: str | int, *, dry_run: bool = False) -> list[Step]:
        return await self._thread.run(self._opened.mint, amount, dry_run=dry_run)

    async def stake(
        self, amount: str | int, stream: str | None = None, *, consumer: str | None = None, dry_run: bool = False
    ) -> list[Step]:
        return await self._thread.run(self._opened.stake, amount, stream, consumer=consumer, dry_run=dry_run)

    async def withdraw(
        self, amount: str | int | None = None, stream: str | None = None, *, dry_run: bool = False
    ) -> list[Step]:
        return await self._thread.run(self._opened.withdraw, amount, stream, dry_run=dry_run)

    async def create_stream(self, name: str, partitions: int = 1) -> str:
        return await self._thread.run(self._opened.create_stream, name, partitions)

    async def permit(
        self, stream: str, user: str = "public", *, publish: bool | None = None, subscribe: bool | None = None
    ) -> list[Step]:
        return await self._thread.run(self._opened.permit, stream, user, publish=publish, subscribe=subscribe)

    async def stream(self, stream: str) -> StreamInfo:
        return await self._thread.run(self._opened.stream, stream)
