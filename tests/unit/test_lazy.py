"""An adapter that is made late: nobody notices but who counts when it is made."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from validator.protocol.errors import ConfigError
from validator.wiring import lazy


class Adapter:
    def __init__(self, name: str) -> None:
        self.name = name

    def call(self, first: int, *, second: int) -> str:
        return f"{self.name} {first} {second}"


def test_an_adapter_is_made_at_its_first_use_and_once() -> None:
    made: list[str] = []

    def make() -> Adapter:
        made.append("made")
        return Adapter("port")

    adapter = lazy(make)
    assert made == []
    assert adapter.call(1, second=2) == "port 1 2"
    assert (adapter.name, made) == ("port", ["made"])


def test_threads_that_come_at_once_share_one() -> None:
    made: list[str] = []
    start = Barrier(8)

    def make() -> Adapter:
        made.append("made")
        return Adapter("port")

    adapter = lazy(make)

    def use(number: int) -> str:
        start.wait(20)
        return adapter.call(number, second=0)

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(use, range(8))) == [f"port {number} 0" for number in range(8)]
    assert made == ["made"]


def test_what_is_missing_is_said_at_every_use_until_it_is_there() -> None:
    missing = [ConfigError("no key", field="LOGSTORE_QUERY_KEY")]

    def make() -> Adapter:
        if missing:
            raise missing[0]
        return Adapter("port")

    adapter = lazy(make)
    for _ in range(2):
        with pytest.raises(ConfigError, match="no key"):
            adapter.call(1, second=2)
    missing.clear()
    assert adapter.call(1, second=2) == "port 1 2"


def test_an_attribute_that_the_adapter_has_not_is_missing_here_too() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        lazy(lambda: Adapter("port")).nothing  # type: ignore[attr-defined]  # noqa: B018
