"""A network for programs with an event loop: whose thread does what, and what happens to an answer that is left."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any

from logstore.asynchronous import AsyncNetwork


class Store:
    """Gives two messages a look, and writes down in which thread its looks began and were ended."""

    def __init__(self) -> None:
        self.threads: list[tuple[str, int]] = []

    def looks(self, *_: Any, **__: Any) -> Iterator[list[Any]]:
        self.threads.append(("began", threading.get_ident()))
        try:
            while True:
                yield [SimpleNamespace(message=number) for number in range(2)]
        finally:
            self.threads.append(("ended", threading.get_ident()))

    def close(self) -> None:
        self.threads.append(("closed", threading.get_ident()))


def open_network(store: Store) -> AsyncNetwork:
    return AsyncNetwork(lambda: store)  # type: ignore[arg-type, return-value]


def test_a_follower_who_leaves_ends_his_looks_in_the_networks_thread() -> None:
    store = Store()

    async def follow() -> list[Any]:
        async with open_network(store) as network, aclosing(network.follow("0x…/s")) as messages:
            return [await anext(messages), await anext(messages)]

    assert asyncio.run(follow()) == [0, 1]
    assert [what for what, _ in store.threads] == ["began", "ended", "closed"]
    assert len({thread for _, thread in store.threads}) == 1
    assert threading.get_ident() not in {thread for _, thread in store.threads}


def test_one_who_just_breaks_off_may_close_the_network_first() -> None:
    store = Store()

    async def follow() -> Any:
        async with open_network(store) as network:
            async for message in network.follow("0x…/s"):
                return message
        return None

    assert asyncio.run(follow()) == 0
    assert ("closed", store.threads[0][1]) in store.threads
